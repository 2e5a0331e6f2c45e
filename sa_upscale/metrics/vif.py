"""Visual information fidelity, as torchmetrics computes it."""

from collections.abc import Callable

import torch

from sa_upscale.functional.color import luma
from sa_upscale.metrics.optional import load_library
from sa_upscale.metrics.pair import inside

SMALLEST = 41  # the side that the coarsest of the four scales needs


def load() -> Callable:
    """`vif(sr, hr, border)`: pixel-domain visual information fidelity of each picture, the mean over its channels.

    It takes two batches `(N, C, H, W)` in [0, 1] and gives `(N,)`; 1 for equal pictures.  `border` pixels on each side
    are left out.  It raises `ValueError` when the sizes differ or fewer than 41 pixels a side are left.

    Raises `UpscaleError` without torchmetrics.

    Reference: H. Sheikh and A. Bovik, "Image information and visual quality", 2006, in the authors' pixel-domain form
    with noise of variance 2 on a scale of 0-255.
    """
    measure = load_library("vif", "torchmetrics.functional.image").visual_information_fidelity

    def vif(sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
        sr, hr = (x.double() for x in inside(sr, hr, border, smallest=SMALLEST))
        # Only variances count: about zero float32 holds them well enough, and is thirty times as fast as float64.
        middle = hr.mean(dim=(2, 3), keepdim=True)
        return measure(*(((x - middle) * 255).float() for x in (sr, hr)), reduction="none")

    return vif


def load_y() -> Callable:
    """The `vif` of `load` on the BT.601 luma (studio range, unrounded)."""
    vif = load()
    return lambda sr, hr, border=0: vif(luma(sr.double()), luma(hr.double()), border)
