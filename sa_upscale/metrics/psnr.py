"""Peak signal-to-noise ratio."""

import torch

from sa_upscale.functional.color import luma
from sa_upscale.metrics.pair import inside


def psnr(sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each picture, over all channels.

    Takes two batches `(N, C, H, W)` in [0, 1] and gives `(N,)`, float64; `border` pixels on each side are left out.
    Equal pictures give infinity.  Nothing is rounded here: what is to be measured as an 8-bit file must have 8-bit
    values.

    Raises `ValueError` when the sizes differ or the border leaves nothing.
    """
    sr, hr = inside(sr, hr, border)
    return -10 * torch.log10((sr.double() - hr.double()).square().mean(dim=(1, 2, 3)))


def psnr_y(sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
    """`psnr` of the BT.601 luma (studio range, unrounded), as the tables of the field give it."""
    return psnr(luma(sr.double()), luma(hr.double()), border)
