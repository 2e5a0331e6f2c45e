"""What every metric asks of a result and its reference."""

import torch


def inside(sr: torch.Tensor, hr: torch.Tensor, border: int, smallest: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Both batches `(N, C, H, W)` without `border` pixels on each side.

    Raises `ValueError` when they differ in shape, are no such batches of floating-point numbers, or fewer than
    `smallest` pixels a side are left.
    """
    if sr.shape != hr.shape:
        raise ValueError(f"cannot compare {tuple(sr.shape)} with {tuple(hr.shape)}")
    if hr.dim() != 4 or not (sr.is_floating_point() and hr.is_floating_point()):
        raise ValueError(f"a metric takes floating-point (N, C, H, W), not {sr.dtype} and {hr.dtype} {tuple(hr.shape)}")
    if border < 0:
        raise ValueError(f"a border of {border} pixels is not possible")
    height, width = hr.shape[-2:]
    left = min(height, width) - 2 * border
    if left < 1:
        raise ValueError(f"a border of {border} leaves nothing of {width}x{height} pixels")
    if left < smallest:
        raise ValueError(f"{left} pixels a side are too few; this metric needs {smallest}")
    rows, columns = slice(border, height - border), slice(border, width - border)
    return sr[..., rows, columns], hr[..., rows, columns]
