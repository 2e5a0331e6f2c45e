import errno
import io
import itertools
import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from sa_upscale import images
from sa_upscale.errors import UpscaleError
from sa_upscale.images import FORMATS, Picture, read, size, write

DEPTHS = {key: known.depths for key, known in FORMATS.items()}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" exif:PixelXDimension="9">'
    b"<exif:PixelYDimension>7</exif:PixelYDimension></rdf:Description></x:xmpmeta>"
)
MAKER_NOTE = b"MAKER\0\0\x01 offsets in here count from outside"


def random_samples(depth, *shape, seed=0):
    generator = np.random.default_rng(seed)
    if depth == "float32":
        return generator.random(shape, dtype=np.float32)
    return generator.integers(0, np.iinfo(depth).max + 1, shape).astype(depth)


def smooth_samples(height, width, channels):
    """Values a lossy format keeps nearly: soft waves, each channel its own."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 80 * np.sin(x / (9 + c)) * np.cos(y / (11 - c)) for c in range(channels)]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def exif_block(orientation=1):
    exif = Image.Exif()
    exif[274] = orientation
    exif[271] = "Maker"
    exif[0x8769] = {0xA002: 9, 0xA003: 7, 0x927C: MAKER_NOTE, 0x829A: 0.004}
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 29.5)}
    return exif.tobytes()[len(b"Exif\0\0") :]


def parsed_exif(block):
    exif = Image.Exif()
    exif.load(block)
    return exif


def encoded(picture, key, **options):
    stream = io.BytesIO()
    write(stream, picture, format=key, **options)
    return stream.getvalue()


def pillow_bytes(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff_bytes(array, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_file(rows, width, height, depth, kind, *extra, interlace=0):
    """A PNG by hand, for what no library here writes; `rows` are packed bytes with filter type 0 each."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    packed = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


# --- round trips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "depth"), [(key, depth) for key in ("png", "tiff", "bmp", "webp") for depth in DEPTHS[key]]
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_lossless_formats_return_every_value(key, depth, channels, with_alpha):
    alpha = random_samples(depth, 7, 9, seed=1) if with_alpha else None
    picture = Picture(random_samples(depth, 7, 9, channels), alpha, lossless=True)
    back = read(encoded(picture, key))
    assert back.format == key
    assert back.pixels.dtype == depth
    # WebP has no grey, and BMP none with alpha: there all three channels carry it.
    assert np.array_equal(back.pixels, np.broadcast_to(picture.pixels, back.pixels.shape))
    if not (key == "webp" or (key == "bmp" and with_alpha)):
        assert back.pixels.shape[2] == channels
    assert back.alpha is None if alpha is None else np.array_equal(back.alpha, alpha)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("key", list(FORMATS))
def test_smallest_sizes(key, shape):
    picture = Picture(np.full((*shape, 3), 77, np.uint8), lossless=True)
    back = read(encoded(picture, key))
    assert back.pixels.shape == (*shape, 3)
    assert np.abs(back.pixels.astype(int) - 77).max() <= 1


def test_bands_join_without_a_seam(monkeypatch):
    monkeypatch.setattr(images, "BAND_BYTES", 100)
    for depth, key in itertools.product(("uint8", "uint16"), ("png", "tiff")):
        if depth in DEPTHS[key]:
            picture = Picture(random_samples(depth, 41, 13, 3), random_samples(depth, 41, 13))
            back = read(encoded(picture, key))
            assert np.array_equal(back.pixels, picture.pixels)
            assert np.array_equal(back.alpha, picture.alpha)


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_other_readers_see_the_same_png(depth, channels, mode):
    picture = Picture(random_samples(depth, 7, 9, channels), icc=SRGB, exif=exif_block(), xmp=XMP, dpi=(300, 150))
    data = encoded(picture, "png")
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(np.atleast_3d(array)[..., ::-1], picture.pixels)
    image = Image.open(io.BytesIO(data))
    image.verify()
    assert image.info["icc_profile"] == SRGB
    assert image.getexif()[271] == "Maker"
    assert b"PixelXDimension" in image.info["xmp"]
    assert image.info["dpi"] == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_readers_see_the_same_tiff(depth, channels):
    picture = Picture(random_samples(depth, 7, 9, channels), icc=SRGB, exif=exif_block(), xmp=XMP, dpi=(300, 150))
    data = encoded(picture, "tiff")
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(np.atleast_3d(array)[..., ::-1], picture.pixels)
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    assert np.array_equal(page.asarray(), picture.pixels.squeeze())
    assert page.tags["ExifTag"].value["ExposureTime"] == 0.004
    exif = Image.Exif()
    exif.load(data)
    assert exif.get_ifd(0x8825)[2] == (48.0, 51.0, 29.5)
    assert exif.get_ifd(0x8769)[0x927C] == MAKER_NOTE
    assert page.iccprofile == SRGB


def test_tiff_alpha_is_declared_as_not_premultiplied():
    page = tifffile.TiffFile(
        io.BytesIO(encoded(Picture(random_samples("uint16", 4, 5, 3), random_samples("uint16", 4, 5)), "tiff"))
    ).pages[0]
    assert [int(sample) for sample in page.extrasamples] == [2]


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_near_and_keeps_full_colour_resolution(channels):
    picture = Picture(smooth_samples(40, 56, channels))
    data = encoded(picture, "jpeg")
    back = read(data)
    assert back.pixels.shape == picture.pixels.shape
    assert np.abs(back.pixels.astype(int) - picture.pixels).mean() < 1.5
    assert all(layer[1:3] == (1, 1) for layer in Image.open(io.BytesIO(data)).layer)


@pytest.mark.parametrize("quality", [20, 30, 50, 51, 75, 90, 95, 96, 98, 99, 100])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_quality_is_estimated_and_never_lowered(quality, mode):
    source = pillow_bytes(Image.new(mode, (16, 16), "gray"), "JPEG", quality=quality)
    picture = read(source)
    assert abs(picture.quality - quality) <= 1
    written = Image.open(io.BytesIO(encoded(picture, "jpeg"))).quantization
    before = Image.open(io.BytesIO(source)).quantization
    assert all(new <= old for table in before for new, old in zip(written[table], before[table], strict=True))
    floor = Image.open(io.BytesIO(pillow_bytes(Image.new(mode, (16, 16)), "JPEG", quality=95))).quantization
    assert sum(written[0]) <= sum(floor[0])


def test_quality_asked_for_is_taken():
    picture = Picture(random_samples("uint8", 40, 56, 3))
    assert len(encoded(picture, "jpeg", quality=20)) < len(encoded(picture, "jpeg")) / 2
    assert len(encoded(picture, "webp", quality=20)) < len(encoded(picture, "webp")) / 2


def test_webp_stays_lossless_or_lossy():
    picture = Picture(random_samples("uint8", 20, 20, 3))
    assert read(encoded(picture, "webp", lossless=True)).lossless
    lossy = read(encoded(picture, "webp"))
    assert not lossy.lossless
    assert np.array_equal(read(encoded(read(encoded(picture, "webp", lossless=True)), "webp")).pixels, picture.pixels)


# --- metadata --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["png", "jpeg", "webp", "tiff"])
def test_metadata_is_carried_and_tells_the_new_size(key):
    picture = Picture(smooth_samples(30, 40, 3), icc=SRGB, exif=exif_block(), xmp=XMP, dpi=(300, 150))
    back = read(encoded(picture, key))
    assert back.icc == SRGB
    exif = parsed_exif(back.exif)
    details = exif.get_ifd(0x8769)
    assert (details[0xA002], details[0xA003]) == (40, 30)
    assert details[0x927C] == MAKER_NOTE
    assert exif[271] == "Maker"
    assert exif.get_ifd(0x8825)[2] == (48.0, 51.0, 29.5)
    assert b'PixelXDimension="40"' in back.xmp
    assert b"<exif:PixelYDimension>30</exif:PixelYDimension>" in back.xmp
    if key != "webp":
        assert back.dpi == pytest.approx((300, 150), abs=0.02)


def test_a_side_above_65535_fits_into_a_short_field():
    # Cameras store the size as a SHORT; a width beyond it must not wrap around.
    edited = images._edited_exif(exif_block(), {0xA002: 70000})
    assert parsed_exif(edited).get_ifd(0x8769)[0xA002] == 70000
    assert len(edited) == len(exif_block())


def test_exif_text_that_is_not_ascii_survives_a_tiff():
    block = exif_block().replace(b"Maker", "Mäk\0".encode())
    back = read(encoded(Picture(np.zeros((3, 4, 3), np.uint8), exif=block), "tiff"))
    assert "Mäk".encode() in back.exif


def test_big_endian_exif_goes_through_a_tiff():
    exif = Image.Exif()
    exif.endian = ">"
    exif[271] = "Maker"
    exif[0x8769] = {0xA002: 9, 0x829A: 0.004}
    block = exif.tobytes()[6:]
    assert block[:2] == b"MM"
    picture = Picture(random_samples("uint16", 30, 40, 3), exif=block)
    back = read(encoded(picture, "tiff"))
    assert np.array_equal(back.pixels, picture.pixels)
    assert parsed_exif(back.exif).get_ifd(0x8769)[0xA002] == 40
    assert parsed_exif(back.exif).get_ifd(0x8769)[0x829A] == pytest.approx(0.004)


def test_formats_say_what_they_cannot_hold():
    picture = Picture(
        random_samples("uint16", 5, 6, 3),
        random_samples("uint16", 5, 6),
        icc=SRGB,
        exif=exif_block(),
        xmp=XMP,
        dpi=(300, 300),
        colour_chunks=((b"gAMA", struct.pack(">I", 100000)),),
    )
    said = {key: " | ".join(write(io.BytesIO(), picture, format=key)) for key in FORMATS}
    assert said["png"] == ""
    assert said["tiff"] == "TIFF holds no gamma or primaries: colours may look different"
    assert "8 bits" in said["jpeg"]
    assert "no transparency" in said["jpeg"]
    assert "8 bits" in said["webp"]
    assert "dpi" in said["webp"]
    assert "ICC" in said["bmp"]
    assert "EXIF" in said["bmp"]
    assert "XMP" in said["bmp"]


def test_png_colour_chunks_are_kept():
    chunks = ((b"gAMA", struct.pack(">I", 100000)), (b"cHRM", bytes(range(32))))
    assert read(encoded(Picture(np.zeros((2, 2, 3), np.uint8), colour_chunks=chunks), "png")).colour_chunks == chunks


def test_blocks_too_large_for_jpeg_are_left_out_and_said():
    exif = Image.Exif()
    exif[0x8769] = {0x927C: bytes(70000)}
    picture = Picture(np.zeros((2, 2, 3), np.uint8), exif=exif.tobytes()[6:], xmp=b"x" * 70000)
    assert len(write(io.BytesIO(), picture, format="jpeg")) == 2
    back = read(encoded(picture, "png"))
    assert len(back.exif) > 70000
    assert len(back.xmp) == 70000


def test_a_grey_profile_does_not_go_into_webp():
    grey = bytearray(SRGB)
    grey[16:20] = b"GRAY"
    picture = Picture(np.zeros((2, 2, 1), np.uint8), icc=bytes(grey))
    assert write(io.BytesIO(), picture, format="webp") == ["WebP holds no grey ICC profile"]
    assert read(encoded(picture, "png")).icc == bytes(grey)


def test_transparency_is_shown_on_white_in_jpeg():
    pixels = np.zeros((16, 16, 3), np.uint8)
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:8] = 255
    back = read(encoded(Picture(pixels, alpha), "jpeg")).pixels
    assert back[:7].max() <= 3
    assert back[9:].min() >= 252
    assert write(io.BytesIO(), Picture(pixels, np.full_like(alpha, 255)), format="jpeg") == []


def test_depth_is_reduced_by_rounding_to_nearest():
    deep = np.arange(0, 65536, 37, dtype=np.uint16).reshape(1, -1, 1)
    back = read(encoded(Picture(deep), "bmp")).pixels
    assert np.array_equal(back, np.rint(deep / 257).astype(np.uint8))


# --- orientation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("key", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_orientation_is_applied_once(key, orientation):
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :12], stored[:8, 12:], stored[8:, :12] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "TIFF": {}}[key]
    data = pillow_bytes(Image.fromarray(stored), key, exif=exif, **options)
    picture = read(data)
    assert size(data) == (picture.width, picture.height)
    assert np.abs(picture.pixels.astype(int) - _turned(stored, orientation)).max() <= 4
    again = read(encoded(picture, picture.format))
    assert again.pixels.shape == picture.pixels.shape
    if picture.exif:
        assert parsed_exif(picture.exif).get(274, 1) == 1


def _turned(stored, orientation):
    """Pillow's own idea of the upright picture."""
    image = Image.fromarray(stored)
    image.getexif()[274] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def test_turning_turns_xmp_dpi_and_the_stale_thumbnail_too():
    picture = Picture(smooth_samples(16, 24, 3), exif=exif_block(6), xmp=XMP, dpi=(300, 150))
    # Linked by hand: Pillow writes no thumbnails.
    block = bytearray(picture.exif)
    order = images._byte_order(block)
    _, next_pointer = images._directory(bytes(block), 8, order)
    struct.pack_into(order + "I", block, next_pointer, 8)
    picture.exif = bytes(block)
    back = read(encoded(picture, "jpeg"))
    assert (back.width, back.height) == (16, 24)
    assert b'tiff:Orientation="1"' in back.xmp
    assert back.dpi == (150, 300)
    assert parsed_exif(back.exif)[274] == 1
    assert struct.unpack_from(order + "I", back.exif, next_pointer) == (0,)


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_tiff_orientation_is_not_applied_twice_by_the_fallback_decoders(depth, compression):
    stored = random_samples(depth, 6, 9, 3)
    if compression == "deflate":
        data = tiff_bytes(stored, photometric="rgb", compression="zlib", extratags=[(274, "H", 1, 6, True)])
    elif depth == "uint8":
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[274] = 6
        data = pillow_bytes(Image.fromarray(stored), "TIFF", compression="tiff_lzw", tiffinfo=info)
    else:
        _, made = cv2.imencode(".tif", stored[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
        tags = tifffile.TiffFile(io.BytesIO(made.tobytes())).pages[0].tags
        assert tags[259].value == 5
        # OpenCV states no orientation; the sample format (1, the default) in the directory makes room for one.
        data = bytearray(made.tobytes())
        struct.pack_into("<HHIHH", data, tags[339].offset, 274, 3, 1, 6, 0)
        data = bytes(data)
    assert np.array_equal(read(data).pixels, np.rot90(stored, -1))


# --- what comes in odd forms -----------------------------------------------------------------------------------


def test_bilevel_and_narrow_grey_png():
    bits = png_file([b"\xa0", b"\x40"], 3, 2, 1, 0)
    assert read(bits).pixels[..., 0].tolist() == [[255, 0, 255], [0, 255, 0]]
    two = png_file([b"\x1b"], 4, 1, 2, 0)
    assert read(two).pixels[..., 0].tolist() == [[0, 85, 170, 255]]


def test_grey_png_with_a_transparent_value():
    picture = read(png_file([b"\x1b"], 4, 1, 2, 0, (b"tRNS", b"\0\2")))
    assert picture.pixels[..., 0].tolist() == [[0, 85, 170, 255]]
    assert picture.alpha.tolist() == [[255, 255, 0, 255]]
    deep = read(png_file([struct.pack(">3H", 5, 261, 40000)], 3, 1, 16, 0, (b"tRNS", struct.pack(">H", 261))))
    assert deep.alpha.tolist() == [[65535, 0, 65535]]


@pytest.mark.parametrize("depth", [8, 16])
def test_rgb_png_with_a_transparent_colour(depth):
    code = {8: "B", 16: "H"}[depth]
    row = struct.pack(f">9{code}", 1, 2, 3, 1, 2, 4, 9, 9, 9)
    picture = read(png_file([row], 3, 1, depth, 2, (b"tRNS", struct.pack(">3H", 1, 2, 4))))
    assert picture.pixels.tolist() == [[[1, 2, 3], [1, 2, 4], [9, 9, 9]]]
    assert (picture.alpha > 0).tolist() == [[True, False, True]]


def test_indexed_png():
    palette = bytes([200, 0, 0, 0, 200, 0, 10, 10, 10])
    coloured = read(png_file([b"\0\1\2"], 3, 1, 8, 3, (b"PLTE", palette)))
    assert coloured.pixels.tolist() == [[[200, 0, 0], [0, 200, 0], [10, 10, 10]]]
    assert coloured.alpha is None
    clear = read(png_file([b"\0\1\2"], 3, 1, 8, 3, (b"PLTE", palette), (b"tRNS", b"\x80\0")))
    assert clear.pixels.tolist() == coloured.pixels.tolist()
    assert clear.alpha.tolist() == [[128, 0, 255]]
    grey = read(png_file([b"\0\1"], 2, 1, 8, 3, (b"PLTE", bytes([7, 7, 7, 90, 90, 90]))))
    assert grey.pixels.tolist() == [[[7], [90]]]


@pytest.mark.parametrize("depth", [8, 16])
def test_interlaced_png(depth):
    whole = random_samples(f"uint{depth}", 9, 11, 3)
    rows = [
        whole[y::step_y, x::step_x][row].astype(f">u{depth // 8}").tobytes()
        for x, y, step_x, step_y in images._ADAM7
        for row in range(len(whole[y::step_y, x::step_x]))
    ]
    assert np.array_equal(read(png_file(rows, 11, 9, depth, 2, interlace=1)).pixels, whole)
    with pytest.raises(UpscaleError, match="damaged or incomplete PNG"):
        read(png_file(rows[:-1], 11, 9, depth, 2, interlace=1))


def test_broken_text_in_a_png_does_no_harm():
    data = png_file([b"\x05"], 1, 1, 8, 0, (b"zTXt", b"Comment\0\0not deflate"), (b"iCCP", b"x\0\0not deflate"))
    picture = read(data)
    assert picture.pixels.tolist() == [[[5]]]
    assert picture.notes == ["its colour profile is damaged and was left out"]


def test_a_broken_exif_block_does_no_harm():
    picture = read(png_file([b"\x05"], 1, 1, 8, 0, (b"eXIf", b"MM\0*\0\0\xff\xff")))
    assert picture.exif is None
    assert picture.notes == ["its EXIF block is damaged and was left out"]


def cmyk_profile():
    """A CMYK profile by hand: ink of any kind darkens, and cyan ink (alone) gives a green no formula would.

    Reference: ICC.1:2010, 10.8 (lut8Type).
    """
    lab = []
    for inks in itertools.product((0, 1), repeat=4):
        light = 255 * (4 - sum(inks)) // 4
        lab += [128, 40, 170] if inks == (1, 0, 0, 0) else [light, 128, 128]
    identity = struct.pack(">9i", *[65536 if index % 4 == 0 else 0 for index in range(9)])
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(lab) + ramp * 3
    parts = [(b"desc", b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)), (b"A2B0", table)]
    parts.append((b"wtpt", b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)))
    offset, index, body = 128 + 4 + 12 * len(parts), b"", b""
    for name, content in parts:
        index += name + struct.pack(">II", offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I", offset + len(body)) + b"lcms" + b"\x02\x40\0\0" + b"prtrCMYKLab " + bytes(12)
    head += b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(parts)) + index + body


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(kind):
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    plain = read(pillow_bytes(image, kind))
    assert np.abs(plain.pixels.astype(int) - (0, 255, 255)).max() <= 2
    assert plain.notes == ["CMYK was converted to sRGB without a colour profile"]
    managed = read(pillow_bytes(image, kind, icc_profile=cmyk_profile()))
    red, green, blue = managed.pixels[8, 8].astype(int)
    assert red < 30
    assert green > 100 > blue
    assert managed.notes == ["CMYK was converted to sRGB through its colour profile"]
    assert managed.icc is None
    assert managed.pixels.shape == (16, 16, 3)


def test_cmyk_tiff_of_16_bits():
    inks = np.zeros((4, 5, 4), np.uint16)
    inks[..., 0] = 65535
    data = tiff_bytes(inks, photometric="separated")
    assert np.abs(read(data).pixels.astype(int) - (0, 255, 255)).max() <= 1


TIFF_OPTIONS = [
    {},
    {"compression": "zlib", "predictor": True},
    {"compression": "lzma"},
    {"tile": (16, 16)},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"rowsperstrip": 3},
]


@pytest.mark.parametrize("options", TIFF_OPTIONS, ids=lambda options: ",".join(options) or "plain")
@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
def test_tiff_layouts(options, depth):
    if depth == "float32" and "predictor" in options:
        options = {"compression": "zlib"}
    rgb = random_samples(depth, 20, 30, 3)
    data = tiff_bytes(rgb, photometric="rgb", iccprofile=SRGB, resolution=(300, 150), **options)
    picture = read(data)
    assert np.array_equal(picture.pixels, rgb)
    assert picture.icc == SRGB
    assert picture.dpi == (300, 150)
    grey = rgb[..., 0]
    assert np.array_equal(read(tiff_bytes(grey, photometric="minisblack", **options)).pixels[..., 0], grey)
    planes = np.moveaxis(rgb, -1, 0)
    separate = read(tiff_bytes(planes, photometric="rgb", planarconfig="separate", **options))
    assert np.array_equal(separate.pixels, rgb)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "raw"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_tiff_of_8_bits_and_less_in_any_compression(mode, compression):
    source = Image.fromarray(random_samples("uint8", 9, 14, 4)).convert(mode)
    picture = read(pillow_bytes(source, "TIFF", compression=compression))
    kind = {"1": "L", "P": "RGB"}.get(mode, mode)
    expected = np.atleast_3d(np.asarray(source.convert(kind)))
    colours = 3 if kind.startswith("RGB") else 1
    assert np.array_equal(picture.pixels, expected[..., :colours])
    assert picture.alpha is None if kind in ("L", "RGB") else np.array_equal(picture.alpha, expected[..., -1])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_of_16_bits_with_lzw(channels):
    samples = random_samples("uint16", 9, 14, channels)
    _, made = cv2.imencode(".tif", samples[..., [2, 1, 0, 3][:channels]] if channels > 1 else samples)
    picture = read(made.tobytes())
    assert np.array_equal(picture.pixels, samples[..., : 3 if channels > 1 else 1])
    assert picture.alpha is None if channels < 4 else np.array_equal(picture.alpha, samples[..., 3])


def test_tiff_with_white_as_zero_and_premultiplied_alpha():
    grey = random_samples("uint16", 4, 5)
    assert np.array_equal(read(tiff_bytes(grey, photometric="miniswhite")).pixels[..., 0], 65535 - grey)
    alpha = np.array([[0, 128, 255]], np.uint8)
    colour = np.array([[[0, 0, 0], [100, 50, 0], [9, 8, 7]]], np.uint8)
    data = tiff_bytes(np.dstack((colour, alpha)), photometric="rgb", extrasamples=["assocalpha"])
    assert read(data).pixels.tolist() == [[[0, 0, 0], [199, 100, 0], [9, 8, 7]]]
    assert read(data).alpha.tolist() == alpha.tolist()


def test_tiff_of_half_and_double_floats():
    for kind in (np.float16, np.float64):
        samples = np.linspace(0, 1, 60).reshape(4, 5, 3).astype(kind)
        picture = read(tiff_bytes(samples, photometric="rgb"))
        assert picture.pixels.dtype == np.float32
        assert np.array_equal(picture.pixels, samples.astype(np.float32))
    with pytest.raises(UpscaleError, match="not finite"):
        read(tiff_bytes(np.full((4, 5), np.nan, np.float32)))


def test_tiff_kinds_that_are_refused_are_named():
    with pytest.raises(UpscaleError, match="which is not read"):
        read(tiff_bytes(np.zeros((4, 5), np.int32)))
    with pytest.raises(UpscaleError, match="2 pages"):
        read(tiff_bytes(np.zeros((2, 40, 50), np.uint8), photometric="minisblack"))
    raw = tiff_bytes(np.zeros((4, 5), np.uint8), extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    with pytest.raises(UpscaleError, match="raw file"):
        read(raw)


def test_tiff_directories_in_a_circle_end():
    data = bytearray(tiff_bytes(np.zeros((2, 40, 50), np.uint8), photometric="minisblack"))
    first = struct.unpack_from("<I", data, 4)[0]
    _, next_pointer = images._directory(bytes(data), first, "<")
    second = struct.unpack_from("<I", data, next_pointer)[0]
    _, last_pointer = images._directory(bytes(data), second, "<")
    struct.pack_into("<I", data, last_pointer, first)
    with pytest.raises(UpscaleError, match="2 pages"):
        read(bytes(data))


def test_phone_jpeg_with_a_second_picture_is_one_picture():
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    data = pillow_bytes(first, "MPO", save_all=True, append_images=[second])
    picture = read(data)
    assert picture.format == "jpeg"
    assert np.abs(picture.pixels.astype(int) - (255, 0, 0)).max() <= 3
    assert any("second picture" in note for note in picture.notes)


def test_bmp_forms():
    for mode in ("1", "L", "P", "RGB"):
        source = Image.fromarray(random_samples("uint8", 9, 14, 3)).convert(mode)
        expected = np.atleast_3d(np.asarray(source.convert("RGB")))
        pixels = read(pillow_bytes(source, "BMP")).pixels
        assert np.array_equal(np.broadcast_to(pixels, expected.shape), expected)


# --- bad input -------------------------------------------------------------------------------------------------


def one_line(error):
    text = str(error.value)
    return "\n" not in text and len(text) < 400


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.png", b"", "empty"),
        ("notes.png", b"Dear diary, " * 20, "text file"),
        ("bm.bmp", b"BM is how this text begins, but no picture", "text file"),
        ("noise.jpg", bytes(range(128, 256)) * 4, "no picture of a known format"),
        ("loop.gif", b"GIF89a" + bytes(40), "a GIF"),
        ("clip.mp4", b"\0\0\0\x20ftypisom" + bytes(40), "a video"),
        ("photo.heic", b"\0\0\0\x20ftypheic" + bytes(40), "a HEIC"),
        ("head.png", b"\x89PNG\r\n\x1a\n", "damaged or incomplete PNG"),
        ("head.jpg", b"\xff\xd8\xff\xe0", "damaged or incomplete JPEG"),
        ("head.tif", b"II*\0\x08\0\0\0", "damaged or incomplete TIFF"),
        ("head.webp", b"RIFF\xff\0\0\0WEBPVP8 ", "damaged or incomplete WebP"),
    ],
)
def test_files_that_are_no_pictures(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(UpscaleError, match=words) as error:
            read(source)
        assert one_line(error)
    with pytest.raises(UpscaleError, match=name):
        read(path)


def test_paths_that_cannot_be_read(tmp_path):
    for path, words in ((tmp_path / "none.png", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(UpscaleError, match=words) as error:
            read(path)
        assert one_line(error)
    with pytest.raises(UpscaleError, match="cannot be read"):
        read(Path("nul\0.png"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_file_without_permission(tmp_path):
    path = tmp_path / "mine.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(UpscaleError, match="may not be read"):
        read(path)


CUT_SOURCES = {
    "png8": lambda: encoded(Picture(random_samples("uint8", 40, 50, 3)), "png"),
    "png16": lambda: encoded(Picture(random_samples("uint16", 40, 50, 3)), "png"),
    "jpeg": lambda: encoded(Picture(smooth_samples(40, 50, 3)), "jpeg"),
    "progressive": lambda: pillow_bytes(Image.fromarray(smooth_samples(40, 50, 3)), "JPEG", progressive=True),
    "webp": lambda: encoded(Picture(smooth_samples(40, 50, 3)), "webp"),
    "webp-lossless": lambda: encoded(Picture(smooth_samples(40, 50, 3)), "webp", lossless=True),
    "tiff": lambda: tiff_bytes(random_samples("uint16", 40, 50, 3), photometric="rgb"),
    "tiff-deflate": lambda: tiff_bytes(random_samples("uint8", 40, 50, 3), photometric="rgb", compression="zlib"),
    "tiff-lzw": cv2.imencode(".tif", random_samples("uint16", 40, 50, 3))[1].tobytes,
    "bmp": lambda: encoded(Picture(random_samples("uint8", 40, 50, 3)), "bmp"),
}


@pytest.mark.parametrize("kind", list(CUT_SOURCES))
def test_a_cut_file_is_refused_or_whole(kind):
    data = CUT_SOURCES[kind]()
    whole = read(data).pixels
    refused = 0
    for kept in [len(data) * part // 23 for part in range(1, 23)] + [len(data) - missing for missing in range(1, 30)]:
        try:
            pixels = read(data[:kept]).pixels
        except UpscaleError:
            refused += 1
        else:
            assert np.array_equal(pixels, whole), f"{kept} of {len(data)} bytes gave a partial picture"
    assert refused >= 22


def test_a_changed_byte_in_png_pixels_is_noticed():
    data = bytearray(encoded(Picture(random_samples("uint16", 40, 50, 3)), "png"))
    data[len(data) // 2] ^= 1
    with pytest.raises(UpscaleError, match="checksum"):
        read(bytes(data))


@pytest.mark.parametrize("kind", list(CUT_SOURCES))
def test_flipped_bytes_never_escape_as_another_error(kind):
    generator = np.random.default_rng(3)
    data = CUT_SOURCES[kind]()
    for _ in range(40):
        broken = bytearray(data)
        reach = len(data) if generator.random() < 0.5 else min(len(data), 200)
        for place in generator.integers(0, reach, 4):
            broken[place] = generator.integers(0, 256)
        try:
            picture = read(bytes(broken), max_pixels=1_000_000)
        except UpscaleError:
            continue
        assert picture.pixels.shape[2] in (1, 3)


def test_a_decompression_bomb_is_refused_before_it_unpacks():
    bomb = png_file([], 60000, 60000, 8, 2)
    with pytest.raises(UpscaleError, match="60000x60000 pixels, above the limit of 400 million"):
        read(bomb)
    small = encoded(Picture(np.zeros((20, 30, 3), np.uint8)), "png")
    with pytest.raises(UpscaleError, match="above the limit"):
        read(small, max_pixels=599)
    assert read(small, max_pixels=600).width == 30


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused_not_flattened(kind):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    data = pillow_bytes(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(UpscaleError, match="3 frames"):
        read(data)


# --- writing to places -----------------------------------------------------------------------------------------

GREY = Picture(np.arange(12, dtype=np.uint8).reshape(3, 4, 1))


def test_names_in_any_script(tmp_path):
    for name in ("Фото é 写真 🙂.png", "with space.tif", "ünï.JPG"):
        write(tmp_path / name, GREY)
        assert read(tmp_path / name).width == 4
    assert len(list(tmp_path.iterdir())) == 3


def test_format_follows_the_ending_and_content_rules_reading(tmp_path):
    write(tmp_path / "a.TIFF", GREY)
    assert (tmp_path / "a.TIFF").read_bytes()[:4] == b"II*\0"
    (tmp_path / "a.TIFF").rename(tmp_path / "b.png")
    assert read(tmp_path / "b.png").format == "tiff"
    write(tmp_path / "c.png", GREY, format="bmp")
    assert (tmp_path / "c.png").read_bytes()[:2] == b"BM"
    write(tmp_path / "bare", GREY)
    assert read(tmp_path / "bare").format == "png"
    with pytest.raises(UpscaleError, match=r"ends in \.xyz"):
        write(tmp_path / "d.xyz", GREY)
    with pytest.raises(UpscaleError, match="unknown format"):
        write(tmp_path / "d.png", GREY, format="xyz")


@pytest.mark.parametrize("key", list(FORMATS))
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch, key):
    target = tmp_path / "old"
    target.write_bytes(b"precious")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UpscaleError, match="no space left for"):
        write(target, GREY, format=key)
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("key", list(FORMATS))
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_from_other_troubles(key):
    with pytest.raises(UpscaleError, match="no space left for /dev/full"):
        write(Path("/dev/full"), GREY, format=key)


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(images._ENCODERS, "png", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.png", GREY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="devices have other names there")
def test_a_device_is_written_to_not_replaced():
    write(Path("/dev/null"), GREY)
    assert not Path("/dev/null").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX links and modes")
def test_links_and_modes_stay(tmp_path):
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    write(link, GREY)
    assert link.is_symlink()
    assert read(real).width == 4
    assert real.stat().st_mode & 0o777 == 0o640
    previous = os.umask(0o027)
    try:
        write(tmp_path / "new.png", GREY)
    finally:
        os.umask(previous)
    assert (tmp_path / "new.png").stat().st_mode & 0o777 == 0o640


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(UpscaleError, match="does not exist; create it"):
        write(tmp_path / "none" / "a.png", GREY)
    with pytest.raises(UpscaleError, match="is a folder"):
        write(tmp_path, GREY, format="png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UpscaleError, match="not writable"):
        write(tmp_path / "a.png", GREY)


def test_sizes_a_format_cannot_hold_are_refused_with_what_can():
    with pytest.raises(UpscaleError, match=r"JPEG holds at most 65500.*choose PNG or TIFF or BMP"):
        write(io.BytesIO(), Picture(np.zeros((1, 65501, 1), np.uint8)), format="jpeg")
    with pytest.raises(UpscaleError, match=r"WebP holds at most 16383.*choose PNG or JPEG or TIFF or BMP"):
        write(io.BytesIO(), Picture(np.zeros((16384, 1, 1), np.uint8)), format="webp")
    write(io.BytesIO(), Picture(np.zeros((1, 65500, 1), np.uint8)), format="jpeg")


def test_a_stream_that_cannot_seek_gets_the_whole_file():
    class Pipe:
        def __init__(self):
            self.data = b""

        def write(self, data):
            self.data += bytes(data)
            return len(data)

        def flush(self):
            pass

    for key in FORMATS:
        pipe = Pipe()
        write(pipe, GREY, format=key)
        assert read(pipe.data).width == 4
