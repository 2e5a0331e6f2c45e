"""Threads share the work: one decodes, the caller's runs the network or hands it to several, one encodes.

Bounded channels between them keep the memory small, whatever the clip's length, and the network busy.
"""

import contextlib
import dataclasses
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sa_upscale import media
from sa_upscale.functional import scenes
from sa_upscale.lanes import in_lanes
from sa_upscale.video.threads import Channel, Stopped, Worker

if TYPE_CHECKING:
    from sa_upscale.engine import Engine

CHANNEL_FRAMES = 4  # enough to ride out an uneven frame or two; a 4K frame in 16 bits is 50 MB
CONTEXT = 2 + scenes.FLASH + 1  # frames before one whose windows and cuts depend on them


class Sink(Protocol):
    """Where upscaled frames go."""

    def write(self, frame: media.Frame) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True)
class Shown:
    """A frame on its way: as decoded, as the engine wants it, as upscaled; and whether a shot begins with it."""

    frame: media.Frame
    cut: bool
    handle: object = None
    pixels: np.ndarray | None = None


class Stopwatch:
    """Seconds that each kind of work took; each kind is measured by one thread."""

    def __init__(self):
        self.seconds = {"decode": 0.0, "network": 0.0, "encode": 0.0, "write": 0.0}

    @contextlib.contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[kind] += time.perf_counter() - began

    def each(self, kind: str, items: Iterable) -> Iterator:
        """The items, the time that making them takes counted."""
        items = iter(items)
        while True:
            with self(kind):
                item = next(items, None)
            if item is None:
                return
            yield item


class Interrupted(Exception):
    """The user asked to stop; `done` frames have gone through the network."""

    def __init__(self, done: int):
        super().__init__(done)
        self.done = done


def run(
    reader: media.Reader,
    sink: Sink,
    engines: Sequence["Engine"],
    finished: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    skip: int = 0,
    count: int | None = None,
    threshold: float | None = scenes.CUT,
    on_frame: Callable[[int], None],
    stop: Callable[[], bool],
) -> Stopwatch:
    """Push every frame but the first `skip`, at most `count` of them, through the engines into the sink; finish that.

    The first engine may look at several frames, none of which is then from another shot by the `threshold` of
    `scenes.cuts`; None takes the clip for one shot.  `finished(source, upscaled)` makes the picture that is encoded,
    on the encoder's thread.  `on_frame` gets the frames done; once `stop` says so, `Interrupted` is raised.
    """
    decoded, upscaled = Channel(CHANNEL_FRAMES), Channel(CHANNEL_FRAMES)
    channels = (decoded, upscaled)
    watch = Stopwatch()
    begin = max(0, skip - CONTEXT)
    if engines[0].window == 1:
        threshold = None

    def decode() -> None:
        for shown in watch.each("decode", marked(reader.events(begin), threshold)):
            if shown.frame.pixels is not None:
                decoded.put(shown)
        decoded.finish()

    def encode() -> None:
        for shown in upscaled:
            with watch("encode"):
                pixels = finished(shown.frame.pixels, shown.pixels)
                sink.write(dataclasses.replace(shown.frame, pixels=pixels))
        with watch("encode"):
            sink.finish()

    def network() -> None:
        wanted = slice(skip - begin, None if count is None else skip - begin + count)
        with contextlib.closing(_upscaled(decoded, engines, wanted, watch)) as made:
            for done, shown in enumerate(made, start=skip + 1):
                upscaled.put(shown)
                on_frame(done)
                if stop():
                    raise Interrupted(done)
        upscaled.finish()

    workers = [Worker("decode", decode, channels), Worker("encode", encode, channels)]
    try:
        network()
        workers[1].join()
    except Stopped:
        pass  # a worker failed; its error is raised below
    finally:
        for channel in channels:
            channel.stop()
        for worker in workers:
            worker.join()
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    return watch


def marked(frames: Iterable[media.Frame], threshold: float | None) -> Iterator[Shown]:
    """The frames, each with whether a shot begins with it; those without pixels are not looked at."""
    frames = iter(frames)
    for frame in frames:
        if frame.pixels is not None and threshold is not None:
            frames = itertools.chain([frame], frames)
            break
        yield Shown(frame, cut=False)
    looked_at: deque[media.Frame] = deque()

    def pictures() -> Iterator[np.ndarray]:
        for frame in frames:
            looked_at.append(frame)
            yield frame.pixels

    for cut in scenes.cuts(pictures(), threshold):
        yield Shown(looked_at.popleft(), cut)


def _upscaled(decoded: Channel, engines: Sequence["Engine"], wanted: slice, watch: Stopwatch) -> Iterator[Shown]:
    """The wanted of the decoded frames, upscaled; each is prepared once, those around the wanted are looked at."""
    first, *further = engines

    def prepared() -> Iterator[Shown]:
        for shown in decoded:
            with watch("network"):
                handle = first.prepare(shown.frame.pixels)
            yield dataclasses.replace(shown, handle=handle)

    around = media.windows(prepared(), first.window, lambda before, after: after.cut)
    windows = itertools.islice(around, wanted.start, wanted.stop)

    def made(batch: Batch) -> Iterator[np.ndarray]:
        if len(batch.members) > 1:
            upscaled = first.run_batch([member.frame.pixels for member in batch.members])
        else:
            upscaled = [first.run_prepared([member.handle for member in batch.window])]
        for pixels in upscaled:
            for engine in further:
                pixels = engine.run(pixels)  # noqa: PLW2901
            yield pixels

    begin = next(windows, None)
    if begin is None:
        return
    pixels = begin[len(begin) // 2].frame.pixels
    batches = _batches(itertools.chain([begin], windows), first.frames_at_once(pixels))
    size = pixels.nbytes * math.prod(engine.scale for engine in engines) ** 2
    lanes = min(engine.lanes(size) for engine in engines)
    if lanes > 1:
        each = _in_lanes(made, batches, lanes, watch)
    else:
        each = ((batch, watch.each("network", made(batch))) for batch in batches)
    with contextlib.closing(each):
        for batch, upscaled in each:
            for member, pixels in zip(batch.members, upscaled, strict=True):
                yield dataclasses.replace(member, handle=None, pixels=pixels)


@dataclass(frozen=True)
class Batch:
    """What goes through the network at once: one window of frames, or several frames that are looked at alone."""

    window: Sequence[Shown]
    members: Sequence[Shown]


def _batches(windows: Iterator[Sequence[Shown]], at_once: int) -> Iterator[Batch]:
    for window in windows:
        rest = itertools.islice(windows, at_once - 1)
        yield Batch(window, [window[len(window) // 2], *(only for (only,) in rest)])


def _in_lanes(
    made: Callable[[Batch], Iterator[np.ndarray]], batches: Iterator[Batch], lanes: int, watch: Stopwatch
) -> Iterator[tuple[Batch, list[np.ndarray]]]:
    """The batches and what is made of them, several worked on at once."""

    def work(batch: Batch) -> tuple[list[np.ndarray], float]:
        began = time.perf_counter()
        return list(made(batch)), time.perf_counter() - began

    with contextlib.closing(in_lanes(work, batches, lanes)) as results:
        for batch, (pixels, seconds) in results:
            watch.seconds["network"] += seconds / lanes
            yield batch, pixels
