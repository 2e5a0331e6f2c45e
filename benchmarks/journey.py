"""One photo from the command to its file: start-up, and where the rest of the time goes."""

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.pairs import pairwise, seconds_of
from sa_upscale import checkpoints, images
from sa_upscale.engine import Engine

SIDE = 1024
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "dragonfly.jpg"


def photo(path: Path, side: int) -> Path:
    """A JPEG of `side` pixels with the detail of the example photo, which is repeated and mirrored."""
    pixels = np.asarray(Image.open(EXAMPLE))
    times = -(-side // min(pixels.shape[:2]))
    wide = np.concatenate([pixels[:, :: (-1) ** number] for number in range(times)], axis=1)
    whole = np.concatenate([wide[:: (-1) ** number] for number in range(times)])
    Image.fromarray(whole[:side, :side]).save(path, quality=92)
    return path


def command(source: Path, target: Path) -> list[str]:
    return [sys.executable, "-m", "sa_upscale", "image", str(source), "-x4", "--device", "cpu", "-o", str(target)]


def first_tile(runs: int) -> dict[str, float]:
    """The whole command on a picture of 16×16 against a Python that imports torch; aim: at most 1.3."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = photo(Path(folder) / "tiny.jpg", 16)
        ours = command(tiny, Path(folder) / "tiny.png")
        return pairwise(lambda: _quietly(ours), lambda: _quietly([sys.executable, "-c", "import torch"]), runs)


def whole_command(runs: int) -> dict[str, float]:
    """The command on a photo of one megapixel against 1 × its network's time + the command on a tiny picture.

    Aim: at most 1.25 times the network's time, once start-up is taken off.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny, large = photo(folder / "tiny.jpg", 16), photo(folder / "large.jpg", SIDE)
        engine = Engine(checkpoints.load("compact-x4").model, device="cpu")
        pixels = images.read(large).pixels
        engine.run(pixels)
        rounds = [
            (
                seconds_of(lambda: _quietly(command(large, folder / "large.png"))),
                seconds_of(lambda: _quietly(command(tiny, folder / "tiny.png"))),
                seconds_of(lambda: engine.run(pixels)),
            )
            for _ in range(runs)
        ]
    ratios = sorted((whole - start) / network for whole, start, network in rounds)
    return {
        "ours": statistics.median(whole for whole, _, _ in rounds),
        "start-up": statistics.median(start for _, start, _ in rounds),
        "other": statistics.median(network for _, _, network in rounds),
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
    }


def stages() -> dict[str, float]:
    """Seconds of each stage for one photo in a process of its own that has not done anything before."""
    with tempfile.TemporaryDirectory() as folder:
        source = photo(Path(folder) / "photo.jpg", SIDE)
        script = f"from benchmarks.journey import walk; walk({str(source)!r}, {str(source.with_suffix('.png'))!r})"
        began = time.time()
        output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    marks = [line.split("\t") for line in output.splitlines()]
    figures = {"start-up": float(marks[0][1]) - began}
    return figures | {name: float(seconds) for name, seconds in marks[1:]}


def walk(source: str, target: str) -> None:
    """Print the seconds of each stage; run by `stages`."""
    print("begun", time.time(), sep="\t")
    with _timed("load"):
        engine = Engine(checkpoints.load("compact-x4").model, device="cpu")
    with _timed("decode"):
        picture = images.read(Path(source))
    spent = [0.0]
    rows_of = engine._passes.parts

    def timed(*arguments: object) -> Iterator[torch.Tensor]:
        parts = iter(rows_of(*arguments))
        while True:
            before = time.perf_counter()
            part = next(parts, None)
            spent[0] += time.perf_counter() - before
            if part is None:
                return
            yield part

    engine._passes.parts = timed
    before = time.perf_counter()
    picture.pixels = engine.run(picture.pixels)
    print("network", spent[0], sep="\t")
    print("cut, blend and round", time.perf_counter() - before - spent[0], sep="\t")
    with _timed("encode and write"):
        images.write(Path(target), picture)


@contextlib.contextmanager
def _timed(name: str) -> Iterator[None]:
    before = time.perf_counter()
    yield
    print(name, time.perf_counter() - before, sep="\t")


def _quietly(arguments: list[str]) -> None:
    subprocess.run(arguments, check=True, capture_output=True)
