"""A convolution and its (leaky) ReLU, in one pass over memory where torch has one for them."""

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class ActiveConv(nn.Conv2d):
    """A 3×3 convolution with zeros around the picture, and (leaky) ReLU of that `slope` below zero."""

    def __init__(self, inputs: int, outputs: int, slope: float):
        super().__init__(inputs, outputs, 3, padding=1)
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, outputs, h, w)` of `(N, inputs, h, w)`."""
        return convolved(x, self.weight, self.bias, self.slope)


def convolved(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    slope: float | None,
    *,
    padding: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> torch.Tensor:
    """The convolution of `x` `(N, C, h, w)`, and `activated` of it."""
    # Not for ReLU: this one makes 0 of what is not a number, which the engine could not tell the user then.
    if slope and _plainly_on_cpu(x, weight) and (fused := _fused(x.dtype)):
        return fused(x, weight, bias, padding, [1, 1], [1, 1], groups, "leaky_relu", [slope], "")
    return activated(F.conv2d(x, weight, bias, padding=padding, groups=groups), slope)


def activated(x: torch.Tensor, slope: float | None) -> torch.Tensor:
    """`x`, changed in place, after (leaky) ReLU of that `slope` below zero; as it is for None.

    In place for training, too: the gradients of both need only what they give.
    """
    if slope is None:
        return x
    return F.leaky_relu_(x, slope) if slope else F.relu_(x)


def special() -> bool:
    """Whether torch watches what is done, for gradients, an export or its compiler, which know plain operations."""
    return torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling()


def _plainly_on_cpu(x: torch.Tensor, weight: torch.Tensor) -> bool:
    own_types = torch.is_autocast_enabled("cpu") or x.dtype != weight.dtype
    return x.device.type == "cpu" and torch.backends.mkldnn.enabled and not own_types and not special()


@functools.cache
def _fused(dtype: torch.dtype) -> Callable[..., torch.Tensor] | None:
    """The operation that torch's compiler puts in the place of both; None where this torch or processor has none.

    Not for float32, whose convolutions take twice as long: there it gained nothing.
    """
    operation = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    if operation is None or dtype != torch.bfloat16:
        return None
    x, weight = torch.ones(1, 1, 3, 3, dtype=dtype), -torch.ones(1, 1, 3, 3, dtype=dtype)
    try:
        made = operation(x, weight, None, [1, 1], [1, 1], [1, 1], 1, "leaky_relu", [0.5], "")
    except (RuntimeError, TypeError):
        return None
    return operation if made[0, 0, 1, 1] == -4.5 else None
