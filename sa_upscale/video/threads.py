"""Threads, and what passes between them."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from sa_upscale.lanes import WAKE_UP

NICENESS = 10  # of the codecs' threads


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
    """A thread that stops the given channels when its work fails, and keeps the reason for the caller.

    It leaves the processor to those of the network, as far as the system can tell threads apart.
    """

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
