"""What a run keeps to go on from, and the checkpoints it leaves."""

import hashlib
import json
import pickle
import zipfile
from pathlib import Path

import torch
from torch import nn

from sa_upscale import checkpoints, config, disk
from sa_upscale.errors import UpscaleError
from sa_upscale.train.networks import folded

_HARMLESS = ("log_every", "validate_every", "save_every", "tensorboard")


def last(run: Path, recipe: config.Recipe, resume: bool) -> dict | None:
    """The state that the run in this folder saved last, if there is one.

    Raises `UpscaleError` when there is one but `resume` is not asked for, or it belongs to another recipe.
    """
    file = run / "state.pt"
    if not file.is_file():
        return None
    if not resume:
        raise UpscaleError(f"{run}: holds a run already; go on with --resume or choose another folder with -o")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        known = state["recipe"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile):
        raise UpscaleError(f"{file}: cannot be read as a run's state; start anew in another folder with -o") from None
    if known != fingerprint(recipe):
        raise UpscaleError(
            f"{file}: was made by another recipe; resume with the recipe and settings it was started with"
        )
    return state


def save(run: Path, state: dict) -> None:
    """Replace the run's state, whole or not at all.  Raises `UpscaleError` when it cannot be written."""
    file = run / "state.pt"
    whole = file.with_suffix(".tmp")
    try:
        with whole.open("wb") as stream:
            torch.save(state, stream)
            disk.sync(stream)
        whole.replace(file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as either
        whole.unlink(missing_ok=True)
        raise UpscaleError(
            f"{file}: cannot be saved ({error}); the state saved before is kept: go on with --resume"
        ) from None


def export(
    file: Path, network: nn.Module, recipe: config.Recipe, stage: config.Stage, facts: dict[str, str | int | float]
) -> None:
    """Write the weights as a checkpoint that `image` and `video` take, with the recipe and `facts` of the run."""
    network = folded(network)
    metadata = {"recipe": json.dumps(shareable(recipe)), "objective": stage.name}
    checkpoints.save(
        file,
        network.state_dict(),
        architecture=recipe.model.name,
        parameters=network.parameters_dict,
        metadata=metadata | {key: str(value) for key, value in facts.items()},
    )


def shareable(recipe: config.Recipe) -> dict:
    """The recipe without the places of files: where they lie on this machine is nobody else's business."""
    table = config.as_dict(recipe)
    sections = [(table["model"], ("start",))]
    for stage in table["stages"]:
        sections += [(stage["data"], ("folders", "lr_folders", "validation")), (stage["train"], ("vgg_weights",))]
    for section, keys in sections:
        for key in keys:
            section[key] = _name(section[key])
    return table


def _name(place: str | tuple[str, ...] | None):
    if isinstance(place, tuple):
        return [_name(entry) for entry in place]
    return place and Path(place).name


def fingerprint(recipe: config.Recipe) -> str:
    """What must not change between a run and its resumption: all but how often things are reported and saved."""
    table = config.as_dict(recipe)
    for stage in table["stages"]:
        for key in _HARMLESS:
            del stage["train"][key]
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
