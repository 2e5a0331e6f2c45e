"""One stage of a run: batches in, steps, validation, saving."""

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sa_upscale import config, data
from sa_upscale.errors import UpscaleError
from sa_upscale.record import Record
from sa_upscale.train import networks, states
from sa_upscale.train.players import Players
from sa_upscale.train.ranks import Place
from sa_upscale.train.schedule import learning_rate
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
class Run:
    """What all stages of a run share: the recipe, the folder, this rank's place, and who is told of it."""

    recipe: config.Recipe
    folder: Path
    place: Place
    on_progress: Callable[[Progress], None]
    on_notice: Callable[[str], None]

    def file(self, stage: config.Stage, which: str) -> Path:
        """The checkpoint "best" or "last" of a stage; the run's last stage is what the run is for."""
        prefix = "" if stage is self.recipe.stages[-1] else f"{stage.name}-"
        return self.folder / f"{prefix}{which}.safetensors"


class StageRun:
    """One `stage` of a `run` with its networks, its data, and what is known of it so far; `train` does its steps.

    It begins with `model`, or goes on from the `state` that the run saved in this stage.

    Raises `UpscaleError` for networks, losses, a start or data that are of no use.
    """

    def __init__(self, run: Run, stage: config.Stage, model: config.Model, state: dict | None):
        options, place = stage.train, run.place
        self._run, self._stage, self._options, self._place = run, stage, options, place
        torch.manual_seed(options.seed)
        self._players = Players(stage, model, place)
        torch.manual_seed(options.seed + place.rank)  # the same weights on all ranks, but not the same dropout
        self._source, pairs = data.open_source(
            stage.data, scale=model.scale, window=self._players.generator.window, on_notice=run.on_notice
        )
        self._validation = Validation(
            pairs,
            scale=model.scale,
            patch=stage.data.patch,
            criterion=options.best,
            vgg_weights=options.vgg_weights,
            device=place.device,
            autocast=self._players.autocast,
        )
        self._step, self._seconds_before, self._began = 0, 0.0, time.monotonic()
        self._best: float | None = None
        self._latest: float | None = None
        self._measured: dict[str, float] = {}
        self._outputs: torch.Tensor | None = None  # of the last look at the stability
        self._names, self._sums, self._counted = self._players.measured(), 0.0, 0
        if state is not None:
            self._load(state)

    def train(self) -> Outcome:
        """All steps that are left.

        Interrupted by Ctrl-C it saves its state and raises `KeyboardInterrupt`.  Raises `UpscaleError` when the loss is
        no longer finite, or the folder cannot be written.
        """
        options, place = self._options, self._place
        record = self._begin() if place.writes else None
        for notice in self._players.notices:
            self._run.on_notice(notice)
        shared = {"rank": place.rank, "ranks": place.ranks}
        batches = data.batches(self._source, self._stage.data.batch, options.seed, start=self._step, **shared)
        with (
            contextlib.closing(batches),
            contextlib.closing(record) if record else contextlib.nullcontext(),
            _interrupts() as pressed,
        ):
            saved = time.monotonic()
            for step in range(self._step + 1, options.steps + 1):
                self._learn(step, *next(batches))
                last = step == options.steps
                scalars = {}
                if step % options.stability_every == 0:
                    scalars |= self._look_at_stability()
                if step % options.validate_every == 0 or last:
                    scalars |= self._validate(last)
                    if record:
                        record.pictures(self._stage.name, step, self._shown())
                if step % options.log_every == 0 or last:
                    scalars |= self._report()
                if scalars and record:
                    record.scalars(self._stage.name, step, scalars)
                due, stop = place.any(time.monotonic() - saved > options.save_every, pressed())
                if due or last or stop:
                    self._save()
                    saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt
        return Outcome(options.steps, options.best, self._best, self._run.file(self._stage, "best"))

    def _begin(self) -> Record:
        run, stage = self._run, self._stage
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            table = json.dumps(config.as_dict(run.recipe), indent=2)
            (run.folder / "recipe.json").write_text(table + "\n", encoding="utf-8")
            record = Record(run.folder, tensorboard=stage.train.tensorboard, on_notice=run.on_notice)
            record.cut(stage.name, self._step)
            if not self._step:
                record.pictures(stage.name, 0, self._validation.references())
            return record
        except OSError as error:
            raise UpscaleError(
                f"{run.folder}: cannot be written ({error.strerror}); choose another folder with -o"
            ) from None

    def _learn(self, step: int, lr: torch.Tensor, hr: torch.Tensor) -> None:
        self._step = step
        lr, hr = (x.to(self._place.device, torch.float32).div_(255) for x in (lr, hr))
        values, found = self._players.learn(lr, hr, step)
        if not torch.isfinite(values).all():
            _stop_not_finite(step, self._names, values, self._run.file(self._stage, "last"))
        for notice in found:
            self._run.on_notice(notice)
        self._sums, self._counted = self._sums + values, self._counted + 1

    def _look_at_stability(self) -> dict[str, float]:
        before, self._outputs = self._outputs, self._validation.outputs(self._players.average)
        return {} if before is None else {"stability": (self._outputs - before).abs().mean().item()}

    def _validate(self, last: bool) -> dict[str, float]:
        """Measure the averaged generator, after the `last` step the generator itself, too, and keep the best."""
        criterion = self._options.best
        self._measured = self._measure(self._players.average)
        self._latest = self._validation.chosen(self._measured)
        if self._validation.better(self._latest, self._best):
            self._best = self._latest
            self._keep("best", self._players.average, self._measured)
        if last and self._options.ema:
            # Of a short run, or a fast one, the average is still that of worse weights.
            own_network = networks.copied(self._players.generator)
            measured = self._measure(own_network)
            own = self._validation.chosen(measured)
            if self._validation.better(own, self._best):
                self._best = own
                self._keep("best", own_network, measured, averaged=False)
                self._run.on_notice(
                    f"the network's own weights have {criterion} {own:.4f} and their average (train.ema = "
                    f"{self._options.ema:g}) only {self._latest:.4f}: best.safetensors has the own ones; a smaller "
                    "train.ema would bring both together"
                )
        return self._measured | {"best": self._best}

    def _measure(self, network: torch.nn.Module) -> dict[str, float]:
        players = self._players
        measured = self._validation.measure(network)
        if self._options.best == "loss":
            players.evaluating(True)
            measured["loss"] = self._validation.loss(network, players.terms, players.offered)
            players.evaluating(False)
        return measured

    def _shown(self) -> dict[str, np.ndarray]:
        players = self._players
        return self._validation.pictures(players.average, players.generator, players.terms, players.offered)

    def _report(self) -> dict[str, float]:
        """Tell of the steps since the last report."""
        options = self._options
        means = dict(zip(self._names, self._place.mean(self._sums / self._counted).tolist(), strict=True))
        self._sums, self._counted = 0.0, 0
        rate = learning_rate(options, self._step)
        self._run.on_progress(
            Progress(self._stage.name, self._step, options.steps, rate, means, options.best, self._latest, self._best)
        )
        return {"rate": rate, "seconds": round(self._seconds(), 1)} | means

    def _keep(self, which: str, network: torch.nn.Module, measured: dict[str, float], averaged: bool = True) -> None:
        if not self._place.writes:
            return
        found = json.dumps(self._players.terms.found())
        hours = f"{self._seconds() / 3600:.2f}"
        facts = {"steps": self._step, "hours": hours, "averaged": "yes" if averaged else "no", "found": found}
        facts |= {f"validation_{name}": round(value, 4) for name, value in measured.items()}
        states.export(self._run.file(self._stage, which), network, self._run.recipe, self._stage, facts)

    def _save(self) -> None:
        random = self._place.gathered(_random(self._place))
        self._keep("last", self._players.average, self._measured)
        if self._place.writes:
            state = {
                "recipe": states.fingerprint(self._run.recipe),
                "stage": self._stage.name,
                "step": self._step,
                "best": self._best,
                "seconds": self._seconds(),
                "earlier": self._outputs,
                "random": random,
                "players": self._players.state_dict(),
            }
            states.save(self._run.folder, state)

    def _load(self, state: dict) -> None:
        self._players.load_state_dict(state["players"])
        self._step, self._best = state["step"], state["best"]
        self._seconds_before, self._outputs = state["seconds"], state["earlier"]
        _set_random(state["random"], self._place)

    def _seconds(self) -> float:
        """Spent on this stage, before the run was resumed, too."""
        return self._seconds_before + time.monotonic() - self._began


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
