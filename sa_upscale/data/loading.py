"""Batches of a source's samples, prepared beside the network's work."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from sa_upscale import processors
from sa_upscale.data.crops import Pair
from sa_upscale.data.shelf import processes_here
from sa_upscale.errors import UpscaleError

AHEAD = 4
"""Batches in preparation while the network works on one."""

MOST_WORKERS = 8


class Source(Protocol):
    """What samples are drawn from; several threads draw at once."""

    def sample(self, rng: np.random.Generator) -> Pair: ...


def batches(
    source: Source, count: int, seed: int, start: int = 0, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches for the steps `start`, `start + 1`, …: uint8 tensors, channels before the picture's axes.

    A batch of `count` samples is split over `ranks` in equal parts, one after the other; this is the part of `rank`.
    Sample i of step s follows from `seed`, s and i alone: a resumed run sees what an uninterrupted one would have, and
    all ranks together see what a single one would have.

    Some threads prepare the next `AHEAD` batches.  Close the generator to stop them.

    Raises `UpscaleError` when the batch cannot be split so, and what `source` raises.
    """
    if count % ranks:
        raise UpscaleError(f"a batch of {count} cannot be split over {ranks} processes; make data.batch a multiple")
    own = range(rank * count // ranks, (rank + 1) * count // ranks)
    workers = min(max(processors.count() // processes_here(), 1), MOST_WORKERS)
    return _batches(source, own, seed, start, workers)


def _batches(
    source: Source, own: range, seed: int, start: int, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    def drawn(step: int, index: int) -> Pair:
        return source.sample(np.random.default_rng((seed, step, index)))

    pool = ThreadPoolExecutor(workers, thread_name_prefix="data")
    try:
        waiting: deque = deque()
        for step in itertools.count(start):
            waiting.append([pool.submit(drawn, step, index) for index in own])
            if len(waiting) > AHEAD:
                lr, hr = zip(*(future.result() for future in waiting.popleft()), strict=True)
                yield _stack(lr), _stack(hr)
    finally:
        pool.shutdown(cancel_futures=True)  # and wait: a decoder at work when the process ends takes it down


def _stack(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays)).movedim(-1, -3)
