"""What the engine is given to do: a picture or a window of frames, and how tiles are cut out of it."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sa_upscale.engine.tiles import Span, Strip

Cut = Callable[[Span], torch.Tensor]


@dataclass(frozen=True)
class Prepared:
    """One frame made ready by `Engine.prepare`; `tensor` is None for networks that take one frame at a time."""

    frame: np.ndarray
    tensor: torch.Tensor | None


@dataclass(frozen=True)
class Job:
    """A picture to run, and how to cut tiles `(1, …, h, w)` of it, of which a network makes `(1, C, h·scale, …)`.

    `row` takes the rows of a row of tiles and gives what cuts its tiles out.  `prepared` tiles are of what the
    network's own `prepare` made.  The result has `channels` and the type `dtype`, and `scale` times the size.
    """

    height: int  # as given
    width: int
    padded_height: int  # as the network takes it
    padded_width: int
    row: Callable[[Span], Cut]
    channels: int
    dtype: np.dtype
    prepared: bool = False

    def forward(self, network: nn.Module, tile: torch.Tensor) -> torch.Tensor:
        """What the network makes of a tile."""
        return network.from_prepared(tile) if self.prepared else network(tile)

    def rows(self, network: nn.Module, tile: torch.Tensor) -> Iterable[torch.Tensor]:
        """The same in bands of rows from the top, for networks that can."""
        return network.rows_from_prepared(tile) if self.prepared else network.rows(tile)


@dataclass
class Work:
    """One row of tiles: what cuts them out, where they go, and the type they were last given to the device in."""

    cut: Cut
    strip: Strip
    precision: str | None = None

    def faults(self) -> set[str]:
        """What is wrong with the tiles, once they are done; awaits them.

        "broken": a tile itself has values that are no numbers; "non-finite": a result has; "black" where the tile is
        not.
        """
        return {fault for bounds in self.strip.finish() if (fault := _fault(*bounds))}


def _fault(low: float, high: float, light: float) -> str | None:
    """What is wrong with a result of these bounds, made of a tile of this mean; None when nothing is."""
    if not math.isfinite(light):
        return "broken"
    if not (math.isfinite(low) and math.isfinite(high)):
        return "non-finite"
    # Half a step of 8 bits: nothing of the picture is left.  A tile as dark as two steps may be night.
    return "black" if high < 0.5 / 255 and light > 2 / 255 else None
