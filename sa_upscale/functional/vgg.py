"""Features of VGG19 by the names of its layers, conv1_1 to conv5_4."""

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from sa_upscale.errors import UpscaleError, near

_CONVS_PER_BLOCK = (2, 2, 4, 4, 4)
_CHANNELS = (64, 128, 256, 512, 512)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def _indices() -> dict[str, int]:
    """Where torchvision's `features` hold each convolution: every one is followed by a ReLU, every block by a pool."""
    indices, position = {}, 0
    for block, convs in enumerate(_CONVS_PER_BLOCK, start=1):
        for conv in range(1, convs + 1):
            indices[f"conv{block}_{conv}"] = position
            position += 2
        position += 1
    return indices


LAYERS: dict[str, int] = _indices()


class VGG(nn.Module):
    """The convolutions of a VGG19 as far as the weights go, frozen.

    `weights` has torchvision's keys (`features.0.weight` …) from the first convolution on; others than `features.*` are
    left aside.  Raises `ValueError` when they are not those of a VGG19.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]):
        super().__init__()
        self.convs = nn.ModuleDict()
        channels = 3
        for layer in _layers_in(weights):
            weight, bias = (weights.get(f"features.{LAYERS[layer]}.{part}") for part in ("weight", "bias"))
            if bias is None or weight.shape[1:] != (channels, 3, 3) or bias.shape != weight.shape[:1]:
                raise ValueError(f"{layer} is not a 3×3 convolution of {channels} channels with a bias")
            conv = nn.Conv2d(channels, len(weight), 3, padding=1)
            conv.load_state_dict({"weight": weight, "bias": bias})
            self.convs[layer] = conv
            channels = len(weight)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers it has, the shallowest first."""
        return tuple(self.convs)

    def require(self, layers: Iterable[str]) -> None:
        """Raise `UpscaleError`, naming what there is, when the weights lack one of `layers`."""
        if missing := [layer for layer in layers if layer not in self.convs]:
            raise UpscaleError(
                f"the VGG weights have no {', '.join(missing)}; they have {self._span()}: "
                "name one of those, or give weights that go further"
            )

    def forward(self, x: torch.Tensor, layers: Iterable[str], *, normalised: bool = True) -> dict[str, torch.Tensor]:
        """The outputs of `layers` before their activation, each `(N, channels, h, w)`.

        `x` is `(N, 1 or 3, H, W)` in [0, 1], a single channel standing for all three; `normalised` brings it to
        ImageNet's mean and deviation first.  Raises `UpscaleError` for a layer that the weights lack and `ValueError`
        for an image that is smaller than the pooling takes.
        """
        layers = set(layers)
        self.require(layers)
        _check_size(x, layers)
        x = x.expand(-1, 3, -1, -1)
        if normalised:
            x = (x - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        features = {}
        for layer, conv in self.convs.items():
            if len(features) == len(layers):
                break
            if layer.endswith("_1") and layer != "conv1_1":
                x = F.max_pool2d(x, 2)
            x = conv(x)
            if layer in layers:
                features[layer] = x
            x = F.relu(x, inplace=layer not in layers)
        return features

    def _span(self) -> str:
        return f"{self.layers[0]} to {self.layers[-1]}"


def check_names(layers: Iterable[str]) -> None:
    """Raise `ValueError`, with the nearest names, for what is no convolution of VGG19."""
    for layer in layers:
        if layer not in LAYERS:
            raise ValueError(f"VGG19 has no layer {layer!r}; {near(layer, LAYERS)}")


def channels(layer: str) -> int:
    """How many feature maps a layer has.  Raises `ValueError` for what is no convolution of VGG19."""
    return _CHANNELS[halvings(layer)]


def halvings(layer: str) -> int:
    """How often the picture was halved before a layer.  Raises `ValueError` for what is no convolution of VGG19."""
    check_names([layer])
    return int(layer.removeprefix("conv").split("_")[0]) - 1


def load(file: str | Path | None = None) -> VGG:
    """VGG19 from a safetensors or pth file with torchvision's keys; without one, torchvision's, downloaded once.

    Raises `UpscaleError` for a file that cannot be read or is no VGG19, and without torchvision or its download.
    """
    if file is None:
        return VGG(_from_torchvision())
    file = Path(file)
    weights = _from_file(file)
    try:
        return VGG(weights)
    except ValueError as error:
        raise UpscaleError(
            f"{file} is not VGG19 with torchvision's keys: {error}; give another --vgg-weights"
        ) from None


@dataclass(frozen=True)
class Choice:
    """The layers of an objective with their weights, and a line on what stands in for what, if anything does."""

    layers: dict[str, float]
    notice: str | None = None


def choose(wanted: Mapping[str, float], vgg: VGG, *, deepest_only: bool = False) -> Choice:
    """The layers a paper names where the weights have them, else the deepest there are, and what was replaced.

    The replacement is the last layer of each block as LDL weighs them, 0.1 in the first two blocks and 1 from there on
    and for the deepest; `deepest_only` takes that one alone.
    """
    if all(layer in vgg.convs for layer in wanted):
        return Choice(dict(wanted))
    last = {layer[:5]: layer for layer in vgg.layers}
    deepest = vgg.layers[-1]
    layers = {layer: 0.1 if block < "conv3" and layer != deepest else 1.0 for block, layer in last.items()}
    if deepest_only:
        layers = {deepest: 1.0}
    return Choice(
        layers, f"the VGG weights stop at {deepest}: {_described(layers)} instead of the paper's {_described(wanted)}"
    )


def _described(layers: Mapping[str, float]) -> str:
    return ", ".join(f"{layer} at {weight:g}" for layer, weight in layers.items())


def _layers_in(weights: Mapping[str, torch.Tensor]) -> list[str]:
    names = {index: layer for layer, index in LAYERS.items()}
    held = [int(match[1]) for key in weights if (match := re.fullmatch(r"features\.(\d+)\.weight", key))]
    if strangers := [index for index in held if index not in names]:
        raise ValueError(f"features.{min(strangers)} is no convolution of VGG19")
    layers = [names[index] for index in sorted(held)]
    if not layers or layers != list(LAYERS)[: len(layers)]:
        raise ValueError("it has no unbroken run of layers from features.0 (conv1_1) on")
    return layers


def _check_size(x: torch.Tensor, layers: set[str]) -> None:
    pools = max(map(halvings, layers), default=0)
    if min(x.shape[-2:]) < 2**pools:
        raise ValueError(f"{max(layers)} needs images of at least {2**pools} pixels a side, not {tuple(x.shape[-2:])}")


def _from_file(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise UpscaleError(f"there is no VGG weights file {file}; give --vgg-weights the path of one")
    try:
        if file.suffix.lower() == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, OSError):
        raise UpscaleError(f"{file} cannot be read as weights; give a safetensors or pth file of VGG19") from None
    if not isinstance(weights, Mapping):
        raise UpscaleError(f"{file} holds a {type(weights).__name__}, not weights; give a state dict of VGG19")
    return dict(weights)


def _from_torchvision() -> dict[str, torch.Tensor]:
    remedy = "give --vgg-weights a file of VGG19 with torchvision's keys"
    try:
        from torchvision.models import VGG19_Weights
    except (ImportError, RuntimeError):
        # A RuntimeError is a torchvision that was built for another torch.
        raise UpscaleError(
            f"VGG19's weights come with torchvision, which is not here; install it, or {remedy}"
        ) from None
    try:
        return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UpscaleError(f"VGG19's weights cannot be downloaded ({error}); {remedy}") from None
