"""Structural similarity."""

import torch

from sa_upscale.functional.color import luma
from sa_upscale.metrics.pair import inside

WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


def ssim(sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
    """Structural similarity of each picture: the mean over pixels, then over channels; 1 for equal pictures.

    Takes two batches `(N, C, H, W)` in [0, 1] and gives `(N,)`, float64; `border` pixels on each side are left out.
    The window is an 11x11 Gaussian of standard deviation 1.5 and stays inside the picture, as in the authors' code
    and the tables of the field.

    Raises `ValueError` when the sizes differ or fewer than 11 pixels a side are left.

    Reference: Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004,
    eq. 13, with K1 = 0.01 and K2 = 0.03.
    """
    sr, hr = (x.double() for x in inside(sr, hr, border, smallest=WINDOW))
    mean_sr, mean_hr, square_sr, square_hr, product = _windowed([sr, hr, sr * sr, hr * hr, sr * hr])
    variance_sr, variance_hr = square_sr - mean_sr.square(), square_hr - mean_hr.square()
    covariance = product - mean_sr * mean_hr
    luminance = (2 * mean_sr * mean_hr + C1) / (mean_sr.square() + mean_hr.square() + C1)
    structure = (2 * covariance + C2) / (variance_sr + variance_hr + C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def ssim_y(sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
    """`ssim` of the BT.601 luma (studio range, unrounded), as the tables of the field give it."""
    return ssim(luma(sr.double()), luma(hr.double()), border)


def _windowed(maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """The Gaussian mean of each map around every pixel whose window lies inside."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * SIGMA**2))
    taps = (kernel / kernel.sum()).tolist()
    x = torch.stack(maps)
    # Tap by tap: twice as fast as conv2d, which has no quick way for float64.
    for axis in (-2, -1):
        length = x.shape[axis] - WINDOW + 1
        x = sum(tap * x.narrow(axis, offset, length) for offset, tap in enumerate(taps))
    return list(x)
