"""Files that are on the disk whole or not at all, also after the power failed."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO


@contextlib.contextmanager
def replacing(place: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another when the block ends well, and leaves no trace otherwise.

    It is written beside its place, waited for until it is on the disk, and renamed; permissions stay those of the file
    that was there.  Raises `OSError`.
    """
    partial = place.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as file:
            yield file
            sync(file)
        if place.exists():
            shutil.copymode(place, partial)
        os.replace(partial, place)
    except BaseException:  # Ctrl-C too leaves nothing behind
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def sync(file: IO) -> None:
    """Wait until all that was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows does that by itself and cannot be asked."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
