"""Three threads share the work: one decodes, the caller's runs the network, one encodes.

Bounded channels between them keep the memory small, whatever the clip's length, and the network busy.
"""

import dataclasses
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sa_upscale import media
from sa_upscale.functional import scenes

if TYPE_CHECKING:
    from sa_upscale.engine import Engine

CHANNEL_FRAMES = 4  # enough to ride out an uneven frame or two; a 4K frame in 16 bits is 50 MB
NICENESS = 10  # of the codecs' threads
WAKE_UP = 0.5  # s; a wait without a limit would not see Ctrl-C on Windows
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

    @contextmanager
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
        for done, shown in enumerate(_upscaled(decoded, engines, wanted, watch), start=skip + 1):
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


def _upscaled(decoded: "Channel", engines: Sequence["Engine"], wanted: slice, watch: Stopwatch) -> Iterator[Shown]:
    """The wanted of the decoded frames, upscaled; each is prepared once, those around the wanted are looked at."""
    first, *further = engines

    def prepared() -> Iterator[Shown]:
        for shown in decoded:
            with watch("network"):
                handle = first.prepare(shown.frame.pixels)
            yield dataclasses.replace(shown, handle=handle)

    around = media.windows(prepared(), first.window, lambda before, after: after.cut)
    windows = itertools.islice(around, wanted.start, wanted.stop)
    for window in windows:
        shown = window[len(window) // 2]
        rest = itertools.islice(windows, first.frames_at_once(shown.frame.pixels) - 1)
        batch = [shown, *(only for (only,) in rest)]
        with watch("network"):
            if len(batch) > 1:
                made = first.run_batch([member.frame.pixels for member in batch])
            else:
                made = [first.run_prepared([member.handle for member in window])]
        for member, pixels in zip(batch, made, strict=True):
            for engine in further:
                with watch("network"):
                    pixels = engine.run(pixels)  # noqa: PLW2901
            yield dataclasses.replace(member, handle=None, pixels=pixels)


class Stopped(Exception):
    """The other side of a channel gave up; the reason is kept by the worker that failed."""


class Channel:
    """A first-in, first-out queue between two threads, of at most `limit` items, that either side can end."""

    def __init__(self, limit: int):
        self._limit = limit
        self._items: deque[object] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._stopped = False

    def put(self, item: object) -> None:
        """Append an item once there is room."""
        with self._changed:
            while len(self._items) >= self._limit and not self._stopped:
                self._changed.wait(WAKE_UP)
            if self._stopped:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[object]:
        """Items as they come, until `finish`; ends with an error at once after `stop`."""
        while True:
            with self._changed:
                while not self._items and not self._finished and not self._stopped:
                    self._changed.wait(WAKE_UP)
                if self._stopped:
                    raise Stopped
                if not self._items:
                    return
                item = self._items.popleft()
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
        _stand_back()
        try:
            self._work()
        except Stopped:
            return
        except BaseException as error:  # whatever it is, the caller's thread raises it
            self.error = error
            for channel in self._channels:
                channel.stop()

    def join(self) -> None:
        """Wait until the work is done or given up."""
        while self._thread.is_alive():
            self._thread.join(WAKE_UP)


def _stand_back() -> None:
    """Let the network go first on the processor: what this thread, and those that a codec starts from it, do can wait.

    A network's threads wait for each other, so one that is held up holds up all.
    """
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
