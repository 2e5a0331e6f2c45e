"""The artifact loss of locally discriminative learning."""

import torch
from torch import nn

from sa_upscale.errors import near
from sa_upscale.functional.filters import box_variance
from sa_upscale.losses.pixel import l1
from sa_upscale.losses.step import Step

_MAPS = ("local", "scaled", "refined")


def residual(hr: torch.Tensor, sr: torch.Tensor) -> torch.Tensor:
    """Absolute differences summed over channels: `(N, C, H, W)` twice to `(N, 1, H, W)`."""
    return (hr - sr).abs().sum(dim=1, keepdim=True)


@torch.no_grad()
def artifact_map(
    hr: torch.Tensor, sr: torch.Tensor, sr_ema: torch.Tensor | None = None, *, window: int = 7, power: float = 5
) -> torch.Tensor:
    """How much each pixel of `sr` looks like an artifact, `(N, 1, H, W)`, at least 0 and without gradient.

    Unbiased variance of the residual over the window, times the variance over the whole image to the 1/`power`; zero
    where the averaged generator's `sr_ema` is worse than `sr`, when it is given.

    Reference: LDL paper, eq. 2-6.  Deviation: no gradient; the authors' code lets it through the variances.
    """
    own = residual(hr, sr)
    weight = own.var(dim=(1, 2, 3), keepdim=True) ** (1 / power) * box_variance(own, window, unbiased=True)
    return weight if sr_ema is None else weight.masked_fill(own < residual(hr, sr_ema), 0)


class LDL(nn.Module):
    """Mean of `|M * (hr - sr)|` where M is the artifact map: penalises texture that is not there, not true detail.

    `map` is the ablation of the paper's table 2: "local" (variance in the window), "scaled" (times that of the image)
    or "refined" (zero where the averaged generator is worse).

    Reference: LDL paper, eq. 2-7.
    """

    def __init__(self, map: str = "refined", window: int = 7, power: float = 5):
        super().__init__()
        if map not in _MAPS:
            raise ValueError(f"unknown artifact map {map!r}; {near(map, _MAPS)}")
        self.map, self.window, self.power = map, window, power
        self.needs = ("ema",) if map == "refined" else ()

    def artifact_map(self, step: Step) -> torch.Tensor:
        """M, `(N, 1, H, W)`, without gradient."""
        if self.map == "local":
            return box_variance(residual(step.hr, step.sr.detach()), self.window, unbiased=True)
        sr_ema = step.sr_ema if self.map == "refined" else None
        return artifact_map(step.hr, step.sr, sr_ema, window=self.window, power=self.power)

    def pictures(self, step: Step) -> dict[str, torch.Tensor]:
        """The artifact map as "M", for a person to look at."""
        return {"M": self.artifact_map(step)}

    def forward(self, step: Step) -> torch.Tensor:
        return l1(step.sr, step.hr, self.artifact_map(step))
