"""Two ways of doing one thing, timed in turn: machines drift and are shared, so that only ratios within a run hold."""

import statistics
import time
from collections.abc import Callable

import torch


def fastest(work: Callable[[], object], *, device: str = "cpu", least: float = 0.2) -> float:
    """Seconds of the fastest of several runs, at least three and `least` seconds of them: for ceilings only."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def once() -> None:
        work()
        wait()

    once()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        times.append(seconds_of(once))
    return min(times)


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def pairwise(ours: Callable[[], object], other: Callable[[], object], runs: int) -> dict[str, float]:
    """Median seconds of both and the median of their ratios, run in turn after one warm-up each."""
    ours(), other()
    pairs = [(seconds_of(ours), seconds_of(other)) for _ in range(runs)]
    ratios = sorted(mine / theirs for mine, theirs in pairs)
    return {
        "ours": statistics.median(mine for mine, _ in pairs),
        "other": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
    }
