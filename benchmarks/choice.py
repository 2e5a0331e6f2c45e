"""What the choice of `--model auto` is worth: `python -m benchmarks.choice --shared ../shared [--scale 4]`.

Pictures of Kodak and BSD100 are reduced by bicubic, damaged by noise, JPEG and WebP, and enlarged by the networks for
clean pictures, those for slight and those for strong damage, and by what is chosen.  PSNR-Y and `vgg-percep` are of the
middle of each picture, a border of the scale left out; the JPEGs are judged with their quality known, as from a file,
and without, as if they had been saved as PNG since.  The table is for benchmarks/RESULTS.md.
"""

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sa_upscale import images, upscale
from sa_upscale.degrade import bicubic
from sa_upscale.functional.pixels import values
from sa_upscale.metrics import vgg_percep
from sa_upscale.metrics.psnr import psnr_y
from sa_upscale.upscale import damage
from sa_upscale.upscale.choosing import Choice

SCORED = 320  # pixels a side of the middle
LEVELS = (0, 1, 2)

Damaged = tuple[np.ndarray, int | None]


def damages() -> dict[str, Callable[[np.ndarray], Damaged]]:
    """Name → what is done to a picture; with it comes the quality that a file would tell."""
    generator = np.random.default_rng(0)

    def saved(pixels: np.ndarray, quality: int, kind: str = "JPEG") -> Damaged:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, quality=quality)
        picture = images.read(stream.getvalue())
        return picture.pixels, picture.quality

    def noisy(pixels: np.ndarray, sigma: float) -> np.ndarray:
        return np.clip(np.rint(pixels + generator.normal(0, sigma, pixels.shape)), 0, 255).astype(np.uint8)

    jpegs = {
        f"JPEG {quality}": lambda pixels, quality=quality: saved(pixels, quality) for quality in (95, 90, 80, 60, 40)
    }
    noises = {f"noise {sigma}": lambda pixels, sigma=sigma: (noisy(pixels, sigma), None) for sigma in (2, 4, 8, 16)}
    webps = {f"WebP {quality}": lambda pixels, quality=quality: saved(pixels, quality, "WEBP") for quality in (80, 50)}
    return {
        "none": lambda pixels: (pixels, None),
        **jpegs,
        **webps,
        **noises,
        "noise 4, JPEG 75": lambda pixels: saved(noisy(pixels, 4), 75),
    }


def originals(shared: Path, every: int) -> Iterator[np.ndarray]:
    bench = shared / "data/bench"
    files = (*sorted((bench / "Kodak12").iterdir()), *sorted((bench / "BSD100/HRx4").iterdir())[::10])
    for file in files[::every]:
        yield np.asarray(Image.open(file).convert("RGB"))


def middle(pixels: np.ndarray) -> np.ndarray:
    top, left = (max(0, side - SCORED) // 2 for side in pixels.shape[:2])
    return pixels[top : top + SCORED, left : left + SCORED]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choice", description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="the folder with data/")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--every", type=int, default=1, help="take only every so many of the 22 pictures")
    arguments = parser.parse_args()
    distance = vgg_percep.load(arguments.shared / "data/vgg/vgg19_conv1_1-conv3_4.safetensors")
    networks, scale, done = Choice(), arguments.scale, damages()
    scores: dict[tuple[str, int], list[tuple[float, float]]] = {}
    chosen: dict[tuple[str, bool], list[int]] = {}
    for whole in originals(arguments.shared, arguments.every):
        height, width = (side // scale * scale for side in whole.shape[:2])
        original = whole[:height, :width]
        wanted = values(middle(original))
        for name, harm in done.items():
            pixels, quality = harm(bicubic(original, scale))
            for known in (True, False):
                found = damage.measure(pixels, quality if known else None)
                chosen.setdefault((name, known), []).append(found.level(scale))
            for level in LEVELS:
                engines = networks.of_level(level).for_scale(scale)
                made = upscale.enlarge(images.Picture(pixels), engines, width, height).pixels
                ours = values(middle(made))
                with torch.no_grad():
                    score = float(psnr_y(ours, wanted, scale)), float(distance(ours, wanted))
                scores.setdefault((name, level), []).append(score)
    print(f"| ×{scale}, damage | clean PSNR-Y, vgg-percep | slight | strong | auto: file | auto: pixels | chosen |")
    print("|---|---|---|---|---|---|---|")
    for name in done:
        cells = [np.mean(scores[name, level], axis=0) for level in LEVELS]
        for known in (True, False):
            taken = [scores[name, level][at] for at, level in enumerate(chosen[name, known])]
            cells.append(np.mean(taken, axis=0))
        told = " ".join(
            f"{level}:{chosen[name, True].count(level)}/{chosen[name, False].count(level)}" for level in LEVELS
        )
        print(f"| {name} | " + " | ".join(f"{psnr:.2f}, {far:.4f}" for psnr, far in cells) + f" | {told} |")


if __name__ == "__main__":
    main()
