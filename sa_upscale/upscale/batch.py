"""Many pictures around one load of the networks: the next is decoded and the last encoded while one is at work."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from sa_upscale import images
from sa_upscale.errors import UpscaleError
from sa_upscale.upscale.jobs import Job
from sa_upscale.upscale.pictures import Progress, part
from sa_upscale.upscale.work import Output, Ready, Result, Upscaler

LARGE_PIXELS = 50_000_000
"""A result with more pixels is written before the next picture is begun, so that memory holds one of them."""

# RuntimeError is what torch raises for a tile that failed: bad for this picture, not for the next.
_FAILURES = (UpscaleError, OSError, MemoryError, RuntimeError)

Size = tuple[int, int]


def run_jobs(
    jobs: Sequence[Job],
    upscaler: Upscaler,
    output: Output = Output(),  # noqa: B008  (frozen)
    *,
    skip_existing: bool = False,
    max_pixels: int = images.MAX_PIXELS,
    on_progress: Callable[[int, int, str], None] | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Do the `jobs` in order; one that fails is reported in its `Result`, the others are done.

    With `skip_existing`, what is there already, can be read to its end and has the right size is not done again.
    `on_progress(done, total, label)` counts through all jobs together, the label names the picture at work;
    `on_result(result)` is called after each, in order.  Interrupted, it leaves whole files only.
    """
    results: list[Result] = []
    waiting: deque[tuple[Result, Future | None]] = deque()
    reader, writer = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "writer")

    def open_one(job: Job) -> Ready | Size:
        done = _done_size(job, upscaler) if skip_existing and not job.problem else None
        return done or _opened(job, upscaler, output, max_pixels)

    def settle(most: int) -> None:
        """Wait until no more than `most` results are still to be written."""
        while len(waiting) > most:
            result, writing = waiting.popleft()
            with _told(result):
                result.warnings = writing.result() if writing else []
            results.append(result)
            if on_result:
                on_result(result)

    try:
        for index, (job, opening) in enumerate(_ahead(jobs, reader, open_one)):
            result, writing = Result(job.source, job.target), None
            with _told(result):
                progress = _labelled(on_progress, index, len(jobs), job.label)
                ready = opening.result()
                if isinstance(ready, Ready):
                    writing = writer.submit(upscaler.enlarge(ready, progress))
                    result.tell(ready)
                else:
                    result.skipped, (result.width, result.height) = True, ready
            waiting.append((result, writing))
            settle(0 if math.prod((result.width or 0, result.height or 0)) > LARGE_PIXELS else 1)
        settle(0)
    finally:
        # What is being written comes to its end; what waits is not begun.
        for executor in (reader, writer):
            executor.shutdown(cancel_futures=True)
    return results


def _ahead(jobs: Sequence[Job], reader: ThreadPoolExecutor, work: Callable) -> Iterator[tuple[Job, Future]]:
    """Each job with its work, which goes on in the `reader` one job ahead."""
    begun: deque[tuple[Job, Future]] = deque()
    for job in jobs:
        begun.append((job, reader.submit(work, job)))
        if len(begun) > 1:
            yield begun.popleft()
    yield from begun


@contextmanager
def _told(result: Result) -> Iterator[None]:
    """Put failures, and the time that the block takes, into the result."""
    started = time.perf_counter()
    try:
        yield
    except _FAILURES as error:
        result.error = " ".join(str(error).split()) or type(error).__name__
        result.width = result.height = None
    result.seconds += time.perf_counter() - started


def _opened(job: Job, upscaler: Upscaler, output: Output, max_pixels: int) -> Ready:
    if job.problem:
        raise UpscaleError(job.problem)
    if job.in_folder:
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UpscaleError(f"the folder {job.target.parent} cannot be made: {error.strerror or error}") from None
    source, target = job.source or sys.stdin.buffer.read(), job.target or sys.stdout.buffer
    output = replace(output, format=job.format or output.format)
    return upscaler.prepare(source, target, output, max_pixels=max_pixels)


def _done_size(job: Job, upscaler: Upscaler) -> Size | None:
    """The size of the result if it is there, whole and of the size it should have."""
    if not (job.source and job.target and job.target.is_file()):
        return None
    source = images.opened(job.source, max_pixels=2**62)
    expected = upscaler.size.of(source.width, source.height).kept
    try:
        there = images.opened(job.target, max_pixels=math.prod(expected))
        if (there.width, there.height) != expected:
            return None
        # To its last byte: a file may be cut short.
        for _ in there.play() if there.frames > 1 else there.rows():
            pass
    except UpscaleError:
        return None
    # Nothing that is whole and ours gives cause for a note.
    return None if there.notes else expected


def _labelled(
    on_progress: Callable[[int, int, str], None] | None, index: int, count: int, label: str
) -> Progress | None:
    progress = part(lambda done, total: on_progress(done, total, label), index, 1, count) if on_progress else None
    if progress:
        progress(0, 1)
    return progress
