"""A part of a folder for each task of a batch array: the same parts whoever asks, none with much more to do."""

import heapq
from collections.abc import Sequence
from typing import TypeVar

from sa_upscale.errors import UpscaleError

T = TypeVar("T")


def parse(text: str) -> tuple[int, int]:
    """The number of a shard and how many there are, from "3/8"; the first is 1."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UpscaleError(f"--shard {text}: give the number of this part and of all, from 1/4 to 4/4")
    return int(number), int(count)


def share(things: Sequence[T], weights: Sequence[float], number: int, count: int) -> list[T]:
    """Those of the `things` that are in part `number` of `count`, in their order.

    The largest go first, each to the part that has least so far, so that the heaviest part has at most a third more
    than the best division would give it.  Parts are disjoint and together everything; they depend on nothing but the
    arguments.

    Reference: R. L. Graham, "Bounds on multiprocessing timing anomalies", 1969 (longest processing time first).
    """
    parts = [(0.0, part) for part in range(1, count + 1)]
    chosen = []
    for at in sorted(range(len(things)), key=lambda at: (-weights[at], at)):
        load, part = heapq.heappop(parts)
        heapq.heappush(parts, (load + weights[at], part))
        if part == number:
            chosen.append(at)
    return [things[at] for at in sorted(chosen)]
