"""Every network at its real size: the engine against the plain way, and against the ceiling of its convolutions.

The plain way is what other tools do on a processor: float32, channels first, the whole picture at once.
"""

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from torch import nn

from benchmarks.machine import Convolutions
from benchmarks.pairs import pairwise
from sa_upscale import checkpoints, models
from sa_upscale.engine import Engine, precisions
from sa_upscale.models import active, bands, int8


@dataclass(frozen=True)
class Case:
    """A network and the LR picture it is measured on."""

    name: str
    build: Callable[[], nn.Module]
    height: int
    width: int


def _srresnet() -> nn.Module:
    """One that does not begin with black, which the engine would take for a fault of the number type."""
    model = models.build("srresnet")
    nn.init.constant_(model.conv_last.bias, 0.5)
    return model


CASES = (
    Case("RRDBNet, 23 blocks, 128×128", lambda: models.build("rrdbnet"), 128, 128),
    Case("RRDBNet, 23 blocks, 320×240", lambda: models.build("rrdbnet"), 240, 320),
    Case("RRDBNet, 6 blocks, 256×256", lambda: models.build("rrdbnet", blocks=6), 256, 256),
    Case("SRResNet, 256×256", _srresnet, 256, 256),
    # As shipped: int8 takes kernels that are rounded otherwise.
    Case("compact, 256×256", lambda: checkpoints.load("compact-x4").model, 256, 256),
    Case("compact, 1024×1024", lambda: checkpoints.load("compact-x4").model, 1024, 1024),
    Case("compact-video, 640×360", lambda: checkpoints.load("compact-video-x4-fidelity").model, 360, 640),
    Case("VSRResNet, 160×96", lambda: models.build("vsrresnet", global_skip=True), 96, 160),
    Case("VSRResNet, 320×180", lambda: models.build("vsrresnet", global_skip=True), 180, 320),
)


def measure(case: Case, precision: str, runs: int) -> dict[str, float]:
    """Seconds of the engine and of the plain way in turn, and what part of the conv ceiling the engine reaches.

    The engine and the convolutions alone run in a process that keeps its memory, as the commands have it; the plain way
    in one of its own, which is as it is.
    """
    model = _built(case)
    picture = np.random.default_rng(0).integers(0, 256, (case.height, case.width, 3), dtype=np.uint8)
    engine = Engine(model, device="cpu", precision=precision, keep_memory=True)
    prepared = [engine.prepare(picture)] * model.window

    def ours() -> np.ndarray:
        # A frame of a video: only one of the five is new.
        return engine.run_prepared([*prepared[1:], engine.prepare(picture)])

    with _elsewhere(case, picture) as the_plain_way:
        figures = pairwise(ours, the_plain_way, runs)
    if engine.precision != precision:
        raise RuntimeError(f"{case.name} was run in {engine.precision}, not in {precision}")
    convolutions = Convolutions(model, lambda network: _whole(network, _input(model, picture)))
    alone = convolutions.seconds(precision)
    return figures | {
        "times as fast": figures["other"] / figures["ours"],
        "ceiling": alone,
        "of ceiling": alone / figures["ours"],
        "GFLOP/s": convolutions.operations / figures["ours"] / 1e9,
    }


def _built(case: Case) -> nn.Module:
    """The network of a case, with the same weights in every process."""
    torch.manual_seed(0)
    return case.build().eval().requires_grad_(False)


@contextlib.contextmanager
def _elsewhere(case: Case, picture: np.ndarray) -> Iterator[Callable[[], object]]:
    """What has another process do it the plain way, and waits for it."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_serve, args=(theirs, CASES.index(case), picture), daemon=True)
    process.start()

    def once() -> None:
        ours.send(True)
        ours.recv()

    try:
        yield once
    finally:
        ours.send(False)
        process.join()


def _serve(pipe, number: int, picture: np.ndarray) -> None:
    model = _built(CASES[number])
    while pipe.recv():
        plain(model, picture)
        pipe.send(None)


@torch.inference_mode()
def plain(model: nn.Module, picture: np.ndarray) -> np.ndarray:
    """The whole picture at once in float32, channels first."""
    sr = _whole(model, _input(model, picture))[0]
    return sr.clamp(0, 1).mul(255).round().byte().movedim(0, -1).contiguous().numpy()


def _whole(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The network without what it does by itself: bands of rows, and a convolution and its activation at once."""
    with mock.patch.object(bands, "BYTES", sys.maxsize), mock.patch.object(active, "_fused", return_value=None):
        return model(x)


def _input(model: nn.Module, picture: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(picture).movedim(-1, 0)[None].float().div(255).contiguous()
    return torch.stack([x] * model.window, dim=1) if model.window > 1 else x


def networks(runs: int) -> Iterator[tuple[str, dict[str, float]]]:
    """`measure` for every case in the precision this processor is fast at, in float32, and in int8 where it can be."""
    for case in CASES:
        for precision in _precisions(case):
            yield f"{case.name}, {precision}", measure(case, precision, runs)


def _precisions(case: Case) -> list[str]:
    able = precisions(torch.device("cpu"))
    integers = ["int8"] if "int8" in able and int8.suits(case.build()) else []
    return list(dict.fromkeys((able[0], "fp32", *integers)))
