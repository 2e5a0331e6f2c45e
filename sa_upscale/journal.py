"""What is done of a long job, on the disk, so that a killed one can go on.

A job's folder holds `journal.jsonl` beside the job's own files.  The first line says what the job is, every further
one what is finished.  A line is added only once the files it speaks of are on the disk, and is itself there when `add`
returns, so that after a power cut the journal is true; a torn last line is as good as none.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sa_upscale import disk
from sa_upscale.errors import UpscaleError

if os.name == "nt":
    import msvcrt
else:
    import fcntl

NAME, LOCK = "journal.jsonl", "lock"


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
                self._empty()
        folder.mkdir(exist_ok=True)
        # Written anew, so that a torn line is gone before another follows it.
        self._rewrite([about, *self.entries])

    def add(self, entry: dict[str, object]) -> None:
        """Note that something is finished; on return it is on the disk."""
        with open(self.folder / NAME, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            disk.sync(file)
        self.entries.append(entry)

    def keep(self, count: int) -> None:
        """Forget all but the first `count` entries."""
        self.entries = self.entries[:count]
        about = _whole_lines(self.folder / NAME)[0]
        self._rewrite([about, *self.entries])

    def remove(self) -> None:
        """The job is done, or not to be gone on with: nothing of it is left."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _empty(self) -> None:
        for path in self.folder.iterdir() if self.folder.exists() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink()

    def _rewrite(self, lines: list[dict[str, object]]) -> None:
        with disk.replacing(self.folder / NAME) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
        disk.sync_folder(self.folder)


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Hold a job's folder, which is made if need be; UpscaleError, about `name`, while another process holds it.

    The system lets go of it for a process that is killed.
    """
    folder.mkdir(exist_ok=True)
    with open(folder / LOCK, "wb") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise UpscaleError(f"{name}: another run is making it; wait for that, or choose another output") from None
        except OSError:
            pass  # some network drives know no locks
        yield
    if os.name == "nt" and not (folder / NAME).exists():
        shutil.rmtree(folder, ignore_errors=True)  # `remove` could not, as long as the lock was open


def _lock(file: IO) -> None:
    if os.name == "nt":
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _whole_lines(file: Path) -> list[dict[str, object]]:
    """The entries up to the first line that is torn; none when the file is missing."""
    lines = []
    with contextlib.suppress(FileNotFoundError, ValueError), open(file, "rb") as content:
        for line in content:
            if not line.endswith(b"\n"):
                break
            lines.append(json.loads(line))
    return lines
