"""Adversarial feature matching: the discriminator's own features as a perceptual loss."""

import torch
from torch import nn

from sa_upscale.errors import near
from sa_upscale.losses.reduce import mean_over_ranks
from sa_upscale.losses.step import Step

_REWEIGHING = ("softmax", "mean")


class Content(nn.Module):
    """Weighted sum of the mean squared differences L between the discriminator's feature maps of `sr` and `hr`.

    Every L is divided by its value on the first batch, kept in the buffer `scales`.  `reweighing` then weighs them by
    the softmax of themselves, without gradient, or all alike ("mean").  The discriminator gets no gradient.

    Reference: AFM paper, eq. 6-7.
    """

    needs = ("discriminator",)

    def __init__(self, reweighing: str = "softmax"):
        super().__init__()
        if reweighing not in _REWEIGHING:
            raise ValueError(f"unknown reweighing {reweighing!r}; {near(reweighing, _REWEIGHING)}")
        self.reweighing = reweighing
        # One entry for each feature map, of which nobody knows the number before the first batch.
        self.register_buffer("scales", torch.empty(0))
        self.register_load_state_dict_pre_hook(_make_room)

    def forward(self, step: Step) -> torch.Tensor:
        pairs = zip(step.fake_features, step.real_features, strict=True)
        distances = torch.stack([(fake.float() - real.float()).square().mean() for fake, real in pairs])
        measured = mean_over_ranks(distances.detach())
        if not self.scales.numel():
            self.scales = torch.where(measured > 0, measured, 1)
        return (self._weights(measured / self.scales) * distances / self.scales).sum()

    def _weights(self, distances: torch.Tensor) -> torch.Tensor:
        if self.reweighing == "softmax":
            return distances.softmax(dim=0)
        return torch.full_like(distances, 1 / len(distances))


def _make_room(module: Content, state: dict[str, torch.Tensor], prefix: str, *_) -> None:
    if (scales := state.get(f"{prefix}scales")) is not None:
        module.scales = torch.empty_like(scales, device=module.scales.device)
