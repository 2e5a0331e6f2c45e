"""Exact sizes: what each option asks for is what comes out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_upscale.errors import UpscaleError
from sa_upscale.images import Picture, read, write
from sa_upscale.upscale import FITS, Size, image_file, work
from tests.test_upscale import Nearest, noise


@pytest.mark.parametrize(
    ("size", "source", "kept", "scale"),
    [
        (Size(2.5), (101, 40), (252, 100), 2.5),
        (Size(4, max_size=200), (100, 50), (200, 100), 2),
        (Size(4, max_size=500), (100, 50), (400, 200), 4),
        (Size(4, max_size=50), (100, 50), (50, 25), 0.5),
        (Size(width=300), (100, 50), (300, 150), 3),
        (Size(height=75), (100, 50), (150, 75), 1.5),
        (Size(width=300, height=300), (100, 50), (300, 150), 3),
        (Size(width=300, height=300, fit="fill"), (100, 50), (300, 300), 6),
        (Size(width=300, height=300, fit="crop"), (100, 50), (300, 300), 6),
        (Size(width=30, height=30, fit="crop"), (100, 50), (30, 30), 0.6),
        (Size(width=1), (1000, 1), (1, 1), 0.001),
    ],
)
def test_what_is_asked_for_comes_out(size, source, kept, scale):
    target = size.of(*source)
    assert target.kept == kept
    assert target.scale == pytest.approx(scale)


@given(
    source=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    fit=st.sampled_from(FITS),
)
def test_exact_sides_are_exact_for_any_source(source, width, height, fit):
    ratios = width / source[0], height / source[1]
    size = Size(width=width, height=height, fit=fit)
    if (min if fit == "inside" else max)(ratios) > 8:
        with pytest.raises(UpscaleError, match="times the source"):
            size.of(*source)
        return
    target = size.of(*source)
    if fit == "inside":
        assert target.width == width or target.height == height
        assert target.width <= width + 1
        assert target.height <= height + 1
    else:
        assert target.kept == (width, height)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 9}, "from 1 to 8"),
        ({"width": 0}, "from 1"),
        ({"max_size": 100, "width": 100}, "contradict"),
        ({"fit": "stretch"}, "unknown fit"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, words):
    with pytest.raises(UpscaleError, match=words):
        Size(**options)
    with pytest.raises(UpscaleError, match="8 is the most"):
        Size(width=900).of(100, 100)


def test_names_tell_the_size():
    assert [
        size.suffix for size in (Size(), Size(2.5), Size(max_size=900), Size(width=9), Size(width=9, height=8))
    ] == [
        "_x4",
        "_x2.5",
        "_x4_max900",
        "_9x",
        "_9x8",
    ]


def run(tmp_path, array, size, engines):
    write(tmp_path / "in.png", Picture(array))
    ready = work.prepare(tmp_path / "in.png", tmp_path / "out.png", size, work.Output())
    warnings = work.enlarge(ready, tmp_path / "out.png", engines, work.Output(), None)()
    return read(tmp_path / "out.png").pixels, warnings


def test_cropping_takes_the_middle(tmp_path):
    array = noise(10, 20, 3)
    pixels, _ = run(tmp_path, array, Size(width=20, height=20, fit="crop"), [Nearest(2)])
    assert np.array_equal(pixels, array.repeat(2, 0).repeat(2, 1)[:, 10:30])


def test_a_larger_source_is_reduced_and_that_is_said(tmp_path):
    pixels, warnings = run(tmp_path, np.full((40, 60, 3), 90, np.uint8), Size(max_size=30), [])
    assert pixels.shape == (20, 30, 3)
    assert np.all(pixels == 90)
    assert warnings == [work.REDUCED]


def test_image_file_takes_a_scale(tmp_path):
    write(tmp_path / "in.png", Picture(noise(4, 5, 1)))
    assert image_file(tmp_path / "in.png", tmp_path / "out.png", [Nearest(2)], scale=1.5).width == 8
