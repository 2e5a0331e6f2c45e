"""The last stage of a network in bands of rows: at the size of the result its feature maps are the largest by far."""

import itertools
from collections.abc import Callable

import torch

BYTES = 8 << 20  # of a feature map: what stays in the caches of a processor
LEAST_ROWS = 16  # of the input; below that most of a band would be what it shares with its neighbours


def in_bands(
    stage: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, *, context: int, scale: int
) -> torch.Tensor:
    """`stage(x)`, made of as many rows at a time as the caches of a processor hold.

    `stage` makes `(N, C', h·scale, w·scale)` of `(N, C, h, w)`, and in between maps of C channels at that size.
    `context` is the number of rows on each side that a row of its result depends on, so that the result is the same.
    Only where it gains something: on a CPU, without gradients, and not while the network is exported or compiled.
    """
    height, width = x.shape[-2:]
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return stage(x)
    rows = max(LEAST_ROWS, BYTES // (x.shape[1] * x.element_size() * width * scale**2))
    if rows >= height:
        return stage(x)
    count = -(-height // rows)
    starts = [height * number // count for number in range(count + 1)]
    made = None
    for start, stop in itertools.pairwise(starts):
        first = max(0, start - context)
        band = stage(x[..., first : stop + context, :])
        if made is None:
            size = (*band.shape[:2], height * scale, width * scale)
            made = torch.empty(size, dtype=band.dtype, memory_format=torch.channels_last)
        made[..., start * scale : stop * scale, :] = band[..., (start - first) * scale : (stop - first) * scale, :]
    return made
