"""The batch around one model: 200 small JPEGs from file to file against the network's own time for the same pixels."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.pairs import pairwise
from sa_upscale import images, upscale

COUNT, SIZE = 200, (160, 120)


def photos(folder: Path) -> list[Path]:
    """Small JPEGs with the detail of photographs: blurred noise of several sizes."""
    generator = np.random.default_rng(0)
    files = []
    for index in range(COUNT):
        layers = [
            Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(SIZE, Image.BICUBIC)
            for side in (4, 20, 90)
        ]
        files.append(folder / f"{index:03}.jpg")
        Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8)).save(
            files[-1], quality=90
        )
    return files


def batch(runs: int) -> dict[str, float]:
    """`run_jobs` over the folder against the engine alone over the same pictures in memory; aim: at most 1.15."""
    with tempfile.TemporaryDirectory() as folder:
        files = photos(Path(folder))
        size = upscale.Size(4)
        upscaler = upscale.Upscaler("compact-x4", size)
        jobs = upscale.plan_jobs([folder], Path(folder) / "out", size=size)
        decoded = [images.read(file).pixels for file in files]
        (engine,) = upscaler.networks.for_scale(4)

        def whole() -> None:
            upscale.run_jobs(jobs, upscaler)

        return pairwise(whole, lambda: [engine.run(pixels) for pixels in decoded], runs)
