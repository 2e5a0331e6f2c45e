"""A network that learns: its optimiser, loss scaling, clipping, and how its gradients come together."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sa_upscale.train import muon
from sa_upscale.train.ranks import Place


class Learner:
    """`network` as it learns; `forward` is what to call in its place, compiled and shared over ranks as asked for.

    With `optimizer` "muon" the kernels of its hidden layers learn by Muon, and only the rest by Adam.
    `scaled` scales the loss up before its gradients are taken in fp16, and leaves out the steps in which they overflow.
    """

    def __init__(
        self,
        network: nn.Module,
        place: Place,
        *,
        optimizer: str,
        betas: tuple[float, float],
        weight_decay: float,
        clip: float | None = None,
        scaled: bool = False,
        compiled: bool = False,
    ):
        self.network = network
        self.forward = place.together(network, compiled=compiled)
        self._clip = clip
        kernels = muon.kernels(network) if optimizer == "muon" else []
        self._muon = muon.Muon(kernels, weight_decay=weight_decay) if kernels else None
        taken = set(map(id, kernels))
        rest = [parameter for parameter in network.parameters() if id(parameter) not in taken]
        adam = torch.optim.Adam(rest, betas=betas, weight_decay=weight_decay, fused=place.device.type != "mps")
        self._optimizers = [adam, self._muon] if self._muon else [adam]
        self._scaler = torch.amp.GradScaler(place.device.type, enabled=scaled)

    @contextlib.contextmanager
    def part(self, last: bool) -> Iterator[None]:
        """Within it one part of a batch goes forward and backward; gradients go over the ranks with the `last` one."""
        shared = isinstance(self.forward, DistributedDataParallel)
        with self.forward.no_sync() if shared and not last else contextlib.nullcontext():
            yield

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`."""
        self._scaler.scale(loss).backward()

    def update(self, rate: float) -> None:
        """One step of the optimiser along the gradients, which are then forgotten."""
        if self._muon:
            self._muon.gather()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        if self._clip is not None:
            for optimizer in self._optimizers:
                self._scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self._clip)
        for optimizer in self._optimizers:
            self._scaler.step(optimizer)
        self._scaler.update()
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict:
        """Everything that the next step depends on."""
        return {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._scaler.load_state_dict(state["scaler"])
