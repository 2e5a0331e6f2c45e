"""Exact sizes: what each option asks for is what comes out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_upscale.errors import UpscaleError
from sa_upscale.images import Picture, read, write
from sa_upscale.upscale import FITS, Size, Upscaler, image_file, work
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
    warnings = work.enlarge(ready, engines)()
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


# --- previews ------------------------------------------------------------------------------------------------------


@given(
    source=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    at=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    scale=st.sampled_from([1, 1.5, 2, 3.3, 4]),
)
def test_a_part_lies_within_what_is_enlarged_for_it(source, at, share, scale):
    left, top = (int(side * place) for side, place in zip(source, at, strict=True))
    across, down = (
        max(1, int((side - start) * part)) for side, start, part in zip(source, (left, top), share, strict=True)
    )
    target = Size(scale, part=(left, top, across, down)).of(*source)
    # The whole result has a whole number of pixels, which a part of it cannot share evenly.
    for kept, part in zip(target.kept, (across, down), strict=True):
        assert kept >= 1
        assert abs(kept - part * scale) < 2
    assert 0 <= target.box[0] < target.box[2] <= target.width
    assert 0 <= target.box[1] < target.box[3] <= target.height


def test_a_part_is_enlarged_as_in_the_whole(tmp_path):
    write(tmp_path / "in.png", Picture(noise(200, 300, 3)))
    results = {}
    for name, part in (("whole", None), ("part", (120, 70, 40, 30))):
        upscaler = Upscaler("compact-x2", Size(2, part=part), device="cpu", precision="fp32")
        upscaler.image_file(tmp_path / "in.png", tmp_path / f"{name}.png")
        results[name] = read(tmp_path / f"{name}.png").pixels.astype(int)
    assert np.abs(results["part"] - results["whole"][140:200, 240:320]).max() <= 1


@pytest.mark.parametrize("part", [(0, 0, 11, 5), (9, 0, 2, 5), (0, 0, 0, 5)])
def test_a_part_outside_is_refused(part):
    with pytest.raises(UpscaleError, match="reaches out of the 10x10 pixels"):
        Size(2, part=part).of(10, 10)
