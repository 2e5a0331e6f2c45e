"""A very large picture from file to file: `python -m benchmarks.large --width 20000 --height 15000 --scale 2`.

Prints the time and the peak of resident memory of `sa-upscale image`, with a small untrained network or that of
`--model`.  That memory follows the strip shows in two heights with one peak.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sa_upscale import checkpoints, images
from sa_upscale.models.compact import Compact

BAND = 500


def bands(width: int, height: int) -> Iterator[np.ndarray]:
    """Waves, and noise in the lowest bits, so that neither file nor result is trivially small."""
    generator = np.random.default_rng(0)
    x = np.arange(width, dtype=np.float32)
    for top in range(0, height, BAND):
        y = np.arange(top, min(top + BAND, height), dtype=np.float32)[:, None]
        wave = 128 + 100 * np.sin(x / 90) * np.cos(y / 70)
        noise = generator.integers(0, 4, (*wave.shape, 3), dtype=np.uint8)
        yield wave.astype(np.uint8)[..., None] + noise


def small_network(file: Path, scale: int) -> Path:
    torch.manual_seed(0)
    model = Compact(features=4, convs=1, scale=scale)
    checkpoints.save(file, model.state_dict(), architecture="compact", parameters=model.parameters_dict, metadata={})
    return file


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--width", type=int, default=20000)
    parser.add_argument("--height", type=int, default=15000)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--source", default="png", help="png, tiff or jpeg")
    parser.add_argument("--model", help="a checkpoint; a small untrained network by default")
    parser.add_argument("--result", default="png", help="png or tiff")
    arguments = parser.parse_args()
    width, height, scale = arguments.width, arguments.height, arguments.scale
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / f"in.{arguments.source}", Path(folder) / f"out.{arguments.result}"
        if images.streams(arguments.source):
            images.write_rows(source, images.blank(height, width, 3, "uint8", False), bands(width, height))
        else:
            images.write(source, images.Picture(np.concatenate(list(bands(width, height)))))
        weights = arguments.model or small_network(Path(folder) / "small.safetensors", scale)
        command = [sys.executable, "-m", "sa_upscale", "image", source, "-x", scale, "-o", target, "--model", weights]
        started = time.perf_counter()
        subprocess.run([*map(str, command), "--device", "cpu", "--max-pixels", "10000"], check=True)
        elapsed = time.perf_counter() - started
        opened = images.opened(target, max_pixels=2**62)
        assert (opened.width, opened.height) == (width * scale, height * scale)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(f"{source.name} {width}x{height} -> {target.name} x{scale}: {elapsed:.0f} s, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
