"""What becomes of one tile: the network in the type that is asked for, compiled, turned eight ways, or coloured."""

import copy
import functools
import threading
from collections.abc import Callable, Iterable

import torch
from torch import nn

from sa_upscale import models
from sa_upscale.engine import compiling
from sa_upscale.engine.devices import DTYPES
from sa_upscale.engine.jobs import Job
from sa_upscale.engine.pixels import with_low_frequencies
from sa_upscale.models import int8


class Passes:
    """The network `source` on a device, in as many types as are asked for; one for all threads.

    `banded`: tiles are worked through in bands of rows.  `half`: the type of what int8 leaves to others.  For
    `tta`, `match_color` and `compiled` see `Engine`; `on_notice` gets a kind and a line for the user.
    """

    def __init__(
        self,
        source: nn.Module,
        device: torch.device,
        *,
        banded: bool,
        half: torch.dtype,
        tta: bool,
        match_color: bool,
        compiled: bool,
        on_notice: Callable[[str, str], None],
    ):
        self.compiled, self._banded = compiled, banded
        self._source, self._device, self._half = source, device, half
        self._tta, self._match_color = tta, match_color
        self._on_notice = on_notice
        self._networks: dict[str, nn.Module] = {}
        self._making = threading.Lock()

    def parts(self, job: Job, tile: torch.Tensor, precision: str) -> Iterable[torch.Tensor]:
        """What becomes of a tile, in float, as bands of rows from its top: one, or as the network makes them."""
        if self._banded and not (self._tta or self._match_color):
            return job.rows(self._network(precision), tile)
        return [self._whole(job, tile, precision)]

    def forget(self, precision: str) -> None:
        """Free the network of a type that is not wanted any more."""
        self._networks.pop(precision, None)

    def _whole(self, job: Job, tile: torch.Tensor, precision: str) -> torch.Tensor:
        forward = functools.partial(self._forward, job, precision=precision)
        if self._tta:
            turned = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
            sr = sum(_turned_back(forward(_turned(tile, *way)).float(), *way) for way in turned) / 8
        else:
            sr = forward(tile).float()
        # Windows of frames have no one source of their colours.
        return with_low_frequencies(sr, tile) if self._match_color and self._source.window == 1 else sr

    def _forward(self, job: Job, tile: torch.Tensor, precision: str) -> torch.Tensor:
        try:
            return job.forward(self._network(precision), tile)
        except Exception as error:
            if not (self.compiled and compiling.failed(error)):
                raise
        text = "the network cannot be compiled here (is there a C++ compiler?); going on as it is"
        self._on_notice("compile", text)
        self.compiled = False
        self._networks.clear()
        return job.forward(self._network(precision), tile)

    def _network(self, precision: str) -> nn.Module:
        """The network on the device in one type; made on first use, always from the full-precision original."""
        with self._making:
            if precision not in self._networks:
                if precision == "int8":
                    network = int8.converted(self._source, tail=self._half)
                else:
                    network = models.typed(copy.deepcopy(self._source), DTYPES[precision])
                network = network.to(self._device, memory_format=torch.channels_last)
                self._networks[precision] = compiling.compiled(network) if self.compiled else network
            return self._networks[precision]


def _turned(tile: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    turned = torch.rot90(tile, turns, (-2, -1))
    return turned.flip(-1) if mirrored else turned


def _turned_back(sr: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    return torch.rot90(sr.flip(-1) if mirrored else sr, -turns, (-2, -1))
