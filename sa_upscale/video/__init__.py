"""Upscale a video: every frame, every stream, every second, and a run that can be killed at any time and gone on with.

The frames go through the network (`pipeline`) into segments that are on the disk one after the other (`segments`).
When all are there, the result is put together of them and of what else the source holds, checked against the source,
and only then takes its name (`result`).
"""

import dataclasses
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from sa_upscale import media
from sa_upscale.errors import UpscaleError
from sa_upscale.journal import Journal, alone
from sa_upscale.video import pipeline
from sa_upscale.video.job import (
    Elsewhere,
    Interrupted,
    Job,
    Options,
    Progress,
    Store,
    VideoResult,
    about,
    deinterlaces,
)
from sa_upscale.video.pictures import finisher, fit, side_by_side
from sa_upscale.video.result import assemble, rehearse, result_of
from sa_upscale.video.segments import Segments, Stream, length_for
from sa_upscale.video.sizes import default_scale, preview_part, size_for, target_for

if TYPE_CHECKING:
    from sa_upscale.engine import Engine

__all__ = [
    "DECODERS",
    "Elsewhere",
    "Interrupted",
    "Job",
    "Options",
    "Progress",
    "Store",
    "VideoResult",
    "default_scale",
    "deinterlaces",
    "finisher",
    "fit",
    "length_for",
    "preview_part",
    "side_by_side",
    "size_for",
    "target_for",
    "upscale_file",
]

DECODERS = {"cuda": "cuda", "mps": "videotoolbox"}  # by the network's kind of device, what decodes there


def upscale_file(
    source: Path | media.VideoInfo,
    target: Path | None,
    engine: "Engine | Sequence[Engine]",
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    options: Options | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_notice: Callable[[str], None] | None = None,
    elsewhere: Elsewhere | None = None,
) -> VideoResult:
    """Upscale the video `source`, a file or what `media.probe` says of it, into `target`; None is stdout, as y4m.

    `scale` (1 to 8, whole or fractional) or `size` (width, height) says how large.  `engine` is the video or image
    network, or several to be run one after the other where one is not enough; beyond the scale they give together
    nothing is invented.  `on_progress` is called for each frame, `on_notice` with one line for each thing the user
    should know at once.  With `elsewhere`, the engines only say what they would do, and the work is done there.

    A source that breaks off is upscaled as far as it goes, with `complete` False.  Raises UpscaleError for what cannot
    be read, encoded or written, and `Interrupted` after Ctrl-C; the target, if there was one, is then as it was, and
    the same call goes on where the run ended.
    """
    info = source if isinstance(source, media.VideoInfo) else media.probe(Path(source))
    engines = list(engine) if isinstance(engine, Sequence) else [engine]
    size, options = size or size_for(info, scale=scale), options or Options()
    _check_scale(size[0] / info.width, engines)
    if target is not None:
        _check_target(info.source, target)
    encoding = media.plan(info, target, size, options.encode)
    job = Job(info, target, engines, encoding, options, on_progress or _ignore, on_notice or _ignore, elsewhere)
    return _to_pipe(job) if target is None else _to_file(job)


def _to_file(job: Job) -> VideoResult:
    work = job.target.with_name(f".{job.target.name.replace('%', '')}.work")
    with ExitStack() as held:
        with media.write_errors(job.name):
            held.enter_context(alone(work, job.name))
        return _in_folder(job, work)


def _in_folder(job: Job, work: Path) -> VideoResult:
    with media.write_errors(job.name):
        length = length_for(job.info)
        journal = Journal(work, about(job, length), resume=job.options.resume)
    if journal.changed:
        job.on_notice(
            f"the unfinished work on {job.target.name} had another {_listed(journal.changed)}; starting afresh"
        )
    segments = (
        job.elsewhere.store(journal) if job.elsewhere else Segments(journal, job.info, job.encoding, length, job.name)
    )
    done = segments.frames
    if done:
        job.on_notice(f"going on after {done} frames that are done")
    try:
        notices = [*_known_notices(job), *rehearse(job, work)]
        for notice in notices:
            job.on_notice(notice)
        if job.elsewhere:
            reader, watch = job.elsewhere.render(job, segments, length)
        else:
            with _reader(job) as reader:
                watch = _run(job, reader, segments)
        segments.close()
        with watch("write"):
            result = assemble(job, work, segments, reader, notices)
    except BaseException as error:
        segments.close()
        if not journal.entries:
            journal.remove()
        if isinstance(error, pipeline.Interrupted):
            raise Interrupted(_how_to_go_on(error.done, segments.frames)) from None
        raise
    journal.remove()
    for problem in reader.problems:
        job.on_notice(problem)
    return dataclasses.replace(result, frames_resumed=done, seconds=watch.seconds)


def _to_pipe(job: Job) -> VideoResult:
    with media.Others(job.info, job.options.part) as others:
        writer = media.Writer(sys.stdout.buffer, job.info, others, job.encoding, name=job.name)
        notices = [*_known_notices(job), *writer.notices]
        for notice in notices:
            job.on_notice(notice)
        with _reader(job) as reader:
            try:
                watch = _run(job, reader, Stream(writer, media.Encoder(job.info, job.encoding, job.name)))
            except pipeline.Interrupted as interrupted:
                raise Interrupted(f"interrupted after {interrupted.done} frames") from None
        writer.close()
    for problem in reader.problems:
        job.on_notice(problem)
    written = media.Tally(reader.frames, Fraction(0), Fraction(0), reader.length)
    result = result_of(job, reader, written, 0, notices)
    return dataclasses.replace(result, seconds=watch.seconds)


def _reader(job: Job) -> media.Reader:
    deinterlace, hardware = deinterlaces(job.info, job.options), job.options.hardware
    reader = media.Reader(job.info, job.options.part, deinterlace=deinterlace, hardware=hardware)
    for notice in reader.notices:
        job.on_notice(notice)
    return reader


def _run(job: Job, reader: media.Reader, sink: Segments | Stream) -> pipeline.Stopwatch:
    began, skip = time.monotonic(), sink.frames

    def on_frame(done: int) -> None:
        total = reader.total
        total = None if total is None else max(total, done)
        rate = (done - skip) / max(1e-9, time.monotonic() - began)
        left = None if total is None else (total - done) / rate
        job.on_progress(Progress(done, total, rate, left, sink.number))

    with _asked_to_stop() as stop:
        return pipeline.run(
            reader,
            sink,
            job.engines,
            finisher(job.encoding, job.options),
            skip=skip,
            threshold=job.options.threshold,
            on_frame=on_frame,
            stop=stop,
        )


def _how_to_go_on(done: int, kept: int) -> str:
    if not kept:
        return f"interrupted after frame {done}, before the first segment was whole; the same command starts again"
    return f"interrupted after frame {done}; {kept} frames are kept, and the same command goes on from there"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """While this is open, Ctrl-C is only noted, for the work to end at the next frame; a second one ends it at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # only the main thread hears signals
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        asked.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _known_notices(job: Job) -> list[str]:
    """What the user is told before the work begins."""
    interlaced = []
    if job.info.interlaced:
        done = "deinterlaced first" if job.options.deinterlace else "upscaled as it is"
        interlaced = [f"the video is interlaced and is {done}"]
    return [*job.info.notices, *interlaced, *job.encoding.notices]


def _check_scale(scale: float, engines: Sequence["Engine"]) -> None:
    native = math.prod(engine.scale for engine in engines)
    if round(scale, 3) > native:
        raise UpscaleError(f"scale {scale:g}: the network gives x{native}; choose one with a larger scale")
    if any(engine.window != 1 for engine in engines[1:]):
        raise ValueError("only the first network may look at several frames")


def _check_target(source: media.Source, target: Path) -> None:
    if target.is_dir():
        raise UpscaleError(f"{target} is a folder; name the video file to write")
    if source.pipe is None and (target == source.path or (target.exists() and target.samefile(source.path))):
        raise UpscaleError(f"{target}: the output is the input; give it another name")
    if source.is_sequence and target.parent.absolute() == source.path.parent.absolute() and media.is_pattern(target):
        raise UpscaleError(f"{target}: the output is among the input; choose another folder")
    if not target.parent.is_dir():
        raise UpscaleError(f"{target.parent}: no such folder; make it first")
    if not os.access(target.parent, os.W_OK):
        raise UpscaleError(f"{target.parent}: no permission to write there")


def _ignore(*_: object) -> None:
    """Where the caller does not want to know."""
