"""The networks of a run: what they are built from, started from, and computed in."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from sa_upscale import checkpoints, config, models
from sa_upscale.engine import precisions
from sa_upscale.errors import UpscaleError
from sa_upscale.losses import Shown

Autocast = Callable[[], AbstractContextManager]


def complete(recipe: config.Recipe) -> config.Recipe:
    """The recipe with the architecture, parameters and scale of its start checkpoint, where it names none.

    Raises `UpscaleError` when it has no start either, asks for another scale, or does not fit the scale.
    """
    model = recipe.model
    if model.name:
        return recipe
    if not model.start:
        raise UpscaleError("recipe: model.name is missing; name a network, or a checkpoint to start from with --model")
    start = checkpoints.load(model.start)
    scale = start.model.scale
    if model.scale not in (None, scale):
        raise UpscaleError(
            f"{model.start}: upscales by {scale}, not by {model.scale}; name model.name and set model.transfer = true "
            "to start another scale from it"
        )
    parameters = {key: value for key, value in start.model.parameters_dict.items() if key != "scale"}
    architecture = start.metadata["architecture"]
    filled = config.Model(architecture, scale, parameters | model.parameters, model.start, model.transfer)
    recipe = dataclasses.replace(recipe, model=filled)
    config.check(recipe)
    return recipe


def generator(model: config.Model, device: torch.device) -> nn.Module:
    """The recipe's network, with the weights of its start, in training.

    Raises `UpscaleError` for a network that cannot be built, or a start that does not fit it.
    """
    try:
        network = models.build(model.name, scale=model.scale, **model.parameters)
    except ValueError as error:
        raise UpscaleError(f"recipe: model: {error}") from None
    if model.start:
        _start(network, model)
    return network.to(device, memory_format=torch.channels_last).train()


def discriminator(options: config.Discriminator | None, patch: int, device: torch.device) -> nn.Module:
    """The recipe's discriminator, for crops of `patch` pixels.

    Raises `UpscaleError` when the recipe has none, or it cannot be built.
    """
    if options is None:
        known = ", ".join(models.DISCRIMINATORS)
        raise UpscaleError(f"recipe: the losses need a discriminator; add [discriminator] with a name: {known}")
    try:
        network = models.build_discriminator(options.name, **{"size": patch} | options.parameters)
    except ValueError as error:
        raise UpscaleError(f"recipe: discriminator: {error}; change data.patch or the discriminator") from None
    return network.to(device, memory_format=torch.channels_last).train()


class Judge(nn.Module):
    """A discriminator's logits of what it is shown of real and of made pictures in one call, as distributed training
    wants it.
    """

    def __init__(self, discriminator: nn.Module):
        super().__init__()
        self.discriminator = discriminator

    def forward(self, real: Shown, fake: Shown) -> tuple[torch.Tensor, torch.Tensor]:
        return self.discriminator(real)[0], self.discriminator(fake)[0]


def copied(network: nn.Module) -> nn.Module:
    """The network as it is now, to evaluate; `follow` makes it an average of what the network is from now on."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the network's: Ψ_EMA ← decay Ψ_EMA + (1 - decay) Ψ."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)


def folded(network: nn.Module) -> nn.Module:
    """The network as it is shipped: without the branches it was trained with, where it has such."""
    return network.fold() if hasattr(network, "fold") else network


def precision_of(device: torch.device, wanted: str | None) -> str:
    """The precision `wanted` by the recipe, else bf16 where the device is fast at it, else fp32."""
    return wanted or ("bf16" if precisions(device)[0] == "bf16" else "fp32")


def autocast(device: torch.device, precision: str) -> Autocast:
    """What the networks run under; their weights stay in fp32."""
    if precision == "fp32":
        return contextlib.nullcontext
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return lambda: torch.autocast(device.type, dtype)


def _start(network: nn.Module, model: config.Model) -> None:
    start = checkpoints.load(model.start)
    state = start.model.state_dict()
    if hasattr(network, "adopt"):
        state = network.adopt(state)
    if hasattr(network, "unfold"):
        state = network.unfold(state)
    if model.transfer and hasattr(network, "deepen"):
        state = network.deepen(state)
    own = network.state_dict()
    fits = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if not model.transfer and len(fits) != len(own):
        raise UpscaleError(
            f"{model.start}: is a {start.metadata['architecture']} x{start.model.scale} and does not fit the recipe's "
            f"{model.name} x{model.scale} ({len(own) - len(fits)} of {len(own)} tensors differ); set model.transfer = "
            "true to take what fits"
        )
    network.load_state_dict(fits, strict=False)
