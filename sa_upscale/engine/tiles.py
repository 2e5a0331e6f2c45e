"""How a picture is cut into tiles, and put together again."""

import itertools
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


def fade(part: torch.Tensor, rise: int, fall: int) -> None:
    """Weigh the first `rise` and the last `fall` entries of the first axis of `(n, m, C)`, in place."""
    if rise:
        part[:rise] *= rising(rise).to(part.device)[:, None, None]
    if fall:
        part[-fall:] *= 1 - rising(fall).to(part.device)[:, None, None]


class Strip:
    """One row of tiles that becomes rows of the result; only what the next tiles mix with is kept in float.

    `above` is what the row of tiles before left for its lower seam (`below` of its strip), one part a tile.  On a GPU
    nothing here waits until `finish` does.
    """

    def __init__(self, row: Span, above: list[torch.Tensor], output: np.ndarray):
        self.row, self.above, self.output = row, above, output
        self.below: list[torch.Tensor] = []

    def begin(self) -> None:
        """Forget all tiles; the strip that follows, whose `above` is this one's `below`, has to begin again too."""
        self.below.clear()
        self._from_left: torch.Tensor | None = None
        self._bounds: list[torch.Tensor] = []
        self._arriving: list[tuple[torch.Tensor, np.ndarray]] = []
        self._arrived: torch.cuda.Event | None = None

    def add(self, column: Span, part: torch.Tensor, bounds: torch.Tensor) -> None:
        """Take the next tile from the left, `(rows, columns, C)` in float, and store what is final of it.

        `bounds` is any vector to be had back from `finish`.  `part` is spoilt.
        """
        row = self.row
        self._bounds.append(bounds)
        fade(part, row.rise, row.fall)
        fade(part.transpose(0, 1), column.rise, column.fall)
        if column.rise:
            part[:, : column.rise] += self._from_left
        # Copies, because a view would keep the whole tile.
        self._from_left = part[:, part.shape[1] - column.fall :].clone()
        part = part[:, : part.shape[1] - column.fall]
        if row.rise:
            part[: row.rise] += self.above[len(self.below)]
        final = part.shape[0] - row.fall
        self.below.append(part[final:].clone())
        self._send(part[:final], self.output[:, column.begin : column.begin + part.shape[1]])

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
