"""Measures of a result against its reference, by name.

A metric is a function `(sr, hr, border) -> (N,)` of two batches `(N, 3, H, W)` in [0, 1]; `border` pixels on each side
are left out.  Adding one: a file in this folder and a line in `METRICS`.
"""

from collections.abc import Callable

import torch

from sa_upscale.metrics.psnr import psnr, psnr_y

METRICS: dict[str, Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]] = {
    "psnr": psnr,
    "psnr-y": psnr_y,
}
