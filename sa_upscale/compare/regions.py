"""Parts of pictures, and which parts are worth a look."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Region:
    """A rectangle in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.width)

    def inside(self, width: int, height: int) -> bool:
        """Whether all of it lies in a picture of that size."""
        return self.left + self.width <= width and self.top + self.height <= height


def differing(arrays: list[np.ndarray], count: int, side: int) -> list[Region]:
    """Up to `count` squares of `side` pixels, apart from each other, where the arrays differ most from the last one.

    `arrays` are `(H, W, C)` of one size; a `side` longer than the pictures' is taken as theirs.  Squares in which
    nothing differs are left out.
    """
    height, width = arrays[0].shape[:2]
    side = min(side, height, width)
    last = arrays[-1].astype(np.float32)
    apart = np.max([np.abs(array - last).mean(axis=2) for array in arrays[:-1]], axis=0)
    # The mean over the square that begins at each pixel.
    means = cv2.blur(apart, (side, side), anchor=(0, 0))[: height - side + 1, : width - side + 1].copy()
    found = []
    while len(found) < count and means.max() > 0:
        top, left = (int(place) for place in np.unravel_index(means.argmax(), means.shape))
        found.append(Region(left, top, side, side))
        means[max(0, top - side + 1) : top + side, max(0, left - side + 1) : left + side] = 0
    return found
