"""Distances between pixels."""

import torch
from torch import nn

from sa_upscale.losses.step import Step


def l1(sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference, a scalar."""
    return (sr - hr).abs().mean()


def charbonnier(sr: torch.Tensor, hr: torch.Tensor, epsilon: float = 1e-3) -> torch.Tensor:
    """Mean of `sqrt((sr - hr)² + epsilon²)`, a scalar: an L1 that is smooth at zero, where it is `epsilon`."""
    return ((sr - hr).square() + epsilon**2).sqrt().mean()


class L1(nn.Module):
    """Mean absolute difference."""

    def forward(self, step: Step) -> torch.Tensor:
        return l1(step.sr, step.hr)


class Charbonnier(nn.Module):
    """Charbonnier distance (SA paper, eq. 6 with unit weights)."""

    def __init__(self, epsilon: float = 1e-3):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, step: Step) -> torch.Tensor:
        return charbonnier(step.sr, step.hr, self.epsilon)
