"""A team of workers, each with a network of its own: hired, given work, replaced when they die, sent home."""

import enum
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from sa_upscale.cluster.schedule import Item, Schedule
from sa_upscale.errors import UpscaleError

WAKE_UP = 0.2  # s; how soon work that was added meanwhile is seen, and Ctrl-C on Windows
PATIENCE = 10.0  # s; after which a worker that is still starting is spoken of
SPARE_DEATHS = 6  # in a row, beyond three for each worker: three poisoned items in turn are none too many
SLOW = 0.5  # of the fastest worker's rate; below it a worker gets the small items


@dataclass(frozen=True)
class Outcome:
    """What became of one task: its result, or why it failed."""

    value: object = None
    error: str | None = None


@dataclass(frozen=True)
class Report:
    """What a worker answers to a bundle: an outcome for each task, and lines for the user."""

    outcomes: Sequence[Outcome]
    notices: Sequence[str] = ()


class Worker(Protocol):
    """What a worker is where it runs.  It is made by a factory, which raises `UpscaleError` for the user's mistakes."""

    def facts(self) -> dict[str, Any]:
        """What the driver checks: `version` at least, and what else has to be the same everywhere."""

    def do(self, tasks: list) -> Report:
        """Do the tasks of one bundle; those that fail are told of, the others are done."""

    def stop(self) -> None:
        """Called while `do` is at work: end it soon, by an exception, and leave nothing half done."""


class Hand(Protocol):
    """A worker as the driver sees it."""

    def start(self) -> Future:
        """Its facts, once it is ready; `UpscaleError` when it cannot be."""

    def do(self, tasks: list) -> Future:
        """Its `Report`."""

    def stop(self) -> None:
        """Ask it to give up what it does, or its beginning."""

    def leave(self) -> None:
        """End it, when it has nothing to do, or a little after it was asked to stop."""


class Crew(Protocol):
    """Where workers run.  Futures of theirs raise one of `deaths` when the worker has died."""

    deaths: tuple[type[BaseException], ...]
    seats: Sequence["Seat"]

    def hire(self, seat: "Seat") -> Hand: ...

    def close(self) -> None: ...


class State(enum.StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    WORKING = "working"
    GONE = "gone"


@dataclass
class Seat:
    """A device, the worker that is there now, and how it does; `slow` is a guess until it has been measured."""

    number: int
    name: str
    slow: bool = False
    hand: Hand | None = None
    state: State = State.STARTING
    label: str = ""  # what it is at
    done: int = 0
    rate: float | None = None  # weight per second


@dataclass(frozen=True)
class Done:
    """An item that is finished, or given up with an `error`."""

    item: Item
    seat: str
    value: object = None
    error: str | None = None


@dataclass
class Team:
    """The workers of a run.  Use it as a context: on leaving, all workers are gone.

    `admit(facts)` raises `UpscaleError` for a worker that does not fit to the others, `name(task)` is shown while
    a task is at work, `on_change(seats)` is called whenever that changes.
    """

    crew: Crew
    admit: Callable[[dict[str, Any]], None]
    name: Callable[[Any], str]
    on_notice: Callable[[str], None]
    on_change: Callable[[Sequence[Seat]], None] | None = None
    _calls: dict[Future, tuple[Seat, list[Item], float]] = field(default_factory=dict)
    deaths: int = 0
    _deaths: int = 0  # since anything was last finished

    def __enter__(self) -> "Team":
        try:
            for seat in self.crew.seats:
                self._hire(seat)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def ready(self, *, everyone: bool = False) -> None:
        """Wait until a first worker has been admitted, or `everyone`."""
        began, told = time.monotonic(), False
        enough = all if everyone else any
        while not enough(seat.state == State.IDLE for seat in self.crew.seats):
            self._settle(Schedule())
            if not told and time.monotonic() - began > PATIENCE:
                self.on_notice("waiting for the first worker to be ready")
                told = True

    def work(self, schedule: Schedule) -> Iterator[Done]:
        """Do all of the schedule; what is finished, in the order in which it is.

        A worker that dies is replaced, and what it had is done by another.  Raises `UpscaleError` when workers die one
        after the other whatever they do.
        """
        while not schedule.over:
            for seat in self.crew.seats:
                if seat.state == State.IDLE:
                    self._give(seat, schedule)
            yield from self._settle(schedule)

    def _hire(self, seat: Seat) -> None:
        seat.hand = self.crew.hire(seat)
        self._calls[seat.hand.start()] = (seat, [], time.monotonic())
        self._change(seat, State.STARTING)

    def _give(self, seat: Seat, schedule: Schedule) -> None:
        others = [other.rate for other in self.crew.seats if other.rate and other.state != State.GONE]
        best = max(others, default=None)
        slow = seat.slow if seat.rate is None or best is None else seat.rate < SLOW * best
        lightest = schedule.lightest()
        if slow and seat.rate and lightest is not None and schedule.waiting / sum(others) < lightest / seat.rate:
            return  # the others are sooner done with all there is than this one with its next
        if bundle := schedule.take(len(self.crew.seats), slow=slow):
            self._calls[seat.hand.do([item.task for item in bundle])] = (seat, bundle, time.monotonic())
            more = f" and {len(bundle) - 1} more" if len(bundle) > 1 else ""
            self._change(seat, State.WORKING, self.name(bundle[0].task) + more)

    def _settle(self, schedule: Schedule) -> Iterator[Done]:
        """See what has been finished meanwhile."""
        finished, _ = wait(self._calls, WAKE_UP, FIRST_COMPLETED) if self._calls else (time.sleep(WAKE_UP), None)
        results: list[Done] = []
        for future in finished or ():
            seat, bundle, began = self._calls.pop(future)
            try:
                answer = future.result()
            except self.crew.deaths as death:
                results += self._died(seat, bundle, schedule, death)
            except UpscaleError as error:
                self._refused(seat, error)
            else:
                if bundle:
                    results += self._finished(seat, bundle, schedule, answer, time.monotonic() - began)
                else:
                    self._admitted(seat, answer)
        return iter(results)

    def _admitted(self, seat: Seat, facts: dict[str, Any]) -> None:
        if (host := facts.get("host", socket.gethostname())) != socket.gethostname() and host not in seat.name:
            seat.name = f"{host} {seat.name}"
        try:
            self.admit(facts)
        except UpscaleError as error:
            self._refused(seat, error)
        else:
            self._change(seat, State.IDLE)

    def _refused(self, seat: Seat, error: UpscaleError) -> None:
        """A worker cannot be used: at the beginning that ends the run, later only this worker."""
        self._change(seat, State.GONE)
        if not any(other.done for other in self.crew.seats) or all(o.state == State.GONE for o in self.crew.seats):
            raise error
        self.on_notice(f"{seat.name} is left out: {error}")

    def _finished(
        self, seat: Seat, bundle: list[Item], schedule: Schedule, report: Report, seconds: float
    ) -> Iterator[Done]:
        self._deaths = 0
        for line in report.notices:
            self.on_notice(f"{seat.name}: {line}")
        seat.rate = sum(item.weight for item in bundle) / max(1e-9, seconds)
        for item, outcome in zip(bundle, report.outcomes, strict=True):
            if outcome.error is None:
                schedule.done(item)
                seat.done += 1
                yield Done(item, seat.name, outcome.value)
            elif not schedule.failed(item):
                yield Done(item, seat.name, outcome.value, outcome.error)
        self._change(seat, State.IDLE)

    def _died(self, seat: Seat, bundle: list[Item], schedule: Schedule, death: BaseException) -> Iterator[Done]:
        how = " ".join(str(death).split())[:200]
        self.deaths += 1
        self._deaths += 1
        if self._deaths > 3 * len(self.crew.seats) + SPARE_DEATHS:
            raise UpscaleError(f"workers die one after the other ({seat.name}: {how}); is there enough memory?")
        self.on_notice(f"{seat.name}: the worker died; another takes its place")
        seat.hand.leave()
        for item in bundle:
            if not schedule.failed(item):
                yield Done(item, seat.name, error=f"its worker died {how and f'({how}) '}each time it was tried")
        self._hire(seat)

    def _change(self, seat: Seat, state: State, label: str = "") -> None:
        seat.state, seat.label = state, label
        if self.on_change:
            self.on_change(self.crew.seats)

    def _leave(self) -> None:
        for future, (seat, *_) in self._calls.items():
            if not future.done():
                seat.hand.stop()
        for seat in self.crew.seats:
            if seat.hand is not None:
                seat.hand.leave()
        self.crew.close()
