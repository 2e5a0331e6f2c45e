"""Distances between tensors, and the losses that take them between pixels."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.errors import near
from sa_upscale.functional.color import luma as luma_of
from sa_upscale.losses.edges import EdgeMap
from sa_upscale.losses.step import Step


def l1(sr: torch.Tensor, hr: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of `weight * |sr - hr|`, a scalar; `weight` broadcasts over the difference and is 1 when not given.

    Reference: SA paper, eq. 4-5, with the mean over all elements for the sum.
    """
    return _mean((sr - hr).abs(), weight)


def mse(sr: torch.Tensor, hr: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of `weight * (sr - hr)²`, a scalar; `weight` as for `l1`."""
    return _mean((sr - hr).square(), weight)


def charbonnier(
    sr: torch.Tensor, hr: torch.Tensor, weight: torch.Tensor | None = None, *, epsilon: float = 1e-3
) -> torch.Tensor:
    """Mean of `weight * sqrt((sr - hr)² + epsilon²)`, a scalar: an L1 that is smooth at zero, where it is `epsilon`.

    Reference: SA paper, eq. 6-7, with the mean over all elements for the sum.
    """
    return _mean(((sr - hr).square() + epsilon**2).sqrt(), weight)


def huber(
    sr: torch.Tensor, hr: torch.Tensor, weight: torch.Tensor | None = None, *, threshold: float = 1.0
) -> torch.Tensor:
    """Mean of `weight` times r²/2 where `|r| < threshold`, else `threshold * (|r| - threshold / 2)`; r is `sr - hr`.

    Reference: AFM paper, eq. 2, whose threshold is 1.
    """
    return _mean(F.huber_loss(sr, hr, reduction="none", delta=threshold), weight)


def _mean(distances: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return distances.mean() if weight is None else (weight * distances).mean()


DISTANCES: dict[str, Callable[..., torch.Tensor]] = {"l1": l1, "charbonnier": charbonnier, "mse": mse, "huber": huber}


def distance_named(name: str) -> Callable[..., torch.Tensor]:
    """The distance `name`; another raises `ValueError` with the nearest ones."""
    if name not in DISTANCES:
        raise ValueError(f"unknown distance {name!r}; {near(name, DISTANCES)}")
    return DISTANCES[name]


class _Pixel(nn.Module):
    """A distance between `sr` and its target, which is `hr`, or `hr` sharpened; `spatial` names the edge map of `hr`
    ("lv", "canny") by which pixels are weighted.  `luma` from 0 to 1 is the part of it that is taken between lumas
    rather than between colours.
    """

    def __init__(self, spatial: str | None = None, sharpened: bool = False, luma: float = 0.0):
        super().__init__()
        if not 0 <= luma <= 1:
            raise ValueError(f"luma must lie between 0 and 1, not {luma}")
        self.edge_map = EdgeMap(spatial) if spatial else None
        self.sharpened, self.luma = sharpened, luma

    def forward(self, step: Step) -> torch.Tensor:
        sr, target = step.sr, step.sharpened if self.sharpened else step.hr
        weight = step.edges(self.edge_map) if self.edge_map else None
        value = self.distance(sr, target, weight)
        if self.luma:
            value = torch.lerp(value, self.distance(luma_of(sr), luma_of(target), weight), self.luma)
        return value


class L1(_Pixel):
    """Mean absolute difference."""

    distance = staticmethod(l1)


class MSE(_Pixel):
    """Mean squared difference."""

    distance = staticmethod(mse)


class Charbonnier(_Pixel):
    """Charbonnier distance; `epsilon` as there."""

    def __init__(self, epsilon: float = 1e-3, spatial: str | None = None, sharpened: bool = False, luma: float = 0.0):
        super().__init__(spatial, sharpened, luma)
        self.epsilon = epsilon

    def distance(self, sr: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        return charbonnier(sr, target, weight, epsilon=self.epsilon)


class Huber(_Pixel):
    """Huber's distance; `threshold` as there."""

    def __init__(self, threshold: float = 1.0, spatial: str | None = None, sharpened: bool = False, luma: float = 0.0):
        super().__init__(spatial, sharpened, luma)
        self.threshold = threshold

    def distance(self, sr: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        return huber(sr, target, weight, threshold=self.threshold)
