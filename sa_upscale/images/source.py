"""What the opener of a format gives, and how a damaged file is told from a mistake of ours.

Libraries raise anything at all when a file is damaged, so every call into one stands in `library`, which makes
`Damaged` of it; our own parsing raises `Damaged` itself, through `unpack` where it reads past the end.  Any other
exception is a bug and keeps its traceback.
"""

import logging
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np

from sa_upscale.errors import UpscaleError


class Damaged(Exception):
    """The file is broken; the text says in a few words where."""


class Refused(Exception):
    """The file is whole but of a kind that is not read; the text goes on from the file's name."""


Arrays = tuple[np.ndarray, np.ndarray | None]
"""Pixels `(H, W, C)` and alpha `(H, W)` or None, as in `Picture` but not yet turned upright."""


@dataclass
class Source:
    """A file whose header has been read: its size as stored, its metadata, and how to get at its pixels.

    `decode` gives the first picture.  Where there are several `frames`, `play` gives each as it is to be seen, with the
    milliseconds it is shown for (0 for pages, which have no time; None for what only programs see that know no
    animations), and `loop` is how often they play, 0 for ever.
    `rows` gives the picture in bands from top to bottom, for formats that can do so without holding all of it.
    """

    width: int
    height: int
    decode: Callable[[], Arrays]
    frames: int = 1
    loop: int = 0
    play: Callable[[], Iterator[tuple[Arrays, float | None]]] | None = None
    rows: Callable[[], Iterator[Arrays]] | None = None
    becomes: str | None = None  # the format of results, where that depends on the file
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    quality: int | None = None
    lossless: bool = False
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    texts: tuple[tuple[bytes, bytes], ...] = ()
    comment: bytes | None = None
    notes: list[str] = field(default_factory=list)


@contextmanager
def library() -> Iterator[None]:
    """Around calls into a library, and nothing else: what it raises is the file's fault."""
    try:
        yield
    except MemoryError:
        raise
    # No library says what it raises on broken files: SyntaxError, KeyError, struct.error and cv2.error are all seen.
    except Exception as error:
        raise Damaged(" ".join(str(error).split())[:160] or type(error).__name__) from error


@contextmanager
def one_line(name: str, kind: str) -> Iterator[None]:
    """Turn a damaged or refused file into one line, and keep the libraries' own complaints off stderr."""
    level, tifffile_log = cv2.utils.logging.getLogLevel(), logging.getLogger("tifffile")
    disabled, tifffile_log.disabled = tifffile_log.disabled, True
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Refused as error:
        raise UpscaleError(f"{name} {error}") from None
    except Damaged as error:
        raise UpscaleError(f"{name} is a damaged or incomplete {kind}: {' '.join(str(error).split())}") from None
    except MemoryError:
        raise UpscaleError(f"{name} needs more memory than there is") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
        tifffile_log.disabled = disabled


def unpack(code: str, data: bytes, at: int = 0) -> tuple:
    """`struct.unpack_from`, for which a place past the end is damage."""
    if at + struct.calcsize(code) > len(data):
        raise Damaged("the file is cut short")
    return struct.unpack_from(code, data, at)


def plain_dpi(dpi) -> tuple[float, float] | None:
    """(horizontal, vertical) as floats; None for what is no pair of sensible numbers."""
    try:
        across, down = (float(value) for value in dpi or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
