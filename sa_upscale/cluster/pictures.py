"""Folders of pictures over several workers: what one machine does in order, each of them does with a part."""

import contextlib
import dataclasses
import functools
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sa_upscale import images, upscale
from sa_upscale.cluster import claims, places
from sa_upscale.cluster.pool import Crew, Outcome, Report, Seat, Team
from sa_upscale.cluster.schedule import Item, Schedule
from sa_upscale.cluster.setup import Admission, Place, Setup, Share, Weights, Where, crew_for
from sa_upscale.errors import UpscaleError

TOGETHER = 8
"""Pictures handed out at once at most: while one is at work, the next is read and the last one written."""

HEADERS_AT_ONCE = 8

Task = upscale.Job | places.Errand


class Stopped(BaseException):
    """The driver has asked the worker to end; no `Exception`, so that nothing takes it for a picture's failure."""


@dataclass(frozen=True)
class Order:
    """What is to be made of every picture; fields as for `upscale.run_jobs` and `upscale.Upscaler`."""

    size: upscale.Size
    output: upscale.Output = field(default_factory=upscale.Output)
    skip_existing: bool = False
    max_pixels: int = images.MAX_PIXELS


class PictureWorker:
    """Upscales pictures with networks that are loaded once."""

    def __init__(self, setup: Setup, share: Share, order: Order):
        self._place, self._order = Place(setup, share), order
        self._upscaler = upscale.Upscaler(self._place.model, order.size, **self._place.networks())
        self._stopping = threading.Event()

    def facts(self) -> dict:
        return self._place.facts()

    def do(self, tasks: list) -> Report:
        order = self._order
        with places.brought(tasks, skip_existing=order.skip_existing) as jobs:
            results = upscale.run_jobs(
                jobs,
                self._upscaler,
                order.output,
                skip_existing=order.skip_existing,
                max_pixels=order.max_pixels,
                on_progress=self._check,
            )
            results = places.taken_back(tasks, jobs, results)
        return Report([Outcome(result, result.error) for result in results], self._place.told())

    def stop(self) -> None:
        self._stopping.set()

    def _check(self, *_: object) -> None:
        if self._stopping.is_set():
            raise Stopped


def run(
    where: Where,
    jobs: Sequence[Task],
    model: str,
    order: Order,
    options: dict[str, object],
    *,
    shard: tuple[int, int] | None = None,
    **callbacks,
) -> list[upscale.Result]:
    """Do the `jobs` there, as the only run to their output (of this `shard`); `callbacks` as for `run_jobs`.

    `options` are those of `upscale.Networks`.  Raises `UpscaleError` when there are no such workers.
    """
    if any(job.source is None or job.target is None for job in jobs):
        raise UpscaleError("standard input and output are for one machine; leave --engine and --devices out")
    with contextlib.ExitStack() as stack:
        claim = held = None
        if folder := _output_folder(jobs):
            ending = "-{}of{}".format(*shard) if shard else ""
            held = stack.enter_context(claims.Claim(folder / f".sa-upscale{ending}.lock"))
            claim = (str(held.file), held.token)
        setup = Setup(model, options, Weights.of(model, travel=where.engine == "ray"), claim)
        crew = crew_for(where, functools.partial(PictureWorker, order=order), setup)
        # Other parts may be at work in the same folders.
        return run_jobs(jobs, crew, claim=None if shard else held, **callbacks)


def run_jobs(
    jobs: Sequence[Task],
    crew: Crew,
    *,
    claim: claims.Claim | None = None,
    on_progress: Callable[[int, int, Sequence[Seat]], None] | None = None,
    on_result: Callable[[upscale.Result], None] | None = None,
    on_notice: Callable[[str], None] = lambda line: None,
) -> list[upscale.Result]:
    """Do the `jobs` with the workers of the `crew`, which are gone afterwards; results in the order they came in.

    What fails three times, on whichever worker, is reported in its `Result`, and the others are done.  Interrupted, it
    leaves whole files only; what killed workers left half written is swept away where the output is ours by a `claim`.
    """
    results: list[upscale.Result] = []

    def finished(result: upscale.Result) -> None:
        results.append(result)
        if on_result:
            on_result(result)

    def changed(seats: Sequence[Seat]) -> None:
        if on_progress:
            on_progress(len(results), len(jobs), seats)

    with Team(crew, Admission(), lambda job: job.label, on_notice, changed) as team:
        for job in jobs:
            if job.problem:
                finished(upscale.Result(job.source, job.target, error=job.problem))
        possible = [job for job in jobs if not job.problem]
        sizes = weights(possible)
        schedule = Schedule((Item(at, sizes[at], _anywhere(job)) for at, job in enumerate(possible)), together=TOGETHER)
        schedule.close()
        for done in team.work(schedule):
            job = possible[done.item.number]
            result = done.value or upscale.Result(job.source, job.target)
            error = done.error and done.error.replace(str(done.item.task.source), str(job.source))
            finished(dataclasses.replace(result, source=job.source, target=job.target, error=error))
            changed(crew.seats)
    if team.deaths and claim:
        claim.sweep({Path(job.target).parent for job in possible if not places.is_address(job.target)})
    return results


def weights(jobs: Sequence[Task]) -> list[int]:
    """How much work each is: the pixels of its frames by its header, at an address its bytes; 1 without either."""
    with ThreadPoolExecutor(HEADERS_AT_ONCE, "headers") as pool:
        return list(pool.map(_weight, jobs))


def _weight(job: Task) -> int:
    if isinstance(job, places.Errand):
        return job.weight
    try:
        opened = images.opened(job.source, max_pixels=2**62)
    except (UpscaleError, OSError, RuntimeError):
        return 1
    return max(1, math.prod((opened.width, opened.height, opened.frames)))


def _anywhere(job: Task) -> Task:
    """The job as a process sees it that was begun in another folder."""
    ends = {"source": job.source, "target": job.target}
    whole = {name: end if places.is_address(end) else type(end)(os.path.abspath(end)) for name, end in ends.items()}
    return dataclasses.replace(job, **whole)


def _output_folder(jobs: Sequence[Task]) -> Path | None:
    """The folder that all results on this machine go to, or below, made if need be; None without any."""
    targets = [job.target for job in jobs if not job.problem and not places.is_address(job.target)]
    if not targets:
        return None
    folder = Path(os.path.commonpath([Path(target).absolute().parent for target in targets]))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UpscaleError(f"the folder {folder} cannot be made: {error.strerror or error}") from None
    return folder
