"""What is done of a long job, on the disk, so that a killed one can go on.

A job's folder holds `journal.jsonl` beside the job's own files.  The first line says what the job is, every further
one what is finished.  A line is added only once the files it speaks of are on the disk, and is itself there when `add`
returns, so that after a power cut the journal is true; a torn last line is as good as none.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import IO

NAME = "journal.jsonl"


class Journal:
    """The journal in `folder`, which is made if need be.

    `about` describes the job in JSON values.  Where the folder's journal describes the same job and `resume` is set,
    its `entries` are those of the earlier run; otherwise the folder is emptied, and `changed` names the keys of `about`
    that were different (None when there was nothing to go on with).

    Raises `OSError` when the folder cannot be written.
    """

    def __init__(self, folder: Path, about: dict[str, object], *, resume: bool = True):
        self.folder = folder
        self.entries: list[dict[str, object]] = []
        self.changed: tuple[str, ...] | None = None
        lines = _whole_lines(folder / NAME)
        about = json.loads(json.dumps(about))
        if resume and lines and lines[0] == about:
            self.entries = lines[1:]
        else:
            if lines and resume:
                self.changed = tuple(key for key in {**about, **lines[0]} if about.get(key) != lines[0].get(key))
            if lines or not resume:
                self.remove()
        folder.mkdir(exist_ok=True)
        # Written anew, so that a torn line is gone before another follows it.
        self._rewrite([about, *self.entries])

    def add(self, entry: dict[str, object]) -> None:
        """Note that something is finished; on return it is on the disk."""
        with open(self.folder / NAME, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            sync(file)
        self.entries.append(entry)

    def keep(self, count: int) -> None:
        """Forget all but the first `count` entries."""
        self.entries = self.entries[:count]
        about = _whole_lines(self.folder / NAME)[0]
        self._rewrite([about, *self.entries])

    def remove(self) -> None:
        """The job is done, or not to be gone on with: nothing of it is left."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _rewrite(self, lines: list[dict[str, object]]) -> None:
        fresh = self.folder / f"{NAME}.new"
        with open(fresh, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
            sync(file)
        os.replace(fresh, self.folder / NAME)
        sync_folder(self.folder)


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


def _whole_lines(file: Path) -> list[dict[str, object]]:
    """The entries up to the first line that is torn; none when the file is missing."""
    lines = []
    with contextlib.suppress(FileNotFoundError, ValueError), open(file, "rb") as content:
        for line in content:
            if not line.endswith(b"\n"):
                break
            lines.append(json.loads(line))
    return lines
