"""Distances between VGG features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.errors import near
from sa_upscale.functional import vgg as vgg_module
from sa_upscale.losses.pixel import distance_named, mse
from sa_upscale.losses.step import Step

UNIT_EPS = 1e-3  # shorter features are not lengthened to 1


@dataclass(frozen=True)
class _Objective:
    layers: dict[str, float]
    deepest_only: bool = False


OBJECTIVES: dict[str, _Objective] = {
    "esrgan": _Objective({"conv5_4": 1.0}),
    "ldl": _Objective({"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}),
    "afm": _Objective({"conv5_4": 1.0}, deepest_only=True),
    "video": _Objective({"conv2_1": 1.0, "conv2_2": 1.0}),
}


class Perceptual(nn.Module):
    """Sum over `layers` of weight times distance between the VGG features of `sr` and those of its target.

    `layers` names VGG19's layers outright, as a list or with a weight each, or a paper whose layers to take: "esrgan",
    "ldl", "afm", "video" (the video models of the SA papers); of a paper, `resolve` replaces layers that the weights
    lack.  `distance` is "l1", "charbonnier", "mse" or "huber", `activated` takes features after their ReLU,
    `normalised` feeds the VGG with ImageNet's statistics and `sharpened` makes `hr` sharpened the target.  `unit`
    divides the features by their norm over the channels at each pixel, and sums over the channels instead of taking
    their mean: a faint texture counts as much as a strong edge.

    Reference: ESRGAN (L1, conv5_4 before activation); LDL (L1); SA paper, eq. 15 (Charbonnier); AFM paper, eq. 3 (MSE).
    `unit`: R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, eq. 1, with
    no learned weights.
    """

    needs = ("vgg",)

    def __init__(
        self,
        layers: str | Sequence[str] | Mapping[str, float] = "esrgan",
        distance: str = "l1",
        activated: bool = False,
        normalised: bool = True,
        sharpened: bool = False,
        unit: bool = False,
        epsilon: float = 1e-3,
    ):
        super().__init__()
        self._objective = _objective(layers) if isinstance(layers, str) else None
        self.layers = _weighted(self._objective.layers if self._objective else layers)
        self.distance = distance_named(distance)
        if distance == "charbonnier":
            self.distance = partial(self.distance, epsilon=epsilon)
        self.activated, self.normalised, self.unit = activated, normalised, unit
        self.target = "sharpened" if sharpened else "hr"

    def resolve(self, vgg: vgg_module.VGG) -> str | None:
        """Take of a paper's layers what the weights have; a line on what stands in for what, if anything does.

        Raises `UpscaleError` when the weights lack a layer that was named outright.
        """
        if self._objective is None:
            vgg.require(self.layers)
            return None
        choice = vgg_module.choose(self._objective.layers, vgg, deepest_only=self._objective.deepest_only)
        self.layers = choice.layers
        return choice.notice

    def forward(self, step: Step) -> torch.Tensor:
        sr, target = (
            step.vgg_features(of, self.layers, activated=self.activated, normalised=self.normalised)
            for of in ("sr", self.target)
        )
        return sum(weight * self._between(sr[layer], target[layer]) for layer, weight in self.layers.items())

    def _between(self, sr: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if not self.unit:
            return self.distance(sr, target)
        if self.distance is mse:
            return _unit_mse(sr, target)
        sr, target = (F.normalize(features, dim=1, eps=UNIT_EPS) for features in (sr, target))
        return sr.shape[1] * self.distance(sr, target)


def _unit_mse(sr: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`|a - b|²` as `|a|² + |b|² - 2 a·b`, in a third of the passes over the features that dividing them takes."""
    norms = [torch.linalg.vector_norm(features, dim=1) for features in (sr, target)]
    inverse = [1 / norm.clamp(min=UNIT_EPS) for norm in norms]
    squares = sum((norm * factor).square() for norm, factor in zip(norms, inverse, strict=True))
    return (squares - 2 * (sr * target).sum(dim=1) * inverse[0] * inverse[1]).mean()


def _objective(name: str) -> _Objective:
    if name not in OBJECTIVES:
        raise ValueError(f"unknown layers {name!r}; {near(name, OBJECTIVES)}, or name them in a list")
    return OBJECTIVES[name]


def _weighted(layers: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    if not layers:
        raise ValueError("a perceptual loss needs at least one layer")
    vgg_module.check_names(layers)
    return dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
