"""EXIF, XMP, profiles and orientation."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from sa_upscale.images import Picture, read, size, write
from sa_upscale.images.directories import byte_order, directory
from sa_upscale.images.exif import edited_exif
from tests.pictures import (
    MAKER_NOTE,
    SRGB,
    XMP,
    encoded,
    exif_block,
    parsed_exif,
    pillow_bytes,
    png_file,
    random_samples,
    smooth_samples,
)


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
    edited = edited_exif(exif_block(), {0xA002: 70000})
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


def test_blocks_too_large_for_jpeg_are_left_out_and_said():
    exif = Image.Exif()
    exif[0x8769] = {0x927C: bytes(70000)}
    picture = Picture(np.zeros((2, 2, 3), np.uint8), exif=exif.tobytes()[6:], xmp=b"x" * 70000)
    assert len(write(io.BytesIO(), picture, format="jpeg")) == 2
    back = read(encoded(picture, "png"))
    assert len(back.exif) > 70000
    assert len(back.xmp) == 70000


def test_a_broken_exif_block_does_no_harm():
    picture = read(png_file([b"\x05"], 1, 1, 8, 0, (b"eXIf", b"MM\0*\0\0\xff\xff")))
    assert picture.exif is None
    assert picture.notes == ["its EXIF block is damaged and was left out"]


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
    order = byte_order(block)
    _, next_pointer = directory(bytes(block), 8, order)
    struct.pack_into(order + "I", block, next_pointer, 8)
    picture.exif = bytes(block)
    back = read(encoded(picture, "jpeg"))
    assert (back.width, back.height) == (16, 24)
    assert b'tiff:Orientation="1"' in back.xmp
    assert back.dpi == (150, 300)
    assert parsed_exif(back.exif)[274] == 1
    assert struct.unpack_from(order + "I", back.exif, next_pointer) == (0,)
