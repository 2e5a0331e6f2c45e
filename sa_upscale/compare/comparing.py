"""Reads pictures, brings them to one size and measures them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sa_upscale import images
from sa_upscale.compare.regions import Region, differing
from sa_upscale.errors import UpscaleError
from sa_upscale.functional.pixels import resized, values
from sa_upscale.metrics import psnr_y, ssim_y
from sa_upscale.metrics.ssim import WINDOW

MOST_PIXELS = 24_000_000
"""Browsers on phones show no more; what is larger is looked at in parts."""

MOST_OF_ALL = 100_000_000
"""Pixels of all pictures of a page that shows several things: it holds them all."""

REGIONS, SMALLEST, LARGEST = 6, 32, 128


@dataclass(frozen=True)
class Side:
    """One of the pictures, at the size that all share; `note` tells that of its file where it is another."""

    title: str
    picture: images.Picture
    note: str


@dataclass(frozen=True)
class Score:
    """PSNR in dB and SSIM of the luma against the reference; SSIM is None where a region is too small for it."""

    psnr: float
    ssim: float | None


@dataclass(frozen=True)
class Comparison:
    """What there is to show.

    `sides` ends with the reference if there is one, `regions` begins with the whole.  `scores[region][side]`, which the
    reference has none of, is empty without one.
    """

    sides: list[Side]
    regions: list[Region]
    scores: list[list[Score]]


def compare(
    files: Sequence[Path],
    *,
    reference: Path | None = None,
    crop: Region | None = None,
    regions: Sequence[Region] = (),
) -> Comparison:
    """Hold the pictures in `files`, and the `reference` if there is one, against each other.

    Those that are smaller than the largest are enlarged to it by bicubic.  `crop` is the part to take, `regions` the
    parts to measure; both are in pixels of the largest, the regions from the crop's corner.  Without `regions` those
    are taken where the pictures differ most from the last.  Grey counts as RGB, and transparency is shown but not
    measured.

    Raises `UpscaleError` for fewer than two pictures, shapes that do not match, parts that lie outside, and what is too
    large to be shown.
    """
    files = [*files, reference] if reference else list(files)
    if len(files) < 2:
        raise UpscaleError("one picture cannot be compared; give two or more, or one and --reference")
    sides = _sides(files, crop)
    return held(sides, measured=reference is not None, regions=regions)


def held(sides: list[Side], *, measured: bool, regions: Sequence[Region] = ()) -> Comparison:
    """Hold pictures of one size against each other, `measured` against the last of them; for the rest see `compare`."""
    width, height = sides[0].picture.width, sides[0].picture.height
    for region in regions:
        if not region.inside(width, height):
            raise UpscaleError(f"the region {_named(region)} reaches out of the {width}x{height} pixels compared")
    whole = Region(0, 0, width, height)
    side = min(max(SMALLEST, min(width, height) // 6), LARGEST)
    chosen = list(regions) or differing([one.picture.pixels for one in sides], REGIONS, side)
    shown = [whole, *chosen]
    return Comparison(sides, shown, [_scores(sides, region) for region in shown] if measured else [])


def _sides(files: list[Path], crop: Region | None) -> list[Side]:
    sizes = [images.size(file) for file in files]
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    for file, (own_width, own_height) in zip(files, sizes, strict=True):
        # A pixel more or less comes from rounding at some scale.
        if abs(own_width * height - own_height * width) > max(width, height):
            raise UpscaleError(
                f"{file} is {own_width}x{own_height}, which is not the shape of {width}x{height}; crop one of them"
            )
    if crop and not crop.inside(width, height):
        raise UpscaleError(f"the crop {_named(crop)} reaches out of the {width}x{height} pixels of the largest picture")
    if (crop.width * crop.height if crop else width * height) > MOST_PIXELS:
        raise UpscaleError(
            f"{width}x{height} pixels are too many for a page (above {MOST_PIXELS / 1e6:.0f} million); compare a part "
            "with --crop x,y,width,height"
        )
    names = titles(files)
    return [
        Side(name, _fitted(images.read(file), width, height, crop), _note(size, (width, height)))
        for name, file, size in zip(names, files, sizes, strict=True)
    ]


def _note(size: tuple[int, int], shared: tuple[int, int]) -> str:
    return "" if size == shared else f"{size[0]}×{size[1]}, enlarged by bicubic"


def _fitted(picture: images.Picture, width: int, height: int, crop: Region | None) -> images.Picture:
    """The picture as RGB at that size, of which the `crop` is taken, without what only its file needs."""
    pixels = np.broadcast_to(picture.pixels, (*picture.pixels.shape[:2], 3))
    pixels, alpha = resized(pixels, (height, width)), picture.alpha
    if alpha is not None:
        alpha = resized(alpha[..., None], (height, width))[..., 0]
    if crop:
        pixels = pixels[crop.rows, crop.columns]
        alpha = None if alpha is None else alpha[crop.rows, crop.columns]
    # Profiles of grey do not fit RGB.
    icc = picture.icc if picture.pixels.shape[2] == 3 else None
    pixels = np.ascontiguousarray(pixels)
    return replace(picture, pixels=pixels, alpha=alpha, icc=icc, exif=None, xmp=None, dpi=None)


def _scores(sides: list[Side], region: Region) -> list[Score]:
    *results, hr = (values(side.picture.pixels[region.rows, region.columns]) for side in sides)
    measurable = min(region.width, region.height) >= WINDOW
    return [Score(psnr_y(sr, hr).item(), ssim_y(sr, hr).item() if measurable else None) for sr in results]


def titles(files: Sequence[Path]) -> list[str]:
    """Names of the files with as many of their folders as it takes to tell them apart."""
    longest = max(len(file.parts) for file in files)
    for length in range(1, longest + 1):
        names = ["/".join(file.parts[-length:]) for file in files]
        if len(set(names)) == len(set(files)):
            return names
    return [str(file) for file in files]


def _named(region: Region) -> str:
    return f"{region.left},{region.top},{region.width},{region.height}"
