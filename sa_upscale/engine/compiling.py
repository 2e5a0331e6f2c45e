"""Networks compiled by torch for the machine they run on."""

import torch
from torch import nn

_OWN = ("torch._dynamo", "torch._inductor")


def compiled(network: nn.Module) -> nn.Module:
    """The network, to be compiled at its first call; for a second size of input it is once more, for any size.

    Weights are frozen into it: laid out for the processor once, and activations fused into the convolutions.
    """
    options = {"freezing": True} if next(network.parameters()).device.type == "cpu" else {}
    network.compile(options=options)
    if hasattr(network, "from_prepared"):
        network.from_prepared = torch.compile(network.from_prepared, options=options)
    return network


def failed(error: Exception) -> bool:
    """Whether it is the compiler's and not the network's."""
    return any(kind.__module__.startswith(_OWN) for kind in type(error).__mro__)
