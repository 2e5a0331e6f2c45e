"""Run the benchmarks and print a Markdown table; `--json FILE` keeps the raw figures.

Every comparison interleaves its two sides in one run and quotes medians, because machines drift and are shared.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import video
from benchmarks.batch import batch
from benchmarks.pairs import pairwise
from sa_upscale import models
from sa_upscale.engine import Engine


def start_up(runs: int) -> dict[str, float]:
    """`--help` against a Python that imports typer and rich; aim: at most 1.5."""
    ours = [sys.executable, "-m", "sa_upscale", "--help"]
    bare = [sys.executable, "-c", "import typer, rich"]
    return pairwise(lambda: _quietly(ours), lambda: _quietly(bare), runs)


def network(runs: int) -> dict[str, float]:
    """The compact network's engine on 512×512 against the plain way: float32, NCHW, the whole picture at once."""
    model = models.build("compact").eval()
    picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    engine = Engine(model)

    @torch.inference_mode()
    def plain() -> torch.Tensor:
        x = torch.from_numpy(picture).movedim(-1, 0)[None].float() / 255
        return (model(x)[0].clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()

    return pairwise(lambda: engine.run(picture), plain, runs)


def memory() -> dict[str, float]:
    """Peak resident gigabytes of `image` on a 4000×3000 photo at ×4; aim: under 3."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "photo.jpg"
        coarse = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((4000, 3000), Image.BICUBIC).save(source, quality=90)
        before = time.perf_counter()
        _quietly([sys.executable, "-m", "sa_upscale", "image", str(source), "-x4", "--device", "cpu"])
        elapsed = time.perf_counter() - before
    return {"ours": elapsed, "gigabytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6}


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="counted runs of each pair")
    parser.add_argument("--json", type=Path, help="also write the raw figures to this file")
    arguments = parser.parse_args()
    figures = {
        "`--help` against importing typer and rich": start_up(arguments.runs),
        "compact x4 on 512x512 against fp32, NCHW, whole": network(arguments.runs),
        "`image` on 4000x3000 at x4, peak memory": memory(),
        "200 small JPEGs from file to file against the network alone": batch(arguments.runs),
        "compact x4 on a clip against its frames in memory": video.overlap("compact", arguments.runs),
    }
    print("| what | ours, s | other, s | ratio (lowest to highest) |\n|---|---|---|---|")
    for what, got in figures.items():
        if "gigabytes" in got:
            print(f"| {what} | {got['ours']:.1f} | | {got['gigabytes']:.2f} GB |")
        else:
            spread = f"{got['ratio']:.2f} ({got['lowest']:.2f} to {got['highest']:.2f})"
            print(f"| {what} | {got['ours']:.3f} | {got['other']:.3f} | {spread} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
