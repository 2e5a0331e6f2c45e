"""The losses of a stage: labelled, weighted, and given what they need."""

import torch
from torch import nn

from sa_upscale import losses
from sa_upscale.errors import UpscaleError
from sa_upscale.functional import vgg as vgg_module
from sa_upscale.functional.vgg import VGG
from sa_upscale.losses import Step


class Terms(nn.Module):
    """The terms that a recipe's `[[losses]]` describe.

    Its state is theirs: what was calibrated or measured on the first batches.  Raises `UpscaleError` for a loss that
    cannot be built.
    """

    def __init__(self, tables: tuple[dict, ...]):
        super().__init__()
        self.losses = nn.ModuleList(_build(table) for table in tables)
        self.labels = _labels([table["name"] for table in tables])
        self.register_buffer("weights", torch.tensor([float(table.get("weight", 1)) for table in tables]), False)
        self.needs = losses.needs(self.losses)
        self._calibrated = False

    def prepare(
        self, vgg_weights: str | None, device: torch.device, discriminator: nn.Module | None = None
    ) -> tuple[VGG | None, list[str]]:
        """Load the VGG if a loss or the discriminator needs it, and fit the losses to its layers; also what was
        replaced, a line each.
        """
        judged = getattr(discriminator, "vgg_layers", ())
        if "vgg" not in self.needs and not judged:
            return None, []
        vgg = vgg_module.load(vgg_weights)
        vgg.require(judged)
        return vgg.to(device), losses.resolve(self.losses, vgg)

    def forward(self, step: Step) -> torch.Tensor:
        """Every term without its weight, `(terms,)`."""
        return torch.stack([loss(step) for loss in self.losses])

    def total(self, terms: torch.Tensor) -> torch.Tensor:
        """The whole loss: the terms by their weights, in float32 whatever the networks compute in."""
        return (self.weights * terms).sum()

    def calibrate(self, step: Step) -> list[str]:
        """Measure one batch for the losses with a share; what was found once they are fixed, a line each."""
        if self._calibrated:
            return []
        shared = [index for index, loss in enumerate(self.losses) if getattr(loss, "share", None) is not None]
        fixed_before = all(self.losses[index].measured[0] >= _BATCHES for index in shared)
        pairs = list(zip(self.weights.tolist(), self.losses, strict=True))
        self._calibrated = losses.calibrate(pairs, step, _BATCHES)
        if fixed_before or not self._calibrated:
            return []
        return [
            f"{self.labels[index]}: beta2 = {self.losses[index].beta2:.4g}, for a share of {self.losses[index].share:g}"
            for index in shared
        ]

    def discriminator_loss(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """What the discriminator learns from: the adversarial term's own side, the standard one without such a term."""
        for loss in self.losses:
            if hasattr(loss, "discriminator_loss"):
                return loss.discriminator_loss(real_logits, fake_logits)
        return losses.discriminator_loss("standard", real_logits, fake_logits)

    def pictures(self, step: Step) -> dict[str, torch.Tensor]:
        """What the losses looked at, by kind and label: maps `(N, 1 or 3, H, W)`."""
        return {
            f"{kind} {label}": picture
            for label, loss in zip(self.labels, self.losses, strict=True)
            if hasattr(loss, "pictures")
            for kind, picture in loss.pictures(step).items()
        }

    def found(self) -> dict[str, dict]:
        """What the recipe left open and the run settled, by label: `layers` of the VGG, `beta2`."""
        return {label: facts for label, loss in zip(self.labels, self.losses, strict=True) if (facts := _facts(loss))}


_BATCHES = 10


def _build(table: dict) -> nn.Module:
    options = {key: value for key, value in table.items() if key not in ("name", "weight")}
    try:
        return losses.build(table["name"], **options)
    except (TypeError, ValueError) as error:
        raise UpscaleError(f"recipe: [[losses]]: {error}") from None


def _labels(names: list[str]) -> list[str]:
    """The names, numbered where one stands more than once."""
    return [
        f"{name}-{names[: index + 1].count(name)}" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def _facts(loss: nn.Module) -> dict:
    facts = {"layers": loss.layers} if hasattr(loss, "layers") else {}
    if hasattr(loss, "beta2"):
        facts["beta2"] = float(loss.beta2)
    return facts
