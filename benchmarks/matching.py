"""Whether `--match-color` ever hurts: `python -m benchmarks.matching --shared ../shared`.

With a reference (Set5 and BSD100, ×4) the change of PSNR-Y of each picture; without one (RealSRSet) how far the result,
reduced to the size of its source, is from it, in 8-bit levels.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

from sa_upscale import images, upscale
from sa_upscale.functional.pixels import values
from sa_upscale.metrics import psnr_y

BORDER = 4
SETS = {"Set5": ("Set5/LRx4", "Set5/HRx4"), "BSD100": ("BSD100/LRx4", "BSD100/HRx4"), "RealSRSet": ("RealSRSet", None)}
LARGEST = 300_000  # pixels of a source that is taken whole


def quality(pixels: np.ndarray, reference: np.ndarray) -> float:
    inner = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return psnr_y(values(pixels[inner]), values(reference[inner])).item()


def drift(pixels: np.ndarray, source: np.ndarray) -> float:
    reduced = upscale.resized(np.ascontiguousarray(pixels), source.shape[1], source.shape[0])
    return float(np.abs(reduced.astype(int) - source).mean())


def coloured(file: Path) -> images.Picture:
    picture = images.read(file)
    return images.Picture(np.ascontiguousarray(np.broadcast_to(picture.pixels, (*picture.pixels.shape[:2], 3))))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matching", description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--model", default="compact-x4")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    plain, matched = (
        upscale.load_engines(arguments.model, 4, device="cpu", precision="fp32", match_color=on) for on in (False, True)
    )
    print("| set | measure | without | with | change of single pictures |\n|---|---|---:|---:|---|")
    for name, (low, high) in SETS.items():
        rows = []
        for file in sorted((arguments.shared / "data/bench" / low).glob("*.*")):
            source = coloured(file)
            if source.width * source.height > LARGEST:
                source = upscale.cropped(source, (0, 0, min(source.width, 500), min(source.height, 500)))
            size = (4 * source.width, 4 * source.height)
            results = [upscale.enlarge(source, engines, *size).pixels for engines in (plain, matched)]
            if high:
                reference = coloured(
                    next((arguments.shared / "data/bench" / high).glob(f"{file.stem.split('x4')[0]}*"))
                )
                rows.append([quality(result, reference.pixels) for result in results])
            else:
                rows.append([drift(result, source.pixels) for result in results])
        changes = [after - before for before, after in rows]
        without, with_it = (statistics.mean(column) for column in zip(*rows, strict=True))
        what = "PSNR-Y, dB" if high else "mean distance from the source, levels"
        print(
            f"| {name} ({len(rows)}) | {what} | {without:.3f} | {with_it:.3f} | "
            f"{min(changes):+.4f} to {max(changes):+.4f}, worse in {sum((c < 0) == bool(high) for c in changes)} |"
        )


if __name__ == "__main__":
    main()
