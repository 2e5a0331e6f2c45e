"""Noise and JPEG compression in the LR, as cameras leave them, and what is left of both in pictures resized since."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sa_upscale.data.crops import Pair
from sa_upscale.data.loading import Source
from sa_upscale.degrade import jpeg

TRACE_SCALES = (0.6, 2.0)
MOST_NOISE = 8.0  # σ, in codes of 255
QUALITIES = (60, 96)
JPEG_BLOCK = 8


class Touched:
    """Another source's samples, the LR of `share` of them changed."""

    def __init__(self, source: Source, share: float):
        self.source, self.share = source, share

    def sample(self, rng: np.random.Generator) -> Pair:
        """A sample of the source, its LR changed or not."""
        return self.touched(*self.source.sample(rng), rng)

    def touched(self, lr: np.ndarray, hr: np.ndarray, rng: np.random.Generator) -> Pair:
        """Any pair, its LR changed or not."""
        if rng.random() >= self.share:
            return lr, hr
        return np.rint(self._changed(lr, hr, rng)).clip(0, 255).astype(np.uint8), hr

    def _changed(self, lr: np.ndarray, hr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError


class Noisy(Touched):
    """Another source's samples, every other one with normal noise in its LR, another in each frame.

    The standard deviation is drawn for each sample between 0 and `most`, in codes of 255.
    """

    def __init__(self, source: Source, most: float):
        super().__init__(source, share=0.5)
        self.most = most

    def _changed(self, lr: np.ndarray, hr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return lr + rng.uniform(0, self.most) * rng.standard_normal(lr.shape, np.float32)


class Damaged(Touched):
    """Another source's samples of pictures, `share` of them with noise in their LR, JPEG compression, or both.

    Each about as often: normal noise (a σ of up to 8 of 255, at the brightness alone or in each channel), and a quality
    of 60 to 96 with blocks lying anywhere, chroma halved in every other one.
    """

    def _changed(self, lr: np.ndarray, hr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _damaged(lr.astype(np.float32), rng, halving=True)


class Traced(Touched):
    """Another source's samples of pictures, `share` of them with traces of an earlier file in their LR.

    The earlier file has between 0.6 and twice the LR's size, drawn anew for each sample as all else is.  It gets what
    `Damaged` pictures get (halved chroma only in files no smaller than the LR).  What that changed in it is resized and
    added to the LR, which keeps its own sharpness.  Cameras and websites leave such traces: softer than noise, and
    taken for detail by a network that has never seen them.
    """

    def _changed(self, lr: np.ndarray, hr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        smallest, largest = np.log2(TRACE_SCALES)
        factor = 2 ** rng.uniform(smallest, largest)
        height, width = (max(1, round(side * factor)) for side in lr.shape[:2])
        earlier = Image.fromarray(hr).resize((width, height), Image.Resampling.BICUBIC)
        before = np.asarray(earlier, np.float32)
        return lr + resized(_damaged(before, rng, halving=factor >= 1) - before, lr.shape[1], lr.shape[0])


def _damaged(picture: np.ndarray, rng: np.random.Generator, *, halving: bool) -> np.ndarray:
    """A float32 picture `(H, W, 3)` in [0, 255] with noise, compressed, or both; half of the JPEGs with `halving`."""
    kind = rng.integers(3)
    if kind != 1:
        channels = 3 if rng.random() < 0.5 else 1
        noise = rng.standard_normal((*picture.shape[:2], channels), np.float32)
        picture = picture + rng.uniform(0, MOST_NOISE) * noise
    if kind == 0:
        return picture
    corner = rng.integers(JPEG_BLOCK, size=2)
    quality = int(rng.integers(QUALITIES[0], QUALITIES[1] + 1))
    return compressed(picture, quality, corner, halved=halving and rng.random() < 0.5)


def compressed(picture: np.ndarray, quality: int, corner: Sequence[int], *, halved: bool) -> np.ndarray:
    """A float32 picture `(H, W, 3)` in [0, 255] after `degrade.jpeg`, its corner at (row, column) of a block."""
    above, left = corner
    shifted = np.pad(picture, ((above, JPEG_BLOCK), (left, JPEG_BLOCK), (0, 0)), "symmetric")
    decoded = jpeg(np.rint(shifted).clip(0, 255).astype(np.uint8), quality, halved=halved)
    return decoded[above : above + picture.shape[0], left : left + picture.shape[1]].astype(np.float32)


def resized(x: np.ndarray, width: int, height: int) -> np.ndarray:
    """`x`, float32 `(H, W, 3)` of any sign, by bicubic interpolation, wide enough where it gets smaller."""
    planes = [Image.fromarray(np.ascontiguousarray(x[..., i])) for i in range(x.shape[2])]
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)) for plane in planes], axis=-1)
