"""Several tasks worked on at once, by threads of this process."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

WAKE_UP = 0.5  # s; a wait without a limit would not see Ctrl-C on Windows

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_lanes(
    work: Callable[[Task], Result], tasks: Iterable[Task], lanes: int, ahead: int = 1
) -> Iterator[tuple[Task, Result]]:
    """Each task and what `work` makes of it, in order; `lanes` of them are worked on at once, `ahead` more may wait.

    An error of `work` is raised in the place of its result.  Closed early, it waits for what is being worked on: a
    process that ends while a thread of its is in a network is aborted.
    """
    begun: deque[tuple[Task, Future]] = deque()
    tasks = iter(tasks)
    executor = ThreadPoolExecutor(lanes, "lane")
    try:
        while True:
            for task in itertools.islice(tasks, lanes + ahead - len(begun)):
                begun.append((task, executor.submit(work, task)))
            if not begun:
                return
            task, result = begun.popleft()
            yield task, _awaited(result)
    finally:
        executor.shutdown(cancel_futures=True)


def _awaited(result: Future) -> object:
    while not result.done():
        wait([result], WAKE_UP)
    return result.result()
