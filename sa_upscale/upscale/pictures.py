"""A picture in memory enlarged by networks, with its alpha, its grey and its range kept."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from sa_upscale import images
from sa_upscale.engine import Rows
from sa_upscale.functional.resize import contributions, resize_axis
from sa_upscale.images.picture import top

RESIZE_BAND_VALUES = 4 << 20
SOFTENED_REACH = 3
_KEPT_AT_ONCE = 32  # rows of a source whose bounds, in the result's width, fit the caches
SPREADS = 4
"""How many times the range of colours around a pixel its result may leave it by.  With one, BSD100 lost 0.06 dB."""

Progress = Callable[[int, int], None]


class Runner(Protocol):
    """What is asked of an engine: a whole native scale, and pictures `(H, W, C)` in and out, C = 1 or 3.

    `lanes(size)` is how many pictures, with results of at most `size` bytes, may be run from threads at once.
    """

    scale: int
    window: int

    def lanes(self, size: int) -> int: ...

    def run(self, image: np.ndarray, *, on_progress: Progress | None = None) -> np.ndarray: ...

    def run_rows(
        self, bands: Iterable[np.ndarray], height: int, *, on_progress: Progress | None = None
    ) -> Iterator[np.ndarray]: ...


def enlarge(
    picture: images.Picture,
    engines: Sequence[Runner],
    width: int,
    height: int,
    *,
    on_progress: Progress | None = None,
) -> images.Picture:
    """`picture` at `width` x `height` pixels, with all it carries.

    Grey stays exactly grey, also where it is stored as RGB.  Alpha goes through the networks as a grey picture of its
    own and stays within what its neighbourhood holds, so that opaque and transparent regions remain exactly so.
    """
    pixels, alpha = picture.pixels, picture.alpha
    channels = pixels.shape[2]
    if channels == 3 and _is_grey(pixels):
        pixels = pixels[..., :1]
    varied = alpha is not None and alpha.min() != alpha.max()
    if varied:
        pixels = bled(pixels, alpha)
    progress = shares(on_progress, 2 if varied else 1)
    pixels = np.ascontiguousarray(pixels)
    enlarged = _enlarged(pixels, engines, width, height, progress[0])
    if engines:
        kept_within(enlarged, bounds(pixels), nearest(height, pixels.shape[0]))
    if alpha is not None and varied:
        coarse = _enlarged(softened(alpha)[..., None], engines, width, height, progress[1])
        kept_within(coarse, bounds(alpha), nearest(height, alpha.shape[0]))
        alpha = coarse[..., 0]
    elif alpha is not None:
        alpha = np.full((height, width), alpha.flat[0])
    return replace(picture, pixels=np.broadcast_to(enlarged, (height, width, channels)), alpha=alpha)


def bled(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`pixels` `(H, W, C)` with each fully transparent one coloured like the nearest that is not.

    What stands under transparent pixels is arbitrary, often black; a network would draw it into the edges as a fringe.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    visible = np.flatnonzero(~hidden)
    nearest = np.zeros(labels.max() + 1, np.int64)
    nearest[labels.flat[visible]] = visible
    result = pixels.copy()
    result[hidden] = pixels.reshape(-1, pixels.shape[2])[nearest[labels[hidden]]]
    return result


def softened(alpha: np.ndarray, hard: bool | None = None) -> np.ndarray:
    """`alpha` `(H, W)` with the stairs of a mask that is all or nothing, `hard`, smoothed to slopes.

    A network takes the stairs for detail and sharpens them; slopes it sharpens to smooth edges.  What is thinner than
    three pixels stays as it is: it would fade.  A pixel depends on those up to `SOFTENED_REACH` away.
    """
    if hard is None:
        hard = is_hard(alpha, 0, top(alpha.dtype))
    if not hard:
        return alpha
    square = np.ones((3, 3), np.uint8)
    thin = np.zeros(alpha.shape, np.uint8)
    for shape in (cv2.MORPH_OPEN, cv2.MORPH_CLOSE):
        thin |= cv2.morphologyEx(alpha, shape, square) != alpha
    soft = cv2.GaussianBlur(alpha, (3, 3), 0.8, borderType=cv2.BORDER_REPLICATE)
    return np.where(cv2.dilate(thin, square) > 0, alpha, soft)


def is_hard(alpha: np.ndarray, low: float, high: float) -> bool:
    """Whether there is nothing but these two values."""
    return bool(((alpha == low) | (alpha == high)).all())


def cropped(picture: images.Picture, box: tuple[int, int, int, int]) -> images.Picture:
    """What lies within (left, top, right, bottom)."""
    left, top, right, bottom = box
    alpha = None if picture.alpha is None else picture.alpha[top:bottom, left:right]
    return replace(picture, pixels=picture.pixels[top:bottom, left:right], alpha=alpha)


def cut(source: Path, part: tuple[int, int, int, int], target: Path) -> None:
    """Write the part (left, top, width, height) of a picture file into another; errors as for reading and writing."""
    left, top, across, down = part
    images.write(target, cropped(images.opened(source).read(), (left, top, left + across, top + down)))


def resized(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """`(H, W, C)` of any type reduced to `width` x `height` by the antialiased cubic, in bands of rows.

    Rounded to nearest and clipped to the range of the type (float is not clipped); flat areas keep their value.
    """
    if array.shape[:2] == (height, width):
        return array
    result = np.empty((height, width, array.shape[2]), array.dtype)
    row = 0
    for band in resized_rows(Rows([array]), array.shape[0], width, height):
        result[row : row + len(band)] = band
        row += len(band)
    return result


def resized_rows(rows: Rows, source_height: int, width: int, height: int) -> Iterator[np.ndarray]:
    """As `resized`, for a picture that comes and goes in bands."""
    indices, weights = contributions(source_height, height)
    step = max(1, RESIZE_BAND_VALUES // math.prod(rows.shape))
    for start in range(0, height, step):
        wanted, share = indices[start : start + step], weights[start : start + step].float()
        first = int(wanted.min())
        source = torch.from_numpy(rows.between(first, int(wanted.max()) + 1).astype(np.float32))
        band = torch.zeros(len(wanted), *source.shape[1:])
        for tap in range(wanted.shape[1]):
            band += source.index_select(0, wanted[:, tap] - first) * share[:, tap, None, None]
        band = resize_axis(band, width, axis=1).numpy()
        if rows.dtype.kind == "u":
            band = np.rint(band).clip(0, np.iinfo(rows.dtype).max)
        yield band.astype(rows.dtype)


def _enlarged(
    array: np.ndarray, engines: Sequence[Runner], width: int, height: int, on_progress: Progress | None
) -> np.ndarray:
    """`array` `(h, w, C)` through the networks one after the other, then reduced to `(height, width, C)`."""
    if array.dtype == np.float32:
        # Networks know [0, 1] only; scene-referred floats go beyond.
        low, high = min(0.0, float(array.min())), max(1.0, float(array.max()))
        if (low, high) != (0.0, 1.0):
            inside = (array - np.float32(low)) / np.float32(high - low)
            return _enlarged(inside, engines, width, height, on_progress) * np.float32(high - low) + np.float32(low)
    areas = [math.prod(engine.scale for engine in engines[:index]) ** 2 for index in range(len(engines))]
    for index, engine in enumerate(engines):
        if less := size_between(index, engines, array.shape[1::-1], (width, height)):
            array = resized(array, *less)
        array = engine.run(array, on_progress=part(on_progress, sum(areas[:index]), areas[index], sum(areas)))
    return resized(array, width, height)


def size_between(
    index: int, engines: Sequence[Runner], size: tuple[int, int], wanted: tuple[int, int]
) -> tuple[int, int] | None:
    """To what (width, height) a picture of that `size` may be reduced before that engine, None if it may not.

    The last of several makes results so large that a quarter of the work and memory counts: where half of what it is
    given is enough for what is `wanted` at the end.  What another network made can spare that; the source cannot.
    """
    if not 0 < index == len(engines) - 1:
        return None
    needed = tuple(-(-side // engines[index].scale) for side in wanted)
    return needed if all(2 * least <= side for least, side in zip(needed, size, strict=True)) else None


def _is_grey(pixels: np.ndarray) -> bool:
    return all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in (1, 2))


def bounds(array: np.ndarray) -> np.ndarray:
    """The lowest and highest value around each pixel of `(H, W)` or `(H, W, C)`, as `(H, 2, W, C)`.

    For alpha `(H, W)` what the 3x3 pixels around hold: opaque and clear regions stay exactly so.  For colours what the
    5x5 pixels around hold, and several times as much on either side: where a picture is flat it stays flat, however a
    network colours it, and where there is any detail nothing is lost.
    """
    square = np.ones((3, 3) if array.ndim == 2 else (5, 5), np.uint8)
    lowest, highest = (shape(array, square) for shape in (cv2.erode, cv2.dilate))
    if array.ndim == 3:
        spread = highest - lowest
        for _ in range(SPREADS):
            # OpenCV's sums of integers stop at black and white.
            lowest, highest = cv2.subtract(lowest, spread), cv2.add(highest, spread)
    height, width = array.shape[:2]
    return np.stack((lowest, highest), axis=1).reshape(height, 2, width, -1)


def kept_within(enlarged: np.ndarray, held: np.ndarray, rows: np.ndarray) -> None:
    """Clip `enlarged` `(h, w, C)` in place to the `bounds` `(H, 2, W, C)` of its source, over whose `rows` it lies."""
    # All the rows over one row of the source have the same bounds.
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    stops = (*starts[1:], len(rows))
    for first in range(0, len(starts), _KEPT_AT_ONCE):
        some = slice(first, first + _KEPT_AT_ONCE)
        around = _widened(held[rows[starts[some]]], enlarged.shape[1])
        for (lowest, highest), start, stop in zip(around, starts[some], stops[some], strict=True):
            over = enlarged[start:stop]
            # Not clip, which takes several times as long.
            np.maximum(over, lowest, out=over)
            np.minimum(over, highest, out=over)


def _widened(held: np.ndarray, width: int) -> np.ndarray:
    """`(H, 2, W, C)` with the nearest of its columns for each of `width`."""
    height, pair, short, channels = held.shape
    if width % short:
        return held.take(nearest(width, short), axis=2)
    rows = cv2.resize(
        held.reshape(height * pair, short, channels), (width, height * pair), interpolation=cv2.INTER_NEAREST
    )
    return rows.reshape(height, pair, width, channels)


def nearest(long: int, short: int) -> np.ndarray:
    """Which of `short` places each of `long` lies over."""
    return ((np.arange(long) + 0.5) * (short / long)).astype(np.intp)


def part(on_progress: Progress | None, before: int, share: int, whole: int) -> Progress | None:
    """A callback for one stretch of the work that reports to `on_progress` in thousandths of the whole."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(1000 * (before * total + share * done) // (whole * total), 1000)


def shares(on_progress: Progress | None, count: int) -> list[Progress | None]:
    return [part(on_progress, index, 1, count) for index in range(count)]
