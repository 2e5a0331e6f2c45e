"""Networks measured on pictures or clips whose HR is known."""

import csv
import dataclasses
import io
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from sa_upscale import checkpoints, data, degrade, disk, images, media
from sa_upscale.engine import Engine, find_device
from sa_upscale.errors import UpscaleError
from sa_upscale.functional.pixels import resized
from sa_upscale.metrics import METRICS, Needs, build

BICUBIC = "bicubic"

Progress = Callable[[int, int | None, str], None]
Result = Callable[[str, str, np.ndarray, np.ndarray], None]
Figures = dict[str, float]


@dataclass(frozen=True)
class Score:
    """One method on one set.

    `means` has the mean of each metric over all pictures, or its one figure for the set; `folders` and `pictures` have
    what was measured of each folder and picture, by their paths below the set's folder.  `seconds` is the time that
    upscaling took, without reading and measuring.  `sha256` and `precision` are None for bicubic.
    """

    method: str
    means: Figures
    folders: dict[str, Figures]
    pictures: dict[str, Figures] = field(repr=False)
    seconds: float
    sha256: str | None = None
    precision: str | None = None


@dataclass(frozen=True)
class _Pair:
    """An HR file, the file of its LR or None where that is to be made, and the (width, height) both stand for."""

    name: str
    hr: Path
    lr: Path | None
    size: tuple[int, int]


@dataclass(frozen=True)
class _Method:
    """A way to upscale: `run` takes the LR frames of a clip one after the other and gives as many results."""

    name: str
    run: Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]
    sha256: str | None = None
    engine: Engine | None = None


def evaluate(
    methods: Sequence[str],
    hr_folder: Path,
    lr_folder: Path | None = None,
    *,
    scale: int = 4,
    metrics: Sequence[str] = ("psnr-y", "ssim-y"),
    border: int | None = None,
    vgg_weights: Path | None = None,
    backbones: Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    on_progress: Progress = lambda done, total, label: None,
    on_result: Result = lambda picture, method, sr, hr: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> list[Score]:
    """Upscale the LR pictures by `scale` with each of `methods` and compare the results, as 8-bit files, with HR.

    `methods` are checkpoints, families or files, or "bicubic".  LR pictures are those of the same name in `lr_folder`;
    without it they are made of the HR by the bicubic degradation.  The frames of one folder, in the order of their
    names, are a clip to a network that takes several; no window reaches into another folder.  Only the pictures at work
    are in memory.

    `metrics` are names of `METRICS`; those that the field measures so leave out `border` pixels on each side, `scale`
    by default, the others take whole pictures.  `vgg_weights` and `backbones` are what some metrics need.
    `on_result` is given every result beside its HR, `(H, W, 3)` uint8 both.

    Raises `UpscaleError` for unknown metrics or methods, what a metric lacks, and sets whose pictures do not match.
    """
    metrics = list(dict.fromkeys(metrics))
    border = scale if border is None else border
    clips = _clips(hr_folder, lr_folder, scale)
    measures = build(metrics, Needs(vgg_weights, backbones, find_device(device)))
    chosen = [_method(name, scale, device, precision, on_progress, on_notice) for name in methods]
    if any(method.engine and method.engine.window > 1 for method in chosen):
        _require_clips(clips)
    total, count = len(chosen) * sum(len(clip) for clip in clips.values()), itertools.count(1)

    def done(picture: str, method: str, sr: np.ndarray, hr: np.ndarray) -> None:
        on_result(picture, method, sr, hr)
        on_progress(next(count), total, method)

    return [_score(method, clips, measures, scale, border, done) for method in chosen]


def table(scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows: a row for each method, and for each of its folders where there are several."""
    names = list(scores[0].means)
    several = len(scores[0].folders) > 1
    rows = []
    for score in scores:
        seconds = f"{score.seconds:.1f}"
        if several:
            for folder, means in score.folders.items():
                rows.append([score.method, folder, *(_shown(means.get(name)) for name in names), ""])
        whole = [score.method, "all"] if several else [score.method]
        rows.append([*whole, *(_shown(score.means[name]) for name in names), seconds])
    return ["method", *(["folder"] if several else []), *names, "seconds"], rows


def facts(score: Score) -> dict:
    """The score as JSON can hold it: null where a figure is infinite, as the PSNR of equal pictures is."""
    return _finite(dataclasses.asdict(score))


def check_output(file: Path) -> None:
    """Raise `UpscaleError` for a file that `write` has no format for or nowhere to put."""
    if file.suffix.lower() not in WRITERS:
        raise UpscaleError(f"{file}: unknown kind of table; let its name end in {', '.join(WRITERS)}")
    check_folder(file)


def check_folder(file: Path) -> None:
    """Raise `UpscaleError` for a file to be written that there is no folder for."""
    if not file.parent.is_dir():
        raise UpscaleError(f"{file}: there is no folder {file.parent}; make it first")


def write(file: Path, scores: Sequence[Score], about: Mapping[str, object]) -> None:
    """Write the scores to `file`: every figure as .json or .csv, the table as .md.

    `about` are the settings they were measured with, which .json and .md tell.  Raises `UpscaleError` for other
    endings and where the file cannot be written; what stood there before is then left as it was.
    """
    check_output(file)
    text = WRITERS[file.suffix.lower()](scores, about)
    try:
        with disk.replacing(file) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise UpscaleError(f"{file} cannot be written: {error.strerror or error}") from None


def _json(scores: Sequence[Score], about: Mapping[str, object]) -> str:
    return json.dumps({**about, "scores": [facts(score) for score in scores]}, indent=2) + "\n"


def _csv(scores: Sequence[Score], about: Mapping[str, object]) -> str:
    """One row for each method and picture, and one called "mean" for each method."""
    names = list(scores[0].means)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["method", "picture", *names])
    for score in scores:
        for picture, figures in {**score.pictures, "mean": score.means}.items():
            writer.writerow([score.method, picture, *(figures.get(name, "") for name in names)])
    return lines.getvalue()


def _markdown(scores: Sequence[Score], about: Mapping[str, object]) -> str:
    columns, rows = table(scores)
    better = {name: "↑" if METRICS[name].higher_is_better else "↓" for name in scores[0].means}
    columns = [f"{column} {better[column]}" if column in better else column for column in columns]
    numbers = len(better) + 1
    rule = ["---"] * (len(columns) - numbers) + ["---:"] * numbers
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [columns, rule, *rows]]
    settings = ", ".join(f"{key} {value}" for key, value in about.items() if value is not None)
    return "\n".join([*lines, "", settings]) + "\n"


WRITERS = {".json": _json, ".csv": _csv, ".md": _markdown}


def _score(
    method: _Method,
    clips: Mapping[str, Sequence[_Pair]],
    measures: Mapping[str, Callable],
    scale: int,
    border: int,
    on_result: Result,
) -> Score:
    borders = {name: border if METRICS[name].cropped else 0 for name in measures}
    of_sets = {name: measure for name, measure in measures.items() if METRICS[name].of_set}
    for measure in of_sets.values():
        measure.reset()
    folders: dict[str, Figures] = {}
    pictures: dict[str, Figures] = {}
    seconds = 0.0
    for folder, clip in clips.items():
        for pair, sr, hr, took in _results(method, clip, scale):
            pictures[pair.name] = _measured(pair.name, sr, hr, measures, borders)
            seconds += took
            on_result(pair.name, method.name, sr, hr)
        folders[folder] = _means(pictures[pair.name] for pair in clip)
    means = _means(pictures.values()) | {name: measure.compute() for name, measure in of_sets.items()}
    precision = method.engine and method.engine.precision
    return Score(
        method.name, {name: means[name] for name in measures}, folders, pictures, seconds, method.sha256, precision
    )


def _results(
    method: _Method, clip: Sequence[_Pair], scale: int
) -> Iterator[tuple[_Pair, np.ndarray, np.ndarray, float]]:
    """Each pair with its result, its HR and the seconds that the result took."""
    waiting: deque[np.ndarray] = deque()  # the HR of frames that the method has been given and not answered yet
    reading = 0.0

    def frames() -> Iterator[np.ndarray]:
        nonlocal reading
        for pair in clip:
            began = time.perf_counter()
            hr, lr = _read_pair(pair, scale)
            waiting.append(hr)
            reading += time.perf_counter() - began
            yield lr

    results = method.run(frames())
    for pair in clip:
        began, reading = time.perf_counter(), 0.0
        sr = next(results)
        took = time.perf_counter() - began - reading
        yield pair, sr, waiting.popleft(), took


def _measured(
    name: str, sr: np.ndarray, hr: np.ndarray, measures: Mapping[str, Callable], borders: Mapping[str, int]
) -> Figures:
    """What each metric of pictures says of this one; metrics of sets take note of it."""
    pair = _tensor(sr), _tensor(hr)
    figures = {}
    for metric, measure in measures.items():
        try:
            if METRICS[metric].of_set:
                measure.update(*pair, borders[metric])
            else:
                figures[metric] = measure(*pair, borders[metric]).item()
        except ValueError as error:
            raise UpscaleError(f"{name}: {metric} cannot be measured: {error}") from None
    return figures


def _means(figures: Iterable[Figures]) -> Figures:
    figures = list(figures)
    return {name: float(np.mean([each[name] for each in figures])) for name in figures[0]}


def _clips(hr_folder: Path, lr_folder: Path | None, scale: int) -> dict[str, list[_Pair]]:
    """The pairs of each folder, by its path below `hr_folder`; only the headers of the files are read."""
    for folder in (hr_folder, lr_folder):
        if folder is not None and not folder.is_dir():
            raise UpscaleError(f"{folder}: there is no such folder of pictures")
    clips: dict[str, list[_Pair]] = {}
    for file in data.pictures([hr_folder]):
        name = file.relative_to(hr_folder)
        width, height = (side // scale for side in images.size(file))
        if min(width, height) < 1:
            raise UpscaleError(f"{file}: too small to be reduced by {scale}; leave it out")
        lr = None if lr_folder is None else _lr_file(lr_folder, name, (width, height), scale)
        size = (width * scale, height * scale)
        clips.setdefault(name.parent.as_posix(), []).append(_Pair(name.as_posix(), file, lr, size))
    return clips


def _lr_file(lr_folder: Path, name: Path, size: tuple[int, int], scale: int) -> Path:
    """The LR picture of this name, whatever its format, or with the scale behind its name as in DIV2K (0001x4.png)."""
    stems = {name.stem, f"{name.stem}x{scale}"}
    folder = lr_folder / name.parent
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    matches = [file for file in files if file.stem in stems and file.suffix.lower() in data.PICTURES]
    if len(matches) != 1:
        raise UpscaleError(f"{folder}: {len(matches)} pictures are called {name.stem}; each HR picture needs one LR")
    found = images.size(matches[0])
    if found != size:
        raise UpscaleError(
            f"{matches[0]}: does not fit its HR picture: it is {found[0]}x{found[1]}, not {size[0]}x{size[1]}; "
            "name the right --scale and folders"
        )
    return matches[0]


def _require_clips(clips: Mapping[str, Sequence[_Pair]]) -> None:
    for folder, clip in clips.items():
        if len({pair.size for pair in clip}) > 1:
            raise UpscaleError(
                f"the pictures in {folder} differ in size, so they are no frames of a clip, which this network takes; "
                "give folders of frames, or choose a network for images"
            )


def _read_pair(pair: _Pair, scale: int) -> tuple[np.ndarray, np.ndarray]:
    width, height = pair.size
    hr = data.read_rgb(pair.hr)[:height, :width]
    return hr, degrade.bicubic(hr, scale) if pair.lr is None else data.read_rgb(pair.lr)


def _method(
    name: str,
    scale: int,
    device: str | None,
    precision: str | None,
    on_progress: Progress,
    on_notice: Callable[[str], None],
) -> _Method:
    if name == BICUBIC:
        return _Method(name, lambda frames: (_bicubic(lr, scale) for lr in frames))

    def received(done: int, total: int | None) -> None:
        on_progress(done, total, f"fetching {name}")

    checkpoint = checkpoints.load(name, scale, on_progress=received, on_notice=on_notice)
    engine = Engine(checkpoint.model, device=device, precision=precision, on_notice=on_notice)
    if engine.scale != scale:
        raise UpscaleError(f"{name} upscales by {engine.scale}, not by {scale}; measure it with --scale {engine.scale}")

    def run(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        return map(engine.run_prepared, media.windows(map(engine.prepare, frames), engine.window))

    return _Method(name, run, checkpoint.sha256, engine)


def _bicubic(lr: np.ndarray, scale: int) -> np.ndarray:
    return resized(lr, (lr.shape[0] * scale, lr.shape[1] * scale), np.float64)


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.tensor(picture, dtype=torch.float64).movedim(-1, 0)[None] / 255


def _shown(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4f}"


def _finite(value):
    """`value` with None for every number in it that is none, or infinite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
