"""The loop: batches in, steps, validation, saving, and one stage after the other."""

import contextlib
import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sa_upscale import config, data, report
from sa_upscale.errors import UpscaleError
from sa_upscale.record import Record
from sa_upscale.train import networks, ranks, states
from sa_upscale.train.players import Players
from sa_upscale.train.ranks import Place
from sa_upscale.train.schedule import learning_rate
from sa_upscale.train.terms import Terms
from sa_upscale.train.validation import Validation


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `step` of `steps` of a `stage`, the mean of each loss term since the last report, and the
    latest validation and the best so far, by what the stage is judged by.
    """

    stage: str
    step: int
    steps: int
    rate: float
    terms: dict[str, float]
    criterion: str
    validation: float | None
    best: float | None


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: the steps done, the best value of its `criterion`, and where those weights are."""

    steps: int
    criterion: str
    best: float | None
    file: Path
    report: Path | None = None


@dataclass(frozen=True)
class _Run:
    recipe: config.Recipe
    folder: Path
    place: Place
    on_progress: Callable[[Progress], None]
    on_notice: Callable[[str], None]

    def file(self, stage: config.Stage, which: str) -> Path:
        """The checkpoint "best" or "last" of a stage; the run's last stage is what the run is for."""
        prefix = "" if stage is self.recipe.stages[-1] else f"{stage.name}-"
        return self.folder / f"{prefix}{which}.safetensors"


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
        job = _Run(recipe, run, place, on_progress, on_notice)
        names = [stage.name for stage in recipe.stages]
        reached = names.index(state["stage"]) if state else 0
        for index, stage in enumerate(recipe.stages[reached:], start=reached):
            start = job.file(recipe.stages[index - 1], "best") if index else recipe.model.start
            model = dataclasses.replace(recipe.model, start=start and str(start))
            outcome = _train(job, stage, model, state if index == reached else None)
        if place.writes:
            outcome = dataclasses.replace(outcome, report=report.write(run))
        return outcome


def _train(job: _Run, stage: config.Stage, model: config.Model, state: dict | None) -> Outcome:
    options, place = stage.train, job.place
    torch.manual_seed(options.seed)
    players = Players(stage, model, place)
    torch.manual_seed(options.seed + place.rank)  # the same weights on all ranks, but not the same dropout
    source, pairs = data.open_source(
        stage.data, scale=model.scale, window=players.generator.window, on_notice=job.on_notice
    )
    validation = Validation(
        pairs,
        scale=model.scale,
        patch=stage.data.patch,
        criterion=options.best,
        vgg_weights=options.vgg_weights,
        device=place.device,
        autocast=players.autocast,
    )
    first, best, seconds, earlier = 0, None, 0.0, None
    if state is not None:
        players.load_state_dict(state["players"])
        first, best, seconds, earlier = state["step"], state["best"], state["seconds"], state["earlier"]
        _set_random(state["random"], place)
    record = _begin(job, stage, first, validation) if place.writes else None
    for notice in players.notices:
        job.on_notice(notice)
    names = players.measured()
    sums, counted, latest, measured = 0.0, 0, None, {}
    began = saved = time.monotonic()

    def keep(which: str, step: int, network: torch.nn.Module, measured: dict[str, float], weights="averaged") -> None:
        if not place.writes:
            return
        hours = f"{(seconds + time.monotonic() - began) / 3600:.2f}"
        facts = {"steps": step, "hours": hours, "weights": weights, "found": json.dumps(players.terms.found())}
        facts |= {f"validation_{name}": round(value, 4) for name, value in measured.items()}
        states.export(job.file(stage, which), network, job.recipe, stage, facts)

    def save(step: int) -> None:
        random = place.gathered(_random(place))
        keep("last", step, players.average, measured)
        if place.writes:
            whole = {"recipe": states.fingerprint(job.recipe), "stage": stage.name, "step": step, "best": best}
            whole |= {"seconds": seconds + time.monotonic() - began, "earlier": earlier, "random": random}
            states.save(job.folder, whole | {"players": players.state_dict()})

    stream = data.batches(source, stage.data.batch, options.seed, start=first, rank=place.rank, ranks=place.ranks)
    with (
        contextlib.closing(stream),
        contextlib.closing(record) if record else contextlib.nullcontext(),
        _interrupts() as pressed,
    ):
        for step in range(first + 1, options.steps + 1):
            lr, hr = (_to_float(batch, place.device) for batch in next(stream))
            values, found = players.learn(lr, hr, step)
            if not torch.isfinite(values).all():
                _stop_not_finite(step, names, values, job.file(stage, "last"))
            for notice in found:
                job.on_notice(notice)
            sums, counted = sums + values, counted + 1

            last = step == options.steps
            scalars = {}
            if step % options.stability_every == 0:
                outputs = validation.outputs(players.average)
                if earlier is not None:
                    scalars["stability"] = (outputs - earlier).abs().mean().item()
                earlier = outputs
            if step % options.validate_every == 0 or last:
                measured = _validate(validation, players, players.average, options.best)
                latest = validation.chosen(measured)
                if validation.better(latest, best):
                    best = latest
                    keep("best", step, players.average, measured)
                if last and options.ema:
                    # Of a short run, or a fast one, the average is still that of worse weights.
                    own = networks.averaged(players.generator)
                    own_measured = _validate(validation, players, own, options.best)
                    if validation.better(validation.chosen(own_measured), best):
                        best = validation.chosen(own_measured)
                        keep("best", step, own, own_measured, weights="of the last step")
                        job.on_notice(_lagging(options, best, latest))
                scalars |= measured | {"best": best}
                if place.writes:
                    shown = validation.pictures(players.average, players.generator, players.terms, players.offered)
                    record.pictures(stage.name, step, shown)
            if step % options.log_every == 0 or last:
                means = dict(zip(names, place.mean(sums / counted).tolist(), strict=True))
                sums, counted = 0.0, 0
                rate = learning_rate(options, step)
                scalars |= {"rate": rate, "seconds": round(seconds + time.monotonic() - began, 1)} | means
                job.on_progress(Progress(stage.name, step, options.steps, rate, means, options.best, latest, best))
            if scalars and place.writes:
                record.scalars(stage.name, step, scalars)
            due, stop = place.any(time.monotonic() - saved > options.save_every, pressed())
            if due or last or stop:
                save(step)
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt
    return Outcome(options.steps, options.best, best, job.file(stage, "best"))


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


def _begin(job: _Run, stage: config.Stage, first: int, validation: Validation) -> Record:
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        table = json.dumps(config.as_dict(job.recipe), indent=2)
        (job.folder / "recipe.json").write_text(table + "\n", encoding="utf-8")
        record = Record(job.folder, tensorboard=stage.train.tensorboard, on_notice=job.on_notice)
        record.cut(stage.name, first)
        if not first:
            record.pictures(stage.name, 0, validation.references())
        return record
    except OSError as error:
        raise UpscaleError(
            f"{job.folder}: cannot be written ({error.strerror}); choose another folder with -o"
        ) from None


def _validate(validation: Validation, players: Players, network: torch.nn.Module, criterion: str) -> dict[str, float]:
    measured = validation.measure(network)
    if criterion == "loss":
        players.evaluating(True)
        measured["loss"] = validation.loss(network, players.terms, players.offered)
        players.evaluating(False)
    return measured


def _lagging(options: config.Train, own: float, averaged: float) -> str:
    return (
        f"the network's own weights have {options.best} {own:.4f} and their average (train.ema = {options.ema:g}) only "
        f"{averaged:.4f}: best.safetensors has the own ones; a smaller train.ema would bring both together"
    )


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back until a step is whole: yields a function that says if it was pressed.  A second acts at once."""
    pressed = False

    def press(number, frame) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _to_float(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    return batch.to(device, torch.float32).div_(255)


def _random(place: Place) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(place.device)} if place.device.type == "cuda" else {})


def _set_random(states_of_ranks: list[dict[str, torch.Tensor]], place: Place) -> None:
    if len(states_of_ranks) != place.ranks:
        return  # another number of ranks cannot repeat what these would have drawn
    state = states_of_ranks[place.rank]
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and place.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], place.device)


def _stop_not_finite(step: int, names: list[str], values: torch.Tensor, file: Path) -> None:
    culprits = [name for name, value in zip(names, values.tolist(), strict=False) if not math.isfinite(value)]
    kept = f"the last good weights are in {file}" if file.is_file() else "no weights were saved before it"
    raise UpscaleError(
        f"step {step}: the loss is no longer finite ({', '.join(culprits)}); {kept}: lower train.rate or set "
        "train.clip, then --resume or start anew"
    )


def _silent(said) -> None:
    """Ranks other than the first have nothing to say."""
