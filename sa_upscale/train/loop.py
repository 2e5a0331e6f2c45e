"""A run of a recipe: one stage after the other, from the start or from where it was stopped."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from sa_upscale import config, report
from sa_upscale.errors import UpscaleError
from sa_upscale.train import networks, ranks, states
from sa_upscale.train.ranks import Place
from sa_upscale.train.stage import Outcome, Progress, Run, StageRun
from sa_upscale.train.terms import Terms


def fit(
    recipe: config.Recipe,
    run: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Train as `recipe` says into the folder `run`.

    It gets `best.safetensors` and `last.safetensors`, averaged weights both (but where the last step's own are better
    than any average they are the best), with the name of the stage before them for all stages but the last, `state.pt`
    to go on from, `log.jsonl`, pictures, TensorBoard's files and at the end `report.html`.

    With `resume` the run goes on from its last state, to the same weights as if it had never stopped.  Interrupted by
    Ctrl-C it saves its state and raises `KeyboardInterrupt`.  Started by torchrun, the ranks share every batch.

    Raises `UpscaleError` for unusable data, a folder that holds another run, or a loss that is no longer finite.
    """
    with ranks.joined(device) as place:
        if not place.writes:
            on_progress = on_notice = _silent
        recipe = networks.complete(recipe)
        state = states.last(run, recipe, resume)
        _check_stages(recipe, place)
        whole = Run(recipe, run, place, on_progress, on_notice)
        names = [stage.name for stage in recipe.stages]
        reached = names.index(state["stage"]) if state else 0
        for index, stage in enumerate(recipe.stages[reached:], start=reached):
            start = whole.file(recipe.stages[index - 1], "best") if index else recipe.model.start
            model = dataclasses.replace(recipe.model, start=start and str(start))
            outcome = StageRun(whole, stage, model, state if index == reached else None).train()
        if place.writes:
            outcome = dataclasses.replace(outcome, report=report.write(run))
        return outcome


def _check_stages(recipe: config.Recipe, place: Place) -> None:
    """Find out before the first step what would stop a later stage."""
    for stage in recipe.stages:
        if stage.data.batch % (place.ranks * stage.train.accumulate):
            raise UpscaleError(
                f"a batch of {stage.data.batch} does not split into {place.ranks} ranks of {stage.train.accumulate} "
                "parts; change data.batch"
            )
        if stage is recipe.stages[0]:
            continue
        terms = Terms(stage.losses)
        judge = None
        if "discriminator" in terms.needs:
            judge = networks.discriminator(stage.discriminator, stage.data.patch, torch.device("meta"))
        terms.prepare(stage.train.vgg_weights, torch.device("cpu"), judge)


def _silent(said) -> None:
    """Ranks other than the first have nothing to say."""
