"""What the engine offers to videos alone."""

import numpy as np
import pytest
import torch

from sa_upscale.engine import MOST_AT_ONCE, Engine
from sa_upscale.models.compact import Compact
from sa_upscale.models.srresnet import SRResNet


def network(seed=0):
    torch.manual_seed(seed)
    model = Compact(scale=2, features=8, convs=2)
    torch.nn.init.normal_(model.tail.weight, std=0.1)
    return model


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [None, 16])
def test_frames_together_are_the_same_as_each_alone(kind, tile):
    engine = Engine(network(), device="cpu", precision="fp32", tile=tile)
    frames = [np.random.default_rng(at).integers(0, np.iinfo(kind).max, (24, 40, 3), kind) for at in range(3)]
    together = engine.run_batch(frames)
    for ours, frame in zip(together, frames, strict=True):
        alone = engine.run(frame)
        assert ours.dtype == kind
        assert ours.flags.c_contiguous
        assert np.abs(ours.astype(int) - alone).max() <= (1 if kind == np.uint8 else 257)
    assert (together[0] != together[1]).any()


def test_a_batch_is_of_one_size():
    engine = Engine(network(), device="cpu", precision="fp32")
    with pytest.raises(ValueError, match="differ"):
        engine.run_batch([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)])


def test_only_a_gpu_takes_several_small_frames():
    engine = Engine(network(), device="cpu", precision="fp32")
    small, large = np.zeros((96, 96, 3), np.uint8), np.zeros((600, 600, 3), np.uint8)
    assert engine.frames_at_once(small) == 1
    engine.device = torch.device("cuda")
    assert engine.frames_at_once(small) == MOST_AT_ONCE
    assert engine.frames_at_once(np.zeros((300, 300, 3), np.uint8)) == 2
    assert engine.frames_at_once(large) == 1


def test_the_fingerprint_tells_what_decides_the_result():
    def fingerprint(model, **options):
        return Engine(model, device="cpu", **options).fingerprint

    first = fingerprint(network(), precision="fp32")
    assert fingerprint(network(), precision="fp32") == first
    others = [fingerprint(network(1), precision="fp32"), fingerprint(network(), precision="bf16")]
    others += [fingerprint(network(), precision="fp32", tile=64)]
    assert len({first, *others}) == 4
    assert len(fingerprint(SRResNet(scale=4, blocks=1, features=4), precision="fp32")) == 64
