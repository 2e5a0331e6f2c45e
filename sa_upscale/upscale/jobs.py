"""What there is to do for files and folders, and where each result goes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sa_upscale import images
from sa_upscale.errors import UpscaleError
from sa_upscale.upscale.sizes import Size
from sa_upscale.upscale.work import place


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


def plan_jobs(
    inputs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    size: Size,
    suffix: str | None = None,
    format: str | None = None,
    recursive: bool = False,
    on_notice: Callable[[str], None] | None = None,
) -> list[Job]:
    """What there is to do for `inputs` (files and folders), in order, each with the file it goes to.

    Without `output`, `in.png` goes to `in_x4.png` beside it; `suffix` is that of the `size` unless given.
    `output` is a folder where it is one, ends in a separator, or has to hold several pictures (their tree is mirrored);
    else the file.  The ending stays that of the input unless `format` says otherwise or it cannot be written (HEIC).
    With `recursive`, folders are searched to their bottom, through links too, each folder once.  Results of an earlier
    run found among the inputs, and hidden files in folders, are left out, which `on_notice` is told.  An input "-" is
    standard input and goes to standard output unless `output` names a file; an `output` "-" is standard output.

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
            real = os.path.realpath(source)
            if real in seen and not problem:
                continue
            seen.add(real)
            below = source.relative_to(top).parent if top.is_dir() and not problem else Path()
            folder = Path(output) / below if into_folder else source.parent
            target = Path(output) if output is not None and not into_folder else folder / source.name
            jobs.append(Job(source, target, key, into_folder, problem))
    if output is None or into_folder:
        jobs = _named(jobs, size.suffix if suffix is None else suffix)
    if suffix != "":
        jobs = _without_results(jobs, notice)
    jobs = _checked(jobs)
    if len(jobs) == 1 and len(inputs) == 1 and jobs[0].problem:
        raise UpscaleError(jobs[0].problem)
    return jobs


def _stream_job(inputs: Sequence[str | Path], output: str | Path | None, key: str | None) -> Job:
    """The one job that a standard stream takes part in."""
    if len(inputs) > 1 or Path(inputs[0]).is_dir():
        raise UpscaleError("standard input and output take one picture; give a single file, or no '-'")
    if inputs[0] == "-" and output not in (None, "-") and _is_folder(output, inputs):
        raise UpscaleError(f"{output} is a folder, and standard input has no name to be called by in it; name a file")
    source = None if inputs[0] == "-" else Path(inputs[0])
    return Job(source, None if output in (None, "-") else Path(output), key)


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
        below = [item for item in items if not item.name.startswith(".") and item.is_dir()]
        deeper += len(below)
        named = [item for item in items if item.suffix.lower() in images.SUFFIXES]
        shown = [item for item in named if not item.name.startswith(".")]
        hidden += len(named) - len(shown)
        # Pipes and devices are not opened unasked; a link that leads nowhere is, so that it is reported.
        found += [(item, None) for item in shown if (item.is_file() or item.is_symlink()) and item not in below]
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
        if not job.problem and len(shared[place(job.target)]) > 1
        else job
        for before, job in zip(jobs, named, strict=True)
    ]


def _result_path(job: Job, suffix: str) -> Path:
    ending = job.source.suffix
    key = job.format or images.result_format(job.source)
    if images.SUFFIXES.get(ending.lower()) != key:
        ending = images.FORMATS[key].suffixes[0]
    return job.target.with_name(f"{job.source.stem}{suffix}{ending}")


def _without_results(jobs: list[Job], notice: Callable[[str], None]) -> list[Job]:
    """Leave out the inputs that are results of others: a second run over a folder must not enlarge them again."""
    makers = _by_place(jobs)
    kept = [job for job in jobs if all(maker is job for maker in makers.get(place(job.source), []))]
    if len(kept) < len(jobs):
        notice(f"{len(jobs) - len(kept)} left out as results of an earlier run")
    return kept


def _checked(jobs: list[Job]) -> list[Job]:
    """The jobs, those with a `problem` that would write over an input or over each other's result."""
    sources = {place(job.source): job for job in jobs if not job.problem}
    taken: dict[str, Job] = {}
    checked = []
    for job in jobs:
        problem = job.problem
        if not problem:
            at = place(job.target)
            if at in sources:
                what = "itself" if sources[at] is job else f"{sources[at].source}, another input"
                problem = f"the output of {job.source} would be {what}; choose another name, folder or suffix"
            elif at in taken:
                problem = f"{job.source} and {taken[at].source} would both be written to {job.target}"
            taken.setdefault(at, job)
        checked.append(replace(job, problem=problem))
    return checked


def _by_place(jobs: list[Job]) -> dict[str, list[Job]]:
    places: dict[str, list[Job]] = {}
    for job in jobs:
        if not job.problem:
            places.setdefault(place(job.target), []).append(job)
    return places
