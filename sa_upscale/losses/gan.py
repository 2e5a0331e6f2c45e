"""Adversarial losses on the discriminator's logits, of any shape."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.errors import near
from sa_upscale.losses.reduce import mean_over_ranks
from sa_upscale.losses.step import Step

# softplus(-x) is -log(sigmoid(x)), and softplus(x) is -log(1 - sigmoid(x)), without their overflow.
_GENERATOR: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "standard": lambda fake: F.softplus(-fake).mean(),
    "hinge": lambda fake: -fake.mean(),
    "least-squares": lambda fake: (fake - 1).square().mean() / 2,
}
_DISCRIMINATOR: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "standard": lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
    "hinge": lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
    "least-squares": lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
}
KINDS = ("relativistic", *_GENERATOR)


class GAN(nn.Module):
    """The generator's adversarial loss, one of the `KINDS`; the discriminator's parameters get no gradient.

    Reference: SA paper, eq. 14 and AFM paper, eq. 4 (standard); ESRGAN (relativistic); J. Lim and J. Ye, "Geometric
    GAN", 2017 (hinge); X. Mao et al., "Least Squares Generative Adversarial Networks", 2017, with a, b, c = 0, 1, 1.
    """

    needs = ("discriminator",)

    def __init__(self, kind: str = "standard"):
        super().__init__()
        _check(kind)
        self.kind = kind

    def forward(self, step: Step) -> torch.Tensor:
        fake = step.fake_logits.float()
        # Only a relativistic loss looks at the real images, which cost another pass of the discriminator.
        if self.kind == "relativistic":
            return _relativistic(target=fake, other=step.real_logits.float())
        return _GENERATOR[self.kind](fake)

    def discriminator_loss(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """The discriminator's side of this loss, as the function of that name."""
        return discriminator_loss(self.kind, real_logits, fake_logits)


def discriminator_loss(kind: str, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """What the discriminator is trained with, a scalar; `fake_logits` are those of detached images.

    `kind` is one of the `KINDS`; another raises `ValueError`.
    """
    _check(kind)
    real, fake = real_logits.float(), fake_logits.float()
    if kind == "relativistic":
        return _relativistic(target=real, other=fake)
    return _DISCRIMINATOR[kind](real, fake)


def _relativistic(target: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy for `target` to look more real than `other` does on average, and `other` less.

    Halved, as in the code of ESRGAN's authors, which its coefficient 0.005 goes with.
    """
    target_mean, other_mean = mean_over_ranks(torch.stack([target.mean(), other.mean()]))
    return (F.softplus(other_mean - target).mean() + F.softplus(other - target_mean).mean()) / 2


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown kind of adversarial loss {kind!r}; {near(kind, KINDS)}")
