"""Weights mixed between a checkpoint and its sibling."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from sa_upscale import checkpoints
from sa_upscale.errors import UpscaleError
from sa_upscale.models.compact import Compact
from sa_upscale.upscale import Networks


@pytest.fixture
def siblings(tmp_path, monkeypatch):
    """Checkpoints in a folder: `sharp-x2` with its fidelity sibling `soft-x2`, `odd-x2` with one that does not fit."""
    entries = {}
    for seed, (name, features, fidelity) in enumerate(
        [("sharp-x2", 4, "soft-x2"), ("soft-x2", 4, None), ("odd-x2", 4, "other-x2"), ("other-x2", 5, None)]
    ):
        torch.manual_seed(seed)
        model = Compact(features=features, convs=1, scale=2)
        file = tmp_path / f"{name}.safetensors"
        sha256 = checkpoints.save(
            file, model.state_dict(), architecture="compact", parameters=model.parameters_dict, metadata={}
        )
        entries[name] = checkpoints.Entry(
            name, name[:-3], "compact", 2, 1, "made", "none", file=file.name, sha256=sha256, fidelity=fidelity
        )
    for room in (checkpoints, checkpoints.registry):
        monkeypatch.setattr(room, "entries", lambda: entries)
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(tmp_path))
    return entries


def weights(name, **options):
    (engine,) = Networks(name, device="cpu", precision="fp32", **options).for_scale(2)
    return engine._source.state_dict()


def test_strength_is_the_way_from_the_sibling_to_the_checkpoint(siblings):
    sharp, soft = weights("sharp-x2"), weights("soft-x2")
    for share in (0.0, 0.3, 1.0):
        mixed = weights("sharp", strength=share)
        for name, values in mixed.items():
            assert torch.allclose(values, share * sharp[name] + (1 - share) * soft[name], atol=1e-6)
    assert all(torch.equal(values, sharp[name]) for name, values in weights("sharp", strength=1).items())
    assert all(torch.equal(values, soft[name]) for name, values in weights("sharp", strength=0).items())


def test_what_int8_costs_is_not_known_of_a_mixture(siblings):
    siblings["sharp-x2"] = dataclasses.replace(siblings["sharp-x2"], int8_loss=0.01)
    for options, known in (({}, 0.01), ({"strength": 1}, 0.01), ({"strength": 0.9}, math.inf)):
        (engine,) = Networks("sharp-x2", device="cpu", precision="fp32", **options).for_scale(2)
        assert engine._source.int8_loss == known


def test_denoise_mixes_with_the_sibling_that_leaves_noise(siblings):
    siblings["sharp-x2"] = dataclasses.replace(siblings["sharp-x2"], denoise="soft-x2")
    mixed, soft = weights("sharp-x2", denoise=0), weights("soft-x2")
    assert all(torch.equal(values, soft[name]) for name, values in mixed.items())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("soft-x2", {"strength": 0.5}, "soft-x2 has no sibling to set the strength with; take sharp-x2 or odd-x2"),
        ("sharp-x2", {"denoise": 0.5}, "no sibling to set the denoise with; no checkpoint offers it yet"),
        ("odd-x2", {"strength": 0.5}, "odd-x2 and other-x2 are different networks"),
        ("sharp-x2", {"strength": 1.5}, "from 0 to 1"),
    ],
)
def test_what_cannot_be_mixed_is_refused(siblings, name, options, words):
    with pytest.raises(UpscaleError, match=words):
        Networks(name, device="cpu", **options).for_scale(2)


def test_a_file_has_no_sibling(siblings, tmp_path):
    with pytest.raises(UpscaleError, match="no sibling"):
        Networks(tmp_path / "sharp-x2.safetensors", device="cpu", strength=0.5).for_scale(2)


def test_networks_are_loaded_once_for_all_scales(siblings):
    networks = Networks("sharp", device="cpu")
    assert networks.for_scale(0.5) == []
    (first,) = networks.for_scale(1.5)
    assert networks.for_scale(4) == [first, first]
    assert first.run(np.zeros((3, 4, 3), np.uint8)).shape == (6, 8, 3)


def test_a_result_names_the_checkpoints_in_their_order(siblings, tmp_path):
    networks = Networks("sharp", device="cpu", precision="fp32")
    assert (networks.names(2), networks.names(4), networks.names(0.5)) == (["sharp-x2"], ["sharp-x2"], [])
    file = tmp_path / "soft-x2.safetensors"
    assert Networks(file, device="cpu", precision="fp32").names(3) == ["soft-x2.safetensors"]
