"""Edge maps by name, for the losses that weigh pixels by them."""

from dataclasses import dataclass

import torch

from sa_upscale.errors import near
from sa_upscale.functional.filters import canny, local_variance

_KINDS = ("lv", "canny")


@dataclass(frozen=True)
class EdgeMap:
    """How W is made of the HR image: `kind` is "lv" (local variance) or "canny"; `factor` multiplies the result.

    `window` and `delta` belong to the local variance, `low` and `high` to Canny.  Raises `ValueError` for another kind.
    """

    kind: str
    window: int = 5
    delta: float = 0.01
    low: float = 100
    high: float = 200
    factor: float = 1.0

    def __post_init__(self):
        if self.kind not in _KINDS:
            raise ValueError(f"unknown edge map {self.kind!r}; {near(self.kind, _KINDS)}")

    def __call__(self, hr: torch.Tensor) -> torch.Tensor:
        """W of `(N, 3, H, W)` in [0, 1]: `(N, 3, H, W)` for "lv", `(N, 1, H, W)` for "canny", without gradient."""
        if self.kind == "lv":
            return self.factor * local_variance(hr, self.window, self.delta)
        return self.factor * canny(hr, self.low, self.high)
