"""Networks compiled by torch, where that can be done."""

import shutil

import numpy as np
import pytest
import torch

from sa_upscale.engine import Engine, compiling
from sa_upscale.models.compact import Compact
from sa_upscale.models.vsrresnet import VSRResNet


def picture(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))), reason="there is no C++ compiler")
def test_a_compiled_network_makes_the_same_pictures():
    torch.manual_seed(0)
    network = Compact(features=4, convs=0)
    plain, engine = (Engine(network, device="cpu", precision="fp32", compile=compile) for compile in (False, True))
    assert plain.fingerprint != engine.fingerprint  # a video begun without it is another one
    for size in ((20, 24), (31, 17)):
        np.testing.assert_allclose(engine.run(picture(*size)).astype(int), plain.run(picture(*size)), atol=1)


@pytest.mark.parametrize("network", [Compact(features=4, convs=1), VSRResNet(blocks=1, features=4)])
def test_where_it_cannot_be_compiled_it_runs_as_it_is(network, monkeypatch):
    calls = []

    def broken(network):
        def fail(x):
            calls.append(x)
            raise torch._dynamo.exc.BackendCompilerFailed(fail, RuntimeError("no compiler"), None)

        network.forward = network.from_prepared = fail
        return network

    monkeypatch.setattr(compiling, "compiled", broken)
    notices = []
    engine = Engine(network, device="cpu", compile=True, on_notice=notices.append)
    plain = Engine(network, device="cpu")
    frames = [picture(12, 16 + column) for column in (0, 0)]
    for frame in frames:
        made, wanted = (runner.run_prepared([runner.prepare(frame)] * network.window) for runner in (engine, plain))
        assert np.array_equal(made, wanted)
    assert len(calls) == 1
    assert len(notices) == 1
    assert "C++ compiler" in notices[0]


def test_what_the_network_itself_raises_is_not_the_compilers(monkeypatch):
    network = Compact(features=4, convs=1)

    def raising(network):
        def fail(x):
            raise RuntimeError("of its own")

        network.forward = fail
        return network

    monkeypatch.setattr(compiling, "compiled", raising)
    with pytest.raises(RuntimeError, match="of its own"):
        Engine(network, device="cpu", compile=True).run(picture(8, 8))
