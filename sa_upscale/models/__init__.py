"""The networks by name.

Adding one: a file in this folder and a line in `GENERATORS`.  Every generator declares `scale`, `window` (frames it
takes: 1 or 5), `multiple` (its input's height and width must be divisible by it), `context` (how many LR pixels on each
side an output pixel depends on) and `parameters_dict` (the keywords that rebuild it), takes float tensors in [0, 1] of
shape `(N, 3, h, w)` or `(N, window, 3, h, w)` and returns `(N, 3, h * scale, w * scale)`.
"""

import inspect

from torch import nn

from sa_upscale.errors import near
from sa_upscale.models.compact import Compact
from sa_upscale.models.rrdbnet import RRDBNet
from sa_upscale.models.srresnet import SRResNet
from sa_upscale.models.vsrresnet import VSRResNet

GENERATORS: dict[str, type[nn.Module]] = {
    "compact": Compact,
    "rrdbnet": RRDBNet,
    "srresnet": SRResNet,
    "vsrresnet": VSRResNet,
}


def build(architecture: str, **parameters) -> nn.Module:
    """Construct the generator `architecture` with its own keywords.

    Raises `ValueError` for an unknown name or keyword, with the nearest known ones.
    """
    if architecture not in GENERATORS:
        raise ValueError(f"unknown architecture {architecture!r}; {near(architecture, GENERATORS)}")
    network = GENERATORS[architecture]
    known = inspect.signature(network).parameters
    for keyword in parameters:
        if keyword not in known:
            raise ValueError(f"{architecture} takes no {keyword!r}; {near(keyword, known)}")
    return network(**parameters)
