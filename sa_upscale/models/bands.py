"""Networks in bands of rows: on a processor, feature maps that stay in the caches take half the time of large ones.

`in_bands` is for a stage of any kind, of few convolutions, and computes a little twice; `streamed` is for chains of 3×3
convolutions, of which it computes nothing twice however many they are.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch.nn import functional as F

from sa_upscale.models.active import convolved, special

BYTES = 8 << 20  # of a feature map: what stays in the caches of a processor
PICTURE_BYTES = 1 << 20  # of rows of a picture, in float32: more would be memory that is new for every picture
INT8_COPIES = 1.25  # of a map, in `models.int8`: as numbers, and as bytes
LEAST_ROWS = 16  # of the input; below that most of a band would be what it shares with its neighbours


def _gains(x: torch.Tensor) -> bool:
    """Whether bands are worth while: on a CPU, without gradients, and not while the network is exported or compiled."""
    return x.device.type == "cpu" and not special()


def in_bands(
    stage: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, *, context: int, scale: int
) -> torch.Tensor:
    """`stage(x)`, made of as many rows at a time as the caches of a processor hold.

    `stage` makes `(N, C', h·scale, w·scale)` of `(N, C, h, w)`, and in between maps of C channels at that size.
    `context` is the number of rows on each side that a row of its result depends on, so that the result is the same.
    Where that gains nothing it is one call.
    """
    height, width = x.shape[-2:]
    rows = max(LEAST_ROWS, BYTES // (x.shape[1] * x.element_size() * width * scale**2))
    if rows >= height or not _gains(x):
        return stage(x)
    count = -(-height // rows)
    starts = [height * number // count for number in range(count + 1)]

    def parts() -> Iterator[torch.Tensor]:
        for start, stop in itertools.pairwise(starts):
            first = max(0, start - context)
            band = stage(x[..., first : stop + context, :])
            yield band[..., (start - first) * scale : (stop - first) * scale, :]

    return joined(parts(), height * scale)


def joined(parts: Iterable[torch.Tensor], height: int) -> torch.Tensor:
    """The picture `(N, C, height, w)` of which `parts` are the rows from the top; itself if there is one part."""
    made, top = None, 0
    for part in parts:
        if part.shape[2] == height:
            return part
        if made is None:
            size = (*part.shape[:2], height, part.shape[3])
            made = torch.empty(size, dtype=part.dtype, memory_format=torch.channels_last)
        made[:, :, top : top + part.shape[2]] = part
        top += part.shape[2]
    return made


class Layer(Protocol):
    """A part of a network that is fed a picture in bands of rows from the top."""

    def feed(self, rows: torch.Tensor, last: bool) -> torch.Tensor:
        """The rows of the result that `(N, C, rows, w)`, with all fed before, decides; with the `last` band all others.

        After the first band these are fewer than were fed; it has to be higher than the number of convolutions.
        """

    def begun(self) -> "Layer":
        """The same layer at the top of a picture."""


class Conv:
    """A 3×3 convolution with zeros around the picture, and (leaky) ReLU of that `slope` below zero if there is one."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, slope: float | None = None, *, groups: int = 1):
        self.weight, self.bias, self.slope, self.groups = weight, bias, slope, groups
        self._above: torch.Tensor | None = None

    def feed(self, rows: torch.Tensor, last: bool) -> torch.Tensor:
        # A band of another memory format would be reordered before every convolution.
        rows = rows.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        rows = F.pad(rows, (0, 0, 1, 0)) if self._above is None else torch.cat((self._above, rows), dim=2)
        if last:
            rows = F.pad(rows, (0, 0, 0, 1))
        self._above = kept(rows[:, :, -2:], self._above)
        return convolved(rows, self.weight, self.bias, self.slope, padding=(0, 1), groups=self.groups)

    def begun(self) -> "Conv":
        return Conv(self.weight, self.bias, self.slope, groups=self.groups)


def kept(rows: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
    """A copy of a few rows, in the place of those kept `before`: a view would keep the whole band.

    New memory each time would be cut out of what a band has just left, where the next band then has no room: the heap
    grows, and memory that a process has not had before is slow.
    """
    if before is None or before.shape != rows.shape:
        return rows.clone()
    return before.copy_(rows)


class Residual:
    """Layers whose result is added to what they are fed."""

    def __init__(self, *layers: Layer):
        self.layers = layers
        self._waiting: torch.Tensor | None = None

    def feed(self, rows: torch.Tensor, last: bool) -> torch.Tensor:
        made = rows
        for layer in self.layers:
            made = layer.feed(made, last)
        held = 0
        if self._waiting is not None:
            held = self._waiting.shape[2]
            made[:, :, :held] += self._waiting
        due = made.shape[2] - held
        made[:, :, held:] += rows[:, :, :due]
        self._waiting = kept(rows[:, :, due:], self._waiting)
        return made

    def begun(self) -> "Residual":
        return Residual(*(layer.begun() for layer in self.layers))


class Chain(Protocol):
    """A network that is layers one after the other; `in_place_of_layers` are those that `models.int8` made of them."""

    in_place_of_layers: Sequence[Layer] | None

    def layers(self) -> Sequence[Layer]:
        """Those of the network itself, at the top of a picture."""


def plan(
    network: Chain, x: torch.Tensor, kernel: torch.Tensor, *, convolutions: int
) -> tuple[Sequence[Layer], int] | None:
    """What to call `streamed` with: the layers of `network`, and how many rows of `x` `(…, h, w)` to feed at a time.

    Its maps are like those that `kernel` makes.  None where the network may as well take the whole picture.
    """
    integers = network.in_place_of_layers
    height, width = x.shape[-2:]
    row = kernel.shape[0] * kernel.element_size() * width * (INT8_COPIES if integers else 1)
    rows = max(convolutions + 1, int(BYTES // row))
    if rows < height and _gains(x):
        return integers or network.layers(), rows
    return (integers, height) if integers else None


def streamed(
    layers: Sequence[Layer], x: torch.Tensor, rows: int, finish: Callable[[torch.Tensor, int], torch.Tensor]
) -> Iterator[torch.Tensor]:
    """The picture that `layers` in turn, and then `finish`, make of `x` `(N, C, h, w)`, in bands of rows from the top.

    `rows` at a time are fed, and `finished` of what the last layer gives are yielded.  The bands are those of whole
    pictures, to the bit where the convolutions' are.
    """
    height, top = x.shape[2], 0
    layers = [layer.begun() for layer in layers]
    for start in range(0, height, rows):
        band = x[:, :, start : start + rows]
        for layer in layers:
            band = layer.feed(band, start + rows >= height)
        yield from finished(band, finish, top)
        top += band.shape[2]


def finished(
    made: torch.Tensor, finish: Callable[[torch.Tensor, int], torch.Tensor], top: int = 0
) -> Iterable[torch.Tensor]:
    """`finish(rows, number of the first)` of all rows of `made` `(N, C, h, w)`, whose first is `top`, a few at a time.

    Where that gains nothing it is one call.
    """
    if not _gains(made):
        return [finish(made, top)]
    count, channels, height, width = made.shape
    rows = max(1, PICTURE_BYTES // (4 * count * channels * width))
    return (finish(made[:, :, start : start + rows], top + start) for start in range(0, height, rows))
