"""What repeats with the period of the scale: the lattice that a pixel shuffle leaves on flat areas."""

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.losses.step import Step


class Lattice(nn.Module):
    """Mean square of what the 16 positions (at ×4) that one LR pixel becomes have against each other on average.

    A network has only the LR to tell neighbouring areas apart: where that is flat, all it can invent is a pattern that
    repeats with every LR pixel, and features and adversaries reward it as texture.  Here the error `sr - hr` is
    averaged for each of the positions over squares of `window` LR pixels, which half overlap, and what the positions
    share is taken off.  Edges and true texture, which do not keep to the grid, average out.

    Reference: none; our own, against what `perceptual` and `gan` did to the small networks.
    """

    def __init__(self, window: int = 6):
        super().__init__()
        if window < 2:
            raise ValueError(f"a window of {window} LR pixels averages nothing; give 2 or more")
        self.window = window

    def forward(self, step: Step) -> torch.Tensor:
        scale = step.hr.shape[-1] // step.lr.shape[-1]
        error = F.pixel_unshuffle(step.sr - step.hr, scale)
        window = min(self.window, *error.shape[-2:])
        average = F.avg_pool2d(error, window, stride=max(1, window // 2)).unflatten(1, (-1, scale**2))
        return (average - average.mean(dim=2, keepdim=True)).square().mean()
