"""What all picture formats share: every value comes back, and what cannot be kept is said."""

import io
import itertools
import struct

import numpy as np
import pytest

from sa_upscale.errors import UpscaleError
from sa_upscale.images import FORMATS, WRITTEN, Picture, read, write
from sa_upscale.images import picture as picture_module
from tests.pictures import (
    SRGB,
    XMP,
    encoded,
    exif_block,
    random_samples,
)

DEPTHS = {key: FORMATS[key].depths for key in WRITTEN}


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
@pytest.mark.parametrize("key", WRITTEN)
def test_smallest_sizes(key, shape):
    picture = Picture(np.full((*shape, 3), (77, 78, 80), np.uint8), lossless=True)
    back = read(encoded(picture, key))
    assert back.pixels.shape == (*shape, 3)
    top = 1 if back.pixels.dtype == np.float32 else 255
    assert np.abs(back.pixels / top - np.array((77, 78, 80)) / 255).max() <= 1 / 255


def test_bands_join_without_a_seam(monkeypatch):
    monkeypatch.setattr(picture_module, "BAND_BYTES", 100)
    for depth, key in itertools.product(("uint8", "uint16"), ("png", "tiff")):
        if depth in DEPTHS[key]:
            picture = Picture(random_samples(depth, 41, 13, 3), random_samples(depth, 41, 13))
            back = read(encoded(picture, key))
            assert np.array_equal(back.pixels, picture.pixels)
            assert np.array_equal(back.alpha, picture.alpha)


def test_quality_asked_for_is_taken():
    picture = Picture(random_samples("uint8", 40, 56, 3))
    assert len(encoded(picture, "jpeg", quality=20)) < len(encoded(picture, "jpeg")) / 2
    assert len(encoded(picture, "webp", quality=20)) < len(encoded(picture, "webp")) / 2


def test_formats_say_what_they_cannot_hold():
    picture = Picture(
        random_samples("uint16", 35, 36, 3),
        random_samples("uint16", 35, 36),
        icc=SRGB,
        exif=exif_block(),
        xmp=XMP,
        dpi=(300, 300),
        colour_chunks=((b"gAMA", struct.pack(">I", 100000)),),
    )
    said = {key: " | ".join(write(io.BytesIO(), picture, format=key)) for key in WRITTEN}
    assert said["png"] == ""
    assert said["tiff"] == "TIFF holds no gamma or primaries: colours may look different"
    assert "OpenEXR holds no ICC profile" in said["exr"]
    assert "8 bits" in said["jpeg"]
    assert "no transparency" in said["jpeg"]
    assert "8 bits" in said["webp"]
    assert "dpi" in said["webp"]
    assert "ICC" in said["bmp"]
    assert "EXIF" in said["bmp"]
    assert "XMP" in said["bmp"]


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


def test_sizes_a_format_cannot_hold_are_refused_with_what_can():
    with pytest.raises(UpscaleError, match=r"JPEG holds at most 65500.*choose PNG or TIFF or BMP or JPEG 2000"):
        write(io.BytesIO(), Picture(np.zeros((1, 65501, 1), np.uint8)), format="jpeg")
    with pytest.raises(UpscaleError, match=r"WebP holds at most 16383.*choose PNG or JPEG or TIFF or BMP or AVIF"):
        write(io.BytesIO(), Picture(np.zeros((16384, 1, 1), np.uint8)), format="webp")
    write(io.BytesIO(), Picture(np.zeros((1, 65500, 1), np.uint8)), format="jpeg")
