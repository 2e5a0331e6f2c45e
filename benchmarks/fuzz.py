"""Give the readers broken files for some minutes: `python -m benchmarks.fuzz --minutes 10`.

Seeds are small files of every format that is written, and those of a folder if one is named; bytes are changed, cut,
doubled and moved.  Every file has to come back as a picture or as one line, within seconds and a gigabyte; what does
not is kept in the output folder.  Work is done in a process of its own, whose end by a signal is a crash.
"""

import argparse
import collections
import io
import multiprocessing
import resource
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from sa_upscale import images
from sa_upscale.errors import UpscaleError

SECONDS, GIGABYTES, MAX_PIXELS = 20, 3, 1_000_000


def made() -> dict[str, bytes]:
    """A small file of every format, with all it can carry."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 65536, (36, 40, 3)).astype(np.uint16)
    alpha = generator.integers(0, 65536, (36, 40)).astype(np.uint16)
    exif = Image.Exif()
    exif[274], exif[0x8769] = 1, {0xA002: 40, 0x927C: b"note"}
    picture = images.Picture(pixels, alpha, exif=exif.tobytes()[6:], xmp=b"<x/>", dpi=(300, 300))
    seeds = {}
    for key in images.WRITTEN:
        for depth in images.FORMATS[key].depths:
            stream = io.BytesIO()
            images.write(stream, picture, format=key, depth=depth)
            seeds[f"{key}-{depth}"] = stream.getvalue()
    for key in ("png", "gif", "webp", "avif", "tiff"):
        stream = io.BytesIO()
        images.write_frames(stream, [(picture, 50.0)] * 3, 3, 0, format=key)
        seeds[f"{key}-frames"] = stream.getvalue()
    for kind in ("TGA", "PCX", "SGI", "ICO", "DDS"):
        stream = io.BytesIO()
        Image.fromarray((pixels >> 8).astype(np.uint8)).save(stream, kind)
        seeds[kind] = stream.getvalue()
    return seeds


def broken(data: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(data)
    # Half of the changes go where the structure is.
    reach = len(changed) if generator.random() < 0.5 else min(len(changed), 400)
    for place in generator.integers(0, reach, generator.integers(1, 12)):
        changed[place] = generator.choice([0, 255, 127, 128, int(generator.integers(256)), changed[place] ^ 1])
    kind = generator.integers(6)
    if kind == 0:
        del changed[int(generator.integers(1, len(changed))) :]
    elif kind == 1:
        start, stop = sorted(generator.integers(0, len(changed), 2))
        changed[start:start] = changed[start:stop]
    return bytes(changed)


def attempt(data: bytes) -> str:
    """How one file ends: a picture, one line, or a fault."""
    try:
        opened = images.opened(data, max_pixels=MAX_PIXELS)
        if opened.frames > 1:
            for index, _ in enumerate(opened.play()):
                if index > 20:
                    break
        else:
            for _ in opened.rows():
                pass
            opened.read()
    except UpscaleError as error:
        return "one line" if "\n" not in str(error) else f"several lines\n{error}"
    return "picture"


def work(connection) -> None:
    """Answer each file with how it ends, until there are no more."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
    while data := connection.recv_bytes():
        try:
            answer = attempt(data)
        # Any other exception is what is looked for.
        except Exception:
            answer = "traceback\n" + traceback.format_exc()
        connection.send(answer)


class Worker:
    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs,), daemon=True)
        self._process.start()

    def ask(self, data: bytes) -> str:
        self._ours.send_bytes(data)
        deadline = time.monotonic() + SECONDS
        while not self._ours.poll(0.05):
            if not self._process.is_alive():
                return f"crash by signal {-self._process.exitcode}"
            if time.monotonic() > deadline:
                self._process.kill()
                return "hang"
        return self._ours.recv()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="a folder of more files to break")
    parser.add_argument("--output", "-o", type=Path, default=Path("fuzz"))
    arguments = parser.parse_args()
    seeds = list(made().items())
    if arguments.corpus:
        files = [file for file in sorted(arguments.corpus.rglob("*")) if file.is_file()]
        seeds += [(file.name, file.read_bytes()) for file in files if 0 < file.stat().st_size < 50_000]
    generator = np.random.default_rng(arguments.seed)
    ends, worker, until = collections.Counter(), Worker(), time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < until:
        name, data = seeds[generator.integers(len(seeds))]
        changed = broken(data, generator)
        answer = worker.ask(changed)
        kind = answer.splitlines()[0]
        ends[kind] += 1
        if kind not in ("picture", "one line"):
            arguments.output.mkdir(parents=True, exist_ok=True)
            (arguments.output / f"{sum(ends.values())}-{name}").write_bytes(changed)
            (arguments.output / f"{sum(ends.values())}-{name}.txt").write_text(answer)
            if kind != "traceback":
                worker = Worker()
    print(f"{sum(ends.values())} broken files of {len(seeds)} seeds: {dict(ends)}")


if __name__ == "__main__":
    main()
