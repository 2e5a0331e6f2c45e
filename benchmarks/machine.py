"""What the machine can do at most: products of matrices, copies of memory, and each network's own convolutions alone.

A network's *conv ceiling* is the time its convolutions take one by one, each on a tensor of its shape, type and memory
format, with nothing between them: what a run of the whole network would take if all else were free.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.pairs import fastest
from sa_upscale.engine import DTYPES, precisions
from sa_upscale.models import int8

SIDE = 2048  # of the matrices
COPY = 1 << 28  # bytes


def matrix_rate(precision: str, device: str = "cpu") -> float:
    """GFLOP/s of a product of two square matrices."""
    a, b = (torch.randn(SIDE, SIDE, device=device).to(DTYPES[precision]) for _ in range(2))
    return 2 * SIDE**3 / fastest(lambda: a @ b, device=device) / 1e9


def copy_rate(device: str = "cpu") -> float:
    """GB/s read and written by a copy."""
    source = torch.zeros(COPY, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPY / fastest(lambda: target.copy_(source), device=device) / 1e9


class Convolutions:
    """The convolutions of one run of a network: their work, and the time they take alone."""

    def __init__(self, model: nn.Module, run: Callable[[nn.Module], object]):
        self._model = model
        self.calls: list[tuple[tuple[int, ...], nn.Conv2d]] = []
        hooks = [
            module.register_forward_hook(lambda conv, inputs, _: self.calls.append((tuple(inputs[0].shape), conv)))
            for module in model.modules()
            if isinstance(module, nn.Conv2d)
        ]
        with torch.inference_mode():
            run(model)
        for hook in hooks:
            hook.remove()

    @property
    def operations(self) -> int:
        """Multiplications and additions of all of them."""
        return sum(2 * n * h * w * conv.weight.numel() for (n, _, h, w), conv in self.calls)

    def seconds(self, precision: str, device: str = "cpu") -> float:
        """The sum of the fastest times of all of them; equal shapes of one type are timed once."""
        fast = DTYPES[precisions(torch.device(device))[0]]
        floats = int8.apart(self._model, tail=fast) if precision == "int8" else {}
        times: dict[tuple, float] = {}
        total = 0.0
        for shape, conv in self.calls:
            integers = precision == "int8" and conv not in floats and int8.multiplies(conv)
            dtype = floats.get(conv, DTYPES[precision])
            key = (shape, tuple(conv.weight.shape), integers, dtype)
            if key not in times:
                times[key] = _integers(shape, conv) if integers else _floats(shape, conv, dtype, device)
            total += times[key]
        return total


@torch.inference_mode()
def _integers(shape: tuple[int, ...], conv: nn.Conv2d) -> float:
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    kernel, codes = int8.Kernel(conv.weight), int8.Codes.reaching(x)
    framed = F.pad(codes.of(x), (0, 0, 1, 1), value=codes.zero)
    return fastest(lambda: kernel.convolve(framed, codes, conv.bias, relu=False), device="cpu")


@torch.inference_mode()
def _floats(shape: tuple[int, ...], conv: nn.Conv2d, dtype: torch.dtype, device: str) -> float:
    x = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = conv.weight.to(device, dtype).contiguous(memory_format=torch.channels_last)
    bias = conv.bias.to(device, dtype)
    return fastest(lambda: F.conv2d(x, weight, bias, padding=conv.padding), device=device)


def ceilings(device: str = "cpu") -> dict[str, float]:
    """The machine's own figures."""
    precisions = ("fp32", "bf16")
    rates = {f"matrix product {name}, GFLOP/s": matrix_rate(name, device) for name in precisions}
    return rates | {"memory copy, GB/s": copy_rate(device)}
