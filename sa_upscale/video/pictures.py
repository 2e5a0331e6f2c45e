"""What is done to a picture between the network and the encoder."""

from collections.abc import Callable

import cv2
import numpy as np

from sa_upscale import media
from sa_upscale.video.job import Options


def finisher(encoding: media.Encoding, options: Options) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What makes the picture that is encoded of a source frame and of what the networks made of it."""

    def finished(source: np.ndarray, upscaled: np.ndarray) -> np.ndarray:
        picture = fit(upscaled, encoding.width, encoding.height)
        return side_by_side(source, picture) if options.preview else picture

    return finished


def fit(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bring an upscaled picture (H, W, 3) down to the size asked for.

    One row or column too many, where an odd size was made even, is cut off; a real reduction is averaged over areas,
    which does not alias.
    """
    rows, columns = pixels.shape[:2]
    if 0 <= rows - height <= 1 and 0 <= columns - width <= 1:
        return pixels[:height, :width]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def side_by_side(source: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """The middle of the source (h, w, 3), enlarged bicubically, left of the same part of our picture (H, W, 3)."""
    height, width = ours.shape[:2]
    half = width // 2
    begin = (width - half) // 2
    enlarged = cv2.resize(source, (width, height), interpolation=cv2.INTER_CUBIC)
    both = np.concatenate([enlarged[:, begin : begin + half], ours[:, begin : begin + width - half]], axis=1)
    both[:, half - 1 : half + 1] = np.iinfo(both.dtype).max  # a white line between them
    return both
