"""The losses by name.

A loss is a module called with a `Step` that returns an unweighted scalar; its weight stands in the recipe.  Adding one:
a file in this folder and a line in `LOSSES`.  A loss may say what the step must offer it in `needs` ("vgg",
"discriminator", "ema"), which VGG `layers` it takes, and in `resolve(vgg)` fit itself to the weights at hand.  One with
`discriminator_loss(real_logits, fake_logits)` says what the discriminator is trained with, and one with
`pictures(step)` shows what it looked at.
"""

import inspect
from collections.abc import Iterable

from torch import nn

from sa_upscale.errors import near
from sa_upscale.functional.vgg import VGG
from sa_upscale.losses.adaptive import AdaptiveFeature, CannyPixel, LocalVariancePixel
from sa_upscale.losses.calibration import calibrate
from sa_upscale.losses.content import Content
from sa_upscale.losses.gan import GAN, discriminator_loss
from sa_upscale.losses.lattice import Lattice
from sa_upscale.losses.ldl import LDL
from sa_upscale.losses.perceptual import Perceptual
from sa_upscale.losses.pixel import L1, MSE, Charbonnier, Huber
from sa_upscale.losses.step import Shown, Step, moved

LOSSES: dict[str, type[nn.Module]] = {
    "l1": L1,
    "mse": MSE,
    "charbonnier": Charbonnier,
    "huber": Huber,
    "sa-lv": LocalVariancePixel,
    "sa-canny": CannyPixel,
    "sa-feature": AdaptiveFeature,
    "perceptual": Perceptual,
    "gan": GAN,
    "ldl": LDL,
    "content": Content,
    "lattice": Lattice,
}

__all__ = [
    "LOSSES",
    "Shown",
    "Step",
    "build",
    "calibrate",
    "discriminator_loss",
    "moved",
    "needs",
    "resolve",
    "vgg_layers",
]


def build(name: str, **options) -> nn.Module:
    """Construct the loss `name`; an unknown name or option raises `ValueError` with the nearest known ones."""
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; {near(name, LOSSES)}")
    known = [keyword for keyword in inspect.signature(LOSSES[name].__init__).parameters if keyword != "self"]
    for option in options:
        if option not in known:
            raise ValueError(f"loss {name} takes no {option!r}; {near(option, known)}")
    return LOSSES[name](**options)


def needs(losses: Iterable[nn.Module]) -> frozenset[str]:
    """What `Step` must be given for these losses: some of "vgg", "discriminator" and "ema"."""
    return frozenset(need for loss in losses for need in getattr(loss, "needs", ()))


def vgg_layers(losses: Iterable[nn.Module]) -> frozenset[str]:
    """All layers that these losses ask of the VGG; for `Step`, so that one pass of it serves them all."""
    return frozenset(layer for loss in losses for layer in getattr(loss, "layers", ()))


def resolve(losses: Iterable[nn.Module], vgg: VGG) -> list[str]:
    """Fit the losses to the VGG's layers, once before training; a line for every paper's layers that were replaced.

    Raises `UpscaleError` when the weights lack a layer that a loss names outright.
    """
    notices = [loss.resolve(vgg) for loss in losses if hasattr(loss, "resolve")]
    return [notice for notice in notices if notice]
