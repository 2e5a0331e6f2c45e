"""Upscale a video: decode, network and encode side by side, everything else in the container kept, the result checked.

Three threads share the work.  One decodes, the caller's runs the network, one encodes; bounded channels between them
keep the memory small and the network busy.  The file grows under a temporary name and takes its own once it is whole.
"""

import dataclasses
import math
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sa_upscale import media
from sa_upscale.errors import UpscaleError

if TYPE_CHECKING:
    from sa_upscale.engine import Engine

LARGEST_SIDE = 4096  # pixels; what most players and their hardware decoders take
SCALES = (1, 8)
CHANNEL_FRAMES = 4  # enough to ride out an uneven frame or two; a 4K frame in 16 bits is 50 MB
WAKE_UP = 0.5  # s; a wait without a limit would not see Ctrl-C on Windows


@dataclass(frozen=True)
class VideoResult:
    """What came of a run: durations in seconds; `complete` is False where part of the source was lost.

    `frames_in` counts the frames decoded, `frames_out` those found in the finished file.  `warnings` holds one line
    for each thing that the result lacks.
    """

    source: Path
    target: Path
    width: int
    height: int
    codec: str
    pixel_format: str
    frames_in: int
    frames_out: int
    duration_in: float
    duration_out: float
    streams_copied: int
    complete: bool
    warnings: tuple[str, ...]


def default_scale(source: Path) -> int:
    """4, or 2 where ×4 would pass 4096 pixels on the long side."""
    info = media.probe(Path(source))
    return 4 if 4 * max(info.width, info.height) <= LARGEST_SIDE else 2


def target_for(source: Path, output: Path | None, scale: float) -> Path:
    """Where the result goes: `output`, or `clip_x4.mp4` in the folder `output` or, by default, beside `clip.mp4`.

    A source whose kind of file cannot be written becomes an `.mkv`.
    """
    source = Path(source)
    if output is not None and not output.is_dir():
        return output
    suffix = source.suffix if source.suffix.lower() in media.CONTAINERS else ".mkv"
    return (source.parent if output is None else output) / f"{source.stem}_x{scale:g}{suffix}"


def upscale_file(
    source: Path,
    target: Path,
    engine: "Engine | Sequence[Engine]",
    *,
    scale: float,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    start: float | None = None,
    duration: float | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> VideoResult:
    """Upscale the video in `source` by `scale` (1 to 8, whole or fractional) into `target`.

    `engine` is the video or image network, or several to be run one after the other where one is not enough; beyond
    the scale they give together nothing is invented.  `start` and `duration` (s) choose a part.  `on_progress` gets
    the frames done and their probable number (None: unknown), `on_notice` one line for each thing the user should know
    at once.

    A source that breaks off is upscaled as far as it goes, with `complete` False.  Raises UpscaleError for what cannot
    be read, encoded or written; the target, if there was one, is then as it was.
    """
    source, target = Path(source), Path(target)
    engines = list(engine) if isinstance(engine, Sequence) else [engine]
    _check_scale(scale, engines)
    info = media.probe(source)
    _check_target(source, target)
    encoding = media.plan(info, target, scale, codec=codec, crf=crf, preset=preset)
    notify = on_notice or _ignore
    part = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        with media.Reader(info, start=start, duration=duration) as reader:
            writer = media.Writer(part, reader, encoding, target=target)
            notices = [*info.notices, *encoding.notices, *writer.notices]
            for notice in notices:
                notify(notice)
            try:
                span = _run(reader, writer, engines, on_progress or _ignore)
            except BaseException:
                writer.abandon()
                raise
        result = _result(target, reader, writer, span, media.tally(part), notices)
        _check_result(result, part, max(info.frame_time, span.last_duration * info.time_base))
        _settle(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    for problem in reader.problems:
        notify(problem)
    return result


# --- the pipeline --------------------------------------------------------------------------------------------------


class _Stopped(Exception):
    """The other side of a channel gave up; the reason is kept by the worker that failed."""


class Channel:
    """A first-in, first-out queue between two threads, bounded in frames, that either side can end.

    Frames weigh 1.  Packets of other streams weigh nothing: they are small, and a run of them must not hold up the
    pictures.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._weight = 0
        self._items: deque[tuple[object, int]] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._stopped = False

    def put(self, item: object, weight: int = 1) -> None:
        """Append an item once there is room for its weight."""
        with self._changed:
            while weight and self._weight >= self._limit and not self._stopped:
                self._changed.wait(WAKE_UP)
            if self._stopped:
                raise _Stopped
            self._items.append((item, weight))
            self._weight += weight
            self._changed.notify_all()

    def __iter__(self) -> Iterator[object]:
        """Items as they come, until `finish`; ends with an error at once after `stop`."""
        while True:
            with self._changed:
                while not self._items and not self._finished and not self._stopped:
                    self._changed.wait(WAKE_UP)
                if self._stopped:
                    raise _Stopped
                if not self._items:
                    return
                item, weight = self._items.popleft()
                self._weight -= weight
                self._changed.notify_all()
            yield item

    def finish(self) -> None:
        """No more items will come; those in the queue are still handed out."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Give up: whoever waits on the channel, or comes back to it, gets an error."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class Worker:
    """A thread that stops the given channels when its work fails, and keeps the reason for the caller."""

    def __init__(self, name: str, work: Callable[[], None], channels: Sequence[Channel]):
        self.error: BaseException | None = None
        self._work = work
        self._channels = channels
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except _Stopped:
            return
        except BaseException as error:  # whatever it is, the caller's thread raises it
            self.error = error
            for channel in self._channels:
                channel.stop()

    def join(self) -> None:
        """Wait until the work is done or given up."""
        while self._thread.is_alive():
            self._thread.join(WAKE_UP)


@dataclass
class _Span:
    """First and last frame that went through, in time-base units: what the result's duration is held against."""

    first: int | None = None
    last: int = 0
    last_duration: int = 0


def _run(
    reader: media.Reader,
    writer: media.Writer,
    engines: Sequence["Engine"],
    on_progress: Callable[[int, int | None], None],
) -> _Span:
    """Push every frame through the network; on return the file is finished and closed."""
    decoded, upscaled = Channel(CHANNEL_FRAMES), Channel(CHANNEL_FRAMES)
    channels = (decoded, upscaled)

    def decode() -> None:
        for event in reader.events(writer.copied):
            decoded.put(event, weight=int(isinstance(event, media.Frame)))
        decoded.finish()

    def encode() -> None:
        for event in upscaled:
            if isinstance(event, media.Frame):
                writer.write_frame(event)
            else:
                writer.write_packet(event)
        writer.close()

    workers = [Worker("decode", decode, channels), Worker("encode", encode, channels)]
    span = _Span()
    try:
        _upscale(decoded, upscaled, engines, writer.encoding, reader.total, span, on_progress)
        upscaled.finish()
        workers[1].join()
    except _Stopped:
        pass  # a worker failed; its error is raised below
    finally:
        for channel in channels:
            channel.stop()
        for worker in workers:
            worker.join()
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    return span


def _upscale(
    decoded: Channel,
    upscaled: Channel,
    engines: Sequence["Engine"],
    encoding: media.Encoding,
    total: int | None,
    span: _Span,
    on_progress: Callable[[int, int | None], None],
) -> None:
    """The caller's own part: prepare each frame once, run the windows, hand on the rest as it comes."""
    first, *further = engines

    def prepared() -> Iterator[tuple[media.Frame, object]]:
        for event in decoded:
            if isinstance(event, media.Frame):
                yield event, first.prepare(event.pixels)
            else:
                upscaled.put(event, weight=0)

    for done, window in enumerate(media.windows(prepared(), first.window), start=1):
        frame, _ = window[len(window) // 2]
        pixels = first.run_prepared([handle for _, handle in window])
        for engine in further:
            pixels = engine.run(pixels)
        pixels = fit(pixels, encoding.width, encoding.height)
        upscaled.put(dataclasses.replace(frame, pixels=pixels))
        span.first = frame.pts if span.first is None else span.first
        span.last, span.last_duration = frame.pts, frame.duration
        on_progress(done, total if total is None else max(total, done))


def fit(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bring an upscaled picture (H, W, 3) down to the size asked for.

    One row or column too many, where an odd size was made even, is cut off; a real reduction is averaged over areas,
    which does not alias.
    """
    rows, columns = pixels.shape[:2]
    if 0 <= rows - height <= 1 and 0 <= columns - width <= 1:
        return pixels[:height, :width]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


# --- checks --------------------------------------------------------------------------------------------------------


def _check_scale(scale: float, engines: Sequence["Engine"]) -> None:
    lowest, highest = SCALES
    if not lowest <= scale <= highest:
        raise UpscaleError(f"scale {scale:g}: give a number from {lowest} to {highest}")
    native = math.prod(engine.scale for engine in engines)
    if scale > native:
        raise UpscaleError(f"scale {scale:g}: the network gives x{native}; choose one with a larger scale")
    if any(engine.window != 1 for engine in engines[1:]):
        raise ValueError("only the first network may look at several frames")


def _check_target(source: Path, target: Path) -> None:
    if target.is_dir():
        raise UpscaleError(f"{target} is a folder; name the video file to write")
    if target.exists() and target.samefile(source):
        raise UpscaleError(f"{target}: the output is the input; give it another name")
    if not target.parent.is_dir():
        raise UpscaleError(f"{target.parent}: no such folder; make it first")
    if not os.access(target.parent, os.W_OK):
        raise UpscaleError(f"{target.parent}: no permission to write there")


def _result(
    target: Path,
    reader: media.Reader,
    writer: media.Writer,
    span: _Span,
    found: media.Tally,
    notices: Sequence[str],
) -> VideoResult:
    info, encoding = reader.info, writer.encoding
    last = span.last_duration * info.time_base or info.frame_time
    length = (span.last - (span.first or 0)) * info.time_base + last
    return VideoResult(
        source=info.path,
        target=target,
        width=encoding.width,
        height=encoding.height,
        codec=encoding.codec,
        pixel_format=encoding.pixel_format,
        frames_in=reader.frames,
        frames_out=found.frames,
        duration_in=float(length),
        duration_out=float(found.end - found.first),
        streams_copied=len(writer.copied),
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
    raise UpscaleError(
        f"{result.target}: the result failed its check ({result.frames_in} frames in, {result.frames_out} out;"
        f" {result.duration_in:.3f} s in, {result.duration_out:.3f} s out); it was left as {kept.name}"
    )


def _settle(part: Path, target: Path) -> None:
    """Put the file on the disk, then give it its name: after a power cut there is the old file or the whole new one."""
    try:
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        raise UpscaleError(f"{target} cannot be written: {error.strerror}") from None


def _ignore(*_: object) -> None:
    """Where the caller does not want to know."""
