"""Any picture, of any size and kind, in any tiles, at any scale."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_upscale import images
from sa_upscale.engine import Engine
from sa_upscale.images import Picture
from sa_upscale.models.compact import Compact
from sa_upscale.upscale import enlarge, image_file, plan
from tests.pictures import encoded, random_samples

SIZES = st.integers(1, 97)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {scale: Compact(features=4, convs=1, scale=scale).eval() for scale in (2, 4)}


def engines_for(networks, scale, **options):
    engines = {
        native: Engine(network, device="cpu", precision="fp32", **options) for native, network in networks.items()
    }
    return [engines[native] for native in plan(scale, networks)]


@settings(max_examples=30, deadline=None)
@given(
    height=SIZES,
    width=SIZES,
    channels=st.sampled_from([1, 3]),
    depth=st.sampled_from(["uint8", "uint16", "float32"]),
    with_alpha=st.booleans(),
    scale=st.sampled_from([1, 1.3, 2, 2.5, 3, 4]),
    tile=st.integers(16, 64),
    seed=st.integers(0, 9),
)
def test_size_kind_and_range_hold(networks, height, width, channels, depth, with_alpha, scale, tile, seed):
    alpha = random_samples(depth, height, width, seed=seed + 1) if with_alpha else None
    picture = Picture(random_samples(depth, height, width, channels, seed=seed), alpha)
    key = "tiff" if depth == "float32" else "png"
    stream = io.BytesIO()
    result = image_file(encoded(picture, key), stream, engines_for(networks, scale, tile=tile), scale=scale)
    expected = (max(1, round(width * scale)), max(1, round(height * scale)))
    assert (result.width, result.height) == expected
    made = images.read(stream.getvalue())
    assert made.pixels.shape == (*expected[::-1], channels)
    assert made.pixels.dtype == depth
    assert np.isfinite(made.pixels).all()
    assert (made.alpha is not None) == with_alpha
    if with_alpha:
        assert made.alpha.min() >= alpha.min()
        assert made.alpha.max() <= alpha.max()


@settings(max_examples=20, deadline=None)
@given(height=SIZES, width=SIZES, scale=st.sampled_from([2, 2.5, 4]), tile=st.integers(16, 48), seed=st.integers(0, 9))
def test_tiles_make_no_difference(networks, height, width, scale, tile, seed):
    picture = Picture(random_samples("uint8", height, width, 3, seed=seed))
    size = (round(width * scale), round(height * scale))
    whole = enlarge(picture, engines_for(networks, scale, tile=200), *size).pixels.astype(int)
    tiled = enlarge(picture, engines_for(networks, scale, tile=tile), *size).pixels
    assert np.abs(whole - tiled).max() <= 1


@settings(max_examples=15, deadline=None)
@given(height=SIZES, width=SIZES, value=st.integers(0, 255), scale=st.sampled_from([1.5, 2, 4]))
def test_opaque_stays_opaque_and_grey_grey(networks, height, width, value, scale):
    grey = np.broadcast_to(random_samples("uint8", height, width, 1, seed=value), (height, width, 3))
    picture = Picture(grey, np.full((height, width), 255, np.uint8))
    result = enlarge(picture, engines_for(networks, scale), round(width * scale), round(height * scale))
    assert np.all(result.alpha == 255)
    assert np.array_equal(result.pixels, np.broadcast_to(result.pixels[..., :1], result.pixels.shape))


@pytest.mark.parametrize("name", ["compact-x2", "compact-x4"])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 40, 30), (3, 250, 90)])
def test_flat_colours_stay_flat(bundled, name, colour):
    engine = bundled(name)
    flat = np.broadcast_to(np.array(colour, np.uint8), (40, 50, 3))
    picture = enlarge(Picture(flat), [engine], 50 * engine.scale, 40 * engine.scale)
    result = picture.pixels.astype(int)
    assert np.abs(result - colour).max() <= 1


@pytest.fixture(scope="module")
def bundled():
    from sa_upscale import checkpoints

    made = {}

    def engine(name):
        if name not in made:
            made[name] = Engine(checkpoints.load(name).model, device="cpu", precision="fp32")
        return made[name]

    return engine
