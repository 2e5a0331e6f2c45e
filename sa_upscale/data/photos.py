"""Crops of still pictures with their LR: reduced, degraded, or from a folder of their own."""

import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from sa_upscale.data.crops import Pair, Part, augment, crop, divisible, middle_part, random_part
from sa_upscale.data.files import Notice, large_enough, leaving_out, none_large_enough
from sa_upscale.data.reading import read_rgb
from sa_upscale.data.shelf import Shelf, default_room, fair_share
from sa_upscale.degrade import SecondOrder, bicubic, second_order, usm_sharpen
from sa_upscale.errors import UpscaleError

MARGIN = 72
"""HR pixels degraded around a crop and cut off again: Real-ESRGAN's, whose 400 pixels make crops of 256."""

EDGE = 4
"""LR pixels around a crop of a shrunk picture, twice as far as the bicubic reduction reaches."""

JPEG_BLOCK = 8
LEAST_PART = 1 << 20
"""Bytes; where less could be kept of each picture, some are kept and the others decoded every time."""

Lower = Callable[[Path, np.ndarray, Part], np.ndarray | None]
"""The LR of a picture's part, or None where there is none: from its file, the part's HR, and where it lies."""


class Photos:
    """Random crops of pictures, with their LR in one of three ways.

    - The bicubic reduction of the whole picture, cropped alike.
    - With `degradation`, `degrade.second_order` of each crop, every time another: a margin around the crop is sharpened
      and degraded with it, and cut off again.  The HR stays as it is.
    - The picture that `lr_files` has for a file, cropped alike.

    With `shrink` below 1 every other crop is one of the picture reduced first, to between that share and all of its
    size, at any pixel: finer detail than the files have, and LR pixels that lie otherwise than in their one reduction.

    Decoded pictures are kept in memory up to `room` bytes, see `shelve`.  Files that cannot be used are reported
    through `on_notice` and left out.

    Raises `UpscaleError` when no picture is as large as a crop.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        scale: int,
        patch: int,
        degradation: SecondOrder | None = None,
        lr_files: Mapping[Path, Path] = MappingProxyType({}),
        shrink: float = 1.0,
        room: int | None = None,
        on_notice: Notice = lambda text: None,
    ):
        self.scale, self.patch, self._shrink = scale, patch, shrink
        self._degradation, self._lr_files, self._on_notice = degradation, lr_files, on_notice
        self.shelf = shelve(files, self._lower, scale=scale, patch=patch, room=room, on_notice=on_notice)

    def sample(self, rng: np.random.Generator) -> Pair:
        """One augmented crop: LR `(patch / scale, patch / scale, 3)` and HR `(patch, patch, 3)`, uint8."""
        lr, hr = self.shelf.take(int(rng.integers(len(self.shelf.files))))
        shrunk = self._shrunk(hr, rng)
        if lr is None:
            lr, hr = _degraded_crop(hr if shrunk is None else shrunk, self.scale, self.patch, self._degradation, rng)
        elif shrunk is None:
            lr, hr = crop(lr, hr, self.patch, rng)
        else:
            inner = Part(EDGE, EDGE, self.patch // self.scale, self.patch // self.scale)
            lr, hr = inner.of(bicubic(shrunk, self.scale)), inner.of(shrunk, self.scale)
        return augment(lr, hr, int(rng.integers(8)))

    def validation(self, files: Sequence[Path]) -> Iterator[Pair]:
        """The middle of each of `files` with its LR, always the same; those that cannot be read are reported."""
        for index, file in enumerate(files):
            try:
                whole = divisible(read_rgb(file), self.scale)
                part = middle_part(_lr_size(whole, self.scale), self.scale)
                hr = part.of(whole, self.scale)
                lr = self._lower(file, hr, part)
            except UpscaleError as error:
                self._on_notice(f"{error}; it is left out of the validation")
                continue
            if lr is None:
                lr = second_order(usm_sharpen(hr), self.scale, np.random.default_rng((0, index)), self._degradation)
            yield lr, hr

    def _shrunk(self, hr: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """A square of `hr`, reduced to a crop with its margin; None every other time, and where there is no room."""
        margin = EDGE * self.scale if self._degradation is None else MARGIN + JPEG_BLOCK * self.scale
        side, smallest = self.patch + 2 * margin, min(hr.shape[:2])
        if self._shrink == 1 or smallest < side or rng.random() < 0.5:
            return None
        taken = int(rng.integers(side, min(smallest, int(side / self._shrink)) + 1))
        square = random_part(hr.shape[:2], taken, taken, rng).of(hr)
        return np.asarray(Image.fromarray(np.ascontiguousarray(square)).resize((side, side), Image.Resampling.BICUBIC))

    def _lower(self, file: Path, hr: np.ndarray, part: Part) -> np.ndarray | None:
        if self._degradation is not None:
            return None
        if file not in self._lr_files:
            return bicubic(hr, self.scale)
        lr = part.of(read_rgb(self._lr_files[file]))
        if lr.shape[:2] != _lr_size(hr, self.scale):
            raise UpscaleError(f"{self._lr_files[file]} does not stand as its HR picture does")
        return np.ascontiguousarray(lr)


def shelve(
    files: Sequence[Path], lower: Lower, *, scale: int, patch: int, room: int | None, on_notice: Notice
) -> Shelf[tuple[np.ndarray | None, np.ndarray]]:
    """A shelf of (LR, HR) of those `files` that are as large as a crop, the HR divisible by `scale`.

    Where they do not all fit into `room` bytes (`default_room` when None), one part of each large picture is kept and
    used alone: decoding a photograph of 24 megapixels anew for every crop would take longer than the network.

    Raises `UpscaleError` when none is large enough.
    """
    sizes = large_enough(files, patch, leaving_out(on_notice))
    files = [file for file in files if file in sizes]
    if not files:
        raise none_large_enough(patch)
    room = room or default_room()
    weights = [round(width * height * 3 * (1 + 1 / scale**2)) for width, height in sizes.values()]
    most = max(fair_share(weights, room), LEAST_PART)
    if large := sum(weight > most for weight in weights):
        on_notice(
            f"{len(sizes)} pictures take {sum(weights) / 1e9:.1f} GB in memory, and {room / 1e9:.1f} GB are theirs: of "
            f"the {large} largest a part is used, {most / 3e6:.1f} megapixels of each"
        )

    def load(file: Path) -> tuple[tuple[np.ndarray | None, np.ndarray], int]:
        hr = divisible(read_rgb(file), scale)
        part = _part_to_keep(file, hr, scale, patch, most)
        hr = np.ascontiguousarray(part.of(hr, scale))  # of a part a copy, so that the whole is let go
        lr = lower(file, hr, part)
        return (lr, hr), hr.nbytes + (0 if lr is None else lr.nbytes)

    return Shelf(files, load, room=room, on_notice=on_notice)


def _part_to_keep(file: Path, hr: np.ndarray, scale: int, patch: int, most: int) -> Part:
    """The part of a picture that takes `most` bytes, or all of it; where it lies follows from the file's name alone."""
    shrink = min(1.0, math.sqrt(most / (hr.size * (1 + 1 / scale**2))))
    lr_size = _lr_size(hr, scale)
    height, width = (max(int(length * shrink), patch // scale) for length in lr_size)
    return random_part(lr_size, height, width, np.random.default_rng(zlib.crc32(os.fsencode(file.name))))


def _degraded_crop(hr: np.ndarray, scale: int, patch: int, options: SecondOrder, rng: np.random.Generator) -> Pair:
    rows, columns = (_with_margin(length, scale, patch, rng) for length in hr.shape[:2])
    region = hr[rows[0] : rows[2], columns[0] : columns[2]]
    lr = second_order(usm_sharpen(region), scale, rng, options)
    inner = Part((rows[1] - rows[0]) // scale, (columns[1] - columns[0]) // scale, patch // scale, patch // scale)
    return inner.of(lr), inner.of(region, scale)


def _with_margin(length: int, scale: int, patch: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Where the margin of a random crop starts, the crop itself, and where the margin ends, along one side."""
    first = scale * int(rng.integers((length - patch) // scale + 1))
    margin = MARGIN // scale * scale
    # Some more before it, so that the grid of the JPEG's blocks lies anywhere in a crop.
    shift = scale * int(rng.integers(JPEG_BLOCK))
    return max(0, first - margin - shift), first, min(length, first + patch + margin)


def _lr_size(hr: np.ndarray, scale: int) -> tuple[int, int]:
    return hr.shape[0] // scale, hr.shape[1] // scale
