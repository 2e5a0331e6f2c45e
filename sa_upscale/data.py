"""Training and validation pairs: HR pictures or clips from folders, their LR made on the fly.

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

from sa_upscale import media
from sa_upscale.degrade import bicubic
from sa_upscale.errors import UpscaleError

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
CLIPS = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v"}

Sample = tuple[np.ndarray, np.ndarray]


class Photos:
    """Random crops of the pictures in `folders` with their LR, which is made of the whole picture and cropped alike.

    Pictures are decoded on first use and then kept in memory up to `cache` bytes.  Files that cannot be decoded are
    reported once through `on_notice` and passed over.

    Raises `UpscaleError` when no picture is as large as a crop.
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
        self._pairs: dict[Path, Sample] = {}
        self._room = cache
        self._broken: set[Path] = set()

    def sample(self, rng: np.random.Generator) -> Sample:
        """One augmented crop: LR `(patch / scale, patch / scale, 3)` and HR `(patch, patch, 3)`, uint8."""
        lr, hr = self._whole(int(rng.integers(len(self.files))))
        return augment(*crop(lr, hr, self.patch, rng), int(rng.integers(8)))

    def validation(self, files: Sequence[Path]) -> Iterator[Sample]:
        """The whole pictures `files` with their LR."""
        for file in files:
            hr = _divisible(read_rgb(file), self.scale)
            yield bicubic(hr, self.scale), hr

    def _whole(self, index: int) -> Sample:
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


class Clips:
    """Windows of `window` neighbouring frames of video files, their LR, and the middle frame's HR.

    Clips are decoded on first use and kept in memory.  Beyond a clip's ends the outermost frame is repeated.

    Raises `UpscaleError` when a file is no video, or its frames are smaller than a crop.
    """

    def __init__(self, files: Sequence[Path], *, scale: int, patch: int, window: int):
        self.scale, self.patch, self.window = scale, patch, window
        self.files = list(files)
        for file in self.files:
            info = media.probe(file)
            if min(info.width, info.height) < patch:
                raise UpscaleError(f"{file.name}: {info.width}x{info.height} is smaller than a crop of {patch}x{patch}")
        self._pairs: dict[Path, Sample] = {}

    def sample(self, rng: np.random.Generator) -> Sample:
        """One augmented crop: LR `(window, patch / scale, patch / scale, 3)` and HR `(patch, patch, 3)`, uint8.

        Half of the windows run backwards in time.
        """
        lr, hr = self._whole(self.files[int(rng.integers(len(self.files)))])
        middle = int(rng.integers(len(hr)))
        lr = lr[around(middle, len(lr), self.window)]
        if rng.integers(2):
            lr = lr[::-1]
        return augment(*crop(lr, hr[middle], self.patch, rng), int(rng.integers(8)))

    def validation(self, files: Sequence[Path], frames: int = 3) -> Iterator[Sample]:
        """Windows around `frames` whole frames, evenly spaced, of each of `files`."""
        for file in files:
            lr, hr = self._decode(file)
            for index in range(frames):
                middle = (2 * index + 1) * len(hr) // (2 * frames)
                yield lr[around(middle, len(lr), self.window)], hr[middle]

    def _whole(self, file: Path) -> Sample:
        if file not in self._pairs:
            self._pairs[file] = self._decode(file)
        return self._pairs[file]

    def _decode(self, file: Path) -> Sample:
        with media.Reader(media.probe(file)) as reader:
            frames = [_divisible(_eight_bits(event.pixels), self.scale) for event in reader.events()]
        return np.stack([bicubic(frame, self.scale) for frame in frames]), np.stack(frames)


def pictures(folders: Sequence[str | os.PathLike]) -> list[Path]:
    """The picture files below `folders`; see `find`."""
    return find(folders, PICTURES, "pictures")


def clips(folders: Sequence[str | os.PathLike]) -> list[Path]:
    """The video files below `folders`; see `find`."""
    return find(folders, CLIPS, "videos")


def find(folders: Sequence[str | os.PathLike], suffixes: set[str], what: str) -> list[Path]:
    """The files below `folders` with one of `suffixes`, sorted within each; a folder named twice is listed twice.

    Raises `UpscaleError` when a folder is missing or holds none.
    """
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UpscaleError(f"{folder}: no such folder of training data")
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        if not files:
            raise UpscaleError(f"{folder}: holds no {what} ({', '.join(sorted(suffixes))})")
        found += files
    return found


def around(middle: int, length: int, window: int) -> np.ndarray:
    """The indices of the `window` frames around `middle`, held at the ends of a clip of `length`."""
    return (np.arange(window) - window // 2 + middle).clip(0, length - 1)


def crop(lr: np.ndarray, hr: np.ndarray, patch: int, rng: np.random.Generator) -> Sample:
    """The same random square of both, `patch` pixels a side in HR; axes -3 and -2 are height and width."""
    scale = hr.shape[-2] // lr.shape[-2]
    side = patch // scale
    top, left = (int(rng.integers(length - side + 1)) for length in lr.shape[-3:-1])
    lr = lr[..., top : top + side, left : left + side, :]
    top, left = top * scale, left * scale
    return lr, hr[..., top : top + patch, left : left + patch, :]


def hold_out(files: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split into training and validation files; the latter are `count` distinct ones, evenly spaced by path."""
    distinct = sorted(set(files))
    if len(distinct) <= count:
        raise UpscaleError(f"{len(distinct)} training files are too few to keep {count} back; set data.validation")
    kept = {distinct[index * len(distinct) // count] for index in range(count)}
    return [file for file in files if file not in kept], sorted(kept)


def augment(lr: np.ndarray, hr: np.ndarray, which: int) -> Sample:
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

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()  # a decoder that is still at work when the process ends takes it down


def read_rgb(file: Path) -> np.ndarray:
    """A picture file as uint8 `(H, W, 3)`."""
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))


def _divisible(hr: np.ndarray, scale: int) -> np.ndarray:
    return hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


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
