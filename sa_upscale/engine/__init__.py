"""Runs a network over pictures of any size: device, number type, tiles, what to do when memory runs out."""

import collections
import copy
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from sa_upscale import memory
from sa_upscale.engine import calibration
from sa_upscale.engine.devices import (
    BANDED_ROWS,
    BANDED_TILE,
    DEFAULT_TILE,
    DTYPES,
    PROBE,
    WIDER,
    find_device,
    free_memory,
    is_out_of_memory,
    precisions,
    values_per_pixel,
    values_per_pixel_in_bands,
)
from sa_upscale.engine.jobs import Cut, Job, Prepared, Work
from sa_upscale.engine.passes import Passes
from sa_upscale.engine.pixels import COLOUR_REACH, WHITE, Rows, pad, round_up, to_tensor
from sa_upscale.engine.tiles import Span, Strip, overlap, spans
from sa_upscale.errors import UpscaleError
from sa_upscale.models import int8

SMALLEST_TILE = 16
TILE_PER_OVERLAP = 4
UNSEEN = 0.02  # dB that a number type may cost a network to be chosen for it
RESULTS_A_LANE = 6  # what working on one picture takes memory for
MOST_AT_ONCE = 8  # frames; more gain nothing, and each waits for the last

Progress = Callable[[int, int], None]


class Engine:
    """Runs `model` on `device` in tiles.

    `device`: "cpu", "cuda", "cuda:N" or "mps"; None takes the first there is of cuda, mps, cpu.
    `precision`: "fp32", "bf16", "fp16" or, on a CPU for RRDBNet and networks that work in bands of rows, "int8"; None
    takes what the device is fast at (`calibration`), int8 only for a network whose `int8_loss`, in dB, is known and
    cannot be seen.  Pictures deeper than 8 bits avoid bf16, whose eight bits would show as bands, and an int8 that
    nobody asked for.
    `tile`: LR pixels a side that each tile adds to the picture; None takes what the device is fast at, as far as its
    free memory goes.
    `tta`: take the mean of the eight ways to turn and mirror what the network is given, at eight times the work.
    `match_color`: give the result of pictures the low frequencies of the source.
    `compile`: have torch compile the network for this machine on its first tile, and once more for sizes that vary;
    not those that a CPU works through in bands of rows, which is faster.
    `keep_memory`: on a CPU, have this process keep the memory of a network's maps (`memory.keep`) for its lifetime; for
    those that do little else.
    `on_notice`: called with a line for the user when the engine had to change course.

    Raises `UpscaleError` for a device that is not there or a precision it cannot do.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: str | None = None,
        precision: str | None = None,
        tile: int | None = None,
        tta: bool = False,
        match_color: bool = False,
        compile: bool = False,
        keep_memory: bool = False,
        on_notice: Callable[[str], None] | None = None,
    ):
        if tile is not None and tile < 1:
            raise UpscaleError(f"a tile of {tile} pixels is not possible; give 1 or more, or leave it out")
        self.device = find_device(device)
        able = precisions(self.device)
        if precision is not None and precision not in able:
            raise UpscaleError(f"{self.device} cannot run in {precision}; it can in {', '.join(able)}")
        if precision == "int8" and not int8.suits(model):
            raise UpscaleError("this network cannot run in int8; leave the precision out")
        on_cpu = self.device.type == "cpu"
        choice = calibration.known(self.device) or calibration.default(self.device)
        if on_cpu:
            torch.set_num_threads(choice.threads)
        self._banded = on_cpu and getattr(model, "banded", False)
        if keep_memory and on_cpu:
            memory.keep()
        as_exact = int8.suits(model) and getattr(model, "int8_loss", math.inf) <= UNSEEN
        self.precision = precision or ("int8" if choice.int8 and as_exact else choice.precision)
        default = BANDED_TILE if self._banded else choice.tile
        self.scale, self.window = model.scale, model.window
        self._able = able
        self._deep = precision or next(name for name in able if name != "bf16")
        self._source = copy.deepcopy(model).eval().requires_grad_(False)
        self._overlap, self._seam = overlap(model)
        # Around small tiles a network that sees far would spend most of its time on what they share.
        self._default_tile = max(default, TILE_PER_OVERLAP * self._overlap)
        # Compiled, a network works on whole tiles: measured to be slower than bands of rows.  Of integers the compiler
        # knows nothing.
        plain = not self._banded and self.precision != "int8"
        self._passes = Passes(
            self._source,
            self.device,
            banded=self._banded,
            half=DTYPES[able[0]],
            tta=tta,
            match_color=match_color,
            compiled=compile and plain,
            on_notice=self._notice,
        )
        self._tta, self._match_color = tta, match_color
        if match_color:
            self._overlap += round_up(2 * COLOUR_REACH, model.multiple)
        self._tile = tile
        self._on_notice = on_notice
        self._noticed: set[str] = set()
        if compile and not plain:
            self._notice("compile", "on a processor this network is faster as it is than compiled; it is not compiled")

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides the result: the network's weights, the type it runs in, the device, the tiles."""
        digest = hashlib.sha256(f"{type(self._source).__name__} {self._source.parameters_dict}".encode())
        tile = self._tile or self._default_tile
        choices = (
            self.precision,
            self._deep,
            self.device.type,
            tile,
            self._tta,
            self._match_color,
            self._passes.compiled,
        )
        digest.update(" ".join(map(str, choices)).encode())
        for name, values in self._source.state_dict().items():
            digest.update(name.encode() + values.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def run(self, image: np.ndarray, *, on_progress: Progress | None = None) -> np.ndarray:
        """Upscale `(H, W, C)` uint8, uint16 or float32 in [0, 1], C 1 or 3, to `(H·scale, W·scale, C)` of that type.

        Grey goes through a colour network as three equal channels, of whose result the mean is taken.
        `on_progress` gets LR pixels done and in all; it starts again when memory ran out.  Raises `UpscaleError`
        when memory does not suffice for the smallest tile, when the network gives no finite numbers, and for
        networks that take several frames; `ValueError` for other arrays.
        """
        if self.window != 1:
            raise UpscaleError(f"this network takes {self.window} frames of a video; choose one for images")
        self._check(image)
        picture = pad(image, self._source.multiple)

        def row(rows: Span) -> Cut:
            band = picture[rows.start : rows.stop]
            return lambda columns: self._tensor(band[:, columns.start : columns.stop])

        job = Job(*image.shape[:2], *picture.shape[:2], row, image.shape[2], image.dtype)
        return self._run(job, on_progress)

    def frames_at_once(self, frame: np.ndarray) -> int:
        """How many frames of a video `run_batch` may be given: on a GPU as many as a tile has room for, else one."""
        if self.window != 1 or self.device.type == "cpu":
            return 1
        return max(1, min(MOST_AT_ONCE, DEFAULT_TILE[self.device.type] ** 2 // (frame.shape[0] * frame.shape[1])))

    def lanes(self, size: int) -> int:
        """How many pictures with results of at most `size` bytes may be at work at once (`lanes.in_lanes`)."""
        if not self._banded:
            return 1
        room = free_memory(self.device) // 2 // (RESULTS_A_LANE * size)
        return max(1, min(torch.get_num_threads(), MOST_AT_ONCE, room))

    def run_batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As `run`, for colour pictures of one size and type that go through the network together."""
        if len({(image.shape, image.dtype) for image in images}) != 1:
            raise ValueError("the pictures of one batch differ in size or type")
        height, width, channels = images[0].shape
        self._check(images[0])
        pictures = [pad(image, self._source.multiple) for image in images]

        def row(rows: Span) -> Cut:
            def cut(columns: Span) -> torch.Tensor:
                parts = [self._tensor(p[rows.start : rows.stop, columns.start : columns.stop]) for p in pictures]
                return torch.cat(parts).contiguous(memory_format=torch.channels_last)

            return cut

        # The result is made as that of one picture of many channels.
        together = channels * len(images)
        job = Job(height, width, *pictures[0].shape[:2], row, together, images[0].dtype)
        made = self._run(job, None)
        return [np.ascontiguousarray(made[..., at : at + channels]) for at in range(0, together, channels)]

    def run_rows(
        self, bands: Iterable[np.ndarray], height: int, *, on_progress: Progress | None = None
    ) -> Iterator[np.ndarray]:
        """As `run`, for a picture of `height` rows that comes and goes in bands `(rows, W, C)` and is never held whole.

        When memory runs out after the first band of the result, there is no way back: that raises `UpscaleError`.
        """
        source, multiple = Rows(bands), self._source.multiple
        width, channels = source.shape
        self._check(np.empty((1, width, channels), source.dtype))

        def row(rows: Span) -> Cut:
            band = source.between(rows.start, min(rows.stop, height))
            more = ((0, rows.stop - rows.start - len(band)), (0, round_up(width, multiple) - width), (0, 0))
            if any(after for _, after in more):
                band = np.pad(band, more, mode="reflect")
            return lambda columns: self._tensor(band[:, columns.start : columns.stop])

        padded = (round_up(height, multiple), round_up(width, multiple))
        job = Job(height, width, *padded, row, channels, source.dtype)
        yield from self._run_bands(job, on_progress)

    def prepare(self, frame: np.ndarray) -> Prepared:
        """Make one video frame, an array as for `run`, ready to be passed to `run_prepared` as often as needed.

        What the network computes from each frame alone is computed here, once; it stays on the device.
        """
        self._check(frame)
        if self.window == 1:
            return Prepared(frame, None)
        try:
            with torch.inference_mode():
                tensor = self._tensor(pad(frame, self._source.multiple))
                if hasattr(self._source, "prepare"):
                    tensor = self._source.prepare(tensor)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UpscaleError(f"not enough memory on {self.device} to hold the frames of this video") from None
        # Five frames are held at once: half as many bytes where the network rounds further anyway.  Never bf16.
        return Prepared(frame, tensor if self._precision_for(frame) == "fp32" else tensor.half())

    def run_prepared(self, frames: list[Prepared], *, on_progress: Progress | None = None) -> np.ndarray:
        """Upscale the middle one of `window` prepared frames; result and errors as for `run`."""
        if len(frames) != self.window:
            raise ValueError(f"this network takes {self.window} frames, not {len(frames)}")
        middle = frames[self.window // 2].frame
        if self.window == 1:
            return self.run(middle, on_progress=on_progress)
        if len({(prepared.frame.shape, prepared.frame.dtype) for prepared in frames}) != 1:
            raise ValueError("the frames of one window differ in size or type")
        padded_height, padded_width = (round_up(side, self._source.multiple) for side in middle.shape[:2])
        # Prepared frames may already stand at the size of the result.
        ratio = frames[0].tensor.shape[-1] // padded_width

        def row(rows: Span) -> Cut:
            bands = [prepared.tensor[..., rows.start * ratio : rows.stop * ratio, :] for prepared in frames]
            return lambda columns: torch.stack(
                [band[..., columns.start * ratio : columns.stop * ratio] for band in bands], dim=1
            ).float()

        prepared = hasattr(self._source, "prepare")
        job = Job(*middle.shape[:2], padded_height, padded_width, row, middle.shape[2], middle.dtype, prepared)
        return self._run(job, on_progress)

    def _run(self, job: Job, on_progress: Progress | None) -> np.ndarray:
        """Run the job, in ever smaller tiles as long as memory runs out."""
        output = self._output(job)
        for tile in self._tiles(job):
            try:
                collections.deque(self._bands(job, (tile, tile), on_progress, output), maxlen=0)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                break
        return output

    def _run_bands(self, job: Job, on_progress: Progress | None) -> Iterator[np.ndarray]:
        """The result of the job in bands of rows; tiles are made smaller only as long as none has been given."""
        given = False
        for tile in self._tiles(job):
            try:
                held = min(tile, BANDED_ROWS) if self._banded and not self._tile else tile
                for band in self._bands(job, (held, tile), on_progress):
                    given = True
                    yield band
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if given:
                    raise UpscaleError(f"memory ran out on {self.device} in the middle; choose smaller tiles") from None
            else:
                break

    def _tiles(self, job: Job) -> Iterator[int]:
        """Sizes of tiles to try, each smaller than the last, which memory did not suffice for."""
        tile = self._tile or self._choose_tile(job)
        while True:
            yield tile
            # Out here the exception is gone, and with it the hold of its traceback on the tensors.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            tile = min(tile, max(job.height, job.width)) // 2
            if tile < SMALLEST_TILE:
                raise UpscaleError(
                    f"not enough memory on {self.device} even for the smallest tiles; close other programs or choose "
                    "a smaller network"
                )
            self._tile = tile
            self._notice("memory", f"not enough memory on {self.device}; going on in smaller tiles")

    def _bands(
        self, job: Job, tile: tuple[int, int], on_progress: Progress | None, output: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """The result band by band, one for each row of tiles: rows of `output` where it is given, else new arrays."""
        plan = (self._overlap, self._seam, self._source.multiple, self.scale)
        rows = spans(job.height, job.padded_height, tile[0], *plan)
        columns = spans(job.width, job.padded_width, tile[1], *plan)
        tiles, pixels = len(rows) * len(columns), job.height * job.width
        # A GPU is given the next row of tiles before the last one is awaited, so that it never waits itself.
        ahead = 0 if self.device.type == "cpu" else 1
        begun: collections.deque[Work] = collections.deque()
        above: list[torch.Tensor] = []
        for number, row in enumerate(rows):
            stop = row.end - row.fall
            if output is None:
                into = np.empty((stop - row.begin, job.width * self.scale, job.channels), job.dtype)
            else:
                into = output[row.begin : stop]
            begun.append(Work(job.row(row), Strip(row, above, into, self.scale)))

            def report(done: float, before: int = number * len(columns)) -> None:
                if on_progress:
                    on_progress(round(pixels * (before + done) / tiles), pixels)

            self._begin(job, begun[-1], columns, report)
            above = begun[-1].strip.below
            if len(begun) > ahead:
                yield self._end(job, begun, columns)
        while begun:
            yield self._end(job, begun, columns)

    @torch.inference_mode()
    def _begin(self, job: Job, work: Work, columns: list[Span], report: Callable[[float], None] | None = None) -> None:
        """Give the device all tiles of a row; `report` gets how many of them are done."""
        work.strip.begin()
        work.precision = self._precision_for(job)
        height = (work.strip.row.stop - work.strip.row.start) * self.scale
        for number, column in enumerate(columns):
            tile = work.cut(column)

            def parts(tile: torch.Tensor = tile, number: int = number) -> Iterator[torch.Tensor]:
                done = 0
                for part in self._passes.parts(job, tile, self._precision_for(job)):
                    done += part.shape[2]
                    yield part
                    if report:
                        report(number + done / height)

            work.strip.add(column, parts(), tile.mean())
        work.strip.close()

    @torch.inference_mode()
    def _end(self, job: Job, begun: collections.deque[Work], columns: list[Span]) -> np.ndarray:
        """Await the first row of tiles begun; a faulty one is run again in a wider type, and all that follow it."""
        while self._widened(job, begun[0]):
            for work in begun:
                self._begin(job, work, columns)
        return begun.popleft().strip.output

    def _widened(self, job: Job, work: Work) -> bool:
        """Await a row of tiles; whether it has to be run again, in the wider type that is now chosen.

        Raises `UpscaleError` when there is none and the result is no picture.
        """
        faults, precision = work.faults(), work.precision
        if not faults:
            return False
        if precision != self._precision_for(job):
            return True  # another thread has chosen it meanwhile
        wider = next((name for name in WIDER[precision] if name in self._able), None)
        if wider is None:
            if "broken" in faults:
                raise UpscaleError("the picture holds values that are no numbers; repair or convert it first")
            if "non-finite" in faults:
                raise UpscaleError("the network gives values that are no numbers; its file is damaged or badly trained")
            return False  # black in the widest type too: it is what the network makes of this tile
        fault = "non-finite" if {"broken", "non-finite"} & faults else "black"
        self._notice("precision", f"{precision} gave {fault} output; going on in {wider}")
        self._passes.forget(precision)
        self.precision = self._deep = wider
        return True

    def _precision_for(self, image: np.ndarray | Job) -> str:
        return self.precision if image.dtype == np.uint8 else self._deep

    def _tensor(self, pixels: np.ndarray) -> torch.Tensor:
        return to_tensor(pixels, self._source.channels, self.device)

    def _check(self, image: np.ndarray) -> None:
        if image.ndim != 3 or 0 in image.shape or image.dtype not in WHITE:
            raise ValueError(f"not a picture (H, W, C) of uint8, uint16 or float32: {image.shape} {image.dtype}")
        if image.shape[2] not in (1, self._source.channels):
            raise ValueError(f"the network takes {self._source.channels} channels, not {image.shape[2]}")

    def _output(self, job: Job) -> np.ndarray:
        height, width = job.height * self.scale, job.width * self.scale
        try:
            return np.empty((height, width, job.channels), job.dtype)
        except MemoryError:
            pixels = f"{width}×{height}"
            raise UpscaleError(f"not enough memory for a picture of {pixels} pixels; choose a lower scale") from None

    @functools.cached_property
    def _values_per_pixel(self) -> int:
        if not self._banded:
            return values_per_pixel(self._source)
        # What is turned or coloured is held whole.
        made = 4 * self._source.channels * self.scale**2 if self._tta or self._match_color else 0
        return values_per_pixel_in_bands(self._source) + made

    def _choose_tile(self, job: Job) -> int:
        """The default tile of the device, or as much of it as half the free memory holds."""
        tile = self._default_tile
        if max(job.height, job.width) <= PROBE:
            return tile
        itemsize = DTYPES[self._precision_for(job)].itemsize
        side = math.isqrt(free_memory(self.device) // 2 // (self._values_per_pixel * itemsize))
        return max(SMALLEST_TILE, min(tile, side - self._overlap))

    def _notice(self, kind: str, text: str) -> None:
        if self._on_notice and kind not in self._noticed:
            self._on_notice(text)
        self._noticed.add(kind)
