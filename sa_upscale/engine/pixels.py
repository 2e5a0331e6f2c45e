"""Arrays of pixels as the network takes and gives them."""

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional

WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}
COLOUR_SIGMA, COLOUR_REACH = 4, 12  # LR pixels: what colours are matched over, and how far that reaches


class Rows:
    """The rows of a picture that comes in bands `(rows, …)`, as many at a time as are needed at once."""

    def __init__(self, bands: Iterable[np.ndarray]):
        self._bands = iter(bands)
        self._held, self._start = next(self._bands), 0
        self.shape, self.dtype = self._held.shape[1:], self._held.dtype

    def between(self, start: int, stop: int) -> np.ndarray:
        """Rows `[start, stop)`, fewer at the end of the picture; what was before `start` is forgotten."""
        held, at = [self._held[start - self._start :]], self._start + len(self._held)
        while at < stop and (band := next(self._bands, None)) is not None:
            held.append(band[max(0, start - at) :])
            at += len(band)
        self._held, self._start = np.concatenate(held) if len(held) > 1 else held[0], start
        return self._held[: stop - start]


def to_tensor(pixels: np.ndarray, channels: int, device: torch.device) -> torch.Tensor:
    """`(h, w, C)` of any of the three types as float32 `(1, channels, h, w)` in [0, 1] on the device, channels last.

    Grey becomes `channels` equal ones.
    """
    if device.type == "cuda" and pixels.dtype == np.uint8:
        # A quarter of the bytes over the bus, and from pinned memory the copy waits for nothing.  A copy of its own,
        # for torch warns of arrays that cannot be written to.
        tensor = torch.from_numpy(pixels.copy()).pin_memory().to(device, non_blocking=True).float()
    else:
        tensor = torch.from_numpy(pixels.astype(np.float32)).to(device)
    tensor = tensor.div_(WHITE[pixels.dtype]).permute(2, 0, 1).unsqueeze(0)
    return tensor.expand(-1, channels, -1, -1).contiguous(memory_format=torch.channels_last)


def quantise(rows: torch.Tensor, dtype: np.dtype) -> torch.Tensor:
    """Floats in [0, 1] rounded to the steps of an array type, still as floats; spoils the rows."""
    rows.clamp_(0, 1)
    return rows.mul_(WHITE[dtype]).round_() if WHITE[dtype] > 1 else rows


def pad(image: np.ndarray, multiple: int) -> np.ndarray:
    """The image mirrored at its right and lower border up to a multiple; itself when it is one."""
    height, width = image.shape[:2]
    more = (round_up(height, multiple) - height, round_up(width, multiple) - width)
    return np.pad(image, ((0, more[0]), (0, more[1]), (0, 0)), mode="reflect") if any(more) else image


def round_up(value: int, multiple: int) -> int:
    """The next multiple from `value` up."""
    return -(-value // multiple) * multiple


def with_low_frequencies(sr: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
    """`sr` `(N, C, h·s, w·s)` with the low frequencies of `lr` `(N, C, h, w)`: both have the same local mean colour.

    What the mean over each LR pixel differs by is blurred by a Gaussian of `COLOUR_SIGMA` and added.
    """
    scale = sr.shape[-1] // lr.shape[-1]
    taps = torch.arange(-COLOUR_REACH, COLOUR_REACH + 1, dtype=sr.dtype, device=sr.device)
    kernel = torch.exp(-(taps**2) / (2 * COLOUR_SIGMA**2))
    kernel /= kernel.sum()
    channels = sr.shape[1]
    smooth = lr - functional.avg_pool2d(sr, scale)
    for shape, border in (
        ((1, 1, 1, -1), (COLOUR_REACH, COLOUR_REACH, 0, 0)),
        ((1, 1, -1, 1), (0, 0, *[COLOUR_REACH] * 2)),
    ):
        padded = functional.pad(smooth, border, mode="replicate")
        smooth = functional.conv2d(padded, kernel.view(shape).expand(channels, -1, -1, -1), groups=channels)
    return sr + functional.interpolate(smooth, scale_factor=scale, mode="bilinear")
