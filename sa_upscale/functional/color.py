"""Colour spaces."""

import torch

# BT.601, R'G'B' in [0, 1] to studio-range luma in [16, 235].
_LUMA = (65.481, 128.553, 24.966)


def luma(rgb: torch.Tensor) -> torch.Tensor:
    """BT.601 luma of `(N, 3, H, W)` in [0, 1] as `(N, 1, H, W)` in [16/255, 235/255]."""
    weights = torch.tensor(_LUMA, dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1)
    return ((rgb * weights).sum(dim=1, keepdim=True) + 16) / 255
