"""Measure how fast the tool is, and where its time goes: `python -m benchmarks [PART…]`, all parts by default.

    machine    products of matrices and copies of memory: what the processor can do at most
    networks   every network at its real size against the plain way and against its own convolutions alone
    start      `--help` and the first tile, against the imports they cannot do without
    image      a photo of one megapixel from command to file, and a batch of 200 small JPEGs
    stages     the seconds of each stage of one photo
    video      a clip against its frames in memory
    memory     peak of a 4000×3000 photo at ×4
    quality    Set5 in the fast number type against float32 (needs --shared)

Every comparison interleaves its two sides in one run and quotes medians, because machines drift and are shared.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import chart, journey, machine, quality, video
from benchmarks.batch import batch
from benchmarks.networks import networks
from benchmarks.pairs import pairwise

PARTS = ("machine", "networks", "start", "image", "stages", "video", "memory", "quality")


def help_text(runs: int) -> dict[str, float]:
    """`--help` against a Python that imports typer and rich; aim: at most 1.5."""
    ours = [sys.executable, "-m", "sa_upscale", "--help"]
    bare = [sys.executable, "-c", "import typer, rich"]
    return pairwise(lambda: _quietly(ours), lambda: _quietly(bare), runs)


def memory() -> dict[str, float]:
    """Peak resident gigabytes of `image` on a 4000×3000 photo at ×4; aim: under 3."""
    with tempfile.TemporaryDirectory() as folder:
        source = journey.photo(Path(folder) / "photo.jpg", 4000)
        before = time.perf_counter()
        _quietly(journey.command(source, Path(folder) / "result.png"))
        elapsed = time.perf_counter() - before
    return {"seconds": elapsed, "gigabytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6}


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def measure(part: str, runs: int, shared: Path | None) -> Iterable[tuple[str, dict[str, float]]]:
    """What the figures of one part are of, and they, as soon as they are there."""
    work: dict[str, Callable[[], Iterable[tuple[str, dict[str, float]]]]] = {
        "machine": lambda: [("this machine", machine.ceilings())],
        "networks": lambda: networks(runs),
        "start": lambda: [
            ("`--help` against importing typer and rich", help_text(runs)),
            ("`image` on 16×16, whole command, against importing torch", journey.first_tile(runs)),
        ],
        "image": lambda: [
            ("`image` on 1024×1024, start-up taken off, against its network", journey.whole_command(min(runs, 5))),
            ("200 small JPEGs from file to file against the network alone", batch(min(runs, 5))),
        ],
        "stages": lambda: [("`image` on 1024×1024", journey.stages())],
        "video": lambda: (
            (f"{model} on a clip against its frames in memory", video.overlap(model, min(runs, 5)))
            for model in ("compact", "vsrresnet")
        ),
        "memory": lambda: [("`image` on 4000×4000", memory())],
        "quality": lambda: quality.quality(shared) if shared else [],
    }
    return work[part]()


def table(part: str, figures: dict[str, dict[str, float]]) -> str:
    """The figures of one part in Markdown."""
    lines: list[str] = []
    if part == "networks":
        lines.append(
            "| network | ours, s | fp32 NCHW, s | times as fast | convolutions alone, s | of ceiling | GFLOP/s |"
        )
        lines.append("|---|---:|---:|---:|---:|---:|---:|")
        for name, got in figures.items():
            spread = f"{1 / got['ratio']:.2f} ({1 / got['highest']:.2f} to {1 / got['lowest']:.2f})"
            lines.append(
                f"| {name} | {got['ours']:.3f} | {got['other']:.3f} | {spread} | {got['ceiling']:.3f} "
                f"| {got['of ceiling']:.0%} | {got['GFLOP/s']:.0f} |"
            )
    elif part in ("start", "image", "video"):
        lines.append("| what | ours, s | other, s | ratio (lowest to highest) |\n|---|---:|---:|---:|")
        for what, got in figures.items():
            spread = f"{got['ratio']:.2f} ({got['lowest']:.2f} to {got['highest']:.2f})"
            lines.append(f"| {what} | {got['ours']:.3f} | {got['other']:.3f} | {spread} |")
    elif part == "quality":
        quality.report(figures, lines.append)
    else:
        lines.append("| what | figure |\n|---|---:|")
        for what, got in figures.items():
            lines.extend(f"| {what}: {name} | {value:.3g} |" for name, value in got.items())
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--runs", type=int, default=7, help="counted runs of each pair")
    parser.add_argument("--shared", type=Path, help="the folder with data/bench/Set5")
    parser.add_argument("--json", type=Path, help="keep the raw figures in this file, beside those of other parts")
    parser.add_argument("--chart", type=Path, help="draw the networks' ratios into this PNG (needs matplotlib)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known are {', '.join(PARTS)}")
    kept = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    for part in arguments.parts or PARTS:
        kept[part] = {}
        for name, figures in measure(part, arguments.runs, arguments.shared):
            # A run of half an hour that is cut off leaves what it has.
            kept[part][name] = figures
            print(f"{part}: {name}", file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(f"### {part}\n\n{table(part, kept[part])}\n", flush=True)
    if arguments.chart:
        bars = {name: (1 / got["ratio"], got["of ceiling"]) for name, got in kept["networks"].items()}
        chart.draw(bars, arguments.chart)


if __name__ == "__main__":
    main()
