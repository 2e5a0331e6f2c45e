"""TIFF: what other readers see of ours, and the many kinds others write."""

import io
import struct

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from sa_upscale.errors import UpscaleError
from sa_upscale.images import Picture, read
from sa_upscale.images.directories import directory
from tests.pictures import (
    MAKER_NOTE,
    SRGB,
    XMP,
    encoded,
    exif_block,
    pillow_bytes,
    random_samples,
    tiff_bytes,
)


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
    holes = np.array([[0.5, np.nan, np.inf, -np.inf, 2.0]], np.float32)
    picture = read(tiff_bytes(holes))
    assert picture.pixels[0, :, 0].tolist() == [0.5, 0.0, 2.0, 0.5, 2.0]
    assert picture.notes == ["3 of its samples were no finite numbers and were replaced"]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array([[-5, 0, 300, 65535]], np.int32), [0, 0, 300, 65535]),
        (np.array([[0, 1 << 16, 1 << 31, 2**32 - 1]], np.uint32), [0, 1, 1 << 15, 65535]),
        (np.array([[-5, 0, 300, 32767]], np.int16), [0, 0, 300, 32767]),
    ],
)
def test_tiff_of_other_integers_is_read_as_16_bits(stored, expected):
    picture = read(tiff_bytes(stored))
    assert picture.pixels.dtype == np.uint16
    assert picture.pixels[0, :, 0].tolist() == expected


def test_tiff_kinds_that_are_refused_are_named():
    with pytest.raises(UpscaleError, match="2 pages"):
        read(tiff_bytes(np.zeros((2, 40, 50), np.uint8), photometric="minisblack"))
    raw = tiff_bytes(np.zeros((4, 5), np.uint8), extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    with pytest.raises(UpscaleError, match="raw file"):
        read(raw)


def test_tiff_directories_in_a_circle_end():
    data = bytearray(tiff_bytes(np.zeros((2, 40, 50), np.uint8), photometric="minisblack"))
    first = struct.unpack_from("<I", data, 4)[0]
    _, next_pointer = directory(bytes(data), first, "<")
    second = struct.unpack_from("<I", data, next_pointer)[0]
    _, last_pointer = directory(bytes(data), second, "<")
    struct.pack_into("<I", data, last_pointer, first)
    with pytest.raises(UpscaleError, match="2 pages"):
        read(bytes(data))


def test_cmyk_tiff_of_16_bits():
    inks = np.zeros((4, 5, 4), np.uint16)
    inks[..., 0] = 65535
    data = tiff_bytes(inks, photometric="separated")
    assert np.abs(read(data).pixels.astype(int) - (0, 255, 255)).max() <= 1


@pytest.mark.parametrize("place", [(1 << 63) + 5, 1 << 40])
def test_bigtiff_pointers_far_past_the_end_do_no_harm(place):
    samples = random_samples("uint8", 4, 5)
    data = bytearray(tiff_bytes(samples, bigtiff=True, photometric="minisblack"))
    _, next_pointer = directory(bytes(data), struct.unpack_from("<Q", data, 8)[0], "<", big=True)
    struct.pack_into("<Q", data, next_pointer, place)
    assert np.array_equal(read(bytes(data)).pixels[..., 0], samples)


@pytest.mark.parametrize("tag", [256, 259, 273, 277])
def test_tiff_numbers_that_are_text_are_damage(tag):
    data = bytearray(tiff_bytes(random_samples("uint8", 4, 5), photometric="minisblack"))
    fields, _ = directory(bytes(data), struct.unpack_from("<I", data, 4)[0], "<")
    at = next(found.at for found in fields if found.tag == tag)
    struct.pack_into("<HI4s", data, at + 2, 2, 4, b"abc\0")
    with pytest.raises(UpscaleError, match="damaged or incomplete TIFF"):
        read(bytes(data))
