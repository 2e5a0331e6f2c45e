"""A model of how long folders and films take on how many devices, what it is made of, and what it is checked against.

`cost`      seconds for each pixel, each file and each segment on one core, and for a command to begin
`survey`    how fast the driver marks a film in 1080p, and what a worker's jump costs
`predict`   what these mean for 10 000 files and a two-hour film on 1, 8 and 64 devices
`simulate`  a Ray cluster on this machine whose workers sleep for as long as work would take, against the model
`real`      whole commands for a folder and a film, on one core and on two, against the model
"""

import contextlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.cluster import MODEL, measure, photos, slept
from sa_upscale import processors
from sa_upscale.cluster import cores, films, rays
from sa_upscale.cluster.setup import Setup, Share, shares

FRAME = (320, 180)
SEGMENT = 96  # frames of a film with 24 in a second
AROUND = 9  # frames a segment's worker decodes beyond its own: BEFORE and AFTER


@contextlib.contextmanager
def single_core() -> Iterator[Share]:
    """This process as a worker that shares the machine with another; afterwards it is free again."""
    before = processors.usable()
    try:
        yield shares(["cpu"] * 2, [1] * 2)[0]
    finally:
        cores.keep_to(before)


def cost() -> dict:
    """What the model is made of, on one core: seconds, medians."""
    with tempfile.TemporaryDirectory() as name, single_core() as share:
        folder = Path(name)
        return _picture_costs(folder, share) | _film_costs(folder, share) | {"start": _start(folder)}


def _picture_costs(folder: Path, share: Share, repeats: int = 5) -> dict:
    """A picture's time is `file + pixel * its pixels`, fitted on two sizes."""
    from sa_upscale import upscale
    from sa_upscale.cluster import pictures

    worker = pictures.PictureWorker(Setup(MODEL, {}), share, pictures.Order(upscale.Size(4)))
    times = {}
    for side in (32, 256):
        photos(folder / str(side), 8, (side, side))
        jobs = upscale.plan_jobs([folder / str(side)], folder / f"{side}-out", size=upscale.Size(4))
        worker.do(jobs[:1])
        times[side] = _median(repeats, lambda jobs=jobs: worker.do(jobs)) / len(jobs)
    header = _median(1, lambda: pictures.weights(jobs * 50)) / (50 * len(jobs))
    size = sum(file.stat().st_size for file in (folder / "256-out").iterdir()) / len(jobs)
    pixel = (times[256] - times[32]) / (256**2 - 32**2)
    return {
        "pixel": pixel,
        "file": times[32] - pixel * 32**2,
        "header": header,
        "bytes per result pixel": size / (16 * 256**2),
    }


def _film_costs(folder: Path, share: Share, repeats: int = 3) -> dict:
    """A segment's time is `segment + film pixel * its frames' pixels`, fitted on two lengths."""
    from sa_upscale import media, video

    info = media.probe(panning(folder / "film.mp4", 2, FRAME))
    worker = films.FilmWorker(Setup(MODEL, {}), share, 4)
    with media.Survey(info, media.Part()) as reader:
        marks = tuple(reader.marks())
    target = folder / "out.mp4"
    encoding = media.plan(info, target, (4 * FRAME[0], 4 * FRAME[1]))
    films.claims.leave_token(folder / films.claims.TOKEN, "")
    film = films.Film(info, encoding, video.Options(), target.name, folder, processors.count(), "")

    def seconds(frames: int) -> float:
        segment = films.Segment(film, 0, 0, frames, marks[24 : 24 + frames])
        return _median(repeats, lambda: worker.do([segment]))

    seconds(1)
    short, long = seconds(4), seconds(20)
    frame = (long - short) / 16
    return {"film pixel": frame / math.prod(FRAME), "segment": short - 4 * frame}


def _start(folder: Path) -> float:
    """What a whole command takes for a picture of next to no pixels."""
    photos(folder / "tiny", 1, (8, 8))
    return command_seconds(1, "image", folder / "tiny", "-o", folder / "tiny-out")


def _median(repeats: int, work) -> float:
    """Seconds that it takes."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def command_seconds(devices: int, *arguments: object) -> float:
    """What a whole command takes on so many workers with a core each; with one, the driver is on that core, too."""
    allowed = set(sorted(os.sched_getaffinity(0))[:devices])
    command = [sys.executable, "-m", "sa_upscale", *map(str, arguments), "--model", MODEL, "-x", "4"]
    began = time.perf_counter()
    subprocess.run(
        [*command, "--devices", f"{devices}*cpu"],
        check=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    return time.perf_counter() - began


def panning(film: Path, seconds: float, size: tuple[int, int]) -> Path:
    """A film of coarse noise that moves to the left."""
    width, height = size
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 40, width // 8 + 40, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((width + 320, height + 320), Image.BICUBIC))
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=24, width=width, height=height, pix_fmt="yuv420p")
        stream.options = {"preset": "ultrafast", "crf": "23", "g": "48"}
        for at in range(round(24 * seconds)):
            left = at % 300
            pixels = np.ascontiguousarray(large[left : left + height, left : left + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    return film


def survey() -> dict:
    """Frames per second at which the driver marks a film in 1080p, and the cost of a jump to the middle of it."""
    from sa_upscale import media

    with tempfile.TemporaryDirectory() as name:
        info = media.probe(panning(Path(name) / "film.mp4", 20, (1920, 1080)))
        began = time.perf_counter()
        with media.Survey(info, media.Part()) as reader:
            marks = list(reader.marks())
        rate = len(marks) / (time.perf_counter() - began)
        middle = marks[len(marks) // 2 :][:1]
        began = time.perf_counter()
        with media.Stretch(info, media.Part(), middle) as reader:
            list(reader.events(1))
        return {"frames per second": rate, "jump": time.perf_counter() - began}


def folder_seconds(
    devices: int, files: int, pixels: float, core: dict, speed: float = 1.0, network: float = 0.0
) -> float:
    """For so many files of so many source pixels on devices that are `speed` times as fast as one core.

    `network` is what fetching and sending one file takes each worker; nothing on a file system.
    """
    each = core["file"] + network + core["pixel"] * pixels / speed
    last = each / 2 if devices > 1 else 0  # on average the last file ends half a file after the others
    return core["start"] + files * core["header"] + files * each / devices + last


def film_seconds(devices: int, frames: int, pixels: float, core: dict, marking: dict, speed: float = 1.0) -> float:
    """For a film whose frames have so many source pixels; the driver's marking goes on meanwhile."""
    count = -(-frames // SEGMENT)
    around = marking["jump"] + AROUND / marking["frames per second"]
    segment = core["segment"] + around + frames / count * core["film pixel"] * pixels / speed
    rounds = max(count / devices, 1) * segment + (segment / 2 if devices > 1 else 0)
    return core["start"] + max(frames / marking["frames per second"], rounds)


def predict(known: dict) -> dict:
    """What `cost` and `survey` mean for large jobs on 1, 8 and 64 devices: hours."""
    core, marking = known["cost"], known["survey"]
    film, full_hd = 2 * 3600 * 24, 1920 * 1080
    return {
        devices: {
            name: seconds / 3600
            for name, seconds in {
                "10 000 files of 1 MP, cores": folder_seconds(devices, 10_000, 1e6, core),
                "the same, devices 50 times as fast": folder_seconds(devices, 10_000, 1e6, core, 50),
                "two hours of 1080p, cores": film_seconds(devices, film, full_hd, core, marking),
                "the film, devices 50 times as fast": film_seconds(devices, film, full_hd, core, marking, 50),
            }.items()
        }
        for devices in (1, 8, 64)
    }


def simulate(workers: int = 8, files: int = 800, seconds: float = 0.4) -> dict:
    """Files of random size on a Ray cluster of this machine with sleeping workers, against what the model says."""
    os.environ.update(rays.QUIET)
    from ray.cluster_utils import Cluster

    generator = np.random.default_rng(0)
    sizes = generator.lognormal(0, 0.5, files)
    tasks = [float(task) for task in sizes / sizes.mean() * seconds]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": workers, "include_dashboard": False})
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=workers)
        took = slept("ray", tasks, workers, together=8, address=cluster.address)
    finally:
        cluster.shutdown()
    return {"workers": workers, "files": files, "took": took, "predicted": sum(tasks) / workers + max(tasks) / 2}


def real(known: dict, files: int = 40, side: int = 256, frames: int = 8 * SEGMENT) -> dict:
    """Whole commands on one core and on two against the model: seconds."""
    core, marking = known["cost"], known["survey"]
    small = (96, 54)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos(folder / "in", files, (side, side))
        film = panning(folder / "film.mp4", frames / 24, small)
        for devices in (1, 2):
            found[f"folder, {devices}"] = {
                "took": command_seconds(devices, "image", folder / "in", "-o", folder / f"out{devices}"),
                "predicted": folder_seconds(devices, files, side**2, core),
            }
            found[f"film, {devices}"] = {
                "took": command_seconds(devices, "video", film, "-o", folder / f"film{devices}.mp4"),
                "predicted": film_seconds(devices, frames, math.prod(small), core, marking),
            }
    return found


MEASURES = {
    "cost": lambda _: cost(),
    "survey": lambda _: survey(),
    "predict": predict,
    "simulate": lambda _: simulate(),
    "real": real,
}


if __name__ == "__main__":
    measure("benchmarks.scaling", __doc__, MEASURES)
