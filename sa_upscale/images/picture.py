"""One picture in memory, and its samples in bands of rows.

Bands, because a result of 600 MB leaves no room for the temporary copies that a whole-picture expression makes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

BAND_BYTES = 1 << 20


@dataclass
class Picture:
    """One picture in memory.

    `pixels` is `(H, W, C)` with C = 1 (grey) or 3 (RGB), uint8, uint16 or float32 (nominally in [0, 1]); `alpha` is
    `(H, W)` of the same type, not premultiplied, or None.  `exif` is a TIFF stream without the `Exif\\0\\0` of JPEG;
    its orientation is 1, as the pixels already stand upright.  `dpi` is (horizontal, vertical).  `quality` is the
    estimate of a JPEG source, `lossless` says that a WebP source was, `colour_chunks` are PNG's gAMA, cHRM, sRGB, cICP
    and the like as (type, data), `texts` its text chunks likewise; `comment` is that of a JPEG or GIF.  `software` is
    told in the metadata to have made the picture.  `notes` are the changes that reading had to make, for the user.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str = "png"
    quality: int | None = None
    lossless: bool = False
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    texts: tuple[tuple[bytes, bytes], ...] = ()
    comment: bytes | None = None
    software: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def samples(self) -> int:
        """How many samples a pixel has, alpha counted."""
        return self.pixels.shape[2] + (self.alpha is not None)


def blank(height: int, width: int, channels: int, depth: str, alpha: bool) -> Picture:
    """A picture of that size that takes no memory: stands for one whose rows are still to come."""
    nothing = np.zeros((), depth)
    pixels = np.broadcast_to(nothing, (height, width, channels))
    return Picture(pixels, np.broadcast_to(nothing, (height, width)) if alpha else None)


def top(dtype) -> int | float:
    """The value of white."""
    return 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max


def row_bands(array: np.ndarray, size: int | None = None) -> Iterator[slice]:
    """The rows of `array` in bands of about `size` bytes, `BAND_BYTES` by default."""
    step = band_rows(array, size)
    for start in range(0, array.shape[0], step):
        yield slice(start, start + step)


def band_rows(array: np.ndarray, size: int | None = None) -> int:
    """How many rows of `array` make a band."""
    return max(1, (size or BAND_BYTES) // max(1, array[:1].nbytes))


def sample_bands(picture: Picture) -> Iterator[np.ndarray]:
    """Bands of rows `(rows, W, S)` with alpha, if there is one, as the last sample."""
    for rows in row_bands(picture.pixels):
        band = picture.pixels[rows]
        yield band if picture.alpha is None else np.dstack((band, picture.alpha[rows]))


def rebanded(bands: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """`bands` of rows cut anew so that each but the last has `count` rows."""
    waiting = []
    for band in bands:
        waiting.append(band)
        while sum(map(len, waiting)) >= count:
            joined = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
            yield joined[:count]
            waiting = [joined[count:]]
    rest = [band for band in waiting if len(band)]
    if rest:
        yield np.concatenate(rest)


def finite(array: np.ndarray, notes: list[str]) -> np.ndarray:
    """A float `array` with what is no number as 0 and what is infinite as the largest there is, which `notes` say."""
    bad = ~np.isfinite(array)
    if not bad.any():
        return array
    notes.append(f"{np.count_nonzero(bad)} of its samples were no finite numbers and were replaced")
    usable = array[~bad]
    low, high = (usable.min(), usable.max()) if len(usable) else (0, 0)
    return np.nan_to_num(array, nan=0, posinf=high, neginf=low)


def converted(array: np.ndarray, depth: str) -> np.ndarray:
    """`array` at another depth, rounded to nearest and clipped where that is of integers."""
    if array.dtype == depth:
        return array
    result = np.empty(array.shape, depth)
    factor = top(depth) / top(array.dtype)
    for rows in row_bands(array):
        scaled = array[rows] * np.float32(factor)
        result[rows] = scaled if depth == "float32" else np.rint(np.clip(scaled, 0, top(depth)))
    return result
