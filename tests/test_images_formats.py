"""AVIF, JPEG 2000, PPM, GIF, OpenEXR, Radiance HDR, HEIC, and what else Pillow reads."""

import io
import sys

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from sa_upscale import images
from sa_upscale.errors import UpscaleError
from sa_upscale.images import Picture, read, write
from tests.pictures import SRGB, XMP, encoded, exif_block, pillow_bytes, random_samples, smooth_samples


@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_avif_keeps_depth_profile_and_metadata(depth, with_alpha):
    pixels = smooth_samples(40, 56, 3).astype(depth) * (257 if depth == "uint16" else 1)
    alpha = pixels[..., 0] if with_alpha else None
    picture = Picture(pixels, alpha, icc=SRGB, exif=exif_block(), xmp=XMP)
    back = read(encoded(picture, "avif", quality=100))
    assert back.pixels.dtype == depth
    assert np.abs(back.pixels / images.picture.top(depth) - pixels / images.picture.top(depth)).max() < 3 / 255
    assert back.icc == SRGB
    assert back.exif[:4] == exif_block()[:4]
    assert back.xmp
    assert (back.alpha is not None) == with_alpha


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_spans_all_of_its_range(bits):
    full = np.full((16, 16, 3), 2**bits - 1, np.uint16)
    data = cv2.imencode(".avif", full, [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100])[1].tobytes()
    assert read(data).pixels.min() >= 65535 - 2 * 65535 // (2**bits - 1)


@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_jpeg_2000_returns_every_value(depth, channels, with_alpha):
    if (depth, channels, with_alpha) == ("uint16", 1, True):
        pytest.skip("no library writes deep grey with alpha")
    alpha = random_samples(depth, 40, 50, seed=1) if with_alpha else None
    picture = Picture(random_samples(depth, 40, 50, channels), alpha)
    back = read(encoded(picture, "jp2"))
    assert np.array_equal(back.pixels, picture.pixels)
    assert alpha is None or np.array_equal(back.alpha, alpha)


def test_deep_jpeg_2000_too_small_for_its_encoder_is_refused():
    with pytest.raises(UpscaleError, match="needs 32 pixels a side"):
        encoded(Picture(random_samples("uint16", 31, 50, 3)), "jp2")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_ppm_returns_every_value(depth, channels):
    picture = Picture(random_samples(depth, 5, 7, channels))
    data = encoded(picture, "ppm")
    assert np.array_equal(read(data).pixels, picture.pixels)
    assert np.array_equal(np.atleast_3d(cv2.imdecode(np.frombuffer(data, np.uint8), -1))[..., ::-1], picture.pixels)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P2 # made by hand\n2 1\n4\n0 4\n", [[0], [255]]),
        (b"P3\n1 1 255\n1 2 3\n", [[1, 2, 3]]),
        (b"P6\n# deep\n1 1\n1023\n" + np.array([0, 512, 1023], ">u2").tobytes(), [[0, 32800, 65535]]),
        (b"P4\n8 1\n\xf0", [[0]] * 4 + [[255]] * 4),
    ],
)
def test_kinds_of_netpbm(data, expected):
    assert read(data).pixels[0].tolist() == expected


@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_exr_keeps_every_float(channels, with_alpha):
    pixels = random_samples("float32", 9, 13, channels) * 40 - 3
    alpha = random_samples("float32", 9, 13, seed=1) if with_alpha else None
    back = read(encoded(Picture(pixels, alpha), "exr"))
    assert np.array_equal(back.pixels, np.broadcast_to(pixels, back.pixels.shape))
    assert back.pixels.shape[2] == (3 if with_alpha else channels)
    assert alpha is None or np.array_equal(back.alpha, alpha)


def test_exr_of_half_floats_is_read_as_float():
    encoder = av.CodecContext.create("exr", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 4, 3, "gbrpf32le", 1
    encoder.options = {"format": "half"}
    halves = (np.arange(36, dtype=np.float32) / 8 - 1).reshape(3, 4, 3)
    frame = av.VideoFrame.from_ndarray(halves, format="gbrpf32le")
    data = b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))
    assert np.array_equal(read(data).pixels, halves)


def test_radiance_keeps_light_above_one():
    pixels = random_samples("float32", 9, 13, 3) * 30
    back = read(encoded(Picture(pixels), "hdr")).pixels
    assert back.dtype == np.float32
    assert np.abs(back - pixels).max() < 30 / 100


def test_floats_go_into_other_formats_with_a_line():
    picture = Picture(random_samples("float32", 4, 5, 3))
    assert write(io.BytesIO(), picture, format="png") == ["PNG holds at most 16 bits a channel: depth reduced"]
    assert write(io.BytesIO(), Picture(random_samples("uint8", 4, 5, 3)), format="exr") == []
    assert write(io.BytesIO(), picture, format="tiff", depth="uint8") == []
    assert read(encoded(picture, "tiff", depth="uint16")).pixels.dtype == np.uint16


def test_gif_keeps_few_colours_exactly_and_its_transparency():
    pixels = np.array([[(0, 0, 0), (255, 0, 0)], [(3, 200, 5), (9, 9, 9)]], np.uint8).repeat(4, 0).repeat(4, 1)
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:4, :4] = 0
    back = read(encoded(Picture(pixels, alpha), "gif"))
    assert np.array_equal(back.alpha, alpha)
    assert np.array_equal(back.pixels[alpha > 0], pixels[alpha > 0])
    grey = Picture(np.arange(256, dtype=np.uint8).reshape(16, 16, 1))
    assert np.array_equal(read(encoded(grey, "gif")).pixels, grey.pixels)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("TGA", "RGBA"), ("ICO", "RGBA"), ("PCX", "RGB"), ("SGI", "L"), ("DDS", "RGB"), ("XBM", "1"), ("IM", "RGB")],
)
def test_other_formats_of_pillow_are_read(kind, mode):
    image = Image.fromarray(random_samples("uint8", 16, 16, 4)).convert(mode)
    picture = read(pillow_bytes(image, kind))
    expected = np.atleast_3d(np.asarray(image.convert("L") if mode == "1" else image))
    colours = 3 if mode.startswith("RGB") else 1
    assert np.array_equal(picture.pixels, expected[..., :colours])
    assert mode[-1] != "A" or np.array_equal(picture.alpha, expected[..., 3])
    assert picture.format == "png"


def test_floats_of_other_formats_stay_floats(tmp_path):
    image = Image.fromarray(random_samples("float32", 9, 8) * 5 - 1)
    image.save(tmp_path / "in.spi", "SPIDER")
    picture = read(tmp_path / "in.spi")
    assert np.array_equal(picture.pixels[..., 0], np.asarray(image))
    assert picture.format == "tiff"
    (tmp_path / "in.spi").rename(tmp_path / "in.fits")
    assert images.result_format(tmp_path / "in.fits") == "tiff"


def test_lab_tiff_becomes_rgb():
    image = Image.new("LAB", (4, 4), (136, 208, 195))  # sRGB's pure red
    assert np.abs(read(pillow_bytes(image, "TIFF")).pixels.astype(int) - (255, 0, 0)).max() <= 12


def test_what_no_program_should_start_for_us_is_refused():
    with pytest.raises(UpscaleError, match="PostScript"):
        read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n" + b" " * 100)


def test_heic_without_its_reader_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UpscaleError, match=r"sa-upscale\[heif\]"):
        read(b"\0\0\0\x20ftypheic" + bytes(40))


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_heic_keeps_depth_profile_and_stands_upright(depth):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = smooth_samples(64, 80, 3).astype(depth) * (257 if depth == "uint16" else 1)
    mode = "RGB" if depth == "uint8" else "RGB;16"
    file = pillow_heif.from_bytes(mode, (80, 64), pixels.tobytes())
    stream = io.BytesIO()
    file.save(stream, quality=-1, icc_profile=SRGB, exif=b"Exif\0\0" + exif_block())
    picture = read(stream.getvalue())
    assert picture.format == "png"
    assert picture.pixels.dtype == depth
    assert np.abs(picture.pixels / images.picture.top(depth) - pixels / images.picture.top(depth)).max() < 10 / 255
