"""Workers that are processes of this machine: one pool of the standard library's for each, so that one may die."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from sa_upscale.cluster.pool import Report, Seat, Worker

GRACE = 10.0  # s; what is given up has so long to leave nothing behind

_own: list[Worker] = []  # the worker of this process, where it is one


class Processes:
    """A worker for each of the `seats`, made by `factory(*arguments)` with the arguments of that seat's number."""

    deaths = (BrokenProcessPool,)

    def __init__(self, seats: Sequence[Seat], factory: Callable[..., Worker], arguments: Sequence[tuple]):
        self.seats = seats
        self._factory, self._arguments = factory, arguments

    def hire(self, seat: Seat) -> "Process":
        return Process(self._factory, self._arguments[seat.number])

    def close(self) -> None:
        """Nothing is left: every process has been seen to its end."""


class Process:
    """One process with a worker in it."""

    def __init__(self, factory: Callable[..., Worker], arguments: tuple):
        self._making = factory, arguments
        # Not forked: CUDA and the threads of OpenCV do not survive that.
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, spawn, _settle_in)
        with _unheard():
            self._pid = self._pool.submit(os.getpid)

    def start(self) -> Future:
        return self._pool.submit(_start, *self._making)

    def do(self, tasks: list) -> Future:
        return self._pool.submit(_do, tasks)

    def stop(self) -> None:
        self._send(signal.SIGTERM)

    def leave(self) -> None:
        limit = threading.Timer(GRACE, self._send, [getattr(signal, "SIGKILL", signal.SIGTERM)])
        limit.start()
        self._pool.shutdown(cancel_futures=True)
        limit.cancel()

    def _send(self, number: int) -> None:
        with contextlib.suppress(BrokenProcessPool, ProcessLookupError):
            os.kill(self._pid.result(), number)


@contextlib.contextmanager
def _unheard():
    """A process that begins meanwhile never hears Ctrl-C, which goes to all processes of a terminal: we tell it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# --- in the process --------------------------------------------------------------------------------------------------


def _settle_in() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end(*_: object) -> None:
    if not _own:
        os._exit(1)
    _own[0].stop()


def _follow(parent) -> None:
    """End when the program that began this process has ended, however it did."""
    parent.join()
    os._exit(1)


def _start(factory: Callable[..., Worker], arguments: tuple) -> dict:
    _own[:] = [factory(*arguments)]
    return _own[0].facts()


def _do(tasks: list) -> Report:
    return _own[0].do(tasks)
