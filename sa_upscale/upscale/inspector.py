"""A small network that tells how noisy a picture is, and how much it was compressed, where no file says so."""

import math
from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LEAST = 32
"""Pixels a side of what can be judged."""

MIXED = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Second differences in both directions: blind to plane slopes, and of norm 1."""

WEIGHTS = "inspector.safetensors"
_LOST_UNIT = 20.0  # of a JPEG's quality
_SURE = 6.0  # the largest logarithm of a place's weight


class Inspector(nn.Module):
    """Luma `(1, 1, h, w)` in 255ths of white to what is wrong with it, as `targets` has it, `(1, 2)`, and its weights.

    Every place says what it takes the picture's noise and compression to be, and how sure it is of each; the mean, so
    weighted, is the picture's, whatever its size.  Noise shows where it is flat, blocks where it is not quite.  What it
    sees are second differences and both first ones, their magnitudes by the logarithm: edges are a hundred times as
    high as what it looks for.

    Trained by `tools/train_inspector.py`; ours, after no paper.
    """

    def __init__(self):
        super().__init__()
        down, across = torch.zeros(3, 3), torch.zeros(3, 3)
        down[0, 1], down[1, 1] = -1, 1
        across[1, 0], across[1, 1] = -1, 1
        self.register_buffer(
            "differences", torch.stack([torch.from_numpy(MIXED), down, across]).unsqueeze(1), persistent=False
        )
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(48, 48, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(48, 4, 1),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, luma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of `(n, 1, h, w)`, at least `LEAST` pixels a side, what is wrong and the mean weight, `(n, 2)` each."""
        differences = F.conv2d(luma, self.differences)
        seen = differences.sign() * torch.log1p(differences.abs() / 2)
        found = self.body(seen.contiguous(memory_format=torch.channels_last)).float()
        values, weights = found[:, :2], found[:, 2:].clamp(-_SURE, _SURE).exp()
        return (values * weights).sum((2, 3)) / weights.sum((2, 3)), weights.mean((2, 3))


def targets(noise: float, lost: float) -> tuple[float, float]:
    """What the network says of noise of this standard deviation and a quality that lacks `lost` of 100."""
    return math.log2(1 + noise), lost / _LOST_UNIT


def inspect(windows: Sequence[np.ndarray]) -> tuple[float, float]:
    """The standard deviation of white noise, in 255ths, and what the quality of a like JPEG lacks of 100; 0 for none.

    `windows` are parts of one picture, float32 luma `(h, w)` in [0, 255].
    """
    large_enough = [window for window in windows if min(window.shape) >= LEAST]
    if not large_enough:
        return 0.0, 0.0
    network = _loaded()
    with torch.inference_mode():
        told = [network(torch.from_numpy(np.ascontiguousarray(window))[None, None]) for window in large_enough]
    values = torch.cat([value for value, _ in told])
    weights = torch.cat([weight * window.size for (_, weight), window in zip(told, large_enough, strict=True)])
    noise, lost = ((values * weights).sum(0) / weights.sum(0)).tolist()
    return max(0.0, 2**noise - 1), max(0.0, lost * _LOST_UNIT)


@cache
def _loaded() -> Inspector:
    from safetensors.torch import load

    network = Inspector().eval().requires_grad_(False)
    weights = load((resources.files(__package__) / WEIGHTS).read_bytes())
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    return network
