"""Peak signal-to-noise ratio."""

import torch

from sa_upscale.functional.color import luma


def psnr(sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each picture, over all channels.

    Takes two batches `(N, C, H, W)` in [0, 1]; `border` pixels on each side are left out.  Equal pictures give
    infinity.  Nothing is rounded here: what is to be measured as an 8-bit file must have 8-bit values.

    Raises `ValueError` when the sizes differ or the border leaves nothing.
    """
    if sr.shape != hr.shape:
        raise ValueError(f"cannot compare {tuple(sr.shape)} with {tuple(hr.shape)}")
    if min(hr.shape[-2:]) <= 2 * border:
        raise ValueError(f"a border of {border} leaves nothing of {hr.shape[-1]}x{hr.shape[-2]} pixels")
    inside = slice(border, -border or None)
    error = sr[..., inside, inside].double() - hr[..., inside, inside].double()
    return -10 * torch.log10(error.square().mean(dim=(1, 2, 3)))


def psnr_y(sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
    """`psnr` of the BT.601 luma (studio range, unrounded), as the tables of the field give it."""
    return psnr(luma(sr.double()), luma(hr.double()), border)
