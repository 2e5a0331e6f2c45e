"""The losses by name.

A loss is a module called with a `Step` that returns an unweighted scalar; its weight stands in the recipe.  Adding one:
a file in this folder and a line in `LOSSES`.
"""

import inspect

from torch import nn

from sa_upscale.errors import near
from sa_upscale.losses.pixel import L1, Charbonnier
from sa_upscale.losses.step import Step

LOSSES: dict[str, type[nn.Module]] = {
    "l1": L1,
    "charbonnier": Charbonnier,
}

__all__ = ["LOSSES", "Step", "build"]


def build(name: str, **options) -> nn.Module:
    """Construct the loss `name`; an unknown name or option raises `ValueError` with the nearest known ones."""
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; {near(name, LOSSES)}")
    known = [keyword for keyword in inspect.signature(LOSSES[name].__init__).parameters if keyword != "self"]
    for option in options:
        if option not in known:
            raise ValueError(f"loss {name} takes no {option!r}; {near(option, known)}")
    return LOSSES[name](**options)
