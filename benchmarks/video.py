"""What the claims on video rest on; `python -m benchmarks.video --help` lists the parts.

    overlap   time of a clip against the same network on the same frames in memory, by the clock and in the processor's
              seconds, which a busy machine does not change; aim: at most 1.10
    memory    resident megabytes over a long small clip, and their slope after the first minute; aim: flat
    kill      SIGKILL at ten random moments, resumed each time, against a run that nothing disturbed; aim: identical
    flicker   temporal deviation on a static noisy scene, of bicubic, one frame and five; aim: at most 1.3 × bicubic
    damage    PSNR-Y of clips of frames (`--clips`), reduced, with noise and compressed, beside that of bicubic

Clips are made here, with the encoders of the package, but for those of `damage`.
"""

import argparse
import io
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from sa_upscale import checkpoints, media, video
from sa_upscale.data.reading import read_rgb
from sa_upscale.degrade import bicubic
from sa_upscale.engine import Engine
from sa_upscale.metrics.psnr import psnr_y

RATE = 24
LENGTHS = {"away": (240, (320, 180)), "vsrresnet": (8, (96, 64))}  # frames and size, where a minute is to do


def make_clip(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """A textured picture that pans, with a cut every four seconds."""
    width, height = size

    def panned() -> Iterator[np.ndarray]:
        for at in range(frames):
            if at % (4 * RATE) == 0:
                scene = _texture(at, (2 * width, height))
            x = at % (4 * RATE) * width // (4 * RATE)
            yield np.ascontiguousarray(scene[:, x : x + width])

    _encode(str(path), panned(), size, crf=12)
    return path


def _encode(target: str | io.BytesIO, frames: Iterable[np.ndarray], size: tuple[int, int], crf: int) -> None:
    width, height = size
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, width=width, height=height, options={"crf": str(crf)})
        stream.pix_fmt = "yuv420p"
        for at, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels)
            frame.pts, frame.time_base = at, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _texture(seed: int, size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.random((side, side, 3)), size, interpolation=cv2.INTER_CUBIC) for side in (4, 16, 64)]
    return (np.clip(sum(layers) / 3, 0, 1) * 255).astype(np.uint8)


class Repeats:
    """Stands in for a network that costs nothing, so that what is left is the pipeline's own."""

    scale, window, fingerprint = 2, 5, "repeats"

    def lanes(self, size: int) -> int:
        return 1

    def frames_at_once(self, frame: np.ndarray) -> int:
        return 1

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        return frame

    def run_prepared(self, frames: list[np.ndarray]) -> np.ndarray:
        return cv2.resize(frames[2], None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)


class Away(Repeats):
    """Stands in for a network on a device of its own, which leaves the processor to the codecs."""

    seconds = 0.06

    def run_prepared(self, frames: list[np.ndarray]) -> np.ndarray:
        time.sleep(self.seconds)
        return super().run_prepared(frames)


def overlap(model: str, runs: int) -> dict[str, float]:
    """The whole work on a clip against its frames in memory, in turn: median seconds, and the ratios of the pairs.

    The model "away" costs time, but none of the processor's.
    """
    with tempfile.TemporaryDirectory() as name:
        length, size = LENGTHS.get(model, (240, (160, 90)))
        clip = make_clip(Path(name) / "clip.mp4", length, size)
        engine = Away() if model == "away" else Engine(checkpoints.load(model, 4, "video").model)
        with media.Reader(media.probe(clip)) as reader:
            frames = [frame.pixels for frame in reader.events()]

        afresh = video.Options(resume=False)

        def in_memory() -> None:
            for window in media.windows(map(engine.prepare, frames), engine.window):
                engine.run_prepared(window)

        def whole() -> None:
            video.upscale_file(clip, clip.with_name("out.mp4"), engine, scale=engine.scale, options=afresh)

        in_memory()
        pairs = [(_seconds(whole), _seconds(in_memory)) for _ in range(runs)]
    ours, other = (statistics.median(clock for clock, _ in side) for side in zip(*pairs, strict=True))
    ratios = sorted(mine[0] / theirs[0] for mine, theirs in pairs)
    result = {"ours": ours, "other": other, "ratio": statistics.median(ratios)}
    processor = statistics.median(mine[1] / theirs[1] for mine, theirs in pairs)
    return {**result, "lowest": ratios[0], "highest": ratios[-1], "processor": processor}


def memory(folder: Path, minutes: float) -> str:
    """Resident memory over the length of a film, by the film's own clock."""
    clip = make_clip(folder / "film.mp4", round(minutes * 60 * RATE), (96, 64))
    samples = []

    def sample(at: video.Progress) -> None:
        if at.done % RATE == 0:
            samples.append((at.done / RATE / 60, _resident()))

    video.upscale_file(clip, folder / "out.mp4", Repeats(), scale=2, on_progress=sample)
    end = _resident()
    late = np.array([pair for pair in samples if pair[0] > 1])
    slope, _ = np.polyfit(late[:, 0], late[:, 1], 1)
    return (
        f"{minutes:g} min: {late[0, 1]:.1f} MB after the first minute, {late[-1, 1]:.1f} MB at the last frame,"
        f" {end:.1f} MB after the file was put together; slope {slope:+.3f} MB a minute"
    )


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def kill(folder: Path, times: int) -> str:
    """A row for each SIGKILL: when, and how many frames the next run found done."""
    clip = make_clip(folder / "clip.mp4", 96 * times, (64, 48))  # more than the runs can do before they are killed
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from benchmarks.video import Repeats\n"
        "from sa_upscale import video\n"
        "video.length_for = lambda info: 12\n"
        "class Slow(Repeats):\n"
        "    def run_prepared(self, frames):\n"
        "        time.sleep(0.02)\n"
        "        return super().run_prepared(frames)\n"
        "r = video.upscale_file(Path(sys.argv[1]), Path(sys.argv[2]), Slow(), scale=2, on_notice=print,\n"
        "    on_progress=lambda at: print('at', at.done, flush=True))\n"
    )
    command = [sys.executable, "-c", script, str(clip)]
    subprocess.run([*command, str(folder / "whole.mp4")], check=True, capture_output=True)
    rows, moments = [], random.Random(1)
    for number in range(1, times + 1):
        process = subprocess.Popen([*command, str(folder / "out.mp4")], stdout=subprocess.PIPE, text=True)
        said = list(_until(process.stdout, "at "))
        killer = threading.Timer(moments.uniform(0.2, 3), process.kill)
        killer.start()
        said += process.communicate()[0].splitlines()
        killer.cancel()
        done = [int(line.split()[1]) for line in said if line.startswith("at ")]
        resumed = next((line for line in said if line.startswith("going on")), "from the beginning")
        rows.append(f"| {number} | {resumed} | {done[-1] if done else 'none'} | {process.returncode} |")
    subprocess.run([*command, str(folder / "out.mp4")], check=True, capture_output=True)
    ours, whole = _decoded(folder / "out.mp4"), _decoded(folder / "whole.mp4")
    verdict = f"{len(ours)} frames, " + ("identical" if ours == whole else "DIFFERENT")
    return "\n".join(["| run | begins | frame at the kill | exit |", "|---|---|---|---|", *rows, verdict])


def _until(lines: Iterable[str], start: str) -> Iterator[str]:
    """The lines up to and with the first that starts so."""
    for line in lines:
        yield line.strip()
        if line.startswith(start):
            return


def _decoded(path: Path) -> list[tuple[int, bytes]]:
    with av.open(str(path)) as container:
        return [(frame.pts, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]


def flicker(models: list[str], scale: int, sigma: float) -> str:
    """Mean over pixels of the deviation over time, of luma in codes, on one picture with fresh noise in each frame."""
    still = _texture(7, (64, 48))
    noisy = _with_noise([still] * 10, sigma)
    rows = [("bicubic", _deviation([_enlarged(frame, scale) for frame in noisy]))]
    for name in models:
        engine = Engine(checkpoints.load(name, scale, "video").model)
        # The first and the last two windows repeat frames.
        rows.append((name, _deviation(_upscaled(engine, noisy, slice(2, -2)))))
    base = rows[0][1]
    return "\n".join(f"| {name} | {value:.3f} | {value / base:.2f} |" for name, value in rows)


def _deviation(frames: list[np.ndarray]) -> float:
    luma = np.stack([frame @ np.array([0.299, 0.587, 0.114]) for frame in frames])
    return float(luma.std(axis=0).mean())


DAMAGES: dict[str, Callable[[list[np.ndarray]], list[np.ndarray]]] = {
    "none": lambda frames: frames,
    "noise of σ 4": lambda frames: _with_noise(frames, 4),
    "noise of σ 8": lambda frames: _with_noise(frames, 8),
    "H.264, crf 18": lambda frames: _compressed(frames, 18),
    "H.264, crf 26": lambda frames: _compressed(frames, 26),
}


def damage(models: list[str], scale: int, clips: Path) -> str:
    """A table of mean PSNR-Y in dB, a border of 8 pixels left out, over every fourth frame from the second on.

    Each folder in `clips` holds the frames of a clip, which are reduced by `scale` by MATLAB's bicubic and damaged.
    """
    engines = {name: Engine(checkpoints.load(name, scale, "video").model) for name in models}
    rows = [["clip", "damage", "bicubic", *models], ["---", "---", *["---:"] * (1 + len(models))]]
    seen = slice(1, None, 4)
    for folder in sorted(path for path in clips.iterdir() if path.is_dir()):
        hr = [_cropped(read_rgb(file), 2 * scale) for file in sorted(folder.iterdir())]
        reduced = [bicubic(frame, scale) for frame in hr]
        for what, damaged in DAMAGES.items():
            lr = damaged(reduced)
            ways = [[_enlarged(frame, scale) for frame in lr[seen]]]
            ways += [_upscaled(engine, lr, seen) for engine in engines.values()]
            rows.append([folder.name, what, *(f"{_mean_psnr_y(made, hr[seen]):.2f}" for made in ways)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cropped(frame: np.ndarray, multiple: int) -> np.ndarray:
    height, width = (side // multiple * multiple for side in frame.shape[:2])
    return np.ascontiguousarray(frame[:height, :width])


def _with_noise(frames: list[np.ndarray], sigma: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noisy = (frame + rng.normal(0, sigma, frame.shape) for frame in frames)
    return [np.clip(frame, 0, 255).round().astype(np.uint8) for frame in noisy]


def _compressed(frames: list[np.ndarray], crf: int) -> list[np.ndarray]:
    height, width = frames[0].shape[:2]
    memory = io.BytesIO()
    _encode(memory, frames, (width, height), crf)
    memory.seek(0)
    with av.open(memory) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _upscaled(engine: Engine, frames: list[np.ndarray], seen: slice) -> list[np.ndarray]:
    windows = list(media.windows(map(engine.prepare, frames), engine.window))
    return [engine.run_prepared(window) for window in windows[seen]]


def _enlarged(frame: np.ndarray, scale: int) -> np.ndarray:
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _mean_psnr_y(made: list[np.ndarray], hr: list[np.ndarray]) -> float:
    sr, original = (torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255 for frames in (made, hr))
    return psnr_y(sr, original, border=8).mean().item()


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of the processor."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.video", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--models", nargs="+", default=["compact", "vsrresnet"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--scale", type=int, default=4, help="of `flicker` and `damage`")
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/bench/Vid4"), help="of `damage`")
    arguments = parser.parse_args()
    parts = {
        "overlap": lambda _: "\n".join(f"{name}: {overlap(name, arguments.runs)}" for name in arguments.models),
        "memory": lambda folder: memory(folder, arguments.minutes),
        "kill": lambda folder: kill(folder, 10),
        "flicker": lambda _: flicker(arguments.models, arguments.scale, sigma=4),
        "damage": lambda _: damage(arguments.models, arguments.scale, arguments.clips),
    }
    for part in arguments.parts or parts:
        with tempfile.TemporaryDirectory() as name:
            print(f"{part}\n{parts[part](Path(name))}\n", flush=True)


if __name__ == "__main__":
    main()
