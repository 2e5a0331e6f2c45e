"""Training: the loop, the averaged weights, validation, saving and resuming."""

import contextlib
import copy
import hashlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sa_upscale import checkpoints, config, data, losses, models
from sa_upscale.engine import find_device, precisions
from sa_upscale.errors import UpscaleError
from sa_upscale.metrics import psnr_y


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `step` of `steps`, the mean of each loss term since the last report, validation so far."""

    step: int
    steps: int
    rate: float
    terms: dict[str, float]
    validation: float | None
    best: float | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the steps done, the best validation PSNR-Y in dB, and where its weights are."""

    steps: int
    best: float | None
    file: Path


def fit(
    recipe: config.Recipe,
    run: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Train as `recipe` says into the folder `run`: `best.safetensors`, `last.safetensors`, `state.pt`, `log.jsonl`.

    With `resume` the run goes on from its last state, to the same weights as if it had never stopped.  Interrupted by
    Ctrl-C it saves its state and raises `KeyboardInterrupt`.

    Raises `UpscaleError` for unusable data, a folder that holds another run, or a loss that is no longer finite.
    """
    device = find_device(device)
    state = _last_state(run, recipe, resume)
    torch.manual_seed(recipe.train.seed)
    generator = _generator(recipe, device)
    training, validation = _load_data(recipe, generator.window, on_notice)
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(generator.parameters(), lr=recipe.train.rate, betas=recipe.train.betas)
    terms = [(loss.get("weight", 1.0), _build_loss(loss)) for loss in recipe.losses]
    labels = [loss["name"] for loss in recipe.losses]
    first, best, seconds = 0, None, 0.0
    if state is not None:
        generator.load_state_dict(state["generator"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first, best, seconds = state["step"], state["best"], state["seconds"]
    _prepare_folder(run, recipe, first)
    autocast = _autocast(device, recipe.train.precision)
    sums, counted, latest = torch.zeros(len(terms)), 0, None
    began = saved = time.monotonic()

    def spent() -> float:
        return seconds + time.monotonic() - began

    def save(step: int) -> None:
        state = {"generator": generator.state_dict(), "average": average.state_dict()}
        state |= {"optimizer": optimizer.state_dict(), "step": step, "best": best, "seconds": spent()}
        _save_state(run / "state.pt", state | {"recipe": _fingerprint(recipe)})
        _export(run / "last.safetensors", average, recipe, step, spent(), latest)

    stream = data.batches(training, recipe.data.batch, recipe.train.seed, start=first)
    with contextlib.closing(stream), _interrupts() as interrupted:
        for step in range(first + 1, recipe.train.steps + 1):
            lr, hr = (_to_float(batch, device) for batch in next(stream))
            rate = learning_rate(recipe.train, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with autocast():
                sr = generator(lr)
            batch = losses.Step(lr=lr, hr=hr, sr=sr)
            parts = [loss(batch) for _, loss in terms]
            total = sum(weight * part for (weight, _), part in zip(terms, parts, strict=True))
            if not torch.isfinite(total):
                _stop_not_finite(step, labels, parts, run)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            if recipe.train.clip is not None:
                nn.utils.clip_grad_norm_(generator.parameters(), recipe.train.clip)
            optimizer.step()
            _follow(average, generator, recipe.train.ema)
            sums += torch.tensor([float(part.detach()) for part in parts])
            counted += 1

            last = step == recipe.train.steps
            if step % recipe.train.validate_every == 0 or last:
                latest = validate(average, validation, autocast, device)
                if best is None or latest > best:
                    best = latest
                    _export(run / "best.safetensors", average, recipe, step, spent(), latest)
                _log(run, {"step": step, "psnr_y": round(latest, 4), "best": round(best, 4)})
            if step % recipe.train.log_every == 0 or last:
                means = dict(zip(labels, (sums / counted).tolist(), strict=True))
                sums, counted = torch.zeros(len(terms)), 0
                _log(run, {"step": step, "rate": rate, "seconds": round(spent(), 1), **means})
                on_progress(Progress(step, recipe.train.steps, rate, means, latest, best))
            if time.monotonic() - saved > recipe.train.save_every or last or interrupted():
                save(step)
                saved = time.monotonic()
            if interrupted():
                raise KeyboardInterrupt
    return Outcome(recipe.train.steps, best, run / "best.safetensors")


def learning_rate(train: config.Train, step: int) -> float:
    """The rate of `step` (counted from 1): a linear rise over `warmup` steps, then the schedule."""
    if step <= train.warmup:
        return train.rate * step / train.warmup
    if train.schedule == "steps":
        return train.rate * train.factor ** sum(step > milestone for milestone in train.milestones)
    if train.schedule == "cosine":
        done = (step - train.warmup) / max(train.steps - train.warmup, 1)
        return train.final_rate + (train.rate - train.final_rate) * (1 + math.cos(math.pi * done)) / 2
    return train.rate


@torch.inference_mode()
def validate(
    generator: nn.Module, pairs: list[tuple[torch.Tensor, torch.Tensor]], autocast, device: torch.device
) -> float:
    """Mean PSNR-Y in dB over whole pictures, rounded to 8 bits, a border of `scale` pixels left out."""
    generator = folded(generator).to(memory_format=torch.channels_last)
    total = 0.0
    for lr, hr in pairs:
        with autocast():
            sr = generator(_to_float(lr, device))
        sr = (sr.float().clamp(0, 1) * 255).round() / 255
        total += psnr_y(sr, _to_float(hr, device), border=generator.scale).item()
    return total / len(pairs)


def folded(generator: nn.Module) -> nn.Module:
    """The network as it is shipped: without the branches it was trained with, where it has such."""
    return generator.fold() if hasattr(generator, "fold") else generator


def _last_state(run: Path, recipe: config.Recipe, resume: bool) -> dict | None:
    file = run / "state.pt"
    if not file.is_file():
        return None
    if not resume:
        raise UpscaleError(f"{run}: holds a run already; go on with --resume or choose another folder with -o")
    state = torch.load(file, map_location="cpu", weights_only=True)
    if state["recipe"] != _fingerprint(recipe):
        raise UpscaleError(
            f"{file}: was made by another recipe; resume with the recipe and settings it was started with"
        )
    return state


def _prepare_folder(run: Path, recipe: config.Recipe, first: int) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / "recipe.json").write_text(json.dumps(config.as_dict(recipe), indent=2) + "\n", encoding="utf-8")
        _cut_log(run / "log.jsonl", first)
    except OSError as error:
        raise UpscaleError(f"{run}: cannot be written ({error.strerror}); choose another folder with -o") from None


@contextlib.contextmanager
def _interrupts():
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


def _load_data(recipe: config.Recipe, window: int, on_notice):
    if not recipe.data.folders:
        raise UpscaleError("no training data; name one or more folders with --data")
    find = data.pictures if window == 1 else data.clips
    files = find(recipe.data.folders)
    if recipe.data.validation:
        kept = find([recipe.data.validation])
    else:
        files, kept = data.hold_out(files, recipe.data.holdout)
    sizes = {"scale": recipe.model.scale, "patch": recipe.data.patch}
    if window == 1:
        source = data.Photos(files, **sizes, on_notice=on_notice)
    else:
        source = data.Clips(files, **sizes, window=window)
    pairs = [tuple(torch.from_numpy(x).movedim(-1, -3)[None] for x in pair) for pair in source.validation(kept)]
    return source, pairs


def _generator(recipe: config.Recipe, device: torch.device) -> nn.Module:
    try:
        generator = models.build(recipe.model.name, scale=recipe.model.scale, **recipe.model.parameters)
    except ValueError as error:
        raise UpscaleError(f"recipe: model: {error}") from None
    if recipe.model.start:
        _start_from(generator, recipe)
    return generator.to(device, memory_format=torch.channels_last).train()


def _start_from(generator: nn.Module, recipe: config.Recipe) -> None:
    start = checkpoints.load(recipe.model.start).model.state_dict()
    if hasattr(generator, "unfold"):
        start = generator.unfold(start)
    own = generator.state_dict()
    fits = {key: value for key, value in start.items() if key in own and own[key].shape == value.shape}
    if not recipe.model.transfer and len(fits) != len(own):
        raise UpscaleError(
            f"{recipe.model.start}: does not fit the recipe's {recipe.model.name} x{recipe.model.scale} "
            f"({len(own) - len(fits)} of {len(own)} tensors differ); set model.transfer = true to take what fits"
        )
    generator.load_state_dict(fits, strict=False)


def _build_loss(table: dict) -> nn.Module:
    options = {key: value for key, value in table.items() if key not in ("name", "weight")}
    try:
        loss = losses.build(table["name"], **options)
    except ValueError as error:
        raise UpscaleError(f"recipe: [[losses]]: {error}") from None
    if missing := losses.needs([loss]) | ({"calibration"} if getattr(loss, "share", None) else set()):
        raise UpscaleError(f"recipe: {table['name']} cannot be trained with yet: it needs {', '.join(sorted(missing))}")
    return loss


def _autocast(device: torch.device, precision: str | None):
    """What the generator runs under: bf16 where the device is fast at it, unless the recipe names a precision."""
    if precision is None:
        precision = "bf16" if precisions(device)[0] == "bf16" else "fp32"
    if precision == "fp32":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


def _to_float(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    return batch.to(device, torch.float32).div_(255)


def _follow(average: nn.Module, generator: nn.Module, decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(generator.parameters()), 1 - decay)


def _stop_not_finite(step: int, labels: list[str], parts: list[torch.Tensor], run: Path) -> None:
    culprits = [label for label, part in zip(labels, parts, strict=True) if not torch.isfinite(part)]
    raise UpscaleError(
        f"step {step}: the loss is no longer finite ({', '.join(culprits) or 'their sum'}); the last good weights are "
        f"in {run / 'last.safetensors'}: lower train.rate or set train.clip, then --resume"
    )


def _export(
    file: Path, average: nn.Module, recipe: config.Recipe, step: int, seconds: float, psnr: float | None
) -> None:
    network = folded(average)
    metadata = {
        "recipe": json.dumps(config.as_dict(recipe)),
        "steps": str(step),
        "hours": f"{seconds / 3600:.2f}",
        "validation_psnr_y": "" if psnr is None else f"{psnr:.3f}",
    }
    checkpoints.save(
        file,
        network.state_dict(),
        architecture=recipe.model.name,
        parameters=network.parameters_dict,
        metadata=metadata,
    )


def _save_state(file: Path, state: dict) -> None:
    whole = file.with_suffix(".tmp")
    try:
        with whole.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        whole.replace(file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as either
        whole.unlink(missing_ok=True)
        raise UpscaleError(
            f"{file}: cannot be saved ({error}); the state saved before is kept: go on with --resume"
        ) from None


def _fingerprint(recipe: config.Recipe) -> str:
    """What must not change between a run and its resumption: all but how often things are reported and saved."""
    table = config.as_dict(recipe)
    for key in ("log_every", "validate_every", "save_every"):
        del table["train"][key]
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _log(run: Path, entry: dict) -> None:
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")


def _cut_log(file: Path, step: int) -> None:
    """Drop what a killed run logged after its last state: those steps are done again."""
    if file.is_file():
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
