"""Maps drawn in colours, side by side, each with its scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sa_upscale.report.heat import PALETTE
from sa_upscale.report.page import number
from sa_upscale.report.sheet import GAP, INK, MARGIN, PAPER, QUIET, TEXT, shortened

COLUMNS, NARROWEST, BAR = 3, 200, 12


@dataclass(frozen=True)
class Panel:
    """A map `(H, W)` from 0 up, drawn brightest from `top` on; or a picture `(H, W, 3)` uint8, which has no `top`."""

    title: str
    values: np.ndarray
    top: float | None = None


def panels(shown: Sequence[Panel]) -> np.ndarray:
    """The panels, all of one size, in rows of three as `(H, W, 3)` uint8; small ones are enlarged by whole factors."""
    height, width = shown[0].values.shape[:2]
    factor = -(-NARROWEST // width)
    width, height = width * factor, height * factor
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    step = TEXT + GAP + height + GAP + BAR + TEXT + 2 * GAP
    page = Image.new("RGB", (2 * MARGIN + columns * (width + GAP) - GAP, 2 * MARGIN + rows * step), PAPER)
    for index, panel in enumerate(shown):
        row, column = divmod(index, columns)
        _draw(page, panel, MARGIN + column * (width + GAP), MARGIN + row * step, (width, height))
    return np.asarray(page)


def _draw(page: Image.Image, panel: Panel, left: int, top: int, size: tuple[int, int]) -> None:
    font, draw = ImageFont.load_default(TEXT), ImageDraw.Draw(page)
    draw.text((left, top), shortened(panel.title, font, size[0]), INK, font)
    picture = panel.values if panel.top is None else _coloured(panel.values / (panel.top or 1))
    top += TEXT + GAP
    page.paste(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST), (left, top))
    if panel.top is None:
        return
    top += size[1] + GAP
    ramp = _coloured(np.linspace(0, 1, size[0])[None])
    page.paste(Image.fromarray(ramp).resize((size[0], BAR), Image.Resampling.NEAREST), (left, top))
    top += BAR + 2
    draw.text((left, top), "0", QUIET, font)
    most = number(panel.top) if panel.values.max() <= panel.top else f"{number(panel.top)} and more"
    draw.text((left + size[0], top), most, QUIET, font, anchor="ra")


def _coloured(shares: np.ndarray) -> np.ndarray:
    """`(H, W, 3)` for values of which 1 and more are brightest."""
    steps = (np.clip(shares, 0, 1) * 255).round().astype(np.uint8)
    return np.array(PALETTE, np.uint8).reshape(256, 3)[steps]
