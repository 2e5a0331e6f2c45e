"""Bicubic resizing as MATLAB's `imresize` does it."""

from typing import Literal

import torch

Border = Literal["symmetric", "replicate"]


def resize(
    x: torch.Tensor, size: tuple[int, int], *, antialias: bool = True, border: Border = "symmetric"
) -> torch.Tensor:
    """Resize the last two axes of a floating-point tensor `(..., H, W)` to `size = (height, width)`.

    The kernel is Keys' cubic with a = -0.5, stretched by the factor of a reduction when `antialias` is set.  Pixel
    centres map as `(i + 0.5) / scale - 0.5`.  Nothing is rounded or clamped: a cubic overshoots.

    Raises `ValueError` for integer tensors and empty sizes.

    Reference: R. Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 15.
    """
    if not x.is_floating_point():
        raise ValueError(f"resize takes floating-point tensors, not {x.dtype}")
    if min(size) < 1 or min(x.shape[-2:]) < 1:
        raise ValueError(f"cannot resize {tuple(x.shape[-2:])} to {tuple(size)}: an axis is empty")
    x = resize_axis(x, size[0], axis=-2, antialias=antialias, border=border)
    return resize_axis(x, size[1], axis=-1, antialias=antialias, border=border)


def resize_axis(
    x: torch.Tensor, length: int, *, axis: int, antialias: bool = True, border: Border = "symmetric"
) -> torch.Tensor:
    """One pass of `resize`, along one axis."""
    if x.shape[axis] == length:
        return x
    indices, weights = contributions(x.shape[axis], length, antialias=antialias, border=border)
    indices, weights = indices.to(x.device), weights.to(x.device, x.dtype)
    shape = [1] * x.dim()
    shape[axis] = length
    # Tap by tap: gathering all taps at once would hold as many copies of the image as the kernel is wide.
    total = x.index_select(axis, indices[:, 0]) * weights[:, 0].view(shape)
    for tap in range(1, indices.shape[1]):
        total += x.index_select(axis, indices[:, tap]) * weights[:, tap].view(shape)
    return total


def contributions(
    source: int, target: int, *, antialias: bool = True, border: Border = "symmetric"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of `source` samples make each of `target` samples: int64 indices and float64 weights, `(target, taps)`.

    The weights of a sample sum to one.
    """
    scale = target / source
    stretch = min(scale, 1.0) if antialias else 1.0
    width = 4.0 / stretch
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) / scale - 0.5
    first = torch.floor(centres - width / 2).long()
    taps = int(width) + 3
    positions = first[:, None] + torch.arange(taps)
    weights = stretch * cubic(stretch * (centres[:, None] - positions))
    weights = weights / weights.sum(dim=1, keepdim=True)
    used = weights.abs().amax(dim=0) > 0
    return _inside(positions, source, border)[:, used], weights[:, used]


def cubic(x: torch.Tensor) -> torch.Tensor:
    """Keys' cubic kernel with a = -0.5; zero from |x| = 2 on."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _inside(positions: torch.Tensor, length: int, border: Border) -> torch.Tensor:
    if border == "replicate":
        return positions.clamp(0, length - 1)
    # Symmetric: … 1 0 0 1 2 … n-1 n-1 n-2 …, with period 2n so that it holds for images smaller than the kernel.
    positions = positions.remainder(2 * length)
    return torch.minimum(positions, 2 * length - 1 - positions)
