"""Strip by strip equals the whole picture, and memory follows the strip."""

import io
import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_upscale import images
from sa_upscale.engine import Engine
from sa_upscale.images import Picture, png, tiffwriting
from sa_upscale.models.compact import Compact
from sa_upscale.upscale import Output, Size, large, work
from tests.pictures import SRGB, encoded, exif_block, pillow_bytes, random_samples, tiff_bytes
from tests.test_engine import lively, picture, with_mean


@pytest.fixture(scope="module")
def engine():
    network = with_mean(lively(Compact(features=4, convs=2, scale=2), 1.5), picture(30, 30))
    return Engine(network, device="cpu", precision="fp32", tile=24)


def made(source, engines, size, key, monkeypatch, most, output=None):
    """The result for the bytes `source`, made in strips where it has more than `most` pixels."""
    monkeypatch.setattr(work, "STREAM_PIXELS", most)
    output, stream = output or Output(format=key), io.BytesIO()
    ready = work.prepare(source, stream, size, output, max_pixels=10**9)
    assert (ready.picture is None) == (most == 0)
    warnings = work.enlarge(ready, engines)()
    return images.read(stream.getvalue()), warnings


@pytest.mark.parametrize("key", ["png", "tiff"])
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("size", [Size(2), Size(1), Size(1.5), Size(4), Size(width=90, height=40, fit="crop")])
def test_strips_give_the_whole_picture(engine, monkeypatch, key, with_alpha, depth, size):
    if (key, depth) == ("png", "float32"):
        return
    pixels = picture(41, 53, dtype=np.dtype(depth))
    alpha = np.clip(picture(41, 53, 1, dtype=np.dtype(depth))[..., 0], 1e-3, None).astype(depth) if with_alpha else None
    source = encoded(Picture(pixels, alpha, icc=SRGB, exif=exif_block(), dpi=(300, 300)), key)
    monkeypatch.setattr(png, "_STREAM_BYTES", 1500)
    engines = [engine, engine] if size.scale == 4 and not size.exact else [engine]
    whole, said = made(source, engines, size, key, monkeypatch, 10**9)
    strips, also = made(source, engines, size, key, monkeypatch, 0)
    assert said == also
    assert strips.pixels.dtype == whole.pixels.dtype
    tolerance = 1e-5 if depth == "float32" else 0
    assert np.abs(strips.pixels.astype(float) - whole.pixels).max() <= tolerance
    if with_alpha:
        assert np.abs(strips.alpha.astype(float) - whole.alpha).max() <= tolerance
    assert (strips.icc, strips.exif, strips.dpi) == (whole.icc, whole.exif, whole.dpi)


def test_a_hard_mask_in_strips_is_that_of_the_whole(engine, monkeypatch):
    alpha = (picture(41, 53, 1)[..., 0] > 0.5).astype(np.uint8) * 255
    source = encoded(Picture(np.full((41, 53, 3), 90, np.uint8), alpha), "png")
    monkeypatch.setattr(png, "_STREAM_BYTES", 1500)
    whole, _ = made(source, [engine], Size(2), "png", monkeypatch, 10**9)
    strips, _ = made(source, [engine], Size(2), "png", monkeypatch, 0)
    assert np.array_equal(strips.alpha, whole.alpha)
    assert len(np.unique(whole.alpha)) > 10


def test_grey_stays_grey_and_flat_alpha_flat_in_strips(engine, monkeypatch):
    grey = np.broadcast_to(picture(30, 40, 1, dtype=np.uint8), (30, 40, 3))
    source = encoded(Picture(grey, np.full((30, 40), 77, np.uint8)), "png")
    strips, _ = made(source, [engine], Size(2), "png", monkeypatch, 0)
    assert strips.pixels.shape == (60, 80, 3)
    assert np.array_equal(strips.pixels[..., 0], strips.pixels[..., 2])
    assert np.all(strips.alpha == 77)


def test_a_jpeg_becomes_strips_of_png(engine, monkeypatch):
    source = encoded(Picture(picture(40, 50, dtype=np.uint8)), "jpeg")
    whole, _ = made(source, [engine], Size(2), "png", monkeypatch, 10**9)
    strips, _ = made(source, [engine], Size(2), "png", monkeypatch, 0)
    assert np.array_equal(strips.pixels, whole.pixels)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 40),
    kind=st.sampled_from(["L", "RGB", "LA", "RGBA", "1", "L16", "RGB16", "RGBA16"]),
    step=st.integers(1, 3000),
)
def test_bands_of_a_png_are_its_rows(height, width, kind, step):
    depth = "uint16" if kind.endswith("16") else "uint8"
    if kind == "1":
        from PIL import Image

        data = pillow_bytes(Image.fromarray(random_samples("uint8", height, width) > 127), "PNG")
    else:
        channels = 3 if kind.startswith("RGB") else 1
        alpha = random_samples(depth, height, width, seed=1) if "A" in kind else None
        data = encoded(Picture(random_samples(depth, height, width, channels), alpha), "png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "_STREAM_BYTES", step)
        bands = list(images.opened(data).rows())
    whole = images.read(data)
    assert np.array_equal(np.concatenate([pixels for pixels, _ in bands]), whole.pixels)
    if whole.alpha is not None:
        assert np.array_equal(np.concatenate([alpha for _, alpha in bands]), whole.alpha)


@pytest.mark.parametrize(
    "options",
    [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}, {"compression": "zlib", "predictor": True, "rowsperstrip": 5}],
)
@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
def test_bands_of_a_tiff_are_its_rows(options, depth):
    if depth == "float32" and options.get("predictor"):
        options = options | {"predictor": 1}
    samples = random_samples(depth, 41, 53, 3)
    opened = images.opened(tiff_bytes(samples, photometric="rgb", **options))
    bands = [pixels for pixels, _ in opened.rows()]
    assert np.array_equal(np.concatenate(bands), samples)
    assert opened._whole is None
    assert options == {} or len(bands) > 1


def test_a_result_above_four_gigabytes_is_a_big_tiff(monkeypatch):
    monkeypatch.setattr(tiffwriting, "_LARGEST_CLASSIC", 1000)
    stream = io.BytesIO()
    bands = [np.full((8, 20, 3), value, np.uint8) for value in range(5)]
    images.write_rows(stream, images.blank(40, 20, 3, "uint8", False), bands, format="tiff")
    with tifffile.TiffFile(io.BytesIO(stream.getvalue())) as file:
        assert file.is_bigtiff
        assert np.array_equal(file.asarray(), np.concatenate(bands))


def test_memory_follows_the_strip(engine, monkeypatch):
    """A picture three times as high takes no more than a little more."""
    monkeypatch.setattr(work, "STREAM_PIXELS", 0)
    monkeypatch.setattr(png, "_STREAM_BYTES", 20_000)
    monkeypatch.setattr(png, "_INFLATE_BYTES", 20_000)
    peaks = []
    for height in (300, 900):
        source = encoded(Picture(np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None], (height, 200, 3))), "png")
        ready = work.prepare(source, io.BytesIO(), Size(2), Output(), max_pixels=10**9)
        known = large.survey(ready.opened.rows())
        tracemalloc.start()
        for _ in large.enlarged_rows(ready.opened, known, [engine], 400, 2 * height, None):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
