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

    Each has its part of the processor meanwhile: all of torch's threads on one task would wait for the one that a codec
    or another program holds up, and for what the task does in a single thread.  An error of `work` is raised in the
    place of its result.  Closed early, it waits for what is being worked on: a process that ends while a thread of its
    is in a network is aborted.
    """
    import torch  # here, so that the package can be looked at without it

    begun: deque[tuple[Task, Future]] = deque()
    tasks = iter(tasks)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // lanes))
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
        torch.set_num_threads(threads)


def _awaited(result: Future) -> object:
    while not result.done():
        wait([result], WAKE_UP)
    return result.result()
