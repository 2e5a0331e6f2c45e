"""The networks by name.

Adding one: a file in this folder and a line in `GENERATORS` or `DISCRIMINATORS`.

Every generator declares `scale`, `window` (frames it takes: 1 or 5), `multiple` (its input's height and width must be
divisible by it), `context` (how many LR pixels on each side an output pixel depends on) and `parameters_dict` (the
keywords that rebuild it), takes float tensors in [0, 1] of shape `(N, 3, h, w)` or `(N, window, 3, h, w)` and returns
`(N, 3, h * scale, w * scale)`.  One whose last convolution makes the picture itself, not what is added to one, may name
it in `exact_in_bf16` (see `typed`).

Every discriminator is built for a `size`, the side of the pictures it will be shown, and has `parameters_dict` too.  It
takes `(N, 3, size, size)` in [0, 1] and returns its logits and the list of its convolutions' feature maps before
activation.  One that declares `vgg_layers` takes what VGG19 makes of the pictures instead, a tensor for each of them.
"""

import copy
import inspect

import torch
from torch import nn

from sa_upscale.errors import near
from sa_upscale.models.compact import Compact
from sa_upscale.models.compact_video import CompactVideo
from sa_upscale.models.discriminators import (
    AFMDiscriminator,
    ESRGANDiscriminator,
    UNetDiscriminator,
    VGGFeatureDiscriminator,
    VSRResFeatGANDiscriminator,
)
from sa_upscale.models.empty import empty
from sa_upscale.models.rrdbnet import RRDBNet
from sa_upscale.models.srresnet import SRResNet
from sa_upscale.models.swinir import SwinIR
from sa_upscale.models.vsrresnet import VSRResNet

GENERATORS: dict[str, type[nn.Module]] = {
    "compact": Compact,
    "compact-video": CompactVideo,
    "rrdbnet": RRDBNet,
    "srresnet": SRResNet,
    "swinir": SwinIR,
    "vsrresnet": VSRResNet,
}
DISCRIMINATORS: dict[str, type[nn.Module]] = {
    "afm": AFMDiscriminator,
    "esrgan": ESRGANDiscriminator,
    "unet": UNetDiscriminator,
    "vgg-features": VGGFeatureDiscriminator,
    "vsrresfeatgan": VSRResFeatGANDiscriminator,
}


def build(architecture: str, **parameters) -> nn.Module:
    """Construct the generator `architecture` with its own keywords.

    Raises `ValueError` for an unknown name or keyword, with the nearest known ones.
    """
    return _build("architecture", GENERATORS, architecture, parameters)


def build_empty(architecture: str, *, device: str = "cpu", **parameters) -> nn.Module:
    """As `build`, without random weights, for those who have the right ones; on "meta" they take no memory."""
    with empty(device):
        return build(architecture, **parameters)


def build_discriminator(name: str, **options) -> nn.Module:
    """Construct the discriminator `name` with its own keywords; errors as for `build`, and for an impossible `size`."""
    return _build("discriminator", DISCRIMINATORS, name, options)


def typed(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The generator itself, made to compute in `dtype`.

    In bfloat16 what it names in `exact_in_bf16` stays in float32: eight bits are too few for the kernels that make the
    picture, whose rounding shifts the brightness of all of it (up to 0.03 dB).
    """
    exact = getattr(network, "exact_in_bf16", ()) if dtype == torch.bfloat16 else ()
    kept = [copy.deepcopy(network.get_submodule(name)).float() for name in exact]  # before they are rounded
    network = network.to(dtype)
    for name, module in zip(exact, kept, strict=True):
        network.set_submodule(name, module)
    return network


def _build(kind: str, table: dict[str, type[nn.Module]], name: str, keywords: dict) -> nn.Module:
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; {near(name, table)}")
    known = inspect.signature(table[name]).parameters
    for keyword in keywords:
        if keyword not in known:
            raise ValueError(f"{name} takes no {keyword!r}; {near(keyword, known)}")
    return table[name](**keywords)
