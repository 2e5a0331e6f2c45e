"""Kernels that bytes hold: nothing left to round, and what the network makes is what it made."""

import argparse
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from sa_upscale import checkpoints, images, models
from sa_upscale.errors import UpscaleError
from sa_upscale.models import int8
from sa_upscale.models.bands import Conv
from tests.conftest import ROOT
from tools import round_kernels

EXAMPLE = ROOT / "examples" / "dragonfly.jpg"


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = models.build("compact", scale=2, features=16, convs=7).eval().requires_grad_(False)
    for layer in network.layers():
        layer.weight += 0.05 * torch.randn_like(layer.weight)
        layer.bias += 0.05 * torch.randn_like(layer.bias)
    return network


def crops(count: int, seed: int = 0) -> list[torch.Tensor]:
    pixels = torch.from_numpy(images.read(EXAMPLE).pixels.copy()).movedim(-1, 0)[None].float() / 255
    corners = np.random.default_rng(seed).integers(0, min(pixels.shape[2:]) - 24, (count, 2))
    return [pixels[..., top : top + 24, left : left + 24] for top, left in corners]


def squared_error(network: torch.nn.Module, other: torch.nn.Module, pictures: list[torch.Tensor]) -> float:
    return float(np.mean([F.mse_loss(network(x), other(x)).item() for x in pictures]))


def rounded_to_the_nearest(network: torch.nn.Module) -> torch.nn.Module:
    nearest = models.build("compact", **network.parameters_dict).eval().requires_grad_(False)
    nearest.load_state_dict(network.state_dict())
    for layer in [layer for layer in nearest.layers() if int8.multiplies(layer)][2:-1]:
        steps = int8.steps(layer.weight)[:, None, None, None]
        layer.weight.copy_((layer.weight / steps).round() * steps)
    return nearest


@torch.inference_mode()
def test_rounded_kernels_make_nearly_what_they_made(network):
    made, seen, others = round_kernels.rounded(network, crops(12)), crops(12), crops(8, seed=1)
    assert not int8.rounded(network.layers())
    assert int8.rounded(made.layers())
    nearest = rounded_to_the_nearest(network)
    assert int8.rounded(nearest.layers())
    assert squared_error(network, made, seen) < 0.5 * squared_error(network, nearest, seen)
    assert squared_error(network, made, others) < 0.7 * squared_error(network, nearest, others)
    for layer, before in zip(made.layers(), network.layers(), strict=True):
        assert (layer.weight - before.weight).abs().max() < 0.2 * before.weight.abs().max()


@torch.inference_mode()
def test_they_are_rounded_in_half_precision_too_and_seen_not_to_be_when_one_changes(network):
    made = round_kernels.rounded(network, crops(4)).half().float()
    assert int8.rounded(made.layers())
    first = int8.rounded(made.layers())[0]
    first.weight[3, 4, 0, 1] += 0.5 * int8.steps(first.weight)[3]
    assert len(int8.rounded(made.layers())) == 4


def test_networks_as_they_were_trained_are_not_taken_for_rounded(network):
    assert int8.rounded(network.layers()) == []
    assert int8.rounded(checkpoints.load("vsrresnet-x4").model.layers()) == []


@torch.inference_mode()
def test_the_first_and_the_last_are_left(network):
    for exact, count in ((2, 5), (4, 3)):
        made = round_kernels.rounded(network, crops(2), exact)
        ours, before = made.layers(), network.layers()
        assert int8.rounded(ours) == ours[1 + exact : -1]
        assert len(int8.rounded(ours)) == count
        assert torch.equal(ours[exact].weight, before[exact].weight)
        assert torch.equal(ours[-1].weight, before[-1].weight)


@pytest.mark.skipif(not int8.able(), reason="this processor or torch has no fast int8")
@pytest.mark.parametrize("tail", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_what_was_rounded_is_taken_as_it_is(network, monkeypatch, tail):
    made = round_kernels.rounded(network, crops(12))
    monkeypatch.setattr(int8, "_noise", lambda network: pytest.fail("its channels were looked at"))
    fast = int8.converted(made, tail)
    monkeypatch.undo()
    plain = [layer.weight.dtype for layer in fast.in_place_of_layers if isinstance(layer, Conv)]
    assert plain == [tail] * (1 + 2 + 1)
    assert len(fast.in_place_of_layers) == len(plain) + 5
    others = crops(8, seed=1)
    assert fast(others[0]).dtype == torch.float32
    if tail == torch.float32:
        assert squared_error(made, fast, others) < 0.5 * squared_error(network, int8.converted(network), others)
    else:
        assert squared_error(made, fast, others) < 1e-4


def test_a_file_is_rounded_and_keeps_what_it_says_of_itself(network, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = images.read(EXAMPLE).pixels
    for index in range(3):
        Image.fromarray(pixels[:240, 100 * index : 100 * index + 240]).save(photos / f"{index}.png")
    file, target = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    told = {"hours": "2", "int8_loss": "0.5"}
    facts = {"architecture": "compact", "parameters": network.parameters_dict}
    checkpoints.save(file, network.state_dict(), **facts, metadata=told)
    arguments = argparse.Namespace(
        checkpoint=str(file), target=target, data=[str(photos)], validation=str(photos), config="compact-x2"
    )
    vars(arguments).update(exact=2, seed=1)
    sha256 = round_kernels.write(arguments)
    assert capsys.readouterr().out.count("on 3 validation pictures") == (2 if int8.able() else 1)
    made = checkpoints.load(target)
    assert made.sha256 == sha256
    assert int8.rounded(made.model.layers())
    assert made.metadata["hours"] == "2"
    assert "--exact 2" in made.metadata["rounded"]
    assert made.model.int8_loss == math.inf
    other = models.build("srresnet")
    checkpoints.save(file, other.state_dict(), architecture="srresnet", parameters=other.parameters_dict, metadata={})
    with pytest.raises(UpscaleError, match="not a plain chain"):
        round_kernels.write(arguments)
