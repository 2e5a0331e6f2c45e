"""Muon for convolutions: their kernels as the matrices that torch's optimiser takes."""

from collections.abc import Sequence

import torch
from torch import nn

MOMENTUM = 0.95  # what the optimiser's authors use throughout
COLOURS = 4  # a kernel of as few inputs takes a picture, or is a set of filters


def kernels(network: nn.Module) -> list[nn.Parameter]:
    """What Muon is for: the kernels of convolutions and the matrices of linear layers between features.

    Those that take one picture, and the last, which gives it, are not among them: colours are not to be turned.
    """
    weights = [parameter for name, parameter in network.named_parameters() if _is_matrix(name, parameter)]
    return [weight for weight in weights[:-1] if weight.shape[1] > COLOURS]


class Muon(torch.optim.Muon):
    """torch's Muon on `kernels` of any number of dimensions, `(out, …)`, taken as `(out, the rest)`.

    The step is scaled to the size of Adam's, so that both may share a learning rate.  `gather` must come between the
    gradients and what is done to them.

    Reference: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale is that of
    J. Liu et al., "Muon is Scalable for LLM Training", 2025, section 2.2.
    """

    def __init__(self, kernels: Sequence[nn.Parameter], *, weight_decay: float):
        self._kernels = list(kernels)
        self._matrices = [nn.Parameter(_matrix(kernel.detach())) for kernel in kernels]
        super().__init__(self._matrices, weight_decay=weight_decay, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")

    def gather(self) -> None:
        """Take up the gradients that have come to the kernels, as views: what is done to either is done to both."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            if kernel.grad is not None and kernel.grad.stride() != kernel.stride():
                kernel.grad = torch.empty_like(kernel).copy_(kernel.grad)
            matrix.grad = None if kernel.grad is None else _matrix(kernel.grad)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the kernels."""
        super().zero_grad(set_to_none)
        for kernel in self._kernels:
            kernel.grad = None


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 4 or (parameter.ndim == 2 and name.endswith("weight"))


def _matrix(kernel: torch.Tensor) -> torch.Tensor:
    """A view `(out, the rest)`; the order of the rest is that of the memory, and no matter to the optimiser."""
    if kernel.ndim == 4 and not kernel.is_contiguous():
        kernel = kernel.permute(0, 2, 3, 1)  # channels_last
    return kernel.view(kernel.shape[0], -1)
