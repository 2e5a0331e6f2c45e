"""What the C library does with memory between the layers and steps of networks on a CPU."""

import contextlib
import ctypes
import sys

# glibc's <malloc.h>: the options of mallopt().
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep() -> None:
    """Have glibc keep the memory that a layer or step frees for the next one, for the rest of this process.

    Otherwise every map goes back to the system, and comes again as new pages that the kernel has to fill with zeros: a
    tenth of a step of RRDBNet, a fifth of a picture.  Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # One heap, from which no piece is too large, that grows by 64 MB and does not shrink.
        for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20)):
            mallopt(option, value)
