"""Files that appear whole or not at all, and failed writes told in one line."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sa_upscale import disk
from sa_upscale.errors import UpscaleError

SPOOL_BYTES = 64 << 20


def check_place(target: Path) -> None:
    """Raise `UpscaleError` when no file can be written at `target`."""
    if target.is_dir():
        raise UpscaleError(f"{target} is a folder; name a file in it")
    if not target.parent.is_dir():
        raise UpscaleError(f"the folder {target.parent} does not exist; create it or choose another")
    writable = os.access(target, os.W_OK) if target.exists() else os.access(target.parent, os.W_OK | os.X_OK)
    if not writable:
        what = target if target.exists() else f"the folder {target.parent}"
        raise UpscaleError(f"{what} is not writable; change its permissions or choose another place")


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `target` when the block ends well, and leaves no trace otherwise.

    As `disk.replacing`, through links, and in one line for the user where it fails.
    """
    place = Path(os.path.realpath(target))
    if place.exists() and not place.is_file():
        # A device or a pipe is written to; renaming a file over /dev/null would take it away from everyone.
        with _writing(target), place.open("wb") as device, spooled(device, target) as file:
            yield file
        return
    with _writing(target), disk.replacing(place) as file:
        yield file


@contextmanager
def spooled(stream: BinaryIO, name: Path | str) -> Iterator[BinaryIO]:
    """A file that is copied to `stream` when the block ends well.

    A pipe cannot be sought in, and whoever reads it should not get the first half of a picture.
    """
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file, _writing(name):
        yield file
        file.seek(0)
        shutil.copyfileobj(file, stream)
        stream.flush()


@contextmanager
def _writing(name: Path | str) -> Iterator[None]:
    """Turn a failed write into one line; a pipe whose reader has gone is the caller's to judge."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UpscaleError(f"no space left for {name}; free some or choose another place") from None
        raise UpscaleError(f"{name} cannot be written: {error.strerror or error}") from None
