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


def whole(network):
    """The network as one that does not work in bands of rows."""
    network.banded = False
    return network


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))), reason="there is no C++ compiler")
def test_a_compiled_network_makes_the_same_pictures():
    torch.manual_seed(0)
    network = whole(Compact(features=4, convs=0))
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
    whole(network)
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
    network = whole(Compact(features=4, convs=1))

    def raising(network):
        def fail(x):
            raise RuntimeError("of its own")

        network.forward = fail
        return network

    monkeypatch.setattr(compiling, "compiled", raising)
    with pytest.raises(RuntimeError, match="of its own"):
        Engine(network, device="cpu", compile=True).run(picture(8, 8))


def test_what_is_faster_in_bands_of_rows_is_not_compiled(monkeypatch):
    monkeypatch.setattr(compiling, "compiled", lambda network: pytest.fail("compiled"))
    notices = []
    engine = Engine(Compact(features=4, convs=1), device="cpu", compile=True, on_notice=notices.append)
    engine.run(picture(8, 8))
    assert len(notices) == 1
    assert "faster as it is" in notices[0]
