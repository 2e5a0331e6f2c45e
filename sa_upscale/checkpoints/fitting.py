"""Networks and the weights for them: whether they fit, and how they are described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def planned(architecture: str, parameters: Mapping[str, Any]) -> nn.Module:
    """The network without memory for its weights: what a file asks for costs nothing until it is known to fit."""
    from sa_upscale import models

    return models.build_empty(architecture, device="meta", **parameters)


def difference(plan: nn.Module, state: Mapping[str, torch.Tensor]) -> str | None:
    """In what the weights differ from those of the network in name and shape; None when they fit."""
    wanted = plan.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    extra = sorted(state.keys() - wanted.keys())
    reshaped = [name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape]
    if not (missing or extra or reshaped):
        return None
    example = (missing or extra or sorted(reshaped))[0]
    return f"{len(missing)} weights missing, {len(extra)} too many, {len(reshaped)} of another shape, such as {example}"


def description(model: nn.Module, architecture: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The metadata by which `load` builds the network again."""
    return {
        "architecture": architecture,
        "parameters": json.dumps(dict(parameters), sort_keys=True),
        "scale": str(model.scale),
        "window": str(model.window),
    }
