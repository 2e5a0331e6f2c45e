"""Spatially adaptive losses: differences weigh more where the HR image has edges.

Each weighs a distance by `H = beta1 + beta2 * W`.  `beta2` is given, or set by `calibration.calibrate` for the part
weighted by W to have a `share` of the whole generator loss; it is a buffer, so that a state dict carries it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from sa_upscale.functional import vgg as vgg_module
from sa_upscale.losses.edges import EdgeMap
from sa_upscale.losses.pixel import charbonnier, distance_named
from sa_upscale.losses.step import Step

Compared = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class SpatiallyAdaptive(nn.Module):
    """What the adaptive losses share: `distance`, `beta1`, the buffer `beta2`, and `share`, None if `beta2` was given.

    Calling one that has a share before it is calibrated raises `ValueError`.
    """

    def __init__(
        self, distance: Callable[..., torch.Tensor], beta1: float, beta2: float | None, share: float, edge_map: EdgeMap
    ):
        super().__init__()
        if beta2 is None and not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, not {share}")
        self.distance, self.beta1, self.edge_map = distance, beta1, edge_map
        self.share = share if beta2 is None else None
        self.register_buffer("beta2", torch.tensor(math.nan if beta2 is None else float(beta2)))
        # How many batches were measured, and over them the sums of the rest of the loss and of the adaptive part.
        self.register_buffer("measured", torch.zeros(3))
        self._usable = beta2 is not None

    def forward(self, step: Step) -> torch.Tensor:
        if not self._usable:
            # Looked at once only: on a GPU a look waits for all that is under way.
            if not torch.isfinite(self.beta2):
                raise ValueError("beta2 follows from a share but was not calibrated: call losses.calibrate first")
            self._usable = True
        return sum(self.distance(sr, hr, self.beta1 + self.beta2 * w) for sr, hr, w in self.compared(step))

    def parts(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss is the first of these two scalars, the plain part, and `beta2` times the second, the adaptive."""
        compared = self.compared(step)
        plain = self.beta1 * sum(self.distance(sr, hr) for sr, hr, _ in compared)
        return plain, sum(self.distance(sr, hr, w) for sr, hr, w in compared)

    def pictures(self, step: Step) -> dict[str, torch.Tensor]:
        """The edge map as "W", in [0, 1], for a person to look at."""
        return {"W": step.edges(self.edge_map) / self.edge_map.factor}

    def compared(self, step: Step) -> Compared:
        """What of `sr` is held against what of `hr`, and their W, which has no gradient."""
        raise NotImplementedError


class _AdaptivePixel(SpatiallyAdaptive):
    def compared(self, step: Step) -> Compared:
        return [(step.sr, step.hr, step.edges(self.edge_map))]


class LocalVariancePixel(_AdaptivePixel):
    """`sa-lv`: pixels weighted by local variance; `window`, `delta` and `factor` as in `EdgeMap`.

    Reference: SA paper, eq. 12-13; SA-VSRGAN, whose alpha2 and beta2 are `beta1` and `beta2` here.
    """

    def __init__(
        self,
        beta1: float = 0.01,
        beta2: float | None = None,
        share: float = 0.15,
        distance: str = "charbonnier",
        window: int = 5,
        delta: float = 0.01,
        factor: float = 1.0,
    ):
        edge_map = EdgeMap("lv", window=window, delta=delta, factor=factor)
        super().__init__(distance_named(distance), beta1, beta2, share, edge_map)


class CannyPixel(_AdaptivePixel):
    """`sa-canny`: pixels weighted by Canny's edges; `low`, `high` and `factor` as in `EdgeMap`.

    Reference: SA paper, eq. 12-13.
    """

    def __init__(
        self,
        beta1: float = 0.01,
        beta2: float | None = None,
        share: float = 0.15,
        distance: str = "charbonnier",
        low: float = 100,
        high: float = 200,
        factor: float = 1.0,
    ):
        edge_map = EdgeMap("canny", low=low, high=high, factor=factor)
        super().__init__(distance_named(distance), beta1, beta2, share, edge_map)


class AdaptiveFeature(SpatiallyAdaptive):
    """`sa-feature`: the Charbonnier distance of VGG activations φ, weighted by the VGG's own response to W:
    `H = beta1 + beta2 * φ(W)`, summed over `layers`.

    φ is taken after the ReLU, so that no weight is negative; W enters the VGG without ImageNet's normalisation, scaled
    by `factor`.  `edges` is "lv" or "canny".

    Reference: SA-VSRGAN, eq. 9 and 13, whose alpha3 and beta3 are `beta1` and `beta2` here.
    """

    needs = ("vgg",)

    def __init__(
        self,
        layers: Sequence[str] = ("conv2_1", "conv2_2"),
        beta1: float = 0.798,
        beta2: float | None = None,
        share: float = 0.15,
        edges: str = "lv",
        factor: float = 10.0,
        epsilon: float = 1e-3,
    ):
        super().__init__(partial(charbonnier, epsilon=epsilon), beta1, beta2, share, EdgeMap(edges, factor=factor))
        vgg_module.check_names(layers)
        self.layers = tuple(layers)

    def resolve(self, vgg: vgg_module.VGG) -> None:
        """Raise `UpscaleError` when the weights lack a layer."""
        vgg.require(self.layers)

    def compared(self, step: Step) -> Compared:
        sr, hr = (step.vgg_features(of, self.layers, activated=True) for of in ("sr", "hr"))
        weights = step.vgg_features(self.edge_map, self.layers, activated=True, normalised=False)
        return [(sr[layer], hr[layer], weights[layer]) for layer in self.layers]
