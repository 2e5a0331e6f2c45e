"""The processors that this process may use: in a container or a batch job not all of the machine's."""

import os


def usable() -> frozenset[int]:
    """Those that this thread may run on; none where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def count() -> int:
    """How many this process may use."""
    return len(usable()) or os.cpu_count() or 1
