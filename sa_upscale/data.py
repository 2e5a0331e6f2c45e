"""Training and validation pairs: HR pictures from folders, their LR made on the fly.

What a batch holds follows from the seed and the step alone, so a resumed run sees what an uninterrupted one would have.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sa_upscale.degrade import bicubic
from sa_upscale.errors import UpscaleError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


class Photos:
    """Random crops of the pictures in `folders` with their LR, which is made of the whole picture and cropped alike.

    Pictures are decoded on first use and then kept in memory up to `cache` bytes.  Files that cannot be decoded are
    reported once through `on_notice` and passed over.

    Raises `UpscaleError` when a folder is missing or no picture is as large as a crop.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        scale: int,
        patch: int,
        cache: int = 6 << 30,
        on_notice: Callable[[str], None] = lambda text: None,
    ):
        self.scale, self.patch = scale, patch
        self.files = [file for file in files if _large_enough(file, patch, on_notice)]
        if not self.files:
            raise UpscaleError(
                f"no training picture is {patch}x{patch} pixels or larger; lower data.patch or add pictures"
            )
        self._on_notice = on_notice
        self._pairs: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
        self._room = cache
        self._broken: set[Path] = set()

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One augmented crop: LR `(patch / scale, patch / scale, 3)` and HR `(patch, patch, 3)`, uint8."""
        lr, hr = self._whole(int(rng.integers(len(self.files))))
        side = self.patch // self.scale
        top, left = (int(rng.integers(length - side + 1)) for length in lr.shape[:2])
        lr = lr[top : top + side, left : left + side]
        top, left = top * self.scale, left * self.scale
        hr = hr[top : top + self.patch, left : left + self.patch]
        return augment(lr, hr, int(rng.integers(8)))

    def _whole(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        # Past a broken file to the next one: the choice depends on the files alone, so a resumed run makes it again.
        for offset in range(len(self.files)):
            file = self.files[(index + offset) % len(self.files)]
            if file in self._pairs:
                return self._pairs[file]
            if file in self._broken:
                continue
            try:
                hr = read_rgb(file)
            except (OSError, ValueError) as error:
                self._broken.add(file)
                self._on_notice(f"{file.name}: cannot be read and is passed over ({error})")
                continue
            lr = bicubic(hr, self.scale)
            if self._room >= hr.nbytes + lr.nbytes:
                self._room -= hr.nbytes + lr.nbytes
                self._pairs[file] = lr, hr
            return lr, hr
        raise UpscaleError("none of the training pictures can be read; check the files")


def pictures(folders: Sequence[str | os.PathLike]) -> list[Path]:
    """The picture files below `folders`, sorted by path within each; a folder named twice is listed twice.

    Raises `UpscaleError` when a folder is missing or holds none.
    """
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UpscaleError(f"{folder}: no such folder of training pictures")
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise UpscaleError(f"{folder}: holds no pictures ({', '.join(sorted(SUFFIXES))})")
        found += files
    return found


def hold_out(files: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split into training and validation pictures; the latter are `count` distinct ones, evenly spaced by path."""
    distinct = sorted(set(files))
    if len(distinct) <= count:
        raise UpscaleError(f"{len(distinct)} training pictures are too few to keep {count} back; set data.validation")
    kept = {distinct[index * len(distinct) // count] for index in range(count)}
    return [file for file in files if file not in kept], sorted(kept)


def augment(lr: np.ndarray, hr: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
    """One of the eight flips and quarter turns (`which` in 0…7) for both; axes -3 and -2 are height and width."""
    if which & 1:
        lr, hr = lr[..., ::-1, :], hr[..., ::-1, :]
    if which & 2:
        lr, hr = lr[..., ::-1, :, :], hr[..., ::-1, :, :]
    if which & 4:
        lr, hr = lr.swapaxes(-3, -2), hr.swapaxes(-3, -2)
    return lr, hr


def batches(source, count: int, seed: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches for the steps `start`, `start + 1`, …: uint8 tensors, channels before the picture's axes, `count` long.

    A thread prepares the next ones while the network works on the current one.
    """
    ready: queue.Queue = queue.Queue(maxsize=4)
    stop = threading.Event()

    def fill() -> None:
        step = start
        try:
            while not stop.is_set():
                rng = np.random.default_rng((seed, step))
                lr, hr = zip(*(source.sample(rng) for _ in range(count)), strict=True)
                _put(ready, (_stack(lr), _stack(hr)), stop)
                step += 1
        except BaseException as error:
            _put(ready, error, stop)

    threading.Thread(target=fill, daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()


def read_rgb(file: Path) -> np.ndarray:
    """A picture file as uint8 `(H, W, 3)`."""
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))


def _large_enough(file: Path, patch: int, on_notice: Callable[[str], None]) -> bool:
    try:
        with Image.open(file) as image:
            size = image.size
    except OSError:
        on_notice(f"{file.name}: not a picture that can be opened; passed over")
        return False
    if min(size) < patch:
        on_notice(f"{file.name}: {size[0]}x{size[1]} is smaller than a crop of {patch}x{patch}; passed over")
        return False
    return True


def _stack(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays)).movedim(-1, -3)


def _put(ready: queue.Queue, item, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.5)
        except queue.Full:
            continue
        return
