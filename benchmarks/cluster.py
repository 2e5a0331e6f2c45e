"""Several workers against one, what the engine costs, and what killed workers change.

`speedup`   two workers of one thread against one on 40 equal pictures, taking turns; also with `a core each`
`overhead`  what the engine adds to each item, with a worker that does nothing
`many`      10 000 items: time for each, and the peak of the driver's memory
`kill`      a folder of pictures during which no, one or two workers are killed
`cost`      seconds for each pixel and each file, on one core
`survey`    how fast the driver marks a film in 1080p, and what a worker's jump costs
`predict`   what `cost` and `survey` mean for 10 000 files and a two-hour film on 1, 8 and 64 devices
`simulate`  a Ray cluster on this machine whose workers sleep for as long as work would take, against the cost model
"""

import argparse
import functools
import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sa_upscale import __version__
from sa_upscale.cluster import processes, rays
from sa_upscale.cluster.pool import Outcome, Report, Seat, Team
from sa_upscale.cluster.schedule import Item, Schedule

ENGINES = ("processes", "ray")


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


def single_core(setup, device: str, threads: int, core: int, *, order):
    """A picture worker that has one core to itself, its threads for reading and writing included."""
    from sa_upscale.cluster import pictures

    if hasattr(os, "sched_setaffinity"):
        # A thread inherits it; those that are there already are told one by one.
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {core})
    return pictures.PictureWorker(setup, device, threads, order=order)


def speedup(
    pinned: bool, engines=ENGINES, count: int = 40, rounds: int = 3, size: tuple[int, int] = (256, 256)
) -> dict:
    """Two single-core workers against one on equal pictures: rounds in which the two sides take turns.

    One team of two stays; the side of one worker uses the first of them only.  Without a core of its own, a worker
    reads and writes on the other one's while the network is at work, so that one alone already uses more than one.
    """
    from sa_upscale import upscale
    from sa_upscale.cluster import pictures
    from sa_upscale.cluster.setup import Setup

    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos(folder / "in", count, size)
        jobs = upscale.plan_jobs([folder / "in"], folder / "out", size=upscale.Size(4))
        (folder / "out").mkdir()
        order = pictures.Order(upscale.Size(4))
        own = functools.partial(single_core, order=order)
        shared = functools.partial(_any_core, order=order)
        setup = Setup("compact-x4", {})
        for engine, factory in itertools.product(engines, (own,) if pinned else (shared,)):
            times: dict[int, list[float]] = {1: [], 2: []}
            with _pair(engine, factory, setup) as team:
                for sides in itertools.islice(itertools.cycle([(1, 2), (2, 1)]), rounds + 1):
                    for workers in sides:
                        times[workers].append(_round(team, jobs, workers))
            one, two = (statistics.median(times[side][1:]) for side in (1, 2))
            pairs = [a / b for a, b in zip(times[1][1:], times[2][1:], strict=True)]
            cores = "a core each" if factory is own else "any core"
            found[f"{engine}, {cores}"] = {"one": one, "two": two, "ratio": statistics.median(pairs), "pairs": pairs}
    return found


def _any_core(setup, device: str, threads: int, core: int, *, order):
    from sa_upscale.cluster import pictures

    return pictures.PictureWorker(setup, device, threads, order=order)


def _pair(engine: str, factory, setup) -> Team:
    seats = [Seat(number, f"core {number + 1}") for number in range(2)]
    given = [(setup, "cpu", 1, core) for core in range(2)]
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


def cost(repeats: int = 5) -> dict:
    """What the cost model is made of, on one core: seconds, medians.

    A picture's time is fitted as `file + pixel * its pixels` on two sizes; a segment's is `segment + frame * frames`.
    """
    import torch

    from sa_upscale import upscale
    from sa_upscale.cluster import pictures
    from sa_upscale.cluster.setup import Setup

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = {}
        worker = pictures.PictureWorker(Setup("compact-x4", {}), "cpu", 1, pictures.Order(upscale.Size(4)))
        for side in (32, 256):
            photos(folder / str(side), 8, (side, side))
            jobs = upscale.plan_jobs([folder / str(side)], folder / f"{side}-out", size=upscale.Size(4))
            measured = []
            for _ in range(repeats):
                began = time.perf_counter()
                worker.do(jobs)
                measured.append((time.perf_counter() - began) / len(jobs))
            times[side] = statistics.median(measured)
        began = time.perf_counter()
        pictures.weights(jobs * 50)
        header = (time.perf_counter() - began) / (50 * len(jobs))
        size = sum(file.stat().st_size for file in (folder / "256-out").iterdir()) / len(jobs)
    pixel = (times[256] - times[32]) / (256**2 - 32**2)
    return {
        "pixel": pixel,
        "file": times[32] - pixel * 32**2,
        "header": header,
        "bytes per result pixel": size / (16 * 256**2),
    }


def survey(seconds: float = 20, size: tuple[int, int] = (1920, 1080)) -> dict:
    """Frames per second at which the driver marks a film of this size, and the cost of a jump to the middle of it."""
    import av

    from sa_upscale import media

    with tempfile.TemporaryDirectory() as name:
        film = Path(name) / "film.mp4"
        coarse = np.random.default_rng(0).integers(0, 256, (size[1] // 8 + 40, size[0] // 8 + 40, 3), dtype=np.uint8)
        large = np.asarray(Image.fromarray(coarse).resize((size[0] + 320, size[1] + 320), Image.BICUBIC))
        with av.open(str(film), "w") as container:
            stream = container.add_stream("libx264", rate=24, width=size[0], height=size[1], pix_fmt="yuv420p")
            stream.options = {"preset": "ultrafast", "crf": "23", "g": "48"}
            for at in range(round(24 * seconds)):
                left = at % 300
                pixels = np.ascontiguousarray(large[left : left + size[1], left : left + size[0]])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
            container.mux(stream.encode(None))
        info = media.probe(film)
        began = time.perf_counter()
        with media.Survey(info, media.Part()) as reader:
            marks = list(reader.marks())
        rate = len(marks) / (time.perf_counter() - began)
        middle = marks[len(marks) // 2 :][:1]
        began = time.perf_counter()
        with media.Stretch(info, media.Part(), middle) as reader:
            list(reader.events(1))
        return {"frames per second": rate, "jump": time.perf_counter() - began}


def simulate(workers: int, files: int, seconds: float) -> dict:
    """Files of random size on a Ray cluster of this machine with sleeping workers, against what the model says."""
    os.environ.update(rays.QUIET)
    from ray.cluster_utils import Cluster

    generator = np.random.default_rng(0)
    sizes = generator.lognormal(0, 0.5, files)
    tasks = [float(task) for task in sizes / sizes.mean() * seconds]
    nodes = 4
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": workers, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=workers)
        took = slept("ray", tasks, workers, together=8, address=cluster.address)
    finally:
        cluster.shutdown()
    return {"workers": workers, "files": files, "took": took, "predicted": sum(tasks) / workers + max(tasks) / 2}


def kill(count: int = 24) -> list[dict]:
    """A folder of pictures while no, one and two workers are killed: seconds, and whether the results are the same."""
    from sa_upscale import upscale
    from sa_upscale.cluster import pictures
    from sa_upscale.cluster.setup import Setup

    rows, expected = [], None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos(folder / "in", count, (256, 256))
        for engine, killed in itertools.product(ENGINES, (0, 1, 2)):
            shutil.rmtree(folder / "out", ignore_errors=True)
            jobs = upscale.plan_jobs([folder / "in"], folder / "out", size=upscale.Size(4))
            factory = functools.partial(_any_core, order=pictures.Order(upscale.Size(4)))
            team = _pair(engine, factory, Setup("compact-x4", {}))
            pids: list[int] = []
            team.admit = lambda facts, pids=pids: pids.append(facts["pid"])
            with team:
                team.ready(everyone=True)
                for pid, after in zip(pids[:killed], (1.0, 2.0), strict=False):
                    threading.Timer(after, os.kill, (pid, signal.SIGKILL)).start()
                seconds = _round(team, jobs, 2)
            digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted((folder / "out").glob("[!.]*"))]
            expected = expected or digests
            rows.append({"engine": engine, "killed": killed, "seconds": seconds, "same": digests == expected})
    return rows


START = 10.0  # s until workers are ready, the network loaded
SEGMENT = 96  # frames of a film with 24 in a second
AROUND = 9  # frames a segment's worker decodes beyond its own: BEFORE and AFTER


def folder_hours(
    devices: int, files: int, pixels: float, core: dict, speed: float = 1.0, network: float = 0.0
) -> float:
    """Hours for so many files of so many source pixels on devices that are `speed` times as fast as one core.

    `network` is the seconds that fetching and sending one file takes each worker; nothing on a file system.
    """
    each = core["file"] + network + core["pixel"] * pixels / speed
    last = each / 2  # on average the last file ends half a file after the others
    return (START + files * core["header"] + files * each / devices + last) / 3600


def film_hours(devices: int, frames: int, frame: float, marking: dict) -> float:
    """Hours for a film whose frames take a device so many seconds each; the driver's marking goes on meanwhile."""
    segment = SEGMENT * frame + marking["jump"] + AROUND / marking["frames per second"]
    segments = -(-frames // SEGMENT)
    rounds = max(segments / devices, 1) * segment + segment / 2
    return (START + max(frames / marking["frames per second"], rounds)) / 3600


def predict(figures: Path) -> dict:
    """What `cost` and `survey`, as kept in a file, mean for large jobs on 1, 8 and 64 devices: hours."""
    known = json.loads(figures.read_text())
    core, marking = known["cost"], known["survey"]
    film = 2 * 3600 * 24
    pixels = 1920 * 1080
    return {
        devices: {
            "10 000 files of 1 MP, cores": folder_hours(devices, 10_000, 1e6, core),
            "the same, devices 50 times as fast": folder_hours(devices, 10_000, 1e6, core, 50),
            "two hours of 1080p, cores": film_hours(devices, film, core["pixel"] * pixels, marking),
            "the film, devices 50 times as fast": film_hours(devices, film, core["pixel"] * pixels / 50, marking),
        }
        for devices in (1, 8, 64)
    }


MEASURES = {
    "speedup": functools.partial(speedup, False),
    "speedup, a core each": functools.partial(speedup, True),
    "overhead": overhead,
    "many": many,
    "kill": kill,
    "cost": cost,
    "survey": survey,
    "simulate 8": functools.partial(simulate, 8, 800, 0.4),
    "simulate 32": functools.partial(simulate, 32, 3200, 0.4),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("what", nargs="+", choices=[*MEASURES, "predict"])
    parser.add_argument("--json", type=Path, help="add the raw figures to this file; `predict` reads them there")
    arguments = parser.parse_args()
    for what in arguments.what:
        figures = predict(arguments.json) if what == "predict" else MEASURES[what]()
        print(what, json.dumps(figures, indent=1), flush=True)
        if arguments.json:
            known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
            arguments.json.write_text(json.dumps(known | {what: figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
