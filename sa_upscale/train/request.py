"""From what a person asks for to a recipe: `train` without a recipe file, and `finetune`."""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from sa_upscale import checkpoints, config, data, disk
from sa_upscale.engine import find_device
from sa_upscale.errors import UpscaleError
from sa_upscale.train import networks
from sa_upscale.train.players import Players
from sa_upscale.train.ranks import Place

START = "compact-x4-fidelity"
_STEPS = 2000
_TIMED = 3  # steps, after one that is slower


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a finetuning would do: its recipe, a look at the pictures (None for clips), and seconds for all steps."""

    recipe: config.Recipe
    survey: "data.Survey | None"
    seconds: float


def assemble(
    name_or_path: str | None = None,
    objective: str | None = None,
    *,
    model: str | os.PathLike | None = None,
    folders: Sequence[str | os.PathLike] = (),
    validation: str | os.PathLike | None = None,
    vgg_weights: str | os.PathLike | None = None,
    settings: Sequence[str] = (),
) -> config.Recipe:
    """A recipe, an objective by name or both, with the start checkpoint, the data and the settings filled in.

    An objective without a recipe or a start takes the bundled fidelity checkpoint.  Raises `UpscaleError` for what does
    not exist.
    """
    if name_or_path is None and model is None:
        model = START
    filled = {"model.start": model, "data.validation": validation, "train.vgg_weights": vgg_weights}
    lines = [f"{key}={json.dumps(os.fspath(value))}" for key, value in filled.items() if value is not None]
    if folders:
        lines.append(f"data.folders={json.dumps([os.fspath(folder) for folder in folders])}")
    return config.load(name_or_path, [*lines, *settings], objective)


def plan_finetuning(
    model: str | os.PathLike,
    folders: Sequence[str | os.PathLike],
    *,
    objective: str | None = None,
    steps: int | None = None,
    vgg_weights: str | os.PathLike | None = None,
    settings: Sequence[str] = (),
    device: str | None = None,
) -> Plan:
    """Train with overrides: start from `model`, at a lower rate and for fewer steps, by the objective it was made with.

    Raises `UpscaleError` for a model, an objective or data that are of no use.
    """
    start = checkpoints.load(model)
    made_with = start.metadata.get("objective", "")
    objective = objective or (made_with if made_with in config.objectives() else "fidelity")
    usual = config.load(None, [], objective).stages[0]
    steps = steps or _STEPS
    lower = [
        f"train.steps={steps}",
        f"train.rate={usual.train.rate / 2}",
        "train.schedule=cosine",
        "train.milestones=[]",
        # Averaged over a tenth of the steps: an average over more would still be half the start.
        f"train.ema={max(min(usual.train.ema, 1 - 10 / steps), 0.0)}",
        f"train.validate_every={max(steps // 10, 1)}",
        f"train.log_every={max(steps // 100, 1)}",
    ]
    if usual.discriminator is not None:
        lower.append(f"discriminator.lead={steps // 10}")
    survey = None
    if start.model.window == 1:
        survey = data.survey(folders, patch=usual.data.patch)
        lower.append(f"data.holdout={min(max(survey.count // 10, 1), usual.data.holdout)}")
    lines = [*lower, *settings]
    recipe = assemble(objective=objective, model=model, folders=folders, vgg_weights=vgg_weights, settings=lines)
    recipe = networks.complete(recipe)
    return Plan(recipe, survey, recipe.stages[0].train.steps * seconds_a_step(recipe, device))


def seconds_a_step(recipe: config.Recipe, device: str | None = None) -> float:
    """How long a step of the recipe's first stage takes here, its batch held in memory."""
    stage = recipe.stages[0]
    players = Players(stage, recipe.model, Place(find_device(device)))
    scale, window, side = recipe.model.scale, players.generator.window, stage.data.patch
    hr = torch.rand(stage.data.batch, 3, side, side, device=find_device(device))
    lr = torch.nn.functional.avg_pool2d(hr, scale)
    lr = lr if window == 1 else lr[:, None].expand(-1, window, -1, -1, -1)
    last = stage.train.steps  # past a discriminator's lead
    players.learn(lr, hr, last)
    began = time.monotonic()
    for _ in range(_TIMED):
        players.learn(lr, hr, last)[0].sum().item()
    return (time.monotonic() - began) / _TIMED


def check_target(target: Path) -> None:
    """Raise `UpscaleError` when a finetuned checkpoint cannot be written as `target`."""
    if target.suffix != ".safetensors":
        raise UpscaleError(f"{target}: checkpoints are safetensors files; name one that ends in .safetensors")
    if target.exists():
        raise UpscaleError(f"{target}: exists already; choose another file with -o")


def described(plan: Plan) -> list[str]:
    """What a person should know before it begins, a line each."""
    stage = plan.recipe.stages[0]
    lines = [] if plan.survey is None else plan.survey.lines()
    return [
        *lines,
        f"{stage.train.steps} steps by {stage.name}, about {_spoken(plan.seconds)} here",
    ]


def deliver(file: Path, target: Path) -> None:
    """Copy a run's weights to `target`, whole or not at all."""
    try:
        with file.open("rb") as source, disk.replacing(target) as stream:
            shutil.copyfileobj(source, stream)
    except OSError as error:
        raise UpscaleError(f"{target}: cannot be written ({error.strerror}); the weights are in {file}") from None


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
