"""The same part of LR and HR: crops, turns, windows of frames."""

from dataclasses import dataclass

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
"""LR `(h, w, 3)`, or `(window, h, w, 3)` for a clip, and HR `(h · scale, w · scale, 3)`; uint8."""

VALIDATION_SIDE = 1024


@dataclass(frozen=True)
class Part:
    """A rectangle of a picture, in LR pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, x: np.ndarray, scale: int = 1) -> np.ndarray:
        """This part of LR, or of HR with its `scale`; axes -3 and -2 are height and width."""
        top, left, height, width = (scale * side for side in (self.top, self.left, self.height, self.width))
        return x[..., top : top + height, left : left + width, :]


def random_part(lr_size: tuple[int, int], height: int, width: int, rng: np.random.Generator) -> Part:
    """A part of `height` and `width` LR pixels anywhere in an LR picture of `lr_size`, (height, width)."""
    top, left = (int(rng.integers(whole - part + 1)) for whole, part in zip(lr_size, (height, width), strict=True))
    return Part(top, left, height, width)


def middle_part(lr_size: tuple[int, int], scale: int, side: int = VALIDATION_SIDE) -> Part:
    """The middle of an LR picture of `lr_size`, (height, width), at most `side` HR pixels a side.

    Validation has to be done between steps, and a photograph of 50 megapixels would take longer than they.
    """
    height, width = (min(length, side // scale) for length in lr_size)
    return Part((lr_size[0] - height) // 2, (lr_size[1] - width) // 2, height, width)


def crop(lr: np.ndarray, hr: np.ndarray, patch: int, rng: np.random.Generator) -> Pair:
    """The same random square of both, `patch` pixels a side in HR; axes -3 and -2 are height and width."""
    scale = hr.shape[-2] // lr.shape[-2]
    part = random_part(lr.shape[-3:-1], patch // scale, patch // scale, rng)
    return part.of(lr), part.of(hr, scale)


def augment(lr: np.ndarray, hr: np.ndarray, which: int) -> Pair:
    """One of the eight flips and quarter turns (`which` in 0…7) for both; axes -3 and -2 are height and width."""
    if which & 1:
        lr, hr = lr[..., ::-1, :], hr[..., ::-1, :]
    if which & 2:
        lr, hr = lr[..., ::-1, :, :], hr[..., ::-1, :, :]
    if which & 4:
        lr, hr = lr.swapaxes(-3, -2), hr.swapaxes(-3, -2)
    return lr, hr


def divisible(hr: np.ndarray, scale: int) -> np.ndarray:
    """`hr` without the rows and columns at the bottom and right that do not divide by `scale`."""
    return hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]


def around(middle: int, first: int, last: int, window: int) -> np.ndarray:
    """The indices of the `window` frames around `middle`, held at the shot's `first` and `last` frame."""
    return (np.arange(window) - window // 2 + middle).clip(first, last)
