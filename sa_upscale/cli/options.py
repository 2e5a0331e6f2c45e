"""The options that several commands share, and how the texts of options are read."""

import enum
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sa_upscale.cli.terminal import Voice
from sa_upscale.defaults import SCALES
from sa_upscale.errors import UpscaleError


class Precision(enum.StrEnum):
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


class ClusterEngine(enum.StrEnum):
    PROCESSES = "processes"
    RAY = "ray"


def _model(more: str = "."):
    said = f"A checkpoint or family of `models list`, or a file{more}"
    return Annotated[str, typer.Option("--model", "-m", help=said, metavar="NAME|PATH")]


ModelOption = _model()
ImageModelOption = _model("; auto: compact, or compact-photo or compact-real for noise and compression.")
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:N or mps; the fastest there is by default.", show_default=False)
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        help="The type to compute in; the fastest that is safe by default.  int8, on a CPU and not for "
        "swinir and srresnet, is faster still, and for a few networks a little less exact."
    ),
]
TileOption = Annotated[
    int | None, typer.Option(min=16, help="Side of the tiles in source pixels; chosen from free memory by default.")
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile the network first: some ten seconds that long jobs win back.")
]
EngineOption = Annotated[
    ClusterEngine | None,
    typer.Option(help="Work over several devices: processes of this machine, or a Ray cluster.", show_default=False),
]
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="auto|HOST:PORT", help="The Ray cluster; by default this machine's, or one begun now."),
]
DevicesOption = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="A worker on each, such as cuda:0,cuda:1,cpu or 2*cpu; with Ray 8*cuda."),
]
ObjectiveOption = Annotated[
    str | None,
    typer.Option("--loss", metavar="NAME", help="A named objective: fidelity, esrgan, sa-lv, sa-canny, ldl, afm …"),
]
DataOption = Annotated[
    list[Path] | None,
    typer.Option("--data", help="A folder of HR pictures or clips; again for more, twice to draw from it twice."),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any field of the recipe, such as train.steps=1000."),
]
VGGOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A VGG19 with torchvision's keys; torchvision's own by default."),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the run's last state.")]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Progress and results as JSON lines on stdout (stderr when the picture goes there)."),
]


def scale_of(text: str | float) -> float:
    """How many times as wide and high, 1 to 8."""
    lowest, highest = SCALES
    try:
        scale = float(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a number; give one from {lowest} to {highest}, such as 4 or 2.5"
        ) from None
    if not lowest <= scale <= highest:
        raise typer.BadParameter(f"{text} is out of range; give a scale from {lowest} to {highest}")
    return scale


def shard_of(text: str | tuple) -> tuple[int, int]:
    """`I/N` as its two numbers."""
    from sa_upscale.cluster import shards

    try:
        return shards.parse(text) if isinstance(text, str) else text
    except UpscaleError as error:
        raise typer.BadParameter(str(error)) from None


def region_of(text: str) -> tuple[int, int, int, int]:
    """`X,Y,W,H` as its four numbers."""
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"{text}: give left, top, width and height in pixels, such as 40,60,128,128")
    left, top, width, height = map(int, numbers)
    if not (width and height):
        raise typer.BadParameter(f"{text}: a part without pixels")
    return left, top, width, height


def where_of(engine: ClusterEngine | None, address: str | None, devices: str | None, device: str | None):
    """Where a command is to do its work; false for this process."""
    from sa_upscale.cluster.setup import Where

    where = Where(engine and engine.value, address, devices)
    if where and device:
        raise typer.BadParameter("--device is that of one process; with --engine or several give --devices")
    return where


def how_to_run(
    device: str | None,
    precision: str | None,
    tile: int | None,
    compile: bool,
    say: Voice,
    progress: Callable,
    *,
    long: bool,
) -> dict:
    """How `upscale.load_engines` is to load and run the networks of a command; a `long` one is worth a measurement."""
    if long:
        from sa_upscale.engine import calibration

        calibration.settle(device, say.notice)
    return {
        "device": device,
        "precision": precision,
        "tile": tile,
        "compile": compile,
        "keep_memory": True,
        "on_notice": say.notice,
        "on_fetch": lambda name: functools.partial(progress, label=f"fetching {name}"),
    }
