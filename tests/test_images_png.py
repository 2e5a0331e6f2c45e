"""PNG: what other readers see of ours, and the odd forms others write."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from sa_upscale.errors import UpscaleError
from sa_upscale.images import Picture, png, read
from tests.pictures import (
    SRGB,
    XMP,
    encoded,
    exif_block,
    png_file,
    random_samples,
)


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


def test_png_colour_chunks_are_kept():
    chunks = ((b"gAMA", struct.pack(">I", 100000)), (b"cHRM", bytes(range(32))))
    assert read(encoded(Picture(np.zeros((2, 2, 3), np.uint8), colour_chunks=chunks), "png")).colour_chunks == chunks


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
        for x, y, step_x, step_y in png.ADAM7
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
