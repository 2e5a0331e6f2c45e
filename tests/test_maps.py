"""Maps drawn: what stands where, in which colours, on which scale."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sa_upscale import maps
from sa_upscale.cli import app
from sa_upscale.errors import UpscaleError
from sa_upscale.report.heat import PALETTE
from sa_upscale.report.panels import BAR, Panel, panels
from sa_upscale.report.sheet import GAP, MARGIN, TEXT

DARK, BRIGHT = tuple(PALETTE[:3]), tuple(PALETTE[-3:])
SIDE = 200


def at(sheet, index, columns, row, column):
    """The colour at (row, column) of a panel of 200×200."""
    step = TEXT + GAP + SIDE + GAP + BAR + TEXT + 2 * GAP
    down, across = divmod(index, columns)
    return tuple(sheet[MARGIN + down * step + TEXT + GAP + row, MARGIN + across * (SIDE + GAP) + column])


def save(file, pixels):
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def half(tmp_path):
    """Black left, white right."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, SIDE // 2 :] = 255
    return save(tmp_path / "half.png", pixels)


def drawn(tmp_path, file, **options):
    maps.draw(file, tmp_path / "out.png", **options)
    return np.asarray(Image.open(tmp_path / "out.png"))


def test_edges_are_bright_and_flat_areas_dark(tmp_path, half):
    sheet = drawn(tmp_path, half)
    for panel in (1, 2):
        assert at(sheet, panel, 3, 100, 20) == at(sheet, panel, 3, 100, 180) == DARK
        assert max(at(sheet, panel, 3, 100, column)[1] for column in (99, 100)) > 230
    assert at(sheet, 0, 3, 100, 180) == (255, 255, 255)


def test_delta_and_thresholds_count(tmp_path, half):
    sheet = drawn(tmp_path, half, delta=1e6, high=1e9, low=1e9)
    assert at(sheet, 1, 3, 100, 100) == at(sheet, 2, 3, 100, 100) == DARK


def test_a_result_is_held_against_the_original(tmp_path, half):
    pixels = np.asarray(Image.open(half)).copy()
    noise = np.random.default_rng(0).integers(0, 2, (20, 20, 1), dtype=np.uint8) * 90
    pixels[20:40, 20:40] += noise
    result = save(tmp_path / "result.png", pixels)
    stable = np.asarray(Image.open(half)).copy()
    stable[30:40, 20:40] = 200  # in the lower half of the noise the averaged network is worse than the result
    sheet = drawn(tmp_path, result, hr=half, ema=save(tmp_path / "ema.png", stable))
    for panel in (4, 5):
        assert at(sheet, panel, 3, 100, 150) == DARK
        assert max(at(sheet, panel, 3, row, 25)[1] for row in range(22, 38)) > 200
    below, above = range(31, 38), range(22, 29)
    assert DARK not in [at(sheet, 5, 3, row, 25) for row in (*below, *above)]
    assert {at(sheet, 6, 3, row, 25) for row in below} == {DARK}
    assert DARK not in [at(sheet, 6, 3, row, 25) for row in above]


def test_the_scale_is_told_and_small_panels_are_enlarged():
    sheet = panels([Panel("map", np.array([[0.0, 1.0], [2.0, 4.0]]), 2.0)])
    assert sheet.shape[1] == 2 * MARGIN + SIDE
    assert at(sheet, 0, 1, 0, 0) == DARK
    assert at(sheet, 0, 1, 199, 0) == at(sheet, 0, 1, 199, 199) == BRIGHT
    bar = sheet[MARGIN + TEXT + GAP + SIDE + GAP, MARGIN : MARGIN + SIDE]
    assert (tuple(bar[0]), tuple(bar[-1])) == (DARK, BRIGHT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema": "half.png"}, "give --hr"),
        ({"window": 4}, "give an odd number from 3"),
        ({"hr": "small.png"}, "small.png is 3x3 and .*half.png 200x200"),
        ({"hr": "none.png"}, "does not exist"),
    ],
)
def test_mistakes_are_said(tmp_path, half, options, message):
    save(tmp_path / "small.png", np.zeros((3, 3, 3), np.uint8))
    files = {key: tmp_path / value if isinstance(value, str) else value for key, value in options.items()}
    with pytest.raises(UpscaleError, match=message):
        maps.draw(half, tmp_path / "out.png", **files)
    with pytest.raises(UpscaleError, match="maps need 4 pixels a side"):
        maps.draw(tmp_path / "small.png", tmp_path / "out.png")


def test_the_command_draws(tmp_path, half):
    done = CliRunner().invoke(app, ["maps", str(half), "-o", str(tmp_path / "maps.png")])
    assert (done.exit_code, done.output) == (0, f"{tmp_path / 'maps.png'}\n")
    assert Image.open(tmp_path / "maps.png").width == 2 * MARGIN + 3 * SIDE + 2 * GAP
