"""Weights that came without a description: which network they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sa_upscale.checkpoints.fitting import difference, planned
from sa_upscale.errors import UpscaleError

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("params_ema", "params", "state_dict", "generator")  # the averaged weights before the last ones


def canonical(state_dict: Mapping[str, Any]) -> tuple[str, dict, dict]:
    """Architecture, its parameters and a clean state dict for weights that came without a description.

    Takes what public files hold: the weights themselves or wrapped (`params_ema`, `params`, `state_dict`, `generator`),
    with or without `module.` before every name.  Raises `UpscaleError` when they are no network known here.
    """
    from sa_upscale.models.rrdbnet import canonical_rrdbnet
    from sa_upscale.models.swinir import canonical_swinir

    state = _unwrapped(state_dict)
    if found := canonical_rrdbnet(state):
        return "rrdbnet", *found
    if found := canonical_swinir(state):
        return "swinir", *found
    for architecture, guess in (("compact", _compact_parameters), ("srresnet", _srresnet_parameters)):
        parameters = guess(state)
        if parameters is not None and difference(planned(architecture, parameters), state) is None:
            return architecture, parameters, state
    raise UpscaleError("these are not the weights of a network known here (ESRGAN family, SwinIR, Compact, SRResNet)")


def _unwrapped(state_dict: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    import torch

    state = state_dict
    for _ in _WRAPPERS:  # as often as there are names, and no more: a table in a file may hold itself
        wrapper = next((key for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        state = state[wrapper] if wrapper else state
    state = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    while state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _compact_parameters(state: Mapping[str, torch.Tensor]) -> dict | None:
    head, tail = state.get("head.weight"), state.get("tail.weight")
    if head is None or tail is None or head.dim() != 4 or tail.shape[0] % head.shape[1]:
        return None
    features, channels = head.shape[:2]
    parameters = {
        "scale": round((tail.shape[0] // channels) ** 0.5),
        "features": features,
        "convs": _numbered(state, "body"),
        "channels": channels,
    }
    return parameters | ({"branches": True} if "body.0.expand" in state else {})


def _srresnet_parameters(state: Mapping[str, torch.Tensor]) -> dict | None:
    first, stages = state.get("conv_first.weight"), _numbered(state, "upscale")
    if first is None or first.dim() != 4 or stages not in (1, 2):
        return None
    features, channels = first.shape[:2]
    return {"scale": 2 * stages, "blocks": _numbered(state, "body"), "features": features, "channels": channels}


def _numbered(state: Mapping[str, Any], prefix: str) -> int:
    """How many numbers follow `prefix.` in the names."""
    return len({name.split(".")[1] for name in state if name.startswith(f"{prefix}.")})
