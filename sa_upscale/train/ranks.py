"""The processes that train one network together, as torchrun starts them."""

import contextlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sa_upscale.engine import find_device

# Renamed in torch 2.13, which warns of the old name.
_BUFFERS = ("forward_sync_buffers", "broadcast_buffers")
_SYNC_BUFFERS = next(name for name in _BUFFERS if name in inspect.signature(DistributedDataParallel).parameters)


@dataclass(frozen=True)
class Place:
    """Which of `ranks` processes this is, and the device it computes on.  Rank 0 alone writes files and reports."""

    device: torch.device
    rank: int = 0
    ranks: int = 1

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each of `flags` as it is on any rank, so that all take the same turn."""
        if self.ranks == 1:
            return flags
        counts = torch.tensor(flags, dtype=torch.float32, device=self.device)
        distributed.all_reduce(counts)
        return tuple(bool(count) for count in counts.tolist())

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over all ranks."""
        if self.ranks > 1:
            distributed.all_reduce(x)
        return x / self.ranks

    def gathered(self, value) -> list:
        """`value` as each rank has it."""
        if self.ranks == 1:
            return [value]
        values = [None] * self.ranks
        distributed.all_gather_object(values, value)
        return values

    def together(self, network: nn.Module, *, compiled: bool = False) -> nn.Module:
        """`network` with its gradients averaged over all ranks.  On GPUs its batch norms see the whole batch."""
        if self.ranks > 1 and self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        network = torch.compile(network) if compiled else network
        # Buffers are not broadcast: the ranks' weights are the same, so spectral norms are; running statistics of batch
        # norms, which have no part in training, are rank 0's.
        return network if self.ranks == 1 else DistributedDataParallel(network, **{_SYNC_BUFFERS: False})


@contextlib.contextmanager
def joined(device: str | None) -> Iterator[Place]:
    """This process's place: alone, or one of those that torchrun started, over nccl on GPUs and gloo elsewhere.

    Raises `UpscaleError` for a device that is not there.
    """
    if not distributed.is_torchelastic_launched():
        yield Place(find_device(device))
        return
    on_gpu = torch.cuda.is_available() and (device is None or device.startswith("cuda"))
    place = find_device(f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else device)
    if on_gpu:
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Place(place, distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
