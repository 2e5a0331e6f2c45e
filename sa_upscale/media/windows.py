"""Frames grouped around each other, for networks that look at several."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def windows(frames: Iterable[T], size: int, is_cut: Callable[[T, T], bool] | None = None) -> Iterator[list[T]]:
    """For every frame the `size` frames around it, itself in the middle, at most `size` held at a time.

    Beyond the first and the last frame the outermost one is repeated.  `is_cut(before, after)` says whether a new shot
    starts between two neighbours; no window reaches across such a cut.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a window needs an odd number of frames, not {size}")
    reach = size // 2
    recent: deque[T] = deque(maxlen=size)  # the latest frames of this shot
    waiting = 0  # how many of them still wait for their own window
    for frame in frames:
        if is_cut is not None and recent and is_cut(recent[-1], frame):
            yield from _last_windows(recent, waiting, reach)
            recent.clear()
            waiting = 0
        recent.append(frame)
        waiting += 1
        if waiting > reach:
            yield _around(recent, len(recent) - waiting, reach)
            waiting -= 1
    yield from _last_windows(recent, waiting, reach)


def _last_windows(recent: deque[T], waiting: int, reach: int) -> Iterator[list[T]]:
    for middle in range(len(recent) - waiting, len(recent)):
        yield _around(recent, middle, reach)


def _around(recent: deque[T], middle: int, reach: int) -> list[T]:
    last = len(recent) - 1
    return [recent[min(max(at, 0), last)] for at in range(middle - reach, middle + reach + 1)]
