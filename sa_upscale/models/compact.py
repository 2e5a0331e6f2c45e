"""The CPU default: a plain stack of 3×3 convolutions at LR size and one sub-pixel step."""

import functools
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.models.active import ActiveConv, activated, convolved
from sa_upscale.models.bands import Conv, Layer, finished, joined, plan, streamed

SLOPE = 0.1  # of LeakyReLU below zero

_EDGE_FILTERS = torch.tensor(
    [
        [[1, 0, -1], [2, 0, -2], [1, 0, -1]],  # Sobel, horizontal
        [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],  # Sobel, vertical
        [[0, 1, 0], [1, -4, 1], [0, 1, 0]],  # Laplacian
    ],
    dtype=torch.float32,
)


class Compact(nn.Module):
    """`convs` hidden 3×3 convolutions with LeakyReLU between a first and a last one, added to nearest upscaling.

    Takes `(N, channels, h, w)` in [0, 1] and returns float32 `(N, channels, h * scale, w * scale)`, unclamped.  The
    upscaled input is added in float32 whatever the type of the weights, so that a half-precision run rounds only the
    learned detail.

    With `branches=True` every hidden convolution is trained as the sum of parallel linear branches, and `fold()` gives
    the plain network of the same function.

    Reference: X. Zhang et al., "Edge-oriented Convolution Block for Real-time Super Resolution on Mobile Devices", 2021
    (ECBSR-M16C64).  Deviations: RGB, not luma; LeakyReLU, not PReLU, whose gradient was a third of a CPU training step.
    """

    window = 1
    multiple = 1
    in_place_of_layers: Sequence[Layer] | None = None

    def __init__(self, scale: int = 4, features: int = 64, convs: int = 16, channels: int = 3, branches: bool = False):
        super().__init__()
        self.scale, self.channels, self.banded = scale, channels, not branches
        self.context = convs + 2
        self.parameters_dict = {"scale": scale, "features": features, "convs": convs, "channels": channels}
        if branches:
            self.parameters_dict["branches"] = True
        self.head = nn.Conv2d(channels, features, 3, padding=1)
        layer = BranchedConv if branches else _plain_conv
        self.body = nn.ModuleList([layer(features) for _ in range(convs)])
        self.tail = nn.Conv2d(features, channels * scale * scale, 3, padding=1)
        nn.init.kaiming_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # A large last layer drowns the upscaled input in noise, and the first thousand steps go into undoing it.
        nn.init.normal_(self.tail.weight, std=0.01)
        nn.init.zeros_(self.tail.bias)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return joined(self.rows(lr), lr.shape[-2] * self.scale)

    def rows(self, lr: torch.Tensor) -> Iterable[torch.Tensor]:
        """What `forward` gives, in bands of rows from the top: the whole of it is never held."""
        return self._run(lr, lr)

    def layers(self) -> list[Layer]:
        """The convolutions, for bands of rows of what `stacked` makes."""
        return [
            Conv(self._first_kernel(), self.head.bias, SLOPE),
            *(Conv(conv.weight, conv.bias, SLOPE) for conv in self.body),
            Conv(self.tail.weight, self.tail.bias),
        ]

    def stacked(self, lr: torch.Tensor) -> torch.Tensor:
        """What the first of `layers` takes of the input of the network."""
        return lr

    def _first_kernel(self) -> torch.Tensor:
        return self.head.weight

    def _run(self, frames: torch.Tensor, lr: torch.Tensor) -> Iterable[torch.Tensor]:
        """Rows of the picture over `lr` `(N, channels, h, w)`, of `frames` `(N, C, h, w)` for the first kernel."""
        picture = functools.partial(self._picture, lr)
        if self.banded and (planned := plan(self, frames, self.head.weight, convolutions=len(self.body) + 2)):
            layers, rows = planned
            return streamed(layers, frames, rows, picture)
        head = self._first_kernel()
        x = convolved(frames.to(head.dtype), head, self.head.bias, SLOPE)
        for conv in self.body:
            x = conv(x)
        return finished(self.tail(x), picture)

    def _picture(self, lr: torch.Tensor, detail: torch.Tensor, top: int = 0) -> torch.Tensor:
        """`detail`, as the last convolution makes it, over the nearest pixels of `lr` from row `top` on, in float32."""
        detail = detail.float()
        lr = lr[:, :, top : top + detail.shape[2]]
        # Before the shuffle: it puts a pixel's channels where upscaling would repeat it, in a fifth of the time.
        detail.unflatten(1, (self.channels, -1)).add_(lr.float()[:, :, None])
        return F.pixel_shuffle(detail, self.scale)

    def fold(self) -> "Compact":
        """The plain network that computes the same function; itself when there are no branches."""
        if "branches" not in self.parameters_dict:
            return self
        plain = Compact(**{name: value for name, value in self.parameters_dict.items() if name != "branches"})
        state = {name: value for name, value in self.state_dict().items() if not name.startswith("body.")}
        for index, conv in enumerate(self.body):
            state[f"body.{index}.weight"] = conv.kernel().detach()
            state[f"body.{index}.bias"] = conv.bias.detach()
        plain.load_state_dict(state)
        return plain

    def unfold(self, plain: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state of this network that computes what the `plain` network's state does: the reverse of `fold`."""
        state = dict(plain)
        for index, conv in enumerate(self.body):
            if isinstance(conv, BranchedConv) and f"body.{index}.weight" in plain:
                branches = conv.kernel().detach() - conv.weight.detach()
                state |= {f"body.{index}.{name}": value for name, value in conv.state_dict().items() if name != "bias"}
                state[f"body.{index}.weight"] = plain[f"body.{index}.weight"] - branches
        return state


class BranchedConv(nn.Module):
    """A 3×3 convolution and LeakyReLU, whose kernel is the sum of five.

    These are its own, the identity, expand-and-squeeze, and three edge filters.  The sum is taken
    over the kernels, not over the features they give, so that a training step costs one convolution.
    """

    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, features, 3, 3))
        self.bias = nn.Parameter(torch.zeros(features))
        self.expand = nn.Parameter(torch.empty(2 * features, features))
        self.squeeze = nn.Parameter(torch.empty(features, 2 * features, 3, 3))
        self.mix = nn.Parameter(torch.empty(3, features, features))
        self.edge_scale = nn.Parameter(torch.full((3, features), 1e-2))
        self.register_buffer("identity", _identity(features), persistent=False)
        self.register_buffer("edges", _EDGE_FILTERS.clone(), persistent=False)
        _small_kaiming(self.weight)
        nn.init.kaiming_normal_(self.expand, nonlinearity="linear")
        nn.init.normal_(self.squeeze, std=0.1 * (2 * features * 9) ** -0.5)
        nn.init.normal_(self.mix, std=features**-0.5)

    def kernel(self) -> torch.Tensor:
        """The one kernel `(features, features, 3, 3)` that all branches add up to."""
        squeezed = torch.einsum("omyx,mi->oiyx", self.squeeze, self.expand)
        edges = torch.einsum("ko,koi,kyx->oiyx", self.edge_scale, self.mix, self.edges)
        return self.weight + self.identity + squeezed + edges

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            kernel = self.kernel()
        return activated(F.conv2d(x, kernel, self.bias, padding=1), SLOPE)


def _plain_conv(features: int) -> ActiveConv:
    conv = ActiveConv(features, features, SLOPE)
    with torch.no_grad():
        _small_kaiming(conv.weight)
        # Starting every layer next to the identity trains a plain stack like a residual one, at no cost when it runs.
        conv.weight += _identity(features)
        conv.bias.zero_()
    return conv


def _identity(features: int) -> torch.Tensor:
    kernel = torch.zeros(features, features, 3, 3)
    return nn.init.dirac_(kernel)


def _small_kaiming(weight: torch.Tensor) -> None:
    nn.init.kaiming_normal_(weight)
    with torch.no_grad():
        weight *= 0.25
