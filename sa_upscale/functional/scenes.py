"""Where one shot of a film ends and the next begins."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Measured on 22 clips of one shot each: no two neighbouring frames lie further apart than 0.17, and of 231 pairs of
# frames from different clips those of different scenes no closer than 0.35.
CUT = 0.3
FLASH = 2  # frames; a picture that is back after so few had only been outshone
ALONE = 2  # how many times as far as the steps beside it a cut goes; a fade takes steps of one length

THUMBNAIL = (48, 27)
HISTOGRAM_OF = (192, 108)  # large enough that a grain of noise is not a peak, small enough to be quick
BINS = 64
LUMA = np.array([[0.2126, 0.7152, 0.0722]], np.float32)


@dataclass(frozen=True)
class Look:
    """What of a frame is compared: a luma thumbnail in [0, 1] and a luma histogram that sums to one."""

    thumbnail: np.ndarray
    histogram: np.ndarray


def cuts(frames: Iterable[np.ndarray], threshold: float = CUT) -> Iterator[bool]:
    """For each frame `(H, W, 3)`, RGB uint8 or uint16, whether it begins a new shot; False for the first.

    A frame begins a shot when it and the two after it all differ from each of the three before it by more than
    `threshold` (`distance`, 0 to 2), and the step to it is not one of several alike.  So a flash of up to two frames
    is no cut, and neither is what changes bit by bit: fades, pans, noise.  The answer for a frame comes once the two
    after it have been taken from `frames`.
    """
    before: deque[Look] = deque(maxlen=FLASH + 1)
    waiting: deque[Look] = deque()
    for frame in frames:
        waiting.append(look(frame))
        if len(waiting) > FLASH:
            yield _begins_shot(before, waiting, threshold)
            before.append(waiting.popleft())
    while waiting:
        yield _begins_shot(before, waiting, threshold)
        before.append(waiting.popleft())


def look(frame: np.ndarray) -> Look:
    """The reduced picture and the histogram of a frame `(H, W, 3)`, RGB uint8 or uint16."""
    white = np.iinfo(frame.dtype).max
    middle = cv2.transform(cv2.resize(frame, HISTOGRAM_OF, interpolation=cv2.INTER_AREA).astype(np.float32), LUMA)
    counts = cv2.calcHist([middle / white], [0], None, [BINS], [0, 1 + 1 / BINS])
    # Blurred, so that a little more light, which moves every value into the next bin, is a little difference.
    histogram = cv2.GaussianBlur(counts, (1, 7), 1.5).ravel()
    thumbnail = cv2.resize(middle, THUMBNAIL, interpolation=cv2.INTER_AREA) / white
    return Look(thumbnail, histogram / histogram.sum())


def distance(one: Look, other: Look) -> float:
    """How unlike two frames are, 0 to 2: mean luma difference plus the share of the histogram that is elsewhere.

    The first sees that things have moved, the second does not: a fast pan is far in one only, another shot in both.
    """
    moved = np.abs(one.thumbnail - other.thumbnail).mean()
    elsewhere = np.abs(one.histogram - other.histogram).sum() / 2
    return float(moved + elsewhere)


def _begins_shot(before: Sequence[Look], after: Sequence[Look], threshold: float) -> bool:
    if not before or any(distance(one, other) <= threshold for one in before for other in after):
        return False
    beside = [distance(*pair) for pair in (list(before)[-2:], list(after)[:2]) if len(pair) == 2]
    return not beside or distance(before[-1], after[0]) > ALONE * min(beside)
