"""Upscaling of picture files: one (`image_file`), or a folder full of them with one load of the networks.

upscaler = Upscaler("compact", 4)
results = run_jobs(plan_jobs(["holiday"], "big/", scale=4), upscaler)
"""

import math
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import cv2
import numpy as np
import torch

from sa_upscale import checkpoints, images
from sa_upscale.engine import Engine
from sa_upscale.errors import UpscaleError
from sa_upscale.functional.resize import contributions, resize_axis

SMALLEST_SCALE, LARGEST_SCALE = 1, 8
RESIZE_BAND_VALUES = 4 << 20

Progress = Callable[[int, int], None]


class Runner(Protocol):
    """What is asked of an engine: a whole native scale, and pictures `(H, W, C)` in and out, C = 1 or 3."""

    scale: int
    window: int

    def run(self, image: np.ndarray, *, on_progress: Progress | None = None) -> np.ndarray: ...


@dataclass
class Result:
    """What became of one picture.

    `width` and `height` are those of the result, None when there is none; `source` and `target` are None for standard
    input and output.  `error` is a line for the user, None when all went well; `skipped` says that the result was there
    already.
    """

    source: Path | None
    target: Path | None
    width: int | None = None
    height: int | None = None
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    skipped: bool = False


@dataclass(frozen=True)
class Job:
    """A picture to be upscaled into a file.

    `source` is None for standard input, `target` for standard output.  With a `problem` the job cannot be done, and
    `run_jobs` only reports that.
    """

    source: Path | None
    target: Path | None
    format: str | None = None
    in_folder: bool = False  # the target's folder is ours to create
    problem: str | None = None

    @property
    def label(self) -> str:
        return self.source.name if self.source else "standard input"


# ---------------------------------------------------------------------------------------------------------------
# Scales and networks


def plan(scale: float, available: Collection[int]) -> tuple[int, ...]:
    """The native scales to run one after the other so that their product is at least `scale`.

    The smallest of `available` that suffices; where none does, the largest, and again for what is left.  Raises
    `UpscaleError` when `available` has nothing that enlarges.
    """
    steps: list[int] = []
    left = check_scale(scale)
    while not steps or left > 1:
        step = min((native for native in available if native >= left), default=max(available))
        if step == 1 and left > 1:
            raise UpscaleError(f"this network keeps the size, it cannot enlarge by {scale:g}; choose another")
        steps.append(step)
        left /= step
    return tuple(steps)


def check_scale(scale: float) -> float:
    """`scale` itself if it is a number from 1 to 8; `UpscaleError` otherwise."""
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise UpscaleError(f"the scale is a number from {SMALLEST_SCALE} to {LARGEST_SCALE}, not {scale:g}")
    return scale


def target_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """(width, height) of the result."""
    return max(1, round(width * scale)), max(1, round(height * scale))


class Upscaler:
    """The networks for one scale, loaded once, for as many pictures as there are.

    Arguments and errors as for `load_engines`.
    """

    def __init__(self, model: str | Path, scale: float, **options):
        self.scale = scale
        self.engines = load_engines(model, scale, **options)

    def image_file(
        self,
        source: Path | bytes,
        target: Path | BinaryIO,
        *,
        format: str | None = None,
        quality: int | None = None,
        lossless: bool | None = None,
        max_pixels: int = images.MAX_PIXELS,
        on_progress: Progress | None = None,
    ) -> Result:
        """`image_file` with these networks and this scale."""
        return image_file(
            source,
            target,
            self.engines,
            scale=self.scale,
            format=format,
            quality=quality,
            lossless=lossless,
            max_pixels=max_pixels,
            on_progress=on_progress,
        )


def load_engines(
    model: str | Path,
    scale: float,
    *,
    kind: str = "image",
    device: str | None = None,
    precision: str | None = None,
    tile: int | None = None,
    on_notice: Callable[[str], None] | None = None,
    on_fetch: Callable[[str], Callable[[int, int | None], None]] | None = None,
    load: Callable = checkpoints.load,
    engine: Callable[..., Runner] = Engine,
) -> list[Runner]:
    """The engines to run one after the other to enlarge by `scale`, each network loaded once.

    `model` is a checkpoint's name, the name of a family, of which the fitting members are taken, or the path of a file.
    With `kind="video"` it may take several frames; what it lacks in scale the default image networks then add.
    `on_fetch(name)` gives the progress callback for the download of one checkpoint.  `load` and `engine` stand in for
    `checkpoints.load` and `Engine`.

    Raises `UpscaleError` for a scale outside 1 to 8, an unknown model, one that cannot be had, and one of another kind.
    """
    check_scale(scale)
    loaded: dict[str, Runner] = {}

    def ready(name: str | Path) -> Runner:
        name = str(name)
        if name not in loaded:
            fetching = on_fetch(name) if on_fetch else None
            checkpoint = load(name, scale, kind, on_progress=fetching, on_notice=on_notice)
            loaded[name] = engine(checkpoint.model, device=device, precision=precision, tile=tile, on_notice=on_notice)
        return loaded[name]

    known = _relatives(model)
    if known:
        return [ready(name) for name in _chain(str(model), scale, known)]
    first = ready(model)
    if first.window == 1:
        return [first] * len(plan(scale, [first.scale]))
    left = scale / first.scale
    image = checkpoints.DEFAULTS["image"]
    return [first] + ([ready(name) for name in _chain(image, left, _relatives(image))] if left > 1 else [])


def _relatives(model: str | Path) -> dict[str, int]:
    """Names and native scales of the image networks that may serve for `model`: its family, as far as it can be had.

    Empty for a file and for a video network.
    """
    known = checkpoints.entries()
    name = str(model)
    family = known[name].family if name in known else name
    members = [entry for entry in known.values() if entry.family == family and (entry.usable or entry.name == name)]
    return {entry.name: entry.scale for entry in members if entry.kind == "image"}


def _chain(name: str, scale: float, relatives: dict[str, int]) -> list[str]:
    """The checkpoints to run one after the other; one that was named comes first, whatever its scale."""
    chain = [name] if name in relatives else []
    left = scale / relatives[name] if chain else scale
    if not chain or left > 1:
        by_scale = {native: member for member, native in relatives.items()}
        # Of two with the same scale, the one that was named.
        by_scale |= {relatives[member]: member for member in chain}
        chain += [by_scale[step] for step in plan(left, by_scale)]
    return chain


# ---------------------------------------------------------------------------------------------------------------
# One picture


def image_file(
    source: Path | bytes,
    target: Path | BinaryIO,
    engines: Sequence[Runner],
    *,
    scale: float,
    format: str | None = None,
    quality: int | None = None,
    lossless: bool | None = None,
    max_pixels: int = images.MAX_PIXELS,
    on_progress: Progress | None = None,
) -> Result:
    """Read `source` (a file, or its bytes), enlarge it by `scale` and write it to `target` (a file or a stream).

    `engines` run one after the other; the product of their scales is at least `scale` (1-8).  The result has
    `round(width * scale)` x `round(height * scale)` pixels.  `format`, `quality` and `lossless` as in `images.write`.
    `on_progress(done, total)` counts thousandths of the networks' work.

    Raises `UpscaleError` when the source cannot be read or the result cannot be written, the latter before the work
    where that can be known.
    """
    started = time.perf_counter()
    check_scale(scale)
    source_path, target_path = (Path(end) if isinstance(end, str | os.PathLike) else None for end in (source, target))
    if source_path and target_path and _same(source_path, target_path):
        raise UpscaleError(f"the output {target_path} is the input itself; choose another name")
    picture = images.read(source, max_pixels=max_pixels)
    width, height = target_size(picture.width, picture.height, scale)
    images.check_target(target, images.format_for(target, picture.format, format), width, height)
    enlarged = enlarge(picture, engines, width, height, on_progress=on_progress)
    lost = images.write(target, enlarged, format=format, quality=quality, lossless=lossless)
    return Result(source_path, target_path, width, height, time.perf_counter() - started, [*picture.notes, *lost])


def enlarge(
    picture: images.Picture,
    engines: Sequence[Runner],
    width: int,
    height: int,
    *,
    on_progress: Progress | None = None,
) -> images.Picture:
    """`picture` at `width` x `height` pixels, with all it carries.

    Grey stays exactly grey, also where it is stored as RGB.  Alpha goes through the networks as a grey picture of its
    own and stays within what its neighbourhood holds, so that opaque and transparent regions remain exactly so.
    """
    pixels, alpha = picture.pixels, picture.alpha
    channels = pixels.shape[2]
    if channels == 3 and _is_grey(pixels):
        pixels = pixels[..., :1]
    varied = alpha is not None and alpha.min() != alpha.max()
    if varied:
        pixels = bled(pixels, alpha)
    shares = _shares(on_progress, 2 if varied else 1)
    pixels = _enlarged(np.ascontiguousarray(pixels), engines, width, height, shares[0])
    if alpha is not None and varied:
        coarse = _enlarged(alpha[..., None], engines, width, height, shares[1])
        alpha = _kept_in_range(coarse[..., 0], alpha)
    elif alpha is not None:
        alpha = np.full((height, width), alpha.flat[0])
    return replace(picture, pixels=np.broadcast_to(pixels, (height, width, channels)), alpha=alpha)


def bled(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`pixels` `(H, W, C)` with each fully transparent one coloured like the nearest that is not.

    What stands under transparent pixels is arbitrary, often black; a network would draw it into the edges as a fringe.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    visible = np.flatnonzero(~hidden)
    nearest = np.zeros(labels.max() + 1, np.int64)
    nearest[labels.flat[visible]] = visible
    result = pixels.copy()
    result[hidden] = pixels.reshape(-1, pixels.shape[2])[nearest[labels[hidden]]]
    return result


def resized(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """`(H, W, C)` of any type reduced to `width` x `height` by the antialiased cubic, in bands of rows.

    Rounded to nearest and clipped to the range of the type (float is not clipped); flat areas keep their value.
    """
    if array.shape[:2] == (height, width):
        return array
    indices, weights = contributions(array.shape[0], height)
    result = np.empty((height, width, array.shape[2]), array.dtype)
    step = max(1, RESIZE_BAND_VALUES // (array.shape[1] * array.shape[2]))
    for start in range(0, height, step):
        rows, share = indices[start : start + step], weights[start : start + step].float()
        first = int(rows.min())
        source = torch.from_numpy(array[first : int(rows.max()) + 1].astype(np.float32))
        band = torch.zeros(len(rows), *source.shape[1:])
        for tap in range(rows.shape[1]):
            band += source.index_select(0, rows[:, tap] - first) * share[:, tap, None, None]
        band = resize_axis(band, width, axis=1).numpy()
        if array.dtype.kind == "u":
            band = np.rint(band).clip(0, np.iinfo(array.dtype).max)
        result[start : start + step] = band
    return result


def _enlarged(
    array: np.ndarray, engines: Sequence[Runner], width: int, height: int, on_progress: Progress | None
) -> np.ndarray:
    """`array` `(h, w, C)` through the networks one after the other, then reduced to `(height, width, C)`."""
    if array.dtype == np.float32:
        # Networks know [0, 1] only; scene-referred floats go beyond.
        low, high = min(0.0, float(array.min())), max(1.0, float(array.max()))
        if (low, high) != (0.0, 1.0):
            inside = (array - np.float32(low)) / np.float32(high - low)
            return _enlarged(inside, engines, width, height, on_progress) * np.float32(high - low) + np.float32(low)
    areas = [math.prod(engine.scale for engine in engines[:index]) ** 2 for index in range(len(engines))]
    for index, engine in enumerate(engines):
        needed = (-(-width // engine.scale), -(-height // engine.scale))
        if index == len(engines) - 1 and 2 * needed[0] <= array.shape[1] and 2 * needed[1] <= array.shape[0]:
            # Less than half of it would be left at the end: four times the work and memory for nothing.
            array = resized(array, *needed)
        array = engine.run(array, on_progress=_part(on_progress, sum(areas[:index]), areas[index], sum(areas)))
    return resized(array, width, height)


def _is_grey(pixels: np.ndarray) -> bool:
    return all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in (1, 2))


def _kept_in_range(enlarged: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`enlarged` alpha clipped, in place, to what the 3x3 pixels of `alpha` around each place hold."""
    around = np.ones((3, 3), np.uint8)
    lowest, highest = cv2.erode(alpha, around), cv2.dilate(alpha, around)
    rows, columns = (
        ((np.arange(long) + 0.5) * (short / long)).astype(np.intp)
        for long, short in zip(enlarged.shape, alpha.shape, strict=True)
    )
    for row, source_row in enumerate(rows):
        np.clip(enlarged[row], lowest[source_row, columns], highest[source_row, columns], out=enlarged[row])
    return enlarged


def _part(on_progress: Progress | None, before: int, share: int, whole: int) -> Progress | None:
    """A callback for one stretch of the work that reports to `on_progress` in thousandths of the whole."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(1000 * (before * total + share * done) // (whole * total), 1000)


def _shares(on_progress: Progress | None, count: int) -> list[Progress | None]:
    return [_part(on_progress, index, 1, count) for index in range(count)]


# ---------------------------------------------------------------------------------------------------------------
# Many pictures


def plan_jobs(
    inputs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    scale: float,
    suffix: str | None = None,
    format: str | None = None,
    recursive: bool = False,
    on_notice: Callable[[str], None] | None = None,
) -> list[Job]:
    """What there is to do for `inputs` (files and folders), in order, each with the file it goes to.

    Without `output`, `in.png` goes to `in_x4.png` beside it; `suffix` is "_x4", "_x2.5" and so on unless given.
    `output` is a folder where it is one, ends in a separator, or has to hold several pictures (their tree is mirrored);
    else the file.  The ending stays that of the input unless `format` says otherwise.  With `recursive`, folders are
    searched to their bottom, through links too, each folder once.  Results of an earlier run found among the inputs,
    and hidden files in folders, are left out, which `on_notice` is told.  An input "-" is standard input and goes to
    standard output unless `output` names a file; an `output` "-" is standard output.

    What fails for one input only (nothing in a folder, a folder that cannot be read, two pictures for one place)
    becomes a job with a `problem`.  Raises `UpscaleError` when that is all there is of a single input, when there are
    no inputs, or when several pictures are to go into one file or stream.
    """
    if not inputs:
        raise UpscaleError("no input is given; name a picture or a folder")
    key = images.format_for(Path(), "png", format) if format else None
    if "-" in (*inputs, output):
        return [_stream_job(inputs, output, key)]
    into_folder = _is_folder(output, inputs)
    notice = on_notice or (lambda line: None)
    jobs, seen = [], set()
    for given in inputs:
        top = Path(given)
        # Said before networks are loaded, or even fetched, for it.
        missing = None if os.path.lexists(top) else f"{top} does not exist"
        found = _scan(top, recursive, notice) if top.is_dir() else [(top, missing)]
        for source, problem in found:
            place = os.path.realpath(source)
            if place in seen and not problem:
                continue
            seen.add(place)
            below = source.relative_to(top).parent if top.is_dir() and not problem else Path()
            folder = Path(output) / below if into_folder else source.parent
            target = Path(output) if output is not None and not into_folder else folder / source.name
            jobs.append(Job(source, target, key, into_folder, problem))
    if output is None or into_folder:
        jobs = _named(jobs, _scale_suffix(scale) if suffix is None else suffix)
    if suffix != "":
        jobs = _without_results(jobs, notice)
    jobs = _checked(jobs)
    if len(jobs) == 1 and len(inputs) == 1 and jobs[0].problem:
        raise UpscaleError(jobs[0].problem)
    return jobs


def run_jobs(
    jobs: Sequence[Job],
    upscaler: Upscaler,
    *,
    skip_existing: bool = False,
    quality: int | None = None,
    lossless: bool | None = None,
    max_pixels: int = images.MAX_PIXELS,
    on_progress: Callable[[int, int, str], None] | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Do the `jobs` one after the other; one that fails is reported in its `Result`, the others are done.

    With `skip_existing`, what is there already, can be read to its end and has the right size is not done again.
    `on_progress(done, total, label)` counts through all jobs together, the label names the picture at work;
    `on_result(result)` is called after each.
    """
    results = []
    for index, job in enumerate(jobs):
        started = time.perf_counter()
        progress = _labelled(on_progress, index, len(jobs), job.label)
        try:
            done = skip_existing and not job.problem and _done_size(job, upscaler.scale)
            if done:
                result = Result(job.source, job.target, *done, skipped=True)
            else:
                result = _run_job(job, upscaler, quality, lossless, max_pixels, progress)
        # RuntimeError is what torch raises for a tile that failed: bad for this picture, not for the next.
        except (UpscaleError, OSError, MemoryError, RuntimeError) as error:
            line = " ".join(str(error).split()) or type(error).__name__
            result = Result(job.source, job.target, seconds=time.perf_counter() - started, error=line)
        results.append(result)
        if on_result:
            on_result(result)
    return results


def _run_job(job: Job, upscaler: Upscaler, quality, lossless, max_pixels: int, on_progress) -> Result:
    if job.problem:
        raise UpscaleError(job.problem)
    if job.in_folder:
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UpscaleError(f"the folder {job.target.parent} cannot be made: {error.strerror or error}") from None
    return upscaler.image_file(
        job.source or sys.stdin.buffer.read(),
        job.target or sys.stdout.buffer,
        format=job.format,
        quality=quality,
        lossless=lossless,
        max_pixels=max_pixels,
        on_progress=on_progress,
    )


def _done_size(job: Job, scale: float) -> tuple[int, int] | None:
    """The size of the result if it is there, whole and of the size it should have."""
    if not (job.source and job.target and job.target.is_file()):
        return None
    expected = target_size(*images.size(job.source), scale)
    try:
        there = images.read(job.target, max_pixels=math.prod(expected))
    except UpscaleError:
        return None
    return expected if (there.width, there.height) == expected else None


def _labelled(
    on_progress: Callable[[int, int, str], None] | None, index: int, count: int, label: str
) -> Progress | None:
    part = _part(lambda done, total: on_progress(done, total, label), index, 1, count) if on_progress else None
    if part:
        part(0, 1)
    return part


def _stream_job(inputs: Sequence[str | Path], output: str | Path | None, key: str | None) -> Job:
    """The one job that a standard stream takes part in."""
    if len(inputs) > 1 or Path(inputs[0]).is_dir():
        raise UpscaleError("standard input and output take one picture; give a single file, or no '-'")
    if inputs[0] == "-" and output not in (None, "-") and _is_folder(output, inputs):
        raise UpscaleError(f"{output} is a folder, and standard input has no name to be called by in it; name a file")
    source = None if inputs[0] == "-" else Path(inputs[0])
    return Job(source, None if output in (None, "-") else Path(output), key)


def _scale_suffix(scale: float) -> str:
    return f"_x{scale:g}"


def _is_folder(output: str | Path | None, inputs: Sequence[str | Path]) -> bool:
    if output is None:
        return False
    if Path(output).is_dir() or str(output).endswith((os.sep, "/")):
        return True
    several = len(inputs) > 1 or Path(inputs[0]).is_dir()
    if several and Path(output).exists():
        raise UpscaleError(f"{output} is a file, and several pictures go to a folder; name one")
    return several


def _scan(top: Path, recursive: bool, notice: Callable[[str], None]) -> list[tuple[Path, str | None]]:
    """The pictures in a folder, by their ending and in order of name, and the folders that could not be read."""
    hidden, deeper, found = 0, 0, []
    visited, waiting = set(), [top]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            items = sorted(folder.iterdir())
        except OSError as error:
            found.append((folder, f"the folder {folder} cannot be read: {error.strerror or error}"))
            continue
        shown = [item for item in items if not item.name.startswith(".")]
        hidden += sum(item.suffix.lower() in images.SUFFIXES for item in items) - sum(
            item.suffix.lower() in images.SUFFIXES for item in shown
        )
        below = [item for item in shown if item.is_dir()]
        deeper += len(below)
        # Pipes and devices are not opened unasked; a link that leads nowhere is, so that it is reported.
        found += [
            (item, None)
            for item in shown
            if item.suffix.lower() in images.SUFFIXES and (item.is_file() or item.is_symlink()) and item not in below
        ]
        if recursive:
            waiting += reversed(below)
    if hidden:
        notice(f"{hidden} hidden file{'s' * (hidden > 1)} in {top} left out")
    if not found:
        hint = "; --recursive looks into its subfolders" if deeper and not recursive else ""
        return [(top, f"the folder {top} holds no pictures ({', '.join(images.SUFFIXES)}){hint}")]
    return found


def _named(jobs: list[Job], suffix: str) -> list[Job]:
    """The jobs with the names of their results; pictures that would share one get their old ending into it."""
    named = [job if job.problem else replace(job, target=_result_path(job, suffix)) for job in jobs]
    shared = _by_place(named)
    return [
        replace(job, target=_result_path(before, f"_{before.source.suffix.lstrip('.')}{suffix}"))
        if not job.problem and len(shared[_place(job.target)]) > 1
        else job
        for before, job in zip(jobs, named, strict=True)
    ]


def _result_path(job: Job, suffix: str) -> Path:
    ending = job.source.suffix
    own = images.SUFFIXES.get(ending.lower()) or images.content_format(job.source) or "png"
    if ending.lower() not in images.SUFFIXES or job.format not in (None, own):
        ending = images.FORMATS[job.format or own].suffixes[0]
    return job.target.with_name(f"{job.source.stem}{suffix}{ending}")


def _without_results(jobs: list[Job], notice: Callable[[str], None]) -> list[Job]:
    """Leave out the inputs that are results of others: a second run over a folder must not enlarge them again."""
    makers = _by_place(jobs)
    kept = [job for job in jobs if all(maker is job for maker in makers.get(_place(job.source), []))]
    if len(kept) < len(jobs):
        notice(f"{len(jobs) - len(kept)} left out as results of an earlier run")
    return kept


def _checked(jobs: list[Job]) -> list[Job]:
    """The jobs, those with a `problem` that would write over an input or over each other's result."""
    sources = {_place(job.source): job for job in jobs if not job.problem}
    taken: dict[str, Job] = {}
    checked = []
    for job in jobs:
        problem = job.problem
        if not problem:
            place = _place(job.target)
            if place in sources:
                what = "itself" if sources[place] is job else f"{sources[place].source}, another input"
                problem = f"the output of {job.source} would be {what}; choose another name, folder or suffix"
            elif place in taken:
                problem = f"{job.source} and {taken[place].source} would both be written to {job.target}"
            taken.setdefault(place, job)
        checked.append(replace(job, problem=problem))
    return checked


def _by_place(jobs: list[Job]) -> dict[str, list[Job]]:
    places: dict[str, list[Job]] = {}
    for job in jobs:
        if not job.problem:
            places.setdefault(_place(job.target), []).append(job)
    return places


def _place(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return _place(one) == _place(other)
