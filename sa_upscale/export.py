"""Networks for other runtimes: ONNX and TorchScript files, held against the network they were made of."""

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sa_upscale import __version__, checkpoints, images
from sa_upscale.errors import UpscaleError, near

FORMATS = {"onnx": ".onnx", "torchscript": ".pt"}
TOLERANCE = 1e-3  # of values in [0, 1]
EXAMPLE = (1, 12, 16)  # pictures, height and width, in the network's multiples
ONE_SIZE = "once exported, this network keeps the size it was exported with; no file was written"
TRIED = ((2, 20, 12), (1, 15, 31))  # sizes that the export has not seen


@dataclass(frozen=True)
class Exported:
    """A written file.

    `takes` is the shape of the input `lr`, float32 in [0, 1]: pictures `(N, 3, height, width)`, or windows of frames,
    `enlarged` telling that these must first be brought to the size of the result by bicubic.  `difference` is the
    largest to the network, over several sizes.
    """

    path: Path
    architecture: str
    scale: int
    takes: str
    enlarged: bool
    difference: float


class _Bounded(nn.Module):
    """The network with its result clamped to [0, 1]; from prepared frames where it prepares them."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        forward = getattr(self.network, "from_prepared", self.network)
        return forward(lr).clamp(0, 1)


def export(name: str | Path, target: Path, format: str) -> Exported:
    """Write the checkpoint `name` as "onnx" or "torchscript" to `target`, for any number and size of pictures.

    Raises `UpscaleError` for an unknown name or format, without the libraries of ONNX, for a network that works at one
    size only once exported, and for a result that differs from the network's by more than 1e-3.
    """
    if format not in FORMATS:
        raise UpscaleError(f"unknown format {format!r}; {near(format, FORMATS)}")
    if format == "onnx":
        _require("onnx", "onnxscript", "onnxruntime")
    checkpoint = checkpoints.load(name)
    network = _Bounded(checkpoint.model).eval().requires_grad_(False)
    facts = {"tool": f"sa-upscale {__version__}", "checkpoint": checkpoint.name, **checkpoint.metadata}
    content, run = {"onnx": _onnx, "torchscript": _torchscript}[format](network, facts)
    difference = _difference(network, run)
    if not difference <= TOLERANCE:
        raise UpscaleError(f"{checkpoint.name} as {format} differs from the network by {difference:.2g}; not written")
    with images.replacing(target) as file:
        file.write(content)
    window = checkpoint.model.window
    return Exported(
        target,
        checkpoint.metadata["architecture"],
        checkpoint.model.scale,
        "(N, 3, height, width)" if window == 1 else f"(N, {window}, 3, height, width)",
        hasattr(checkpoint.model, "from_prepared"),
        difference,
    )


def _require(*libraries: str) -> None:
    for library in libraries:
        try:
            importlib.import_module(library)
        except ImportError:
            raise UpscaleError(f"ONNX needs {library}, which is not here; pip install 'sa-upscale[onnx]'") from None


def _inputs(network: _Bounded, size: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    count, height, width = size
    model = network.network
    window = () if model.window == 1 else (model.window,)
    shape = (count, *window, model.channels, height * model.multiple, width * model.multiple)
    return torch.rand(shape, generator=torch.manual_seed(seed))


def _onnx(network: _Bounded, facts: dict[str, str]) -> tuple[bytes, Callable]:
    """The file, and what runs it."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    example = _inputs(network, EXAMPLE)
    sizes = {0: "batch", example.dim() - 2: "height", example.dim() - 1: "width"}
    with _quiet():
        try:
            program = torch.onnx.export(
                network, (example,), dynamic_shapes=(sizes,), input_names=["lr"], output_names=["sr"], verbose=False
            )
        except torch.onnx.OnnxExporterError:
            raise UpscaleError(
                "this network cannot be written as ONNX for pictures of any size; try --format torchscript"
            ) from None
    program.model.metadata_props.update(facts)
    content = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is told by us
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(lr: torch.Tensor) -> torch.Tensor:
        try:
            return torch.from_numpy(session.run(None, {"lr": lr.numpy()})[0])
        except (errors.Fail, errors.RuntimeException, errors.InvalidArgument):
            raise UpscaleError(ONE_SIZE) from None

    return content, run


def _torchscript(network: _Bounded, facts: dict[str, str]) -> tuple[bytes, Callable]:
    """The file, and what runs it."""
    with _quiet():
        traced = torch.jit.trace(network, _inputs(network, EXAMPLE), check_trace=False)
        stream = io.BytesIO()
        torch.jit.save(traced, stream, _extra_files={"sa-upscale.json": json.dumps(facts)})
        content = stream.getvalue()
        return content, torch.jit.load(io.BytesIO(content))


@torch.inference_mode()
def _difference(network: _Bounded, run: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """The largest difference between what the file and the network make of noise in sizes new to the file, or NaN."""
    largest = []
    for seed, size in enumerate(TRIED):
        lr = _inputs(network, size, seed)
        expected = network(lr)
        try:
            found = run(lr)
        except RuntimeError:
            # What torch and its scripts raise when sizes do not fit together.
            raise UpscaleError(ONE_SIZE) from None
        if found.shape != expected.shape:
            raise UpscaleError(ONE_SIZE)
        largest.append((found - expected).abs().max())
    return torch.stack(largest).max().item()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters say about themselves off the terminal."""
    loggers = {logger: logger.level for logger in map(logging.getLogger, ("torch.onnx", "onnxscript", "onnx_ir"))}
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, before in loggers.items():
            logger.setLevel(before)
