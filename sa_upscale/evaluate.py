"""Networks measured on pictures or clips whose HR is known."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from sa_upscale import checkpoints, data, degrade, media
from sa_upscale.engine import Engine
from sa_upscale.errors import UpscaleError, near
from sa_upscale.functional.resize import resize
from sa_upscale.metrics import METRICS

BICUBIC = "bicubic"


@dataclass(frozen=True)
class Score:
    """One method on one set: the mean of each metric over all pictures, each picture's own, and the seconds it took."""

    method: str
    means: dict[str, float]
    pictures: dict[str, dict[str, float]] = field(repr=False)
    seconds: float


def evaluate(
    methods: Sequence[str],
    hr_folder: Path,
    lr_folder: Path | None = None,
    *,
    scale: int = 4,
    metrics: Sequence[str] = ("psnr-y", "psnr"),
    border: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> list[Score]:
    """Upscale the LR pictures by `scale` with each of `methods` and compare the results, as 8-bit files, with HR.

    `methods` are checkpoints, families or files, or "bicubic".  LR pictures are those of the same name in `lr_folder`;
    without it they are made of the HR by the bicubic degradation.  The frames of one folder, in the order of their
    names, are a clip to a network that takes several.  `border` pixels on each side are left out, `scale` by default.

    Raises `UpscaleError` for unknown metrics or methods, and sets whose pictures do not match.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise UpscaleError(f"unknown metric {metric!r}; {near(metric, METRICS)}")
    border = scale if border is None else border
    runners = [(method, _runner(method, scale, device, precision)) for method in methods]
    clips = _clips(hr_folder, lr_folder, scale)
    total = len(runners) * sum(len(clip) for clip in clips)
    scores, done = [], 0
    for method, runner in runners:
        pictures: dict[str, dict[str, float]] = {}
        started = time.perf_counter()
        for clip in clips:
            for (name, hr, _), sr in zip(clip, runner([lr for _, _, lr in clip]), strict=True):
                pair = _tensor(sr), _tensor(hr)
                pictures[name] = {metric: METRICS[metric](*pair, border).item() for metric in metrics}
                done += 1
                on_progress(done, total, method)
        means = {metric: float(np.mean([values[metric] for values in pictures.values()])) for metric in metrics}
        scores.append(Score(method, means, pictures, time.perf_counter() - started))
    return scores


def _clips(hr_folder: Path, lr_folder: Path | None, scale: int) -> list[list[tuple[str, np.ndarray, np.ndarray]]]:
    """Name, HR and LR of each picture, grouped by folder."""
    groups: dict[Path, list] = {}
    for file in data.pictures([hr_folder]):
        name = file.relative_to(hr_folder).as_posix()
        hr = data.read_rgb(file)
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        lr = (
            degrade.bicubic(hr, scale)
            if lr_folder is None
            else _paired(lr_folder, file.relative_to(hr_folder), hr, scale)
        )
        groups.setdefault(file.parent, []).append((name, hr, lr))
    return list(groups.values())


def _paired(lr_folder: Path, name: Path, hr: np.ndarray, scale: int) -> np.ndarray:
    matches = [
        file for file in (lr_folder / name.parent).glob(f"{name.stem}.*") if file.suffix.lower() in data.PICTURES
    ]
    if len(matches) != 1:
        raise UpscaleError(
            f"{lr_folder}: {len(matches)} pictures are called {name.stem}; each HR picture needs one LR picture"
        )
    lr = data.read_rgb(matches[0])
    if tuple(side * scale for side in lr.shape[:2]) != hr.shape[:2]:
        sizes = f"{lr.shape[1]}x{lr.shape[0]} x{scale} is not {hr.shape[1]}x{hr.shape[0]}"
        raise UpscaleError(f"{matches[0]}: does not fit its HR picture: {sizes}; name the right --scale and folders")
    return lr


def _runner(method: str, scale: int, device: str | None, precision: str | None) -> Callable:
    if method == BICUBIC:
        return lambda frames: (_bicubic(lr, scale) for lr in frames)
    checkpoint = checkpoints.load(method, scale)
    engine = Engine(checkpoint.model, device=device, precision=precision)
    if engine.scale != scale:
        raise UpscaleError(
            f"{method} upscales by {engine.scale}, not by {scale}; measure it with --scale {engine.scale}"
        )
    return lambda frames: map(engine.run_prepared, media.windows(map(engine.prepare, frames), engine.window))


def _bicubic(lr: np.ndarray, scale: int) -> np.ndarray:
    x = torch.from_numpy(lr).movedim(-1, 0).double()
    sr = resize(x, (lr.shape[0] * scale, lr.shape[1] * scale))
    return sr.round_().clamp_(0, 255).byte().movedim(0, -1).numpy()


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).movedim(-1, 0)[None].double() / 255
