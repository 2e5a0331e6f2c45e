"""Local statistics of images, the edge maps made of them, and sharpening."""

import cv2
import numpy as np
import torch
from torch.nn import functional as F


def box_mean(x: torch.Tensor, window: int) -> torch.Tensor:
    """Mean of float `(N, C, H, W)` over the odd `window` × `window` pixels around each, the border reflected.

    float32 whatever the autocast.  Raises `ValueError` for a window that is even, below 3 or too large for the image.
    """
    radius = window // 2
    if window < 3 or window % 2 == 0:
        raise ValueError(f"the window must be odd and at least 3, not {window}")
    if min(x.shape[-2:]) <= radius:
        raise ValueError(f"a {window}×{window} window needs images of at least {radius + 1} pixels a side")
    x = F.pad(x.float(), [radius] * 4, mode="reflect")
    return F.avg_pool2d(F.avg_pool2d(x, (window, 1), stride=1), (1, window), stride=1)


def box_variance(x: torch.Tensor, window: int, *, unbiased: bool = False) -> torch.Tensor:
    """Variance of float `(N, C, H, W)` over the window around each pixel; arguments, errors and type as `box_mean`.

    `unbiased` divides by the number of pixels less one.
    """
    x = x.float()
    mean, mean_square = box_mean(torch.cat([x, x.square()], dim=1), window).chunk(2, dim=1)
    # The difference of two rounded numbers can fall below zero where an area is flat.
    variance = (mean_square - mean.square()).clamp_min(0)
    count = window * window
    return variance * (count / (count - 1)) if unbiased else variance


@torch.no_grad()
def local_variance(x: torch.Tensor, window: int = 5, delta: float = 0.01) -> torch.Tensor:
    """Edge map `W = v / (v + delta)` in [0, 1), of the shape of x, where v is each channel's biased local variance.

    `x` is `(N, C, H, W)` in [0, 1]; float32 and without gradient.

    Reference: SA paper, eq. 1-3; SA-VSRGAN, eq. 1-4 and its delta.  The papers give no window.
    """
    variance = box_variance(x, window)
    return variance / (variance + delta)


@torch.no_grad()
def canny(x: torch.Tensor, low: float = 100, high: float = 200) -> torch.Tensor:
    """Edge map of zeros and ones, float32 `(N, 1, H, W)`: OpenCV's Canny on the 8-bit BT.601 luma of each image.

    `x` is `(N, 1 or 3, H, W)` in [0, 1], values outside clipped; `low` and `high` are Canny's thresholds on gradients
    of 8-bit values.  No gradient.

    Reference: SA paper, section III-A.2, which gives no thresholds.
    """
    pixels = (x.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    edges = np.stack([cv2.Canny(_luma(image), low, high, L2gradient=False) for image in pixels])
    return torch.from_numpy(edges)[:, None].to(x.device, torch.float32) / 255


def _luma(image: np.ndarray) -> np.ndarray:
    return image[..., 0].copy() if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


@torch.no_grad()
def unsharp(x: torch.Tensor, amount: float = 0.5, radius: int = 25, threshold: float = 10 / 255) -> torch.Tensor:
    """`(N, C, H, W)` in [0, 1] sharpened where it differs from its blur by more than `threshold`, else as it was.

    The blur is Gaussian over `2 * radius + 1` pixels, with OpenCV's standard deviation for a kernel of that size, the
    border reflected.  Clipped to [0, 1], float32, without gradient.  Raises `ValueError` for an image too small.

    Reference: the targets of Real-ESRGAN (X. Wang et al., 2021) as its authors' code makes them.
    """
    if min(x.shape[-2:]) <= radius:
        raise ValueError(f"sharpening needs images of at least {radius + 1} pixels a side, not {tuple(x.shape[-2:])}")
    x = x.float()
    detail = x - _gaussian(x, radius)
    mask = _gaussian((detail.abs() > threshold).float(), radius)
    return mask * (x + amount * detail).clamp(0, 1) + (1 - mask) * x


def _gaussian(x: torch.Tensor, radius: int) -> torch.Tensor:
    size = 2 * radius + 1
    kernel = torch.from_numpy(cv2.getGaussianKernel(size, 0)).to(x)
    planes = F.pad(x, [radius] * 4, mode="reflect").flatten(0, 1)[:, None]
    with torch.autocast(x.device.type, enabled=False):
        planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, size, 1)), kernel.view(1, 1, 1, size))
    return planes.reshape(x.shape)
