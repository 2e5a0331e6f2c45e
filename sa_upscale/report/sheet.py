"""A contact sheet: pictures in rows and columns, with their names."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, QUIET, PAPER = (22, 22, 15), (93, 92, 85), (252, 252, 251)
MARGIN, GAP, TEXT = 16, 8, 14


def sheet(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[Image.Image, str]]]], side: int) -> np.ndarray:
    """The sheet as `(H, W, 3)` uint8.

    `heads` stand above the columns.  A row has a name, and for each column a picture with a line below it.  Pictures
    are made to fit `side` × `side` pixels: enlarged by whole factors pixel by pixel, or reduced.
    """
    font, bold = ImageFont.load_default(TEXT), ImageFont.load_default(TEXT + 1)
    cells = [[(_fitted(picture, side), text) for picture, text in cells] for _, cells in rows]
    heights = [max(picture.height for picture, _ in row) + 2 * (TEXT + GAP) + GAP for row in cells]
    width = 2 * MARGIN + len(heads) * side + (len(heads) - 1) * GAP
    page = Image.new("RGB", (width, 2 * MARGIN + TEXT + GAP + sum(heights)), PAPER)
    draw = ImageDraw.Draw(page)
    lefts = [MARGIN + index * (side + GAP) for index in range(len(heads))]
    for left, head in zip(lefts, heads, strict=True):
        draw.text((left, MARGIN), shortened(head, bold, side), INK, bold)
    top = MARGIN + TEXT + GAP
    for (name, _), row, height in zip(rows, cells, heights, strict=True):
        draw.text((MARGIN, top + GAP), name, QUIET, font)
        for left, (picture, text) in zip(lefts, row, strict=False):
            page.paste(picture, (left, top + TEXT + 2 * GAP))
            draw.text((left, top + TEXT + 2 * GAP + picture.height + 2), shortened(text, font, side), INK, font)
        top += height
    return np.asarray(page)


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    longest = max(picture.size)
    if longest <= side:
        factor = side // longest
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = (max(1, round(length * side / longest)) for length in picture.size)
    return picture.resize(tuple(size), Image.Resampling.LANCZOS)


def shortened(text: str, font: ImageFont.ImageFont, room: int) -> str:
    """`text`, or its end where it is too long: files differ in their ends."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"…{text}") > room:
        text = text[1:]
    return f"…{text}"
