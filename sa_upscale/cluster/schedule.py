"""What is still to be done, and who gets which of it next."""

import bisect
import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

TRIES = 3
"""An item that fails this often is given up."""

PARTS = 4
"""Into how many bundles for each worker what is left is cut at most: the last ones are small, so all end together."""


@dataclass(frozen=True)
class Item:
    """One thing to be done: its number, its size in any unit, and what the worker is given."""

    number: int
    weight: float
    task: object


class Schedule:
    """Hands out the largest first, in bundles of at most `together`; what fails comes back, three times.

    Items may be added at any time, from any thread, until `close`.
    """

    def __init__(self, items: Iterable[Item] = (), *, together: int = 1):
        self._together = together
        self._lock = threading.Lock()
        self._waiting: list[Item] = []  # the largest last; of equals the first
        self._again: deque[Item] = deque()
        self._tries: Counter[int] = Counter()
        self._weight = 0.0
        self._out = 0
        self._open = True
        self.add(items)

    def add(self, items: Iterable[Item]) -> None:
        """Take more to be done."""
        with self._lock:
            for item in items:
                bisect.insort(self._waiting, item, key=_order)
                self._weight += item.weight

    def close(self) -> None:
        """No more items will come."""
        with self._lock:
            self._open = False

    @property
    def over(self) -> bool:
        """Whether all there is has been done or given up."""
        with self._lock:
            return not (self._open or self._waiting or self._again or self._out)

    @property
    def waiting(self) -> float:
        """The weight of what nobody has yet."""
        with self._lock:
            return self._weight

    def lightest(self) -> float | None:
        """The weight of the smallest item that waits."""
        with self._lock:
            return self._waiting[0].weight if self._waiting else None

    def take(self, workers: int = 1, *, slow: bool = False) -> list[Item]:
        """The next bundle for one of so many `workers`; nothing when nothing waits.

        A `slow` one gets the smallest item: with the largest it would be at work when all others are done.  What has
        failed before travels alone, so that it takes nothing down with it.
        """
        with self._lock:
            if self._again:
                bundle = [self._again.popleft()]
            elif slow and self._waiting:
                bundle = [self._waiting.pop(0)]
            else:
                bundle = self._largest(workers)
            self._weight -= sum(item.weight for item in bundle)
            self._out += len(bundle)
            return bundle

    def done(self, item: Item) -> None:
        """This one is finished."""
        with self._lock:
            self._out -= 1

    def failed(self, item: Item) -> bool:
        """This one failed; whether it comes back for another try."""
        with self._lock:
            self._out -= 1
            self._tries[item.number] += 1
            again = self._tries[item.number] < TRIES
            if again:
                self._again.append(item)
                self._weight += item.weight
            return again

    def _largest(self, workers: int) -> list[Item]:
        share = self._weight / (PARTS * workers)
        bundle: list[Item] = []
        held = 0.0
        while self._waiting and len(bundle) < self._together:
            if bundle and held + self._waiting[-1].weight > share:
                break
            bundle.append(self._waiting.pop())
            held += bundle[-1].weight
        return bundle


def _order(item: Item) -> tuple[float, int]:
    return item.weight, -item.number
