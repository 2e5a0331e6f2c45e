"""Runs a network over pictures of any size: device, number type, tiles, what to do when memory runs out."""

import copy
import functools
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sa_upscale.errors import UpscaleError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WIDER = {"fp16": ("bf16", "fp32"), "bf16": ("fp32",), "fp32": ()}
WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}

# What a tile adds to the picture, in LR pixels a side, its overlap not counted.  On a CPU the feature maps
# of a larger one fall out of the caches: measured on Compact, two cores with 32 MB, 300×300 with the
# overlap is the best in fp32 and within a tenth of the best in bf16.
DEFAULT_TILE = {"cpu": 256, "cuda": 512, "mps": 256}
SMALLEST_TILE = 16
SEAM = 8  # LR pixels over which two tiles are mixed where both are right
UNBOUNDED_OVERLAP = 64  # for a network that sees the whole picture and names no measured overlap
COLOUR_SIGMA, COLOUR_REACH = 4, 12  # LR pixels: what colours are matched over, and how far that reaches
MOST_AT_ONCE = 8  # frames; more gain nothing, and each waits for the last
PROBE = 16  # side of the tile on which a network's memory is measured
UNKNOWN_FREE_MEMORY = 2 << 30

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """One frame made ready by `Engine.prepare`; `tensor` is None for networks that take one frame at a time."""

    frame: np.ndarray
    tensor: torch.Tensor | None


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    The network is given `[start, stop)` of the picture; of what it returns `[begin, end)` counts, in pixels
    of the result.  The first `rise` of these fade in, the last `fall` fade out.
    """

    start: int
    stop: int
    begin: int
    end: int
    rise: int
    fall: int


@dataclass(frozen=True)
class Job:
    """A picture to run: how to cut a tile `(1, …, h, w)` of it, and how a network makes `(1, C, h·scale, …)` of that.

    The result has `channels` and the type `dtype`, and `scale` times the size.
    """

    height: int  # as given
    width: int
    padded_height: int  # as the network takes it
    padded_width: int
    cut: Callable[[Span, Span], torch.Tensor]
    forward: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    channels: int
    dtype: np.dtype


class Rows:
    """The rows of a picture that comes in bands `(rows, …)`, as many at a time as are needed at once."""

    def __init__(self, bands: Iterable[np.ndarray]):
        self._bands = iter(bands)
        self._held, self._start = next(self._bands), 0
        self.shape, self.dtype = self._held.shape[1:], self._held.dtype

    def between(self, start: int, stop: int) -> np.ndarray:
        """Rows `[start, stop)`, fewer at the end of the picture; what was before `start` is forgotten."""
        held, at = [self._held[start - self._start :]], self._start + len(self._held)
        while at < stop and (band := next(self._bands, None)) is not None:
            held.append(band[max(0, start - at) :])
            at += len(band)
        self._held, self._start = np.concatenate(held) if len(held) > 1 else held[0], start
        return self._held[: stop - start]


class Engine:
    """Runs `model` on `device` in tiles.

    `device`: "cpu", "cuda", "cuda:N" or "mps"; None takes the first there is of cuda, mps, cpu.
    `precision`: "fp32", "bf16" or "fp16"; None takes what the device is fast at (`precisions`), except that
    pictures deeper than 8 bits avoid bf16, whose eight bits would show as bands.
    `tile`: LR pixels a side that each tile adds to the picture; None chooses by the free memory.
    `tta`: take the mean of the eight ways to turn and mirror what the network is given, at eight times the work.
    `match_color`: give the result of pictures the low frequencies of the source.
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
        on_notice: Callable[[str], None] | None = None,
    ):
        if tile is not None and tile < 1:
            raise UpscaleError(f"a tile of {tile} pixels is not possible; give 1 or more, or leave it out")
        self.device = find_device(device)
        able = precisions(self.device)
        if precision is not None and precision not in able:
            raise UpscaleError(f"{self.device} cannot run in {precision}; it can in {', '.join(able)}")
        self.precision = precision or able[0]
        self.scale, self.window = model.scale, model.window
        self._able = able
        self._deep = precision or next(name for name in able if name != "bf16")
        self._source = copy.deepcopy(model).eval().requires_grad_(False)
        self._networks: dict[str, nn.Module] = {}
        self._overlap, self._seam = overlap(model)
        self._tta, self._match_color = tta, match_color
        if match_color:
            self._overlap += _round_up(2 * COLOUR_REACH, model.multiple)
        self._tile = tile
        self._on_notice = on_notice
        self._noticed: set[str] = set()

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides the result: the network's weights, the type it runs in, the device, the tiles."""
        digest = hashlib.sha256(f"{type(self._source).__name__} {self._source.parameters_dict}".encode())
        choices = (self.precision, self._deep, self.device.type, self._tile, self._tta, self._match_color)
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
        picture = _pad(image, self._source.multiple)

        def cut(rows: Span, columns: Span) -> torch.Tensor:
            return self._tensor(picture[rows.start : rows.stop, columns.start : columns.stop])

        job = Job(*image.shape[:2], *picture.shape[:2], cut, nn.Module.__call__, image.shape[2], image.dtype)
        return self._run(job, on_progress)

    def frames_at_once(self, frame: np.ndarray) -> int:
        """How many frames of a video `run_batch` may be given: on a GPU as many as a tile has room for, else one."""
        if self.window != 1 or self.device.type == "cpu":
            return 1
        return max(1, min(MOST_AT_ONCE, DEFAULT_TILE[self.device.type] ** 2 // (frame.shape[0] * frame.shape[1])))

    def run_batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As `run`, for colour pictures of one size and type that go through the network together."""
        if len({(image.shape, image.dtype) for image in images}) != 1:
            raise ValueError("the pictures of one batch differ in size or type")
        height, width, channels = images[0].shape
        self._check(images[0])
        pictures = [_pad(image, self._source.multiple) for image in images]

        def cut(rows: Span, columns: Span) -> torch.Tensor:
            parts = [self._tensor(p[rows.start : rows.stop, columns.start : columns.stop]) for p in pictures]
            return torch.cat(parts).contiguous(memory_format=torch.channels_last)

        # The result is made as that of one picture of many channels.
        together = channels * len(images)
        job = Job(height, width, *pictures[0].shape[:2], cut, nn.Module.__call__, together, images[0].dtype)
        made = self._run(job, None)
        return [np.ascontiguousarray(made[..., at : at + channels]) for at in range(0, together, channels)]

    def run_rows(
        self, bands: Iterable[np.ndarray], height: int, *, on_progress: Progress | None = None
    ) -> Iterator[np.ndarray]:
        """As `run`, for a picture of `height` rows that comes and goes in bands `(rows, W, C)` and is never held whole.

        When memory runs out after the first band of the result, there is no way back: that raises `UpscaleError`.
        """
        rows, multiple = Rows(bands), self._source.multiple
        width, channels = rows.shape
        self._check(np.empty((1, width, channels), rows.dtype))

        def cut(wanted: Span, columns: Span) -> torch.Tensor:
            band = rows.between(wanted.start, min(wanted.stop, height))
            more = ((0, wanted.stop - wanted.start - len(band)), (0, _round_up(width, multiple) - width), (0, 0))
            if any(after for _, after in more):
                band = np.pad(band, more, mode="reflect")
            return self._tensor(band[:, columns.start : columns.stop])

        padded = (_round_up(height, multiple), _round_up(width, multiple))
        job = Job(height, width, *padded, cut, nn.Module.__call__, channels, rows.dtype)
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
                tensor = self._tensor(_pad(frame, self._source.multiple))
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
        has_entry = hasattr(self._source, "prepare")
        padded_height, padded_width = (_round_up(side, self._source.multiple) for side in middle.shape[:2])
        # Prepared frames may already stand at the size of the result.
        ratio = frames[0].tensor.shape[-1] // padded_width

        def cut(rows: Span, columns: Span) -> torch.Tensor:
            tiles = [
                prepared.tensor[
                    ..., rows.start * ratio : rows.stop * ratio, columns.start * ratio : columns.stop * ratio
                ]
                for prepared in frames
            ]
            return torch.stack(tiles, dim=1).float()

        def forward(network: nn.Module, tile: torch.Tensor) -> torch.Tensor:
            return network.from_prepared(tile) if has_entry else network(tile)

        job = Job(*middle.shape[:2], padded_height, padded_width, cut, forward, middle.shape[2], middle.dtype)
        return self._run(job, on_progress)

    def _run(self, job: Job, on_progress: Progress | None) -> np.ndarray:
        """Run the job, in ever smaller tiles as long as memory runs out."""
        output = self._output(job)
        for tile in self._tiles(job):
            try:
                row = 0
                for band in self._bands(job, tile, on_progress):
                    _store(band, output[row : row + len(band)])
                    row += len(band)
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
                for band in self._bands(job, tile, on_progress):
                    stored = np.empty(band.shape, job.dtype)
                    _store(band, stored)
                    given = True
                    yield stored
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

    def _bands(self, job: Job, tile: int, on_progress: Progress | None) -> Iterator[torch.Tensor]:
        """The result in float, band by band: a row of tiles is mixed, and what is final of it given."""
        plan = (self._overlap, self._seam, self._source.multiple, self.scale)
        rows = spans(job.height, job.padded_height, tile, *plan)
        columns = spans(job.width, job.padded_width, tile, *plan)
        tiles, pixels = len(rows) * len(columns), job.height * job.width
        width, channels = job.width * self.scale, job.channels
        carried = torch.empty(0, width, channels)
        for row_number, row in enumerate(rows):
            band = torch.zeros(row.end - row.begin, width, channels)
            band[: len(carried)] = carried
            for number, column in enumerate(columns, start=row_number * len(columns) + 1):
                band[:, column.begin : column.end] += self._run_tile(job, row, column)
                if on_progress:
                    on_progress(pixels * number // tiles, pixels)
            final = row.end - row.begin - row.fall
            carried = band[final:].clone()
            yield band[:final]

    @torch.inference_mode()
    def _run_tile(self, job: Job, row: Span, column: Span) -> torch.Tensor:
        """What one tile adds to the band, `(rows, columns, C)` float32 on the CPU, faded at its seams."""
        sr = self._sound(job, job.cut(row, column)).flatten(0, 1)
        top, left = row.start * self.scale, column.start * self.scale
        part = sr[:, row.begin - top : row.end - top, column.begin - left : column.end - left].permute(1, 2, 0)
        if job.channels == 1:
            part = part.mean(dim=2, keepdim=True)
        part = part.cpu()
        _fade(part, row.rise, row.fall)
        _fade(part.transpose(0, 1), column.rise, column.fall)
        return part

    def _sound(self, job: Job, tile: torch.Tensor) -> torch.Tensor:
        """The network's result for a tile, in a wider type when the chosen one overflows or gives black for light."""
        precision = self._precision_for(job)
        sr = self._forward(job, precision, tile)
        while fault := _fault(tile, sr):
            wider = next((name for name in WIDER[precision] if name in self._able), None)
            if wider is None:
                if fault == "black":
                    break  # so in the widest type too: it is what the network makes of this tile
                if not torch.isfinite(tile).all():
                    raise UpscaleError("the picture holds values that are no numbers; repair or convert it first")
                raise UpscaleError("the network gives values that are no numbers; its file is damaged or badly trained")
            self._notice("precision", f"{precision} gave {fault} output; going on in {wider}")
            del self._networks[precision]
            precision = self.precision = self._deep = wider
            sr = self._forward(job, precision, tile)
        return sr

    def _forward(self, job: Job, precision: str, tile: torch.Tensor) -> torch.Tensor:
        network = self._network(precision)
        if self._tta:
            turned = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
            sr = sum(_turned_back(job.forward(network, _turned(tile, *way)).float(), *way) for way in turned) / 8
        else:
            sr = job.forward(network, tile).float()
        # Windows of frames have no one source of their colours.
        return with_low_frequencies(sr, tile) if self._match_color and self.window == 1 else sr

    def _precision_for(self, image: np.ndarray | Job) -> str:
        return self.precision if image.dtype == np.uint8 else self._deep

    def _network(self, precision: str) -> nn.Module:
        """The network on the device in one type; made on first use, always from the full-precision original."""
        if precision not in self._networks:
            network = copy.deepcopy(self._source)
            self._networks[precision] = network.to(self.device, DTYPES[precision], memory_format=torch.channels_last)
        return self._networks[precision]

    def _tensor(self, pixels: np.ndarray) -> torch.Tensor:
        """`(h, w, C)` of any of the three types as float32 `(1, network's C, h, w)` in [0, 1] on the device."""
        tensor = torch.from_numpy(pixels.astype(np.float32)).to(self.device)
        tensor = tensor.div_(WHITE[pixels.dtype]).permute(2, 0, 1).unsqueeze(0)
        tensor = tensor.expand(-1, self._source.channels, -1, -1)
        return tensor.contiguous(memory_format=torch.channels_last)

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

    def _choose_tile(self, job: Job) -> int:
        """The default tile of the device, or as much of it as half the free memory holds."""
        tile = DEFAULT_TILE[self.device.type]
        if max(job.height, job.width) <= PROBE:
            return tile
        itemsize = DTYPES[self._precision_for(job)].itemsize
        side = math.isqrt(free_memory(self.device) // 2 // (values_per_pixel(self._source) * itemsize))
        return max(SMALLEST_TILE, min(tile, side - self._overlap))

    def _notice(self, kind: str, text: str) -> None:
        if self._on_notice and kind not in self._noticed:
            self._on_notice(text)
        self._noticed.add(kind)


def find_device(name: str | None) -> torch.device:
    """The device of that name, the best one for None; `UpscaleError` when it is not there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name is None:
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind, _, index = name.partition(":")
    if kind not in DEFAULT_TILE or (index and (kind != "cuda" or not index.isdecimal())):
        raise UpscaleError(f"unknown device {name!r}; known are cpu, cuda, cuda:N and mps")
    if kind != "cpu" and not {"cuda": cuda, "mps": mps}[kind]:
        raise UpscaleError(f"no {kind} device is available here; leave the device out or take cpu")
    if index and int(index) >= torch.cuda.device_count():
        raise UpscaleError(f"there is no {name}; the last one is cuda:{torch.cuda.device_count() - 1}")
    return torch.device(name)


def precisions(device: torch.device) -> list[str]:
    """The number types the device can run a network in, the one to choose first.

    On a CPU bf16 is only the choice with AVX512-BF16 or AMX (up to four times as fast as fp32 with,
    slower without).  The GTX 16 series has the same compute capability as Turing's RTX cards, but gives NaN
    in fp16.
    """
    if device.type == "cpu":
        # Older releases of torch do not tell: then nothing is known, and fp32 is right everywhere.
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        half = ["fp16"] if capabilities.get("avx512_fp16") or capabilities.get("amx_fp16") else []
        return (["bf16", "fp32"] if fast else ["fp32", "bf16"]) + half
    if device.type == "mps":
        return ["fp16", "fp32"]
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return ["bf16", "fp16", "fp32"]
    if capability == (7, 5) and "GTX 16" not in torch.cuda.get_device_name(device):
        return ["fp16", "fp32"]
    return ["fp32", "fp16"]


def free_memory(device: torch.device) -> int:
    """Bytes that a run may take on the device, without what others hold."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min(_free_of_machine(), _free_of_group())


def _free_of_machine() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        if "MemAvailable" in fields:
            return int(fields["MemAvailable"].split()[0]) * 1024
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNKNOWN_FREE_MEMORY


def _free_of_group(group: Path = Path("/sys/fs/cgroup")) -> float:
    """What a container's limit leaves; the machine's figures do not know of it."""
    limit, used = group / "memory.max", group / "memory.current"
    if not (limit.exists() and used.exists()) or limit.read_text().strip() == "max":
        return math.inf
    return max(0, int(limit.read_text()) - int(used.read_text()))


def values_per_pixel(model: nn.Module) -> int:
    """About how many numbers a run of the network holds at once for each LR pixel.

    Twice the input and output of its hungriest layer, measured on a small tile: what else is alive at that
    moment (concatenated parts, the input of a skip) has about the size of these again.
    """
    largest = 0

    def measure(_module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal largest
        largest = max(largest, sum(value.numel() for value in inputs) + output.numel())

    probed = copy.deepcopy(model)
    for module in probed.modules():
        if not list(module.children()):
            module.register_forward_hook(measure)
    shape = (1, *((model.window,) if model.window > 1 else ()), model.channels, PROBE, PROBE)
    with torch.inference_mode():
        probed(torch.zeros(shape))
    return 2 * largest // PROBE**2


def is_out_of_memory(error: Exception) -> bool:
    """Whether the exception says that memory ran out; the CPU's and Apple's allocators have no class of their own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("can't allocate memory", "out of memory", "cudnn_status_alloc_failed"))


def overlap(model: nn.Module) -> tuple[int, int]:
    """LR pixels that neighbouring tiles share, and over how many in their middle they are mixed.

    Where tiles overlap by all that the network sees, both are right in the middle and the seam is short.
    Where that would be several times the tile, the network names how far it matters (`overlap`); the mixing
    then starts early, so that what little is wrong near a cut counts little.
    """
    context = model.context
    reach = getattr(model, "overlap", UNBOUNDED_OVERLAP if context is None else context)
    if context is not None and context <= reach:
        return _round_up(2 * context + SEAM, model.multiple), SEAM
    return _round_up(2 * reach, model.multiple), reach // 2


def spans(length: int, padded: int, tile: int, shared: int, seam: int, multiple: int, scale: int) -> list[Span]:
    """Cut an axis of `padded` LR pixels, `length` of them real, into the fewest tiles that add `tile` pixels each.

    Neighbours share at least `shared` pixels and are mixed over `seam` in the middle of what they share.
    All tiles have one size, and start at multiples of `multiple`, of which `shared` is one too.  The weights
    of the tiles sum to one at every pixel.
    """
    tile = _round_up(tile, multiple)
    # No longer than half a tile, so that a pixel never lies in two seams.
    width = min(seam, tile // 2) * scale
    count = max(1, -(-(padded - shared) // tile))
    # As even as can be: three tiles of a third, not two whole ones and one that repeats most of the second.
    size = min(padded, _round_up(-(-(padded + (count - 1) * shared) // count), multiple))
    steps = (padded - size) // multiple
    starts = [number * steps // max(1, count - 1) * multiple for number in range(count)]
    seams = [((left + size + right) * scale - width) // 2 for left, right in itertools.pairwise(starts)]
    begins = [0, *seams]
    ends = [*(begin + width for begin in seams), length * scale]
    return [
        Span(start, start + size, begin, end, width if number else 0, width if number < count - 1 else 0)
        for number, (start, begin, end) in enumerate(zip(starts, begins, ends, strict=True))
    ]


def with_low_frequencies(sr: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
    """`sr` `(N, C, h·s, w·s)` with the low frequencies of `lr` `(N, C, h, w)`: both have the same local mean colour.

    What the mean over each LR pixel differs by is blurred by a Gaussian of `COLOUR_SIGMA` and added.
    """
    scale = sr.shape[-1] // lr.shape[-1]
    taps = torch.arange(-COLOUR_REACH, COLOUR_REACH + 1, dtype=sr.dtype, device=sr.device)
    kernel = torch.exp(-(taps**2) / (2 * COLOUR_SIGMA**2))
    kernel /= kernel.sum()
    channels = sr.shape[1]
    smooth = lr - functional.avg_pool2d(sr, scale)
    for shape, border in (
        ((1, 1, 1, -1), (COLOUR_REACH, COLOUR_REACH, 0, 0)),
        ((1, 1, -1, 1), (0, 0, *[COLOUR_REACH] * 2)),
    ):
        padded = functional.pad(smooth, border, mode="replicate")
        smooth = functional.conv2d(padded, kernel.view(shape).expand(channels, -1, -1, -1), groups=channels)
    return sr + functional.interpolate(smooth, scale_factor=scale, mode="bilinear")


def _turned(tile: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    turned = torch.rot90(tile, turns, (-2, -1))
    return turned.flip(-1) if mirrored else turned


def _turned_back(sr: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    return torch.rot90(sr.flip(-1) if mirrored else sr, -turns, (-2, -1))


def rising(width: int) -> torch.Tensor:
    """Weights of a tile that fades in over `width` pixels; `1 - rising(width)` is exact, so that they sum to one."""
    # Multiples of 2^-20 lose nothing when float32 takes them from one.
    return ((torch.arange(width, dtype=torch.float64) + 0.5) / width * 2**20).round().div(2**20).float()


def _fade(part: torch.Tensor, rise: int, fall: int) -> None:
    """Weigh the first `rise` and the last `fall` entries of the first axis, in place."""
    if rise:
        part[:rise] *= rising(rise)[:, None, None]
    if fall:
        part[-fall:] *= 1 - rising(fall)[:, None, None]


def _fault(tile: torch.Tensor, sr: torch.Tensor) -> str | None:
    """What is wrong with a result: "non-finite", "black" where the input is not, or nothing."""
    low, high = (bound.item() for bound in sr.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        return "non-finite"
    # Half a step of 8 bits: nothing of the picture is left.  A tile as dark as two steps may be night.
    return "black" if high < 0.5 / 255 and tile.mean().item() > 2 / 255 else None


def _store(band: torch.Tensor, output: np.ndarray) -> None:
    """Write float rows in [0, 1] into rows of the result, rounded to its type; spoils the band."""
    white = WHITE[output.dtype]
    band.clamp_(0, 1)
    if white > 1:
        band.mul_(white).round_()
    torch.from_numpy(output).copy_(band)


def _pad(image: np.ndarray, multiple: int) -> np.ndarray:
    """The image mirrored at its right and lower border up to a multiple; itself when it is one."""
    height, width = image.shape[:2]
    more = (_round_up(height, multiple) - height, _round_up(width, multiple) - width)
    return np.pad(image, ((0, more[0]), (0, more[1]), (0, 0)), mode="reflect") if any(more) else image


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
