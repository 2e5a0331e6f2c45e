"""A picture enlarged strip by strip, from file to file, so that memory follows the strip and not the picture."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sa_upscale.engine import Rows
from sa_upscale.images import Opened
from sa_upscale.images.picture import top
from sa_upscale.images.source import Arrays
from sa_upscale.upscale.pictures import (
    SOFTENED_REACH,
    Progress,
    Runner,
    bled,
    bounds,
    is_hard,
    kept_within,
    nearest,
    resized_rows,
    shares,
    size_between,
    softened,
)

BLEED_ROWS = 64  # how far above and below a band colours are looked for to put under transparent pixels


@dataclass(frozen=True)
class Survey:
    """What has to be known of a whole picture before its first strip can be done."""

    channels: int
    dtype: np.dtype
    grey: bool  # whether all channels are equal
    has_alpha: bool
    flat_alpha: int | float | None  # the one value of alpha, None where it varies or there is none
    hard_alpha: bool  # whether it is all or nothing
    low: float  # of float pixels, at most 0
    high: float  # of float pixels, at least 1


def survey(bands: Iterable[Arrays]) -> Survey:
    grey, hard, low, high = True, True, 0.0, 1.0
    lowest = highest = None
    for pixels, alpha in bands:
        grey = grey and all(np.array_equal(pixels[..., 0], pixels[..., index]) for index in range(1, pixels.shape[2]))
        if pixels.dtype == np.float32:
            low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
        if alpha is not None:
            lowest = alpha.min() if lowest is None else min(lowest, alpha.min())
            highest = alpha.max() if highest is None else max(highest, alpha.max())
            hard = hard and is_hard(alpha, 0, top(alpha.dtype))
    flat = lowest if lowest is not None and lowest == highest else None
    return Survey(pixels.shape[2], pixels.dtype, grey, lowest is not None, flat, hard, low, high)


def enlarged_rows(
    opened: Opened, known: Survey, engines: Sequence[Runner], width: int, height: int, on_progress: Progress | None
) -> Iterator[np.ndarray]:
    """The result in bands `(rows, width, samples)`, alpha last; decodes the source once, and again for its alpha."""
    varied = known.has_alpha and known.flat_alpha is None
    progress = shares(on_progress, 2 if varied else 1)

    def colours() -> Iterator[np.ndarray]:
        pixels = _opaque_colours(opened.rows(), known) if varied else (pixels for pixels, _ in opened.rows())
        return _in_range((band[..., :1] if known.grey else band for band in pixels), known)

    whole = _enlarged(colours(), (opened.height, opened.width), engines, width, height, progress[0])
    if engines:
        whole = _kept(whole, colours(), opened, height)
    whole = (np.broadcast_to(band, (*band.shape[:2], known.channels)) for band in _out_of_range(whole, known))
    if not known.has_alpha:
        yield from whole
        return
    if varied:
        alpha = Rows(_alpha_rows(opened, known, engines, width, height, progress[1]))
    row = 0
    for band in whole:
        if varied:
            clear = alpha.between(row, row + len(band))
        else:
            clear = np.full((*band.shape[:2], 1), known.flat_alpha, band.dtype)
        row += len(band)
        yield np.concatenate((band, clear), axis=2)


def _enlarged(
    bands: Iterable[np.ndarray],
    size: tuple[int, int],
    engines: Sequence[Runner],
    width: int,
    height: int,
    on_progress: Progress | None,
) -> Iterator[np.ndarray]:
    """Bands of a picture of `size` (rows, columns) through the networks and the reduction after them."""
    rows, columns = size
    for index, engine in enumerate(engines):
        last = index == len(engines) - 1
        if less := size_between(index, engines, (columns, rows), (width, height)):
            bands = resized_rows(Rows(bands), rows, *less)
            columns, rows = less
        # The last network has by far the most to do.
        bands = engine.run_rows(bands, rows, on_progress=on_progress if last else None)
        rows, columns = rows * engine.scale, columns * engine.scale
    return bands if (columns, rows) == (width, height) else resized_rows(Rows(bands), rows, width, height)


def _in_range(bands: Iterable[np.ndarray], known: Survey) -> Iterator[np.ndarray]:
    """Floats within [0, 1], which is what networks know."""
    if (known.low, known.high) == (0.0, 1.0):
        return iter(bands)
    return ((band - np.float32(known.low)) / np.float32(known.high - known.low) for band in bands)


def _out_of_range(bands: Iterator[np.ndarray], known: Survey) -> Iterator[np.ndarray]:
    if (known.low, known.high) == (0.0, 1.0):
        return bands
    return (band * np.float32(known.high - known.low) + np.float32(known.low) for band in bands)


def _opaque_colours(bands: Iterable[Arrays], known: Survey) -> Iterator[np.ndarray]:
    """The pixels, with visible colours under the transparent ones; `bled` for each band with what is around it."""
    both = (np.dstack((pixels, alpha)) for pixels, alpha in bands)
    for around, above, count in _with_margins(both, BLEED_ROWS):
        yield bled(around[..., : known.channels], around[..., known.channels])[above : above + count]


def _alpha_rows(
    opened: Opened, known: Survey, engines: Sequence[Runner], width: int, height: int, on_progress: Progress | None
) -> Iterator[np.ndarray]:
    """The enlarged alpha `(rows, width, 1)`."""
    around = _with_margins((alpha for _, alpha in opened.rows()), SOFTENED_REACH)
    coarse = (softened(band, known.hard_alpha)[above : above + count, :, None] for band, above, count in around)
    enlarged = _enlarged(coarse, (opened.height, opened.width), engines, width, height, on_progress)
    return _kept(enlarged, (alpha for _, alpha in opened.rows()), opened, height)


def _kept(
    enlarged: Iterable[np.ndarray], source: Iterable[np.ndarray], opened: Opened, height: int
) -> Iterator[np.ndarray]:
    """`enlarged` bands of `height` rows in all, clipped to the `bounds` of the bands of their source."""
    held = Rows(bounds(around)[above : above + count] for around, above, count in _with_margins(source, 2))
    over = nearest(height, opened.height)
    row = 0
    for band in enlarged:
        rows = over[row : row + len(band)]
        row += len(band)
        kept_within(band, held.between(rows[0], rows[-1] + 1), rows - rows[0])
        yield band


def _with_margins(bands: Iterable[np.ndarray], margin: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Each band with up to `margin` rows of the ones around it, how many of those are above, and its own rows."""
    above = band = None
    for following in itertools.chain(bands, [None]):
        if band is not None:
            parts = [
                part for part in (above, band, None if following is None else following[:margin]) if part is not None
            ]
            yield np.concatenate(parts), 0 if above is None else len(above), len(band)
            above = band[-margin:]
        band = following


def cropped_rows(bands: Iterable[np.ndarray], box: tuple[int, int, int, int]) -> Iterator[np.ndarray]:
    """What lies within (left, top, right, bottom)."""
    left, top, right, bottom = box
    row = 0
    for band in bands:
        kept = band[max(0, top - row) : max(0, bottom - row), left:right]
        row += len(band)
        if len(kept):
            yield kept
