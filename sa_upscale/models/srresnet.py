"""SRResNet without batch normalisation, the generator of adversarial feature matching."""

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.models.active import ActiveConv
from sa_upscale.models.bands import in_bands

SLOPE = 0.2
TAIL_CONTEXT = 2  # LR pixels


class SRResNet(nn.Module):
    """Residual blocks at LR size with a skip around them all, then one sub-pixel ×2 stage for ×2, two for ×4.

    Takes `(N, channels, h, w)` in [0, 1] and returns float32 `(N, channels, h * scale, w * scale)`,
    unclamped.  Raises `ValueError` for a scale other than 2 or 4.

    Reference: "Enhancing Perceptual Loss with Adversarial Feature Matching for Super-Resolution": 16 blocks
    of 64 channels, LeakyReLU 0.2, no batch norm, MSRA initialisation × 0.1.  It names no kernel sizes; all
    are 3×3 here.
    """

    window = 1
    multiple = 1
    exact_in_bf16 = ("conv_last",)

    def __init__(self, scale: int = 4, blocks: int = 16, features: int = 64, channels: int = 3):
        super().__init__()
        if scale not in (2, 4):
            raise ValueError(f"SRResNet upscales by 2 or 4, not {scale}")
        self.scale, self.channels = scale, channels
        stages = scale // 2
        # At LR size the first convolution, two a block and the one after the blocks reach one pixel each, the
        # first stage's too; the second stage's and the last one reach a half and a quarter at most, less than
        # one together.
        self.context = 2 * blocks + 2 + TAIL_CONTEXT
        self.parameters_dict = {"scale": scale, "blocks": blocks, "features": features, "channels": channels}
        self.conv_first = _active(channels, features)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        self.conv_body = _conv(features, features)
        self.upscale = nn.ModuleList(_active(features, 4 * features) for _ in range(stages))
        self.conv_last = _conv(features, channels)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = self.conv_first(lr.to(self.conv_first.weight.dtype))
        x = x + self.conv_body(self.body(x))
        return in_bands(self._enlarge, x, context=TAIL_CONTEXT, scale=self.scale)

    def _enlarge(self, x: torch.Tensor) -> torch.Tensor:
        """The picture `(N, channels, h·scale, w·scale)` of the features at LR size."""
        for stage in self.upscale:
            # The activation is the same before and after the shuffle.
            x = F.pixel_shuffle(stage(x), 2)
        return self.conv_last(x.to(self.conv_last.weight.dtype)).float()


class ResidualBlock(nn.Module):
    """Two convolutions with an activation between them, added to the input."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = _active(features, features)
        self.conv2 = _conv(features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.conv1(x))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return _drawn(nn.Conv2d(inputs, outputs, 3, padding=1))


def _active(inputs: int, outputs: int) -> ActiveConv:
    return _drawn(ActiveConv(inputs, outputs, SLOPE))


def _drawn(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, a=SLOPE)
    nn.init.zeros_(conv.bias)
    with torch.no_grad():
        conv.weight *= 0.1
    return conv
