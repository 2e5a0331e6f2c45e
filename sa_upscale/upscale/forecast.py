"""What a run would do: sizes from the headers, time and memory from a short calibration."""

import io
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sa_upscale import images
from sa_upscale.errors import UpscaleError
from sa_upscale.upscale.batch import LARGE_PIXELS
from sa_upscale.upscale.jobs import Job
from sa_upscale.upscale.work import STREAM_PIXELS, Output, Upscaler

_PROBE = 160  # pixels a side of the picture that is timed
_LARGEST_COPY = 3  # times the result that its encoder holds beside it


@dataclass
class Forecast:
    """What one job would give; `seconds` and `megabytes` (of memory at the peak, the program's own included) are
    predictions, and `error` is why it cannot be done."""

    source: Path | None
    target: Path | None
    width: int | None = None
    height: int | None = None
    frames: int = 1
    seconds: float | None = None
    megabytes: float | None = None
    error: str | None = None


class Calibration:
    """How long the networks and the encoders take, measured once each on a small picture."""

    def __init__(self, upscaler: Upscaler):
        self._upscaler = upscaler
        self._noise = np.random.default_rng(0).integers(0, 256, (_PROBE, _PROBE, 3), dtype=np.uint8)
        self._network: dict[int, float] = {}
        self._encoder: dict[str, float] = {}

    def network_seconds(self, scale: float, pixels: int) -> float:
        """To run the networks for a scale over that many source pixels."""
        seconds, given = 0.0, pixels
        for engine in self._upscaler.networks.for_scale(scale):
            if id(engine) not in self._network:
                engine.run(self._noise)  # the first run prepares things
                started = time.perf_counter()
                engine.run(self._noise)
                self._network[id(engine)] = (time.perf_counter() - started) / self._noise[..., 0].size
            seconds += self._network[id(engine)] * given
            given *= engine.scale**2
        return seconds

    def encoder_seconds(self, format: str, pixels: int) -> float:
        """To write a result of that many pixels."""
        if format not in self._encoder:
            # Enlarged noise is as hard to encode as an enlarged picture of fine texture.
            smooth = self._noise.repeat(4, 0).repeat(4, 1)
            started = time.perf_counter()
            images.write(io.BytesIO(), images.Picture(smooth), format=format)
            self._encoder[format] = (time.perf_counter() - started) / smooth[..., 0].size
        return self._encoder[format] * pixels


def forecasts(jobs: Sequence[Job], upscaler: Upscaler, output: Output, max_pixels: int) -> list[Forecast]:
    """What `run_jobs` would do, without doing it."""
    calibration = Calibration(upscaler)
    return [_forecast(job, upscaler, output, max_pixels, calibration) for job in jobs]


def _forecast(job: Job, upscaler: Upscaler, output: Output, max_pixels: int, calibration: Calibration) -> Forecast:
    told = Forecast(job.source, job.target)
    try:
        if job.problem:
            raise UpscaleError(job.problem)
        opened = images.opened(job.source or sys.stdin.buffer.read(), max_pixels=max_pixels)
        target = upscaler.size.of(opened.width, opened.height)
        key = images.format_for(job.target or io.BytesIO(), opened.format, job.format or output.format)
    except UpscaleError as error:
        told.error = str(error)
        return told
    told.width, told.height = target.kept
    told.frames = 1 if target.taken else opened.frames
    left, top, right, bottom = target.taken or (0, 0, opened.width, opened.height)
    source, result = (right - left) * (bottom - top), target.width * target.height
    seconds = calibration.network_seconds(target.scale, source) + calibration.encoder_seconds(key, result)
    told.seconds = told.frames * seconds
    told.megabytes = (own_memory() + _picture_memory(source, result, key)) / 1e6
    return told


def _picture_memory(source: int, result: int, format: str) -> float:
    """Bytes for a picture of 8-bit colour."""
    if result > STREAM_PIXELS and images.streams(format):
        return 3 * 2 * source + 4 * 3 * math.sqrt(result) * 2000
    copies = 1 if images.streams(format) else _LARGEST_COPY
    # While a result that is not large is written, the next is made.
    return 3 * 2 * source + 3 * (1 + copies) * result * (1 if result > LARGE_PIXELS else 2)


def own_memory() -> int:
    """Bytes of memory that this process holds now."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * 4096
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
