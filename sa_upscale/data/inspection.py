"""A look at training pictures before anything is trained on them."""

import math
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sa_upscale import processors
from sa_upscale.data.files import large_enough, none_large_enough, pictures, reason
from sa_upscale.data.reading import read_rgb
from sa_upscale.errors import UpscaleError

LOOKED_AT = 200
NAMED = 5

# Medians of twenty of this project's own training crops, which are sharp, lie above 261 in 99 of 100 draws; blurred by
# 0.7 pixels (Gaussian sigma) within 50 and 223, by 1 pixel within 20 and 73, and of crops enlarged twofold, 11 and 92.
SHARP, SOFT = 240.0, 45.0


@dataclass(frozen=True)
class Survey:
    """What a folder of training pictures holds.

    `count` pictures can be used, of `megapixels` in all; `smallest` and `largest` are (width, height).  `sharpness` is
    the median of theirs, in a word `sharp`, `soft` or `blurry`.  `skipped` names the others and says why.
    """

    count: int
    megapixels: float
    smallest: tuple[int, int]
    largest: tuple[int, int]
    sharpness: float
    skipped: tuple[tuple[str, str], ...]

    @property
    def word(self) -> str:
        """The sharpness in a word."""
        return "sharp" if self.sharpness >= SHARP else "soft" if self.sharpness >= SOFT else "blurry"

    def lines(self) -> list[str]:
        """The survey for a person to read, a line each."""
        (width, height), (widest, highest) = self.smallest, self.largest
        sizes = f"{width}x{height}" if self.smallest == self.largest else f"{width}x{height} to {widest}x{highest}"
        lines = [f"{self.count} pictures of {sizes}, {self.megapixels:.1f} megapixels in all"]
        lines.append(f"sharpness {self.sharpness:.0f}: {self.word}")
        if self.word != "sharp":
            lines[-1] += ", and results will be no sharper than these; reduce the pictures, or choose sharper ones"
        lines += [f"left out: {name}: {why}" for name, why in self.skipped[:NAMED]]
        if len(self.skipped) > NAMED:
            lines.append(f"left out: {len(self.skipped) - NAMED} more")
        return lines


def survey(folders: Sequence[str | os.PathLike], patch: int) -> Survey:
    """Look at the pictures below `folders`, which crops of `patch` pixels are to be taken from.

    Sizes are read from all headers, sharpness from up to `LOOKED_AT` pictures; only these are known not to be broken.

    Raises `UpscaleError` when a folder is missing or no picture can be used.
    """
    skipped: list[tuple[str, str]] = []
    sizes = large_enough(pictures(folders), patch, lambda file, why: skipped.append((file.name, why)))
    looked_at = list(sizes)[:: -(-len(sizes) // LOOKED_AT) or 1]
    looks = []
    with ThreadPoolExecutor(processors.count()) as pool:
        for file, look in zip(looked_at, pool.map(_look, looked_at), strict=True):
            if isinstance(look, float):
                looks.append(look)
            else:
                skipped.append((file.name, look))
                del sizes[file]
    if not sizes:
        raise none_large_enough(patch)
    ascending = sorted(sizes.values(), key=math.prod)
    return Survey(
        count=len(sizes),
        megapixels=sum(map(math.prod, ascending)) / 1e6,
        smallest=ascending[0],
        largest=ascending[-1],
        sharpness=statistics.median(looks),
        skipped=tuple(skipped),
    )


def _look(file: Path) -> float | str:
    """The sharpness of a picture, or why there is none."""
    try:
        return sharpness(read_rgb(file))
    except UpscaleError as error:
        return reason(file, error)


def sharpness(picture: np.ndarray) -> float:
    """The variance of the Laplacian of the luma (BT.601, 0 to 255) of a uint8 `(H, W, 3)`.  Noise counts as sharp."""
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(luma, cv2.CV_32F).var())
