"""Several workers against one, what the engine costs, and what killed workers change.

`speedup`   two single-core workers against one on 40 equal pictures, taking turns; each with a core of its own
`speedup, any core`  the same where workers may use all cores, as on a Ray cluster that others use, too
`overhead`  what the engine adds to each item, with a worker that does nothing
`many`      10 000 items: time for each, and the peak of the driver's memory
`kill`      a folder of pictures during which no, one or two workers are killed
"""

import argparse
import functools
import hashlib
import itertools
import json
import os
import resource
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from sa_upscale import __version__
from sa_upscale.cluster import processes, rays
from sa_upscale.cluster.pool import Outcome, Report, Seat, Team
from sa_upscale.cluster.schedule import Item, Schedule
from sa_upscale.cluster.setup import Setup, shares

ENGINES = ("processes", "ray")
MODEL = "compact-x4"


class Sleeper:
    """A worker that sleeps for as many seconds as its task says, in place of a network."""

    def facts(self) -> dict:
        return {"version": __version__}

    def do(self, tasks: list) -> Report:
        for seconds in tasks:
            time.sleep(seconds)
        return Report([Outcome(seconds) for seconds in tasks])

    def stop(self) -> None:
        """Nothing is left half done."""


def sleepers(engine: str, count: int, address: str | None = None):
    """A crew of so many."""
    seats = [Seat(number, f"sleeper {number + 1}") for number in range(count)]
    if engine == "processes":
        return processes.Processes(seats, Sleeper, [()] * count)
    need = {"cpus": 1 if address is None else 0.01, "gpus": 0}
    return rays.Actors(rays.Cluster(address), seats, Sleeper, [()] * count, [need] * count)


def slept(engine: str, seconds: list[float], workers: int, *, together: int, address: str | None = None) -> float:
    """Seconds that the tasks take, all workers being ready."""
    with Team(sleepers(engine, workers, address), lambda facts: None, str, print) as team:
        team.ready(everyone=True)
        schedule = Schedule((Item(at, max(1e-6, task), task) for at, task in enumerate(seconds)), together=together)
        schedule.close()
        began = time.perf_counter()
        assert sum(done.error is None for done in team.work(schedule)) == len(seconds)
        return time.perf_counter() - began


def overhead(count: int = 500) -> dict:
    """Milliseconds for each item of no work, one by one and in bundles, with one worker."""
    return {
        f"{engine}, {together} at once": 1000 * slept(engine, [0.0] * count, 1, together=together) / count
        for engine in ENGINES
        for together in (1, 8)
    }


def many(count: int = 10_000) -> dict:
    """Milliseconds for each of many items, and megabytes of the driver at its peak."""
    return {
        engine: {
            "ms": 1000 * slept(engine, [0.0] * count, 2, together=8) / count,
            "driver MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
            "largest worker MB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000,
        }
        for engine in ENGINES
    }


def photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Equal pictures with the detail of photographs: blurred noise of several sizes."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    layers = [
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
        for side in (4, 20, 90)
    ]
    picture = Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8))
    for index in range(count):
        picture.save(folder / f"{index:03}.png")


def speedup(apart: bool, engines=ENGINES, count: int = 40, rounds: int = 4, size: tuple[int, int] = (256, 256)) -> dict:
    """Two single-core workers against one on equal pictures: rounds in which the two sides take turns.

    One team of two stays; the side of one worker uses the first of them only.  "cores" is how many of the machine's
    were busy meanwhile, whoever kept them so: beyond the number of workers, it was not theirs alone.  Without cores of
    their own (not `apart`), one worker reads and writes on the second core while its network is at work.
    """
    found = {}
    with tempfile.TemporaryDirectory() as name:
        jobs, factory = _folder(Path(name), count, size)
        for engine in engines:
            seconds: dict[int, list[float]] = {1: [], 2: []}
            busy: dict[int, list[float]] = {1: [], 2: []}
            with _pair(engine, factory, apart) as team:
                _round(team, jobs[:8], 2)
                for sides in itertools.islice(itertools.cycle([(1, 2), (2, 1)]), rounds):
                    for workers in sides:
                        before = _busy_seconds()
                        seconds[workers].append(_round(team, jobs, workers))
                        busy[workers].append((_busy_seconds() - before) / seconds[workers][-1])
            pairs = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
            found[engine] = {
                "one": statistics.median(seconds[1]),
                "two": statistics.median(seconds[2]),
                "ratio": statistics.median(pairs),
                "pairs": pairs,
                "cores": {workers: statistics.median(busy[workers]) for workers in (1, 2)},
            }
    return found


def _folder(folder: Path, count: int, size: tuple[int, int]) -> tuple[list, Callable]:
    """The jobs of a new folder of equal pictures, and what makes workers for them."""
    from sa_upscale import upscale
    from sa_upscale.cluster import pictures

    photos(folder / "in", count, size)
    (folder / "out").mkdir()
    jobs = upscale.plan_jobs([folder / "in"], folder / "out", size=upscale.Size(4))
    return jobs, functools.partial(pictures.PictureWorker, order=pictures.Order(upscale.Size(4)))


def _pair(engine: str, factory: Callable, apart: bool = True) -> Team:
    """A team of two single-core workers."""
    seats = [Seat(number, f"core {number + 1}") for number in range(2)]
    given = [(Setup(MODEL, {}), share) for share in shares(["cpu"] * 2, [1] * 2, apart=apart)]
    if engine == "processes":
        crew = processes.Processes(seats, factory, given)
    else:
        crew = rays.Actors(rays.Cluster(), seats, factory, given, [{"cpus": 1, "gpus": 0}] * 2)
    return Team(crew, lambda facts: None, str, print)


def _round(team: Team, jobs: list, workers: int) -> float:
    """Seconds for the jobs with the first so many workers of the team."""
    team.ready(everyone=True)
    kept = team.crew.seats
    team.crew.seats = kept[:workers]
    schedule = Schedule((Item(at, 1.0, job) for at, job in enumerate(jobs)), together=8)
    schedule.close()
    began = time.perf_counter()
    failed = [done.error for done in team.work(schedule) if done.error]
    seconds = time.perf_counter() - began
    team.crew.seats = kept
    assert not failed, failed
    return seconds


def _busy_seconds() -> float:
    """Of all cores of this machine together, since it began, without what waited for disks."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return sum((user, nice, system, *interrupts)) / os.sysconf("SC_CLK_TCK")


def kill(count: int = 24) -> list[dict]:
    """A folder of pictures while no, one and two workers are killed: seconds, and whether the results are the same."""
    rows, expected = [], None
    for engine, killed in itertools.product(ENGINES, (0, 1, 2)):
        with tempfile.TemporaryDirectory() as name:
            jobs, factory = _folder(Path(name), count, (256, 256))
            team = _pair(engine, factory)
            pids: list[int] = []
            team.admit = lambda facts, pids=pids: pids.append(facts["pid"])
            with team:
                team.ready(everyone=True)
                for pid, after in zip(pids[:killed], (1.0, 2.0), strict=False):
                    threading.Timer(after, os.kill, (pid, signal.SIGKILL)).start()
                seconds = _round(team, jobs, 2)
            files = sorted((Path(name) / "out").glob("[!.]*"))
            digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        expected = expected or digests
        rows.append({"engine": engine, "killed": killed, "seconds": seconds, "same": digests == expected})
    return rows


MEASURES = {
    "speedup": lambda _: speedup(True),
    "speedup, any core": lambda _: speedup(False),
    "overhead": lambda _: overhead(),
    "many": lambda _: many(),
    "kill": lambda _: kill(),
}


def measure(program: str, about: str, measures: dict[str, Callable[[dict], object]]) -> None:
    """The command line of such a program: what to measure, each given what is known so far."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=list(measures))
    parser.add_argument("--json", type=Path, help="where figures are known from, and added to")
    arguments = parser.parse_args()
    for what in arguments.what:
        known = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
        figures = measures[what](known)
        print(what, json.dumps(figures, indent=1), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(known | {what: figures}, indent=1) + "\n")


if __name__ == "__main__":
    measure("benchmarks.cluster", __doc__, MEASURES)
