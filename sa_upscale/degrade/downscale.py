"""The plain reduction that the benchmark sets were made with."""

import functools

import numpy as np

from sa_upscale.functional.resize import contributions


def bicubic(hr: np.ndarray, scale: int) -> np.ndarray:
    """Reduce a uint8 picture `(H, W, C)` by a whole `scale` to `(H // scale, W // scale, C)`, uint8.

    What does not divide by `scale` is cropped at the right and bottom.  The published LR files of Set5, Set14, BSD100
    and Urban100 come out bit for bit: heights first, rounded half up to 8 bits, then widths, rounded again, border
    pixels replicated, double precision.

    It may be called from several threads: it starts none of its own, as PyTorch's operations would in each of them.

    Raises `ValueError` for another type or shape, or a picture smaller than `scale`.
    """
    if hr.dtype != np.uint8 or hr.ndim != 3:
        raise ValueError(f"bicubic takes a uint8 picture (H, W, C), not {hr.dtype} {hr.shape}")
    height, width = (side // scale for side in hr.shape[:2])
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {hr.shape[1]}x{hr.shape[0]} cannot be reduced by {scale}")
    lower = _reduce_rows(hr[: height * scale, : width * scale], scale)
    return np.ascontiguousarray(_reduce_rows(lower.swapaxes(0, 1), scale).swapaxes(0, 1))


def _reduce_rows(x: np.ndarray, scale: int) -> np.ndarray:
    """`x` (H, W, C) reduced to (H // scale, W, C), rounded half up."""
    height, width, channels = x.shape
    rows = height // scale
    taps = _taps(scale)
    reach = max(abs(offset) for offset, _ in taps)
    padded = np.pad(x.reshape(height, width * channels), ((reach, reach), (0, 0)), "edge")
    total = np.zeros((rows, width * channels))
    part = np.empty_like(total)
    for offset, weight in taps:
        np.multiply(padded[reach + offset :: scale][:rows], weight, out=part)
        total += part
    total += 0.5
    np.floor(total, out=total)
    return np.clip(total, 0, 255, out=total).astype(np.uint8).reshape(rows, width, channels)


@functools.cache
def _taps(scale: int) -> list[tuple[int, float]]:
    """The source pixels that make a result, counted from its first own one, with their weights: the same for all."""
    indices, weights = contributions(64 * scale, 64, border="replicate")
    return list(zip((indices[32] - 32 * scale).tolist(), weights[32].tolist(), strict=True))
