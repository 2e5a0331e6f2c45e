"""Upscale a video: every frame, every stream, every second, and a run that can be killed at any time and gone on with.

The frames go through the network (`pipeline`) into segments that are on the disk one after the other (`segments`).
When all are there, the result is put together of them and of what else the source holds, checked against the source,
and only then takes its name.
"""

import dataclasses
import hashlib
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import av
import cv2
import numpy as np

from sa_upscale import __version__, media
from sa_upscale.errors import UpscaleError
from sa_upscale.functional import scenes
from sa_upscale.journal import Journal, alone
from sa_upscale.video import pipeline
from sa_upscale.video.segments import Segments, Stream, length_for

if TYPE_CHECKING:
    from sa_upscale.engine import Engine

DECODERS = {"cuda": "cuda", "mps": "videotoolbox"}  # by the network's kind of device, what decodes there
LARGEST_SIDE = 4096  # pixels; what most players and their hardware decoders take
SCALES = (1, 8)
RELATIVES = (".3gp", ".3g2", ".f4v", ".qt")  # of MP4
ANIMATIONS = (".gif", ".webp", ".png", ".y4m")


@dataclass(frozen=True)
class Options:
    """How a video is upscaled, beyond its size.

    `part` is what to take of it, `encode` how the result is encoded.  `threshold` is the difference at which a new shot
    begins (`scenes.cuts`), None for clips of one shot.  With `preview`, the left half of every picture shows the middle
    of the source, the right half the middle of the result.  `resume` goes on with an earlier run that was killed.
    `hardware` is a kind of device to decode on where it can, "cuda" or "videotoolbox"; `tag` is written into the file's
    metadata to say what made it.
    """

    part: media.Part = field(default_factory=media.Part)
    encode: media.Wishes = field(default_factory=media.Wishes)
    threshold: float | None = scenes.CUT
    deinterlace: bool = True
    audio: bool = True
    preview: bool = False
    resume: bool = True
    hardware: str | None = None
    tag: str | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run stands: frames done and to do (None: unknown), frames per second, seconds left, the segment."""

    done: int
    total: int | None
    rate: float
    left: float | None
    segment: int


@dataclass(frozen=True)
class VideoResult:
    """What came of a run: durations in seconds; `complete` is False where part of the source was lost.

    `frames_in` counts the frames decoded, `frames_out` those found in the finished file, `frames_resumed` those that an
    earlier run had made.  `seconds` is how long each kind of work took; the kinds overlap.  `warnings` holds one line
    for each thing that the result lacks.
    """

    source: Path
    target: Path | None
    width: int
    height: int
    codec: str
    pixel_format: str
    frames_in: int
    frames_out: int
    frames_resumed: int
    duration_in: float
    duration_out: float
    streams_copied: int
    seconds: dict[str, float]
    complete: bool
    warnings: tuple[str, ...]


class Store(Protocol):
    """What is there of a result: `segments.Segments`, or what stands in for them.  `frames` are on the disk."""

    frames: int

    def chunks(self) -> Iterator[media.Chunk]: ...

    def stamps(self) -> list[int]: ...

    def close(self) -> None: ...


class Elsewhere(Protocol):
    """Where the segments are made if not here, one after the other."""

    def store(self, journal: Journal) -> Store:
        """The segments of the journal, to which `render` adds."""

    def render(self, job: "Job", store: Store, length: int) -> tuple[media.Reader, pipeline.Stopwatch]:
        """Make the segments of `length` frames that are not there; a reader that has run through the whole source."""


class Interrupted(UpscaleError):
    """Ctrl-C ended the run; the message says how to go on."""


def default_scale(info: media.VideoInfo) -> int:
    """4, or 2 where ×4 would pass 4096 pixels on the long side."""
    return 4 if 4 * max(info.width, info.height) <= LARGEST_SIDE else 2


def size_for(
    info: media.VideoInfo,
    *,
    scale: float | None = None,
    width: int | None = None,
    height: int | None = None,
    fit: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """(width, height) of the result, of which one way to say it may be given; the picture's shape stays.

    `width`, `height` and the box `fit` are in pixels as they are shown: of a clip that players turn, turned.
    Raises UpscaleError when the picture would have to be made smaller, or more than 8 times as large.
    """
    if sum(wish is not None for wish in (scale, width, height, fit)) > 1:
        raise UpscaleError("give one of --scale, --width, --height and --fit")
    shown = (info.height, info.width) if info.turned else (info.width, info.height)
    if width is not None or height is not None or fit is not None:
        box = fit or (width or math.inf, height or math.inf)
        scale = min(Fraction(wish, side) for wish, side in zip(box, shown, strict=True) if wish != math.inf)
    elif scale is None:
        scale = default_scale(info)
    lowest, highest = SCALES
    if not lowest <= scale <= highest:
        raise UpscaleError(
            f"scale {float(scale):g}: {shown[0]}x{shown[1]} can be made {lowest} to {highest} times as large"
        )
    return round(info.width * scale), round(info.height * scale)


def target_for(source: media.Source, output: Path | None, scale: float, *, preview: bool = False) -> Path:
    """Where the result goes: `output`, or `clip_x4.mp4` in the folder `output` or, by default, beside `clip.mp4`.

    A source whose kind of file cannot be written becomes an `.mkv`; an animation or pictures, an `.mp4`.
    """
    if output is not None and not output.is_dir():
        return output
    if source.pipe is not None:
        raise UpscaleError("what comes from stdin has no name; give --output a file, or - for stdout")
    path = source.path
    # Numbered pictures are called as their folder is, and the film goes beside that.
    stem, folder = (path.absolute().parent.name, path.parent.parent) if source.is_sequence else (path.stem, path.parent)
    suffix = path.suffix
    if suffix.lower() not in media.CONTAINERS:
        suffix = ".mp4" if source.is_sequence or suffix.lower() in (*ANIMATIONS, *RELATIVES) else ".mkv"
    ending = "preview" if preview else f"x{scale:.4g}"
    return (folder if output is None else output) / f"{stem}_{ending}{suffix}"


def preview_part(
    info: media.VideoInfo, start: float | None, seconds: float
) -> tuple[float | None, float | None, float | None]:
    """Start, end and duration of a preview: from `start` on, or around the middle of the video."""
    if start is None and info.duration is not None:
        start = max(0.0, float(info.duration) / 2 - seconds / 2)
    return start, None, seconds


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


@dataclass(frozen=True)
class Job:
    """One call of `upscale_file`, its arguments checked."""

    info: media.VideoInfo
    target: Path | None
    engines: Sequence["Engine"]
    encoding: media.Encoding
    options: Options
    on_progress: Callable[[Progress], None]
    on_notice: Callable[[str], None]
    elsewhere: Elsewhere | None

    @property
    def name(self) -> str:
        return "stdout" if self.target is None else str(self.target)


def _to_file(job: Job) -> VideoResult:
    work = job.target.with_name(f".{job.target.name.replace('%', '')}.work")
    with ExitStack() as held:
        with media.write_errors(job.name):
            held.enter_context(alone(work, job.name))
        return _in_folder(job, work)


def _in_folder(job: Job, work: Path) -> VideoResult:
    with media.write_errors(job.name):
        length = length_for(job.info)
        journal = Journal(work, _about(job, length), resume=job.options.resume)
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
        notices = [*_known_notices(job), *_rehearse(job, work)]
        for notice in notices:
            job.on_notice(notice)
        if job.elsewhere:
            reader, watch = job.elsewhere.render(job, segments, length)
        else:
            with _reader(job) as reader:
                watch = _run(job, reader, segments)
        segments.close()
        with watch("write"):
            result = _assemble(job, work, segments, reader, notices)
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
    result = _result(job, reader, written, 0, notices)
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


def finisher(encoding: media.Encoding, options: Options) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What makes the picture that is encoded of a source frame and of what the networks made of it."""

    def finished(source: np.ndarray, upscaled: np.ndarray) -> np.ndarray:
        picture = fit(upscaled, encoding.width, encoding.height)
        return side_by_side(source, picture) if options.preview else picture

    return finished


def fit(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bring an upscaled picture (H, W, 3) down to the size asked for.

    One row or column too many, where an odd size was made even, is cut off; a real reduction is averaged over areas,
    which does not alias.
    """
    rows, columns = pixels.shape[:2]
    if 0 <= rows - height <= 1 and 0 <= columns - width <= 1:
        return pixels[:height, :width]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def side_by_side(source: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """The middle of the source (h, w, 3), enlarged bicubically, left of the same part of our picture (H, W, 3)."""
    height, width = ours.shape[:2]
    half = width // 2
    begin = (width - half) // 2
    enlarged = cv2.resize(source, (width, height), interpolation=cv2.INTER_CUBIC)
    both = np.concatenate([enlarged[:, begin : begin + half], ours[:, begin : begin + width - half]], axis=1)
    both[:, half - 1 : half + 1] = np.iinfo(both.dtype).max  # a white line between them
    return both


# --- the journal ---------------------------------------------------------------------------------------------------


def _about(job: Job, length: int) -> dict[str, object]:
    """What decides every pixel of the result, in words: a run goes on only with work that agrees in all of it."""
    encoding, options = job.encoding, job.options
    return {
        "version": [__version__, *av.library_versions["libavcodec"]],
        "input": _fingerprint(job.info.source),
        "network": [engine.fingerprint for engine in job.engines],
        "size": [encoding.width, encoding.height],
        "codec": [encoding.container, encoding.codec, encoding.pixel_format],
        "encoder options": encoding.options,
        "colour": dataclasses.astuple(encoding.colour),
        "part": dataclasses.astuple(options.part),
        "scene threshold": options.threshold,
        "deinterlacing": options.deinterlace,
        "preview": options.preview,
        "segment length": length,
    }


def _fingerprint(source: media.Source) -> str:
    """A hash of a file's bytes; of numbered pictures, of their names, sizes and times."""
    if not source.is_sequence:
        with open(source.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256(str(source.rate).encode())
    for file in sorted(source.path.parent.iterdir()):
        if file.suffix == source.path.suffix:
            about = file.stat()
            digest.update(f"{file.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


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


# --- putting the result together -----------------------------------------------------------------------------------


def _rehearse(job: Job, work: Path) -> list[str]:
    """Begin the result and let go of it: what its container or encoder refuses is known before hours of work."""
    with media.Others(job.info, job.options.part) as others:
        writer = _writer(job, _part(job, work), others)
        writer.abandon()
    return writer.notices


def _assemble(job: Job, work: Path, segments: Segments, reader: media.Reader, notices: Sequence[str]) -> VideoResult:
    part = _part(job, work)
    with media.Others(job.info, job.options.part) as others:
        writer = _writer(job, part, others)
        try:
            writer.assemble(segments.chunks(), segments.stamps(), others.packets(writer.copied))
            writer.close()
        except BaseException:
            writer.abandon()
            raise
    if job.encoding.container == media.SEQUENCE:
        return _settle_pictures(job, part, reader, notices)
    result = _result(job, reader, media.tally(part), len(writer.copied), notices)
    _check_result(result, part, max(job.info.frame_time, reader.last_duration))
    _settle(part, job.target)
    return result


def _writer(job: Job, part: Path, others: media.Others) -> media.Writer:
    audio, tag = job.options.audio, job.options.tag
    return media.Writer(part, job.info, others, job.encoding, name=job.name, audio=audio, tag=tag)


def _part(job: Job, work: Path) -> Path:
    """Where the result grows."""
    if job.encoding.container != media.SEQUENCE:
        return work / f"result{job.target.suffix}"
    folder = work / "pictures"
    folder.mkdir(exist_ok=True)
    return folder / job.target.name


def _result(job: Job, reader: media.Reader, found: media.Tally, streams: int, notices: Sequence[str]) -> VideoResult:
    encoding = job.encoding
    return VideoResult(
        source=job.info.path,
        target=job.target,
        width=encoding.width,
        height=encoding.height,
        codec=encoding.codec,
        pixel_format=encoding.pixel_format,
        frames_in=reader.frames,
        frames_out=found.frames,
        frames_resumed=0,
        duration_in=float(reader.length),
        duration_out=float(found.end - found.first),
        streams_copied=streams,
        seconds={},
        complete=not reader.problems,
        warnings=(*notices, *reader.problems),
    )


def _check_result(result: VideoResult, part: Path, slack: Fraction) -> None:
    """Hold the finished file against what went in; a file that fails is kept under a name of its own.

    Hours of work are not thrown away over a wrong count, but neither does it take the place of a good file.  `slack`
    (s) is what the lengths may differ by, one frame: Matroska does not say how long the last picture stays.
    """
    if result.frames_out == result.frames_in and abs(result.duration_out - result.duration_in) <= slack:
        return
    kept = result.target.with_name(f"{result.target.stem}.unchecked{result.target.suffix}")
    os.replace(part, kept)
    shutil.rmtree(part.parent)
    raise UpscaleError(
        f"{result.target}: the result failed its check ({result.frames_in} frames in, {result.frames_out} out;"
        f" {result.duration_in:.3f} s in, {result.duration_out:.3f} s out); it was left as {kept.name}"
    )


def _settle(part: Path, target: Path) -> None:
    """Put the file on the disk, then give it its name: after a power cut there is the old file or the whole new one."""
    with media.write_errors(str(target)):
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, target)


def _settle_pictures(job: Job, pattern: Path, reader: media.Reader, notices: Sequence[str]) -> VideoResult:
    pictures = sorted(pattern.parent.iterdir())
    if len(pictures) != reader.frames:
        raise UpscaleError(f"{job.target}: {reader.frames} frames in, {len(pictures)} pictures out; start again")
    for picture in pictures:
        _settle(picture, job.target.with_name(picture.name))
    found = media.Tally(len(pictures), Fraction(0), Fraction(0), reader.length)
    return _result(job, reader, found, 0, notices)


# --- checks --------------------------------------------------------------------------------------------------------


def deinterlaces(info: media.VideoInfo, options: Options) -> bool:
    """Whether frames are made whole before they are upscaled."""
    return info.interlaced and options.deinterlace


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
