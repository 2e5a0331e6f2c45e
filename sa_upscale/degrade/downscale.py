"""The plain reduction that the benchmark sets were made with."""

import numpy as np
import torch

from sa_upscale.functional.resize import resize_axis


def bicubic(hr: np.ndarray, scale: int) -> np.ndarray:
    """Reduce a uint8 picture `(H, W, C)` by a whole `scale` to `(H // scale, W // scale, C)`, uint8.

    What does not divide by `scale` is cropped at the right and bottom.  The published LR files of Set5, Set14, BSD100
    and Urban100 come out bit for bit: heights first, rounded half up to 8 bits, then widths, rounded again, border
    pixels replicated, double precision.

    Raises `ValueError` for another type or shape, or a picture smaller than `scale`.
    """
    if hr.dtype != np.uint8 or hr.ndim != 3:
        raise ValueError(f"bicubic takes a uint8 picture (H, W, C), not {hr.dtype} {hr.shape}")
    height, width = (side // scale for side in hr.shape[:2])
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {hr.shape[1]}x{hr.shape[0]} cannot be reduced by {scale}")
    x = torch.tensor(hr[: height * scale, : width * scale], dtype=torch.float64)
    x = _round_half_up(resize_axis(x, height, axis=0, border="replicate"))
    x = _round_half_up(resize_axis(x, width, axis=1, border="replicate"))
    return x.to(torch.uint8).numpy()


def _round_half_up(x: torch.Tensor) -> torch.Tensor:
    return (x + 0.5).floor_().clamp_(0, 255)
