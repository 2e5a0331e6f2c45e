"""How a picture is cut into tiles, and put together again."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sa_upscale.engine.pixels import quantise, round_up

SEAM = 8  # LR pixels over which two tiles are mixed where both are right
ROWS = 32  # of the result, rounded at once on a processor
UNBOUNDED_OVERLAP = 64  # for a network that sees the whole picture and names no measured overlap


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    The network is given `[start, stop)` of the picture; of what it returns `[begin, end)` counts, in pixels
    of the result.  The first `rise` of these fade in, the last `fall` fade out.
    """

    start: int
    stop: int
    begin: int
    end: int
    rise: int
    fall: int


def overlap(model: nn.Module) -> tuple[int, int]:
    """LR pixels that neighbouring tiles share, and over how many in their middle they are mixed.

    Where tiles overlap by all that the network sees, both are right in the middle and the seam is short.
    Where that would be several times the tile, the network names how far it matters (`overlap`); the mixing
    then starts early, so that what little is wrong near a cut counts little.
    """
    context = model.context
    reach = getattr(model, "overlap", UNBOUNDED_OVERLAP if context is None else context)
    if context is not None and context <= reach:
        return round_up(2 * context + SEAM, model.multiple), SEAM
    return round_up(2 * reach, model.multiple), reach // 2


def spans(length: int, padded: int, tile: int, shared: int, seam: int, multiple: int, scale: int) -> list[Span]:
    """Cut an axis of `padded` LR pixels, `length` of them real, into the fewest tiles that add `tile` pixels each.

    Neighbours share at least `shared` pixels and are mixed over `seam` in the middle of what they share.
    All tiles have one size, and start at multiples of `multiple`, of which `shared` is one too.  The weights
    of the tiles sum to one at every pixel.
    """
    tile = round_up(tile, multiple)
    # No longer than half a tile, so that a pixel never lies in two seams.
    width = min(seam, tile // 2) * scale
    count = max(1, -(-(padded - shared) // tile))
    # As even as can be: three tiles of a third, not two whole ones and one that repeats most of the second.
    size = min(padded, round_up(-(-(padded + (count - 1) * shared) // count), multiple))
    steps = (padded - size) // multiple
    starts = [number * steps // max(1, count - 1) * multiple for number in range(count)]
    seams = [((left + size + right) * scale - width) // 2 for left, right in itertools.pairwise(starts)]
    begins = [0, *seams]
    ends = [*(begin + width for begin in seams), length * scale]
    return [
        Span(start, start + size, begin, end, width if number else 0, width if number < count - 1 else 0)
        for number, (start, begin, end) in enumerate(zip(starts, begins, ends, strict=True))
    ]


def rising(width: int) -> torch.Tensor:
    """Weights of a tile that fades in over `width` pixels; `1 - rising(width)` is exact, so that they sum to one."""
    # Multiples of 2^-20 lose nothing when float32 takes them from one.
    return ((torch.arange(width, dtype=torch.float64) + 0.5) / width * 2**20).round().div(2**20).float()


def fade(part: torch.Tensor, at: int, length: int, rise: int, fall: int) -> None:
    """Weigh, in place, those of `(n, m, C)` that are the entries from `at` on of a first axis of `length`.

    The first `rise` of that axis fade in, its last `fall` fade out.
    """
    first = part[: max(0, rise - at)]
    if len(first):
        first *= rising(rise).to(part.device)[at : at + len(first), None, None]
    last = part[max(0, length - fall - at) :]
    if len(last):
        begun = max(0, at - (length - fall))
        last *= (1 - rising(fall)).to(part.device)[begun : begun + len(last), None, None]


class Strip:
    """One row of tiles that becomes rows of the result; only what the next tiles mix with is kept in float.

    `above` is what the row of tiles before left for its lower seam (`below` of its strip), one part a tile.  On a GPU
    nothing here waits until `finish` does.
    """

    def __init__(self, row: Span, above: list[torch.Tensor], output: np.ndarray, scale: int):
        self.row, self.above, self.output, self.scale = row, above, output, scale
        self.below: list[torch.Tensor] = []

    def begin(self) -> None:
        """Forget all tiles; the strip that follows, whose `above` is this one's `below`, has to begin again too."""
        self.below.clear()
        self._from_left: torch.Tensor | None = None
        self._bounds: list[torch.Tensor] = []
        self._arriving: list[tuple[torch.Tensor, np.ndarray]] = []
        self._arrived: torch.cuda.Event | None = None

    def add(self, column: Span, tile: Iterable[torch.Tensor], light: torch.Tensor) -> None:
        """Take the next tile from the left, and store what is final of it.

        It comes as rows `(N, C, rows, columns)` in float from its top, which are spoilt.  `finish` gives back the
        bounds of the tile, and with them `light`.
        """
        row, top = self.row, self.row.start * self.scale
        left = column.start * self.scale
        low, high, seams = [], [], []
        for part in tile:
            # As they lie in memory: in the order of the channels it takes four times as long.
            bounds = part.permute(0, 2, 3, 1).aminmax()
            low.append(bounds.min)
            high.append(bounds.max)
            begin, end = max(row.begin, top), min(row.end, top + part.shape[2])
            if begin < end:
                counted = part[:, :, begin - top : end - top, column.begin - left : column.end - left]
                seams.append(self._place(column, counted.flatten(0, 1).permute(1, 2, 0), begin - row.begin))
            top += part.shape[2]
        self._from_left, below = map(torch.cat, zip(*seams, strict=True))
        self.below.append(below)
        self._bounds.append(torch.stack((torch.stack(low).amin(), torch.stack(high).amax(), light)))

    def _place(self, column: Span, part: torch.Tensor, at: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Store what is final of rows `(rows, columns, C)`, those from `at` on of what counts of a tile.

        Gives what neighbours are mixed with: first the part for the tile to the right, then that for the one below.
        """
        row = self.row
        if self.output.shape[2] == 1:
            part = part.mean(dim=2, keepdim=True)
        fade(part, at, row.end - row.begin, row.rise, row.fall)
        fade(part.transpose(0, 1), 0, part.shape[1], column.rise, column.fall)
        if column.rise:
            part[:, : column.rise] += self._from_left[at : at + len(part)]
        # Copies, because a view would keep the whole tile.
        to_right = part[:, part.shape[1] - column.fall :].clone()
        part = part[:, : part.shape[1] - column.fall]
        mixed = part[: max(0, row.rise - at)]
        if len(mixed):
            mixed += self.above[len(self.below)][at : at + len(mixed)]
        final = max(0, min(len(part), row.end - row.fall - row.begin - at))
        self._send(part[:final], self.output[at : at + final, column.begin : column.begin + part.shape[1]])
        return to_right, part[final:].clone()

    def close(self) -> None:
        """Say that the last tile was added."""
        bounds = torch.stack(self._bounds)
        self._bounds = [_sent(bounds) if bounds.is_cuda else bounds]
        if bounds.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def finish(self) -> list[list[float]]:
        """Await the rows, and give the `bounds` of every tile."""
        if self._arrived:
            self._arrived.synchronize()
        for rows, target in self._arriving:
            torch.from_numpy(target).copy_(rows)
        self._arriving.clear()
        return self._bounds[0].tolist()

    def _send(self, rows: torch.Tensor, target: np.ndarray) -> None:
        if rows.is_cuda:
            rows = quantise(rows, target.dtype)
            # As bytes: a quarter of what goes over the bus.
            self._arriving.append((_sent(rows.byte() if target.dtype == np.uint8 else rows), target))
            return
        # A few at a time: the four passes over them then find them in the caches.
        for some, into in zip(rows.split(ROWS), torch.from_numpy(target).split(ROWS), strict=True):
            into.copy_(quantise(some, target.dtype))


def _sent(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in pinned memory of what is on a GPU, complete once the stream has come this far."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
