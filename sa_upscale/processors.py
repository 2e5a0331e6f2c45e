"""The processors that this process may use: in a container or a batch job not all of the machine's."""

import math
import os
from pathlib import Path


def usable() -> frozenset[int]:
    """Those that this thread may run on; none where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def count() -> int:
    """How many this process may use, at least in part."""
    seen = len(usable()) or os.cpu_count() or 1
    return math.ceil(min(seen, share_of_group()))


def threads() -> int:
    """How many torch is to work with: as it is set, which is too many where a container limits their time."""
    import torch  # here, so that the package can be looked at without it

    return math.ceil(min(torch.get_num_threads(), share_of_group()))


def share_of_group(group: Path = Path("/sys/fs/cgroup")) -> float:
    """How many processors' time a container's limit gives (`docker run --cpus`), which affinities do not know of."""
    try:
        limit, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if limit == "max" else max(1, int(limit)) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
