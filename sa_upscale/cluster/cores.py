"""Which cores of this machine each of several workers has to itself."""

import contextlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from sa_upscale.processors import usable

SYSTEM = Path("/sys/devices/system/cpu")
THREADS = Path("/proc/self/task")


def divided(threads: Sequence[int]) -> list[frozenset[int] | None]:
    """Cores for each of several workers with so many threads, none for two of them; None each where that cannot be.

    What is near stays together: both threads of a core, which share its caches, and the cores of a processor, which
    share its memory.
    """
    order = sorted(usable(), key=_position)
    if sum(threads) > len(order):
        return [None] * len(threads)
    ends = itertools.accumulate(threads)
    return [frozenset(order[end - own : end]) for own, end in zip(threads, ends, strict=True)]


def keep_to(own: Iterable[int]) -> None:
    """Let the threads of this process run on these cores only; those that it begins later do, too."""
    # 0 is this thread, for a system that has affinities and does not list a process's threads.
    threads = [int(thread.name) for thread in THREADS.iterdir()] if THREADS.is_dir() else [0]
    for thread in threads:
        # One that has ended meanwhile, or a system that forbids it: it was only to be faster.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, own)


def _position(core: int) -> tuple[int, int, int]:
    """Where a core is: processor, core of that, and its own number, alone where the system does not tell."""
    topology = SYSTEM / f"cpu{core}" / "topology"
    try:
        package, within = (int((topology / name).read_text()) for name in ("physical_package_id", "core_id"))
    except (OSError, ValueError):
        package = within = 0
    return package, within, core
