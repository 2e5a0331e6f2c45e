"""VSRResNet: five bicubic-upscaled frames in, the middle one restored."""

import functools
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from sa_upscale.functional.resize import resize
from sa_upscale.models.active import ActiveConv
from sa_upscale.models.bands import Conv, Layer, Residual, joined, plan, streamed


class VSRResNet(nn.Module):
    """Residual blocks at HR size over five frames t-2 … t+2 that bicubic interpolation has already upscaled.

    Takes LR frames `(N, 5, channels, h, w)` in [0, 1] and returns the middle one as float32
    `(N, channels, h * scale, w * scale)`, unclamped.  A caller that moves the window along a video upscales
    each frame once with `prepare` and calls `from_prepared` instead.  With `global_skip` the network learns
    what to add to the bicubic middle frame; the paper's network (the default) makes the whole picture.

    Raises `ValueError` for another number of frames.

    Reference: "Spatially adaptive losses for image and video super-resolution with GANs", the VSRResNet of
    Lucas et al.: 34 convolutions: one shared by the frames, one that fuses them, two in each of 15 blocks,
    two last ones.  Deviations: `global_skip`; a block's second convolution starts at MSRA × 0.1, without
    which 15 sums of positive terms blow up.
    """

    window = 5
    multiple = 1
    banded = True
    in_place_of_layers: Sequence[Layer] | None = None

    def __init__(
        self,
        scale: int = 4,
        blocks: int = 15,
        features: int = 64,
        channels: int = 3,
        global_skip: bool = False,
    ):
        super().__init__()
        if scale < 1 or scale != int(scale):
            raise ValueError(f"VSRResNet upscales by a whole number from 1 up, not {scale}")
        self.scale, self.channels, self.global_skip = scale, channels, global_skip
        # Bicubic upscaling reaches two LR pixels, the 2 * blocks + 4 convolutions one HR pixel each.
        self.context = 2 + -(-(2 * blocks + 4) // scale)
        self.parameters_dict = {
            "scale": scale,
            "blocks": blocks,
            "features": features,
            "channels": channels,
            "global_skip": global_skip,
        }
        self.frame = _conv(channels, features)
        self.fuse = _conv(self.window * features, features)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        self.conv_hr = _conv(features, features)
        self.conv_last = _drawn(nn.Conv2d(features, channels, 3, padding=1))
        if global_skip:
            # The first pictures are then the bicubic ones, not noise over them.
            with torch.no_grad():
                self.conv_last.weight *= 0.1

    def prepare(self, frame: torch.Tensor) -> torch.Tensor:
        """One float frame `(N, channels, h, w)` upscaled bicubically to `(N, channels, h * scale, w * scale)`.

        Only the frame: the shared first convolution's features would spare under one hundredth of the work
        and keep 64 channels at HR size for each of five frames (a gigabyte a frame at 3840×2160 in half
        precision).
        """
        height, width = frame.shape[-2:]
        return resize(frame, (height * self.scale, width * self.scale))

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        self._check(lr)
        return self.from_prepared(self.prepare(lr.flatten(0, 1)).unflatten(0, lr.shape[:2]))

    def from_prepared(self, frames: torch.Tensor) -> torch.Tensor:
        """The restored middle frame `(N, channels, H, W)` of prepared frames `(N, 5, channels, H, W)`."""
        return joined(self.rows_from_prepared(frames), frames.shape[-2])

    def rows_from_prepared(self, frames: torch.Tensor) -> Iterable[torch.Tensor]:
        """What `from_prepared` gives, in bands of rows from the top: the whole of it is never held."""
        self._check(frames)
        if planned := plan(self, frames, self.frame.weight, convolutions=2 * len(self.body) + 4):
            layers, rows = planned
            return streamed(layers, frames.flatten(1, 2), rows, functools.partial(self._picture, frames))
        dtype = self.frame.weight.dtype
        features = [self.frame(_dense(frame).to(dtype)) for frame in frames.unbind(1)]
        x = self.fuse(torch.cat(features, dim=1))
        del features  # at HR size these five are the largest tensors of all
        x = self.body(x)
        return [self._picture(frames, self.conv_last(self.conv_hr(x)))]

    def stacked(self, lr: torch.Tensor) -> torch.Tensor:
        """What the first of `layers` takes of the input of the network: prepared frames side by side."""
        return self.prepare(lr.flatten(0, 1)).unflatten(0, lr.shape[:2]).flatten(1, 2)

    def layers(self) -> list[Layer]:
        """The network for bands of rows of its frames side by side, `(N, 5 * channels, H, W)`."""

        def conv(module: ActiveConv) -> Conv:
            return Conv(module.weight, module.bias, module.slope)

        return [
            # One convolution of five groups leaves the features side by side, as the next one takes them.
            Conv(
                self.frame.weight.repeat(self.window, 1, 1, 1),
                self.frame.bias.repeat(self.window),
                self.frame.slope,
                groups=self.window,
            ),
            conv(self.fuse),
            *(Residual(conv(block.conv1), conv(block.conv2)) for block in self.body),
            conv(self.conv_hr),
            Conv(self.conv_last.weight, self.conv_last.bias),
        ]

    def _picture(self, frames: torch.Tensor, made: torch.Tensor, top: int = 0) -> torch.Tensor:
        """What the last convolution made, as rows of the picture from row `top` on."""
        if not self.global_skip:
            return made.float()
        return made.float() + frames[:, self.window // 2, :, top : top + made.shape[2]].float()

    def _check(self, frames: torch.Tensor) -> None:
        if frames.dim() != 5 or frames.shape[1] != self.window:
            raise ValueError(f"VSRResNet takes (N, {self.window}, C, H, W), not {tuple(frames.shape)}")


class ResidualBlock(nn.Module):
    """Two convolutions, an activation after each, added to the input."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = _conv(features, features)
        self.conv2 = _conv(features, features)
        with torch.no_grad():
            self.conv2.weight *= 0.1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.conv1(x))


def _conv(inputs: int, outputs: int) -> ActiveConv:
    return _drawn(ActiveConv(inputs, outputs, slope=0))


def _drawn(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)
    return conv


def _dense(frame: torch.Tensor) -> torch.Tensor:
    # A slice of a five-dimensional tensor has no memory format of its own; left so, every convolution would
    # reorder.
    return frame.contiguous(memory_format=torch.channels_last)
