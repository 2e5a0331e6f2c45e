"""Many pictures around one load of the networks.

Small ones are worked on side by side, each by a part of the processor.  Of others one is at work, by all of it, while
the next is decoded and the last encoded.
"""

import itertools
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter

from sa_upscale import images
from sa_upscale.errors import UpscaleError
from sa_upscale.lanes import in_lanes
from sa_upscale.upscale.jobs import Job
from sa_upscale.upscale.pictures import Progress
from sa_upscale.upscale.work import Finish, Output, Ready, Result, Upscaler

LARGE_PIXELS = 50_000_000
"""A result with more pixels is written before the next picture is begun, so that memory holds one of them."""
SMALL_PIXELS = 16_000_000
"""A result with no more is small: a second or so of work, for which no other has to wait long in the end."""

# RuntimeError is what torch raises for a tile that failed: bad for this picture, not for the next.
_FAILURES = (UpscaleError, OSError, MemoryError, RuntimeError)

Size = tuple[int, int]


@dataclass
class _Task:
    """A job on its way; `ready` is None once there is nothing left to do for it."""

    result: Result
    progress: Progress
    ready: Ready | None = None

    @property
    def pixels(self) -> int:
        return self.ready.target.width * self.ready.target.height if self.ready else 0

    @property
    def small(self) -> bool:
        # Animations and very large pictures are read while they are at work.
        return self.ready is None or (self.ready.picture is not None and self.pixels <= SMALL_PIXELS)


class _Count:
    """What of all jobs is done, for `on_progress`; of several that are at work at once, all of them counted."""

    def __init__(self, jobs: int, on_progress: Callable[[int, int, str], None] | None):
        self._thousandths, self._sum = [0] * jobs, 0
        self._on_progress = on_progress
        self._telling = threading.Lock()

    def of(self, index: int, label: str) -> Progress:
        """The callback for one of the jobs, in any thread."""

        def tell(done: int, total: int) -> None:
            with self._telling:
                before, self._thousandths[index] = self._thousandths[index], 1000 * done // total
                self._sum += self._thousandths[index] - before
                if self._on_progress:
                    self._on_progress(self._sum // len(self._thousandths), 1000, label)

        return tell


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
    """Do the `jobs`, and give their results in order; one that fails is reported in its `Result`, the others are done.

    With `skip_existing`, what is there already, can be read to its end and has the right size is not done again.
    `on_progress(done, total, label)` counts through all jobs together, the label names a picture at work;
    `on_result(result)` is called after each, in order.  Interrupted, it leaves whole files only.
    """
    results: list[Result] = []
    reader, writer = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "writer")
    lanes, count = min(len(jobs), upscaler.lanes(3 * SMALL_PIXELS)), _Count(len(jobs), on_progress)

    def open_one(job: Job) -> Ready | Size:
        done = _done_size(job, upscaler) if skip_existing and not job.problem else None
        return done or _opened(job, upscaler, output, max_pixels)

    def opened() -> Iterator[_Task]:
        for index, (job, opening) in enumerate(_ahead(jobs, reader, open_one)):
            task = _Task(Result(job.source, job.target), count.of(index, job.label))
            with _told(task.result):
                found = opening.result()
                if isinstance(found, Ready):
                    task.ready = found
                else:
                    task.result.skipped, (task.result.width, task.result.height) = True, found
            yield task

    try:
        for beside, group in itertools.groupby(_beside(opened(), lanes), key=itemgetter(1)):
            tasks = (task for task, _ in group)
            made = _side_by_side(tasks, upscaler, lanes) if beside else _in_turn(tasks, upscaler, writer)
            with closing(made):
                for result in made:
                    results.append(result)
                    if on_result:
                        on_result(result)
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


def _beside(tasks: Iterator[_Task], lanes: int) -> Iterator[tuple[_Task, bool]]:
    """The tasks, each with whether it is worked on beside others: one of several small ones in a row."""
    before, task = False, next(tasks, None)
    while task:
        small, following = lanes > 1 and task.small, None
        if small and not before:
            following = next(tasks, None)
        before = small and (before or (following is not None and following.small))
        yield task, before
        task = following or next(tasks, None)


def _side_by_side(tasks: Iterable[_Task], upscaler: Upscaler, lanes: int) -> Iterator[Result]:
    """The results of small tasks, several worked on at once, each from the network to the file by one thread."""

    def work(task: _Task) -> None:
        if finish := _enlarged(task, upscaler):
            with _told(task.result):
                task.result.warnings = finish()

    with closing(in_lanes(work, tasks, lanes)) as done:
        for task, _ in done:
            yield task.result


def _in_turn(tasks: Iterable[_Task], upscaler: Upscaler, writer: ThreadPoolExecutor) -> Iterator[Result]:
    """The results of tasks that are worked on one after the other, each written while the next is at work."""
    waiting: deque[tuple[Result, Future | None]] = deque()

    def written(most: int) -> Iterator[Result]:
        """Wait until no more than `most` results are still to be written."""
        while len(waiting) > most:
            result, writing = waiting.popleft()
            with _told(result):
                result.warnings = writing.result() if writing else []
            yield result

    for task in tasks:
        pixels, finish = task.pixels, _enlarged(task, upscaler)
        waiting.append((task.result, writer.submit(finish) if finish else None))
        yield from written(0 if pixels > LARGE_PIXELS else 1)
    yield from written(0)


def _enlarged(task: _Task, upscaler: Upscaler) -> Finish | None:
    """Run the networks for a task; what writes its result, None where there is nothing to write."""
    finish = None
    task.progress(0, 1)
    with _told(task.result):
        if task.ready:
            finish = upscaler.enlarge(task.ready, task.progress)
            task.result.tell(task.ready)
            task.ready = None
    task.progress(1, 1)
    return finish


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
