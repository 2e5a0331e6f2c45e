"""The engine's bands of rows, its eightfold mean and its matched colours."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sa_upscale import engine as engine_module
from sa_upscale.engine import Engine, Rows
from sa_upscale.engine.passes import Passes
from sa_upscale.engine.pixels import with_low_frequencies
from sa_upscale.errors import UpscaleError
from sa_upscale.models.compact import Compact
from tests.test_engine import lively, picture, whole, with_mean


@pytest.fixture(scope="module")
def network():
    return with_mean(lively(Compact(features=4, convs=2, scale=2), 1.5), picture(30, 30))


def cut(image, *lengths):
    starts = np.cumsum([0, *lengths])
    return [
        image[start:stop] for start, stop in zip(starts, [*starts[1:], len(image)], strict=True) if start < len(image)
    ]


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    tile=st.integers(1, 40),
    bands=st.lists(st.integers(1, 30), max_size=5),
)
def test_rows_give_the_same_as_the_whole_picture(network, height, width, channels, dtype, tile, bands):
    engine = Engine(network, device="cpu", precision="fp32", tile=tile)
    image = picture(height, width, channels, dtype)
    given_back = list(engine.run_rows(iter(cut(image, *bands)), height))
    assert np.array_equal(np.concatenate(given_back), engine.run(image))


def test_rows_of_a_network_that_needs_multiples():
    class Fours(Compact):
        multiple = 4

    torch.manual_seed(0)
    engine = Engine(Fours(features=4, convs=1, scale=2), device="cpu", precision="fp32", tile=16)
    image = picture(41, 30)
    assert np.array_equal(np.concatenate(list(engine.run_rows(cut(image, 7, 20), 41))), engine.run(image))


def test_only_rows_that_are_needed_are_held():
    taken = []

    def bands():
        for row in range(100):
            taken.append(row)
            yield np.full((1, 2, 1), row, np.uint8)

    rows = Rows(bands())
    assert rows.between(0, 10)[:, 0, 0].tolist() == list(range(10))
    assert rows.between(5, 12)[:, 0, 0].tolist() == list(range(5, 12))
    assert taken == list(range(12))
    assert len(rows._held) == 7
    assert rows.between(95, 120)[:, 0, 0].tolist() == list(range(95, 100))


def test_memory_that_runs_out_before_the_first_band_means_smaller_tiles(network, monkeypatch):
    parts = Passes.parts

    def hungry(self, job, tile, precision):
        if tile.shape[-1] > 40:
            raise MemoryError
        return parts(self, job, tile, precision)

    monkeypatch.setattr(Passes, "parts", hungry)
    notices = []
    engine = Engine(network, device="cpu", precision="fp32", tile=64, on_notice=notices.append)
    image = picture(90, 70)
    result = np.concatenate(list(engine.run_rows(cut(image, 30, 30), 90)))
    assert np.abs(result - whole(network, image)).max() < 1e-5
    assert len(notices) == 1


def test_memory_that_runs_out_later_is_said(network, monkeypatch):
    parts, tiles = Passes.parts, []

    def tired(self, job, tile, precision):
        tiles.append(tile)
        if len(tiles) > 8:
            raise MemoryError
        return parts(self, job, tile, precision)

    monkeypatch.setattr(Passes, "parts", tired)
    engine = Engine(network, device="cpu", precision="fp32", tile=16)
    with pytest.raises(UpscaleError, match="in the middle"):
        list(engine.run_rows([picture(90, 40)], 90))


def test_of_a_result_that_goes_on_as_it_is_made_a_thousand_rows_are_held(network, monkeypatch):
    monkeypatch.setattr(engine_module, "BANDED_ROWS", 20)
    engine = Engine(network, device="cpu", precision="fp32")
    image = picture(90, 40)
    made = list(engine.run_rows([image], 90))
    assert len(made) >= 4
    assert np.abs(np.concatenate(made) - engine.run(image)).max() < 1e-5
    chosen = Engine(network, device="cpu", precision="fp32", tile=64)
    assert len(list(chosen.run_rows([image], 90))) == 2


class Skewed(nn.Module):
    """Each result pixel is its left neighbour, so that turned and mirrored runs differ."""

    scale, window, multiple, context, channels = 2, 1, 1, 1, 3
    parameters_dict: dict = {}  # noqa: RUF012

    def forward(self, x):
        left = torch.roll(x, 1, -1)
        return left.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_tta_is_the_mean_of_all_ways_to_turn_and_mirror():
    image = picture(9, 12)
    engine = Engine(Skewed(), device="cpu", precision="fp32", tta=True)
    total = 0
    for turns in range(4):
        for mirrored in (False, True):
            turned = np.rot90(image, turns)
            turned = turned[:, ::-1] if mirrored else turned
            result = np.roll(turned, 1, 1).repeat(2, 0).repeat(2, 1)
            result = result[:, ::-1] if mirrored else result
            total = total + np.rot90(result, -turns)
    assert np.abs(engine.run(image) - total / 8).max() < 1e-6


class Drifting(nn.Module):
    """Repeats pixels, a tenth too red and with fine detail of its own."""

    scale, window, multiple, context, channels = 2, 1, 1, 1, 3
    parameters_dict: dict = {}  # noqa: RUF012

    def forward(self, x):
        x = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        detail = torch.tensor([[0.05, -0.05], [-0.05, 0.05]]).tile(x.shape[-2] // 2, x.shape[-1] // 2)
        return x + torch.tensor([0.1, 0, 0])[:, None, None] + detail


def test_matched_colours_are_the_sources_and_detail_stays():
    image = 0.3 + 0.4 * picture(60, 70)
    drifting = Engine(Drifting(), device="cpu", precision="fp32", tile=24).run(image)
    matched = Engine(Drifting(), device="cpu", precision="fp32", tile=24, match_color=True).run(image)
    assert drifting[..., 0].mean() - image[..., 0].mean() > 0.09
    assert np.abs(matched.mean((0, 1)) - image.mean((0, 1))).max() < 1e-3
    assert np.abs((drifting - matched)[..., 1]).max() < 1e-5
    assert np.abs((drifting - matched)[..., 0] - 0.1).max() < 1e-5


def test_matching_in_tiles_is_matching_the_whole(network):
    image = 0.3 + 0.4 * picture(70, 80)
    whole_at_once, tiled = (
        Engine(network, device="cpu", precision="fp32", tile=tile, match_color=True).run(image) for tile in (200, 20)
    )
    assert np.abs(whole_at_once - tiled).max() < 2e-3


def test_low_frequencies_of_a_flat_picture_are_exact():
    lr = torch.full((1, 3, 5, 7), 0.25)
    sr = torch.full((1, 3, 20, 28), 0.5)
    assert torch.allclose(with_low_frequencies(sr, lr), torch.tensor(0.25), atol=1e-6)
