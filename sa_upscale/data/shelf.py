"""What has been decoded, kept in memory as far as there is room."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from sa_upscale.data.files import Notice, hold_out
from sa_upscale.errors import UpscaleError

T = TypeVar("T")


def processes_here() -> int:
    """How many processes of this run share the machine, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def default_room() -> int:
    """Bytes that decoded data may take: a third of the machine's memory, at most 6 GiB, shared by its processes."""
    most = 6 << 30
    # Windows does not say how much it has.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else most
    return min(most, memory // 3) // processes_here()


def fair_share(sizes: Iterable[int], room: int) -> int:
    """The bytes that each item may take so that all fit into `room`; what small ones leave, the large ones share."""
    ascending = sorted(sizes)
    left = room
    for index, size in enumerate(ascending):
        share = left // (len(ascending) - index)
        if size > share:
            return share
        left -= size
    return room


class Shelf(Generic[T]):
    """What `load` makes of each file, loaded on first use and kept up to `room` bytes; beyond, loaded every time.

    `load` returns its result and the bytes that takes, or raises `UpscaleError`: such a file is reported once through
    `on_notice` and passed over from then on.  Several threads may take from a shelf.
    """

    def __init__(self, files: Sequence[Path], load: Callable[[Path], tuple[T, int]], *, room: int, on_notice: Notice):
        self.files = list(files)
        self._load, self._on_notice = load, on_notice
        self._kept: dict[Path, T] = {}
        self._broken: set[Path] = set()
        self._room = room
        self._counting = threading.Lock()
        # One thread loads a file, and the others that want it wait for that.
        self._loading = {file: threading.Lock() for file in self.files}

    def take(self, index: int) -> T:
        """What the file of this index holds, or if it is broken, the next that is not.

        So the choice depends on the files alone, and a resumed run makes it again.
        """
        for offset in range(len(self.files)):
            file = self.files[(index + offset) % len(self.files)]
            if file in self._kept:
                return self._kept[file]
            with self._loading[file]:
                if file in self._kept:
                    return self._kept[file]
                if file in self._broken:
                    continue
                try:
                    return self._loaded(file)
                except UpscaleError as error:
                    self._broken.add(file)
                    self._on_notice(f"{error}; it is left out")
        raise UpscaleError("none of the training files can be read; check them")

    def hold_out(self, count: int) -> list[Path]:
        """Take `count` files away for validation; see `files.hold_out`."""
        self.files, kept = hold_out(self.files, count)
        return kept

    def _loaded(self, file: Path) -> T:
        found, weight = self._load(file)
        with self._counting:
            if weight <= self._room:
                self._room -= weight
                self._kept[file] = found
        return found
