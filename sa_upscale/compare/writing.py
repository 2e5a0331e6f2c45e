"""A comparison as a page, and as a contact sheet."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sa_upscale import images
from sa_upscale.compare.comparing import Comparison, Score, Side
from sa_upscale.compare.regions import Region
from sa_upscale.images.picture import converted
from sa_upscale.report import comparison, sheet
from sa_upscale.report.heat import PALETTE

CELL = 256  # pixels a side of a picture on the sheet
BRIGHTEST = 64  # the difference in 8-bit values from which on the map is brightest
ABOUT = {
    True: "PSNR in dB and SSIM of the luma against {}, nothing left out at the border.",
    False: "Give --reference to measure the pictures against an original.",
}


def write_page(target: Path, found: Comparison) -> None:
    """Write a self-contained HTML page.  Raises `UpscaleError` when it cannot be written."""
    name = " · ".join(side.title for side in found.sides)
    comparison.write(target, scene(name, found), ABOUT[bool(found.scores)].format(found.sides[-1].title))


def scene(name: str, found: Comparison) -> comparison.Scene:
    """What a page shows of a comparison."""
    pictures = [comparison.Shown(side.title, side.note, png(side.picture)) for side in found.sides]
    regions = [
        comparison.Region(_name(index, region), region.left, region.top, region.width, region.height, *_figures(scores))
        for index, (region, scores) in enumerate(zip(found.regions, _scores(found), strict=True))
    ]
    return comparison.Scene(name, pictures, regions)


def write_sheet(target: Path, found: Comparison) -> None:
    """Write a picture: a row for the whole and one for each region; a last column shows how far they are apart.

    Raises `UpscaleError` when it cannot be written.
    """
    rows = [
        (_name(index, region), _cells(found.sides, region, _figures(scores)[0]))
        for index, (region, scores) in enumerate(zip(found.regions, _scores(found), strict=True))
    ]
    heads = [*(side.title for side in found.sides), "difference"]
    images.write(target, images.Picture(sheet.sheet(heads, rows, CELL)))


def png(picture: images.Picture) -> bytes:
    """The picture as an 8-bit PNG."""
    stream = io.BytesIO()
    images.write(stream, picture, format="png", depth="uint8")
    return stream.getvalue()


def _cells(sides: list[Side], region: Region, figures: tuple[str, ...]) -> list[tuple[Image.Image, str]]:
    parts = [_part(side.picture, region) for side in sides]
    last = parts[-1].astype(np.int16)
    apart = np.max([np.abs(part - last).max(axis=2) for part in parts[:-1]], axis=0)
    heat = Image.fromarray((apart.clip(0, BRIGHTEST) * (255 / BRIGHTEST)).astype(np.uint8))
    heat.putpalette(PALETTE)
    texts = [*figures, *[""] * (len(sides) - len(figures))]
    cells = [(Image.fromarray(part), text) for part, text in zip(parts, texts, strict=True)]
    return [*cells, (heat.convert("RGB"), f"largest {apart.max()} of 255")]


def _part(picture: images.Picture, region: Region) -> np.ndarray:
    """The region as 8-bit RGB, on white where it is transparent."""
    pixels = converted(picture.pixels[region.rows, region.columns], "uint8")
    if picture.alpha is None:
        return pixels
    alpha = converted(picture.alpha[region.rows, region.columns], "uint8")[..., None]
    return cv2.add(cv2.multiply(pixels, np.repeat(alpha, 3, axis=2), scale=1 / 255), np.repeat(255 - alpha, 3, axis=2))


def _scores(found: Comparison) -> list[list[Score]]:
    return found.scores or [[] for _ in found.regions]


def _figures(scores: list[Score]) -> tuple[tuple[str, ...], int | None]:
    """The scores as text, and the index of the best by PSNR where there are several."""
    texts = tuple(_text(score) for score in scores)
    best = max(range(len(scores)), key=lambda index: scores[index].psnr) if len(scores) > 1 else None
    return texts, best


def _text(score: Score) -> str:
    psnr = "equal" if score.psnr == float("inf") else f"{score.psnr:.2f} dB"
    return psnr if score.ssim is None else f"{psnr}  {score.ssim:.4f}"


def _name(index: int, region: Region) -> str:
    return f"{region.left},{region.top}  {region.width}x{region.height}" if index else "Whole picture"
