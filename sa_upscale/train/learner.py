"""A network that learns: its optimiser, loss scaling, clipping, and how its gradients come together."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sa_upscale.train.ranks import Place


class Learner:
    """`network` with Adam; `forward` is what to call in its place, compiled and shared over ranks as asked for.

    `scaled` scales the loss up before its gradients are taken in fp16, and leaves out the steps in which they overflow.
    """

    def __init__(
        self,
        network: nn.Module,
        place: Place,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        clip: float | None = None,
        scaled: bool = False,
        compiled: bool = False,
    ):
        self.network = network
        self.forward = place.together(network, compiled=compiled)
        self._clip = clip
        self._optimizer = torch.optim.Adam(
            network.parameters(), betas=betas, weight_decay=weight_decay, fused=place.device.type != "mps"
        )
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
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if self._clip is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self._clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict:
        """Everything that the next step depends on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
