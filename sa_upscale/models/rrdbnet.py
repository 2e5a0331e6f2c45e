"""RRDBNet: the network of the whole public ESRGAN family, and the reading of that family's files."""

import re

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.models.active import ActiveConv
from sa_upscale.models.bands import in_bands
from sa_upscale.models.empty import empty

RESIDUAL_SCALE = 0.2
SLOPE = 0.2
CONVS_OF_A_BLOCK = 15  # three dense blocks of five
# How far an error at a cut travels, in pixels of the trunk.  Measured with the published RealESRGAN_x4plus
# (23 blocks) on photographs and drawings: the result is within 1/255 of the uncut one from 50 pixels on for
# most, from 76 on for the worst of ten cuts.  Over mixed tiles of three photographs the largest error was 14/255
# with 64 a side and 1.7/255 with 80.
MEASURED_REACH = 80
TAIL_CONTEXT = 2  # pixels of the trunk: the convolutions after the upsamplings reach 1.25


class RRDBNet(nn.Module):
    """Residual-in-residual dense blocks at LR size, then nearest ×2 upsampling twice.

    Takes `(N, channels, h, w)` in [0, 1] and returns float32 `(N, channels, h * scale, w * scale)`,
    unclamped.  Below ×4 the input is first folded into channels (pixel-unshuffle by `multiple = 4 / scale`),
    so `h` and `w` must be divisible by `multiple`.  Raises `ValueError` for a scale other than 1, 2 or 4.

    Reference: X. Wang et al., "ESRGAN", 2018; names and the ×2, ×1 variants as in Real-ESRGAN (2021).
    """

    window = 1
    exact_in_bf16 = ("conv_last",)

    def __init__(self, scale: int = 4, blocks: int = 23, features: int = 64, growth: int = 32, channels: int = 3):
        super().__init__()
        if scale not in (1, 2, 4):
            raise ValueError(f"RRDBNet upscales by 1, 2 or 4, not {scale}")
        self.scale, self.channels = scale, channels
        self.multiple = 4 // scale
        # Convolutions at LR size reach one pixel each; those after the upsamplings 1.25 in all.
        self.context = self.multiple * (CONVS_OF_A_BLOCK * blocks + 2 + TAIL_CONTEXT)
        self.overlap = min(self.context, self.multiple * MEASURED_REACH)
        self.parameters_dict = {
            "scale": scale,
            "blocks": blocks,
            "features": features,
            "growth": growth,
            "channels": channels,
        }
        self.conv_first = _conv(channels * self.multiple**2, features)
        self.body = nn.Sequential(*(ResidualInResidual(features, growth) for _ in range(blocks)))
        self.conv_body = _conv(features, features)
        self.conv_up1 = ActiveConv(features, features, SLOPE)
        self.conv_up2 = ActiveConv(features, features, SLOPE)
        self.conv_hr = ActiveConv(features, features, SLOPE)
        self.conv_last = _conv(features, channels)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = lr.to(self.conv_first.weight.dtype)
        if self.multiple > 1:
            x = F.pixel_unshuffle(x, self.multiple)
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        return in_bands(self._enlarge, x, context=TAIL_CONTEXT, scale=4)

    def deepen(self, shallow: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state of a network of fewer blocks with those of this one after them that it lacks, changing nothing yet.

        Their last convolutions are 0: they give their input times `1 + RESIDUAL_SCALE`, which `conv_body` undoes.
        A state of as many blocks, or of others, is given back as it is.
        """
        own = self.state_dict()
        missing = [key for key in own if key.startswith("body.") and key not in shallow]
        alike = all(own[key].shape == value.shape for key, value in shallow.items() if key in own)
        if not missing or not alike:
            return shallow
        state = shallow | {key: torch.zeros_like(own[key]) if "conv5" in key else own[key] for key in missing}
        blocks = len({key.split(".")[1] for key in missing})
        state["conv_body.weight"] = shallow["conv_body.weight"] / (1 + RESIDUAL_SCALE) ** blocks
        return state

    def _enlarge(self, x: torch.Tensor) -> torch.Tensor:
        """The picture `(N, channels, 4·h, 4·w)` of the trunk's features."""
        # `models.int8` and `models.typed` give some of these convolutions types of their own.
        x = self.conv_up1(_twice(x.to(self.conv_up1.weight.dtype)))
        x = self.conv_hr(self.conv_up2(_twice(x)))
        return self.conv_last(x.to(self.conv_last.weight.dtype)).float()


class ResidualInResidual(nn.Module):
    """Three dense blocks with a scaled skip around them."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=RESIDUAL_SCALE)


class DenseBlock(nn.Module):
    """Five convolutions, each seeing the block's input and the output of all before it, with a scaled skip."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.conv1 = ActiveConv(features, growth, SLOPE)
        self.conv2 = ActiveConv(features + growth, growth, SLOPE)
        self.conv3 = ActiveConv(features + 2 * growth, growth, SLOPE)
        self.conv4 = ActiveConv(features + 3 * growth, growth, SLOPE)
        self.conv5 = _conv(features + 4 * growth, features)
        for conv in self.children():
            # Small weights: 69 such blocks in a row start next to the identity and stay trainable.
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
            with torch.no_grad():
                conv.weight *= 0.1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dense = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            dense = torch.cat((dense, conv(dense)), dim=1)
        return torch.add(x, self.conv5(dense), alpha=RESIDUAL_SCALE)


def canonical_rrdbnet(state_dict: dict[str, torch.Tensor]) -> tuple[dict, dict[str, torch.Tensor]] | None:
    """Constructor keywords and state dict in this file's names for any file of the ESRGAN family, else None.

    Knows today's names, those of the ESRGAN release (`RRDB_trunk.0.RDB1.conv1.weight`) and those of its
    training code (`model.1.sub.0.RDB1.conv1.0.weight`).  Scale, blocks, features, growth and channels are
    read from the shapes, and the result is only returned when every key and shape is the network's: a
    relative with more or fewer upsamplings, or with extra layers, is not this network.
    """
    clean = _renamed(state_dict)
    if clean is None or not all(isinstance(value, torch.Tensor) for value in clean.values()):
        return None
    first, last = clean.get("conv_first.weight"), clean.get("conv_last.weight")
    growing = clean.get("body.0.rdb1.conv1.weight")
    if any(weight is None or weight.dim() != 4 for weight in (first, last, growing)):
        return None
    channels = last.shape[0]
    scale = {channels: 4, 4 * channels: 2, 16 * channels: 1}.get(first.shape[1])
    if scale is None:
        return None
    parameters = {
        "scale": scale,
        "blocks": len({key.split(".")[1] for key in clean if key.startswith("body.")}),
        "features": first.shape[0],
        "growth": growing.shape[0],
        "channels": channels,
    }
    with empty("meta"):
        wanted = RRDBNet(**parameters).state_dict()
    if {key: value.shape for key, value in wanted.items()} != {key: value.shape for key, value in clean.items()}:
        return None
    return parameters, clean


_RELEASE_NAMES = {
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "HRconv": "conv_hr",
}
_TRAINING_NAMES = {"0": "conv_first", "3": "conv_up1", "6": "conv_up2", "8": "conv_hr", "10": "conv_last"}
_TRAINING_BLOCK = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\.(weight|bias)")
_TRAINING_TRUNK = re.compile(r"model\.1\.sub\.\d+\.(weight|bias)")


def _renamed(state_dict: dict) -> dict | None:
    """The state dict in today's names; None when two of its keys become one."""
    clean = {_today(key): value for key, value in state_dict.items()}
    return clean if len(clean) == len(state_dict) else None


def _today(key: str) -> str:
    """One key in today's names; an unknown one is returned as it is and fails the comparison of keys later."""
    if block := _TRAINING_BLOCK.fullmatch(key):
        return "body.{}.rdb{}.conv{}.{}".format(*block.groups())
    if trunk := _TRAINING_TRUNK.fullmatch(key):
        return f"conv_body.{trunk[1]}"
    head, _, rest = key.partition(".")
    if head == "model":
        number, _, kind = rest.partition(".")
        return f"{_TRAINING_NAMES[number]}.{kind}" if number in _TRAINING_NAMES else key
    if head == "RRDB_trunk":
        return f"body.{rest.replace('RDB', 'rdb')}"
    return f"{_RELEASE_NAMES.get(head, head)}.{rest}"


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _twice(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
