"""How much noise and JPEG compression there is in a picture, measured in its pixels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from sa_upscale.images.picture import top
from sa_upscale.upscale.inspector import MIXED, inspect

WINDOW = 352
"""Large pictures are looked at in three by three windows of this side in pixels: as telling, and quicker."""

_CELL = 8  # pixels a side of the squares that noise is looked for in
_STRIP = 8 * _CELL  # rows whose differences stay in the caches
_FLATTEST = 0.1  # of the squares: those with the least structure of their own
_KEPT = 0.8  # of the deviation of pure noise is found in the flattest of its squares
_WHITE = (0.8, 1.6)  # of the ratio in `_noise`, which is 1 for white noise; dithering is below, structure above
_LOUDEST = 40  # of 255: a chequered pattern rather than noise
_STEP = 0.5  # of 255: less is rounding
_OUTLINE = 32  # of 255: a step higher than that is a thing's outline
_DRAWN = 0.5  # of the steps: photographs have at most 0.3 outlines among theirs, terminals and pixel art 0.6 to 1


@dataclass(frozen=True)
class Damage:
    """What was found.

    `noise` is the standard deviation of white noise, in 255ths of white and of luma.  `compression` is by how many
    points out of 100 the quality of a JPEG falls short that looks as compressed as the pixels do; `quality` is the
    estimate of a JPEG file, None for others.
    """

    noise: float = 0.0
    compression: float = 0.0
    quality: int | None = None

    @property
    def kinds(self) -> list[str]:
        """What is bad enough to be taken away, in words."""
        return [kind for kind, level in self._levels(_MUCH).items() if level]

    def level(self, scale: float) -> int:
        """How bad it is for a picture to be enlarged by `scale`: 0 nothing to speak of, 1 slightly, 2 strongly.

        The limits are where, on pictures of Kodak and BSD reduced four times (twice for scales up to 2) and then
        damaged, the results of the networks for that level came to be nearer to the original (PSNR, `vgg-percep`) than
        those of the networks for the next lower one.
        """
        return max(self._levels(_MUCH_AT_TWICE if scale <= 2 else _MUCH).values())

    def _levels(self, much: "_Limits") -> dict[str, int]:
        told = 0 if self.quality is None else 100 - self.quality
        # A file knows better than its pixels, unless it was a far worse one before.
        seen = self.compression if self.quality is None or self.compression > told + _WORSE else 0
        return {
            "noise": _level(self.noise, _SOME.noise, much.noise),
            "compression": max(_level(told, _SOME.lost, much.lost), _level(seen, _SEEN, much.lost)),
        }


class _Limits(NamedTuple):
    """From where on there is some damage, or much: noise, and what a JPEG's quality lacks of 100."""

    noise: float
    lost: int


_SOME = _Limits(noise=2.0, lost=5)
_MUCH = _Limits(noise=7.5, lost=30)
# Up to twice the size, the finest detail of the source is still seen as such, and smoothing it costs more.
_MUCH_AT_TWICE = _Limits(noise=8.0, lost=45)
_SEEN = 7.5  # of 100, where no file tells: up to 5 is seen in photographs that have none
_WORSE = 15


def _level(value: float, some: float, much: float) -> int:
    return 2 if value >= much else 1 if value >= some else 0


def measure(pixels: np.ndarray, quality: int | None = None) -> Damage:
    """What is wrong with `pixels` `(H, W, 1 or 3)` of any depth."""
    return measure_rows([pixels], *pixels.shape[:2], quality)


def measure_rows(bands: Iterable[np.ndarray], height: int, width: int, quality: int | None = None) -> Damage:
    """Likewise of a picture that comes in bands of rows, of which only the windows that are looked at are kept."""
    windows = list(_windows(bands, height, width))
    seen, compression = (0.0, 0.0) if _drawn(windows) else inspect(windows)
    # Where squares are flat, noise can be measured, which is surer.
    noise = _noise(windows) or (seen if seen <= _LOUDEST else 0.0)
    return Damage(noise, compression, quality)


def _windows(bands: Iterable[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:
    """The luma, white at 255, of the windows that stand for the picture."""
    across = _spread(width)
    waiting: list[tuple[slice, list[np.ndarray]]] = [(rows, []) for rows in _spread(height)]
    row = 0
    for band in bands:
        for rows, parts in waiting:
            parts.append(band[max(0, rows.start - row) : max(0, rows.stop - row)])
        row += len(band)
    for _, parts in waiting:
        strip = np.concatenate(parts)
        yield from (luma_of(strip[:, columns]) for columns in across)


def _spread(length: int) -> list[slice]:
    """Up to three windows along a side."""
    if length <= 3 * WINDOW:
        return [slice(0, length)]
    starts = (0, (length - WINDOW) // 2, length - WINDOW)
    return [slice(start, start + WINDOW) for start in starts]


def luma_of(pixels: np.ndarray) -> np.ndarray:
    """What is looked at of `pixels` `(H, W, 1 or 3)` of any depth: `(H, W)`, float32, white at 255."""
    scaled = pixels.astype(np.float32)
    if pixels.dtype != np.uint8:
        scaled *= np.float32(255 / top(pixels.dtype))
    if pixels.dtype.kind == "f":
        # Scene-referred values go beyond white, and some are no numbers.
        scaled = np.nan_to_num(scaled, copy=False).clip(0, 255)
    return cv2.cvtColor(scaled, cv2.COLOR_RGB2GRAY) if scaled.shape[2] == 3 else scaled[..., 0]


def _noise(windows: Sequence[np.ndarray]) -> float:
    """The standard deviation of noise, where the flattest squares hold nothing else.

    Their second differences (J. Immerkær, "Fast Noise Variance Estimation", 1996) are noise and fine structure.  For
    noise whose pixels know nothing of each other, the plain differences of neighbours have twice that variance;
    structure is smoother, so that they have more.  Squares with clipped pixels tell nothing.
    """
    mixed, plain = [], []
    for luma in windows:
        rows, columns = (max(0, side - 2) // _CELL * _CELL for side in luma.shape)
        for row in range(0, rows if columns else 0, _STRIP):
            strip = luma[row : min(row + _STRIP, rows) + 2, : columns + 2]
            # OpenCV sees what is around a strip; only the inner part of its result is of use anyway.
            inner = strip[1:-1, 1:-1]
            unclipped = (_of_cells(np.minimum, inner) > 2) & (_of_cells(np.maximum, inner) < 253)
            second = cv2.filter2D(strip, -1, MIXED)[1:-1, 1:-1]
            across, down = inner - strip[1:-1, :-2], inner - strip[:-2, 1:-1]
            mixed.append(_of_cells(np.add, second * second)[unclipped] / _CELL**2)
            plain.append(_of_cells(np.add, across * across + down * down)[unclipped] / (4 * _CELL**2))
    variance, half = (np.concatenate(parts) if parts else np.empty(0) for parts in (mixed, plain))
    if len(variance) < 4:
        return 0.0
    flattest = np.argsort(half)[: max(4, int(_FLATTEST * len(half)))]
    ratio = _middle(half[flattest] / (variance[flattest] + 0.01))
    deviation = float(np.sqrt(_middle(variance[flattest]))) / _KEPT
    return deviation if _WHITE[0] <= ratio <= _WHITE[1] and deviation <= _LOUDEST else 0.0


def _middle(values: np.ndarray) -> float:
    """The median; NumPy's own imports masked arrays first, which takes as long as the rest of a look."""
    ordered = np.sort(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _of_cells(operation: np.ufunc, values: np.ndarray) -> np.ndarray:
    """Of the values of each square."""
    rows, columns = (side // _CELL for side in values.shape)
    return operation.reduce(operation.reduce(values.reshape(rows, _CELL, columns, _CELL), axis=1), axis=2)


def _drawn(windows: Sequence[np.ndarray]) -> bool:
    """Whether there is little but outlines: sharp things on plain ground, which compression would have made uneven."""
    outlines = steps = 0
    for luma in windows:
        for axis in (0, 1):
            step = np.abs(np.diff(luma, axis=axis))
            outlines += np.count_nonzero(step > _OUTLINE)
            steps += np.count_nonzero(step > _STEP)
    return outlines > _DRAWN * steps
