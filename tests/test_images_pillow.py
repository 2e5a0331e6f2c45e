"""JPEG, WebP and BMP, and the colour conversion of CMYK."""

import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image

from sa_upscale.images import Picture, read, write
from tests.pictures import (
    SRGB,
    encoded,
    pillow_bytes,
    random_samples,
    smooth_samples,
)


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


def test_webp_stays_lossless_or_lossy():
    picture = Picture(random_samples("uint8", 20, 20, 3))
    assert read(encoded(picture, "webp", lossless=True)).lossless
    lossy = read(encoded(picture, "webp"))
    assert not lossy.lossless
    assert np.array_equal(read(encoded(read(encoded(picture, "webp", lossless=True)), "webp")).pixels, picture.pixels)


def test_a_grey_profile_does_not_go_into_webp():
    grey = bytearray(SRGB)
    grey[16:20] = b"GRAY"
    picture = Picture(np.zeros((2, 2, 1), np.uint8), icc=bytes(grey))
    assert write(io.BytesIO(), picture, format="webp") == ["WebP holds no grey ICC profile"]
    assert read(encoded(picture, "png")).icc == bytes(grey)


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


def test_samples_that_are_no_numbers_are_replaced_and_said():
    samples = np.array([[0.5, np.inf], [np.nan, -np.inf]], "<f4")
    found = read(b"Pf\n2 2\n-1.0\n" + samples[::-1].tobytes())
    assert found.pixels[..., 0].tolist() == [[0.5, 0.5], [0.0, 0.5]]
    assert found.notes == ["3 of its samples were no finite numbers and were replaced"]


@pytest.mark.parametrize(("depth", "most"), [(1, 255), (2, 255), (3, 255), (4, 255), (3, 64), (4, 65535)])
def test_pam_of_any_kind_is_read(depth, most):
    samples = np.random.default_rng(0).integers(0, most + 1, (3, 5, depth)).astype(">u2" if most > 255 else np.uint8)
    head = f"P7\nWIDTH 5\nHEIGHT 3\nDEPTH {depth}\nMAXVAL {most}\nTUPLTYPE ANY\nENDHDR\n".encode()
    found = read(head + samples.tobytes())
    together = found.pixels if found.alpha is None else np.dstack((found.pixels, found.alpha))
    expected = samples if most in (255, 65535) else np.rint(samples.astype(float) * 255 / most)
    assert np.array_equal(together, expected)
    assert found.format == "png"
