"""What this machine is fastest with: number type, tile and threads, measured once in a few seconds and remembered."""

import collections
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from sa_upscale import disk, folders, processors
from sa_upscale.engine.devices import DEFAULT_TILE, DTYPES, find_device, precisions
from sa_upscale.models import int8
from sa_upscale.models.vsrresnet import VSRResNet

SECONDS = 2.6
FEATURES, LAYERS = 64, 3  # the layer most of our networks are made of
TILES = (192, 256, 384)
CONTEXT = 18  # LR pixels a side that a tile sees beyond what it adds, as of the compact network
# Other programs that keep processors busy make fewer threads look better than they are, and everything else random:
# torch's threads have this share of their processors' time where nothing else runs (0.5 to 0.66 of two beside one
# other program), looked at for so long before and after.
QUIET, LOOK_SECONDS = 0.85, 0.5
# How much faster something else than the default has to be: less is noise.
BETTER = {"precision": 1.15, "tile": 1.25, "threads": 1.3, "int8": 1.2}
BLOCKS, SIDE = 2, 384  # of the network that int8 is measured on, and of its picture
BUSY = "other programs keep the processors busy"


@dataclass(frozen=True)
class Choice:
    """What a device is to be run with; `threads` are those of the processor.

    `int8`: whether that is faster still, measured with a network that works in bands of rows; RRDBNet gains more.
    """

    precision: str
    tile: int
    threads: int
    int8: bool


def default(device: torch.device) -> Choice:
    """What to take where nothing was measured."""
    able = precisions(device)
    # A matrix unit takes bf16 so fast that rounding the maps to bytes first may cost more than it brings.
    matrices = getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)
    return Choice(able[0], DEFAULT_TILE[device.type], processors.threads(), "int8" in able and not matrices)


def known(device: torch.device) -> Choice | None:
    """What was measured here before; None when it was not, or on another processor or torch."""
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
        choice = Choice(**kept[_machine(device)])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return choice if choice.precision in precisions(device) and choice.tile > 0 and choice.threads > 0 else None


def calibrate(device: torch.device) -> Choice | None:
    """Measure, remember and return the choice.  Only a CPU has something to choose; that takes under five seconds.

    None, and nothing is remembered, where other programs keep the processors busy.
    """
    choice = _measured(device) if device.type == "cpu" else default(device)
    if choice is None:
        return None
    file = _file()
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with disk.replacing(file) as stream:
            stream.write(json.dumps(kept | {_machine(device): asdict(choice)}, indent=1).encode())
    except OSError:
        pass  # nothing can be remembered here: it will be measured again
    return choice


def settle(name: str | None, on_notice: Callable[[str], None]) -> None:
    """Before a long job on the device of that name: `calibrate`, where nothing is known of it yet."""
    device = find_device(name)
    if device.type == "cpu" and known(device) is None:
        on_notice("measuring what this machine is fastest with, once; `sa-upscale doctor` shows it")
        if calibrate(device) is None:
            on_notice(f"{BUSY}: taking the usual settings, measuring another time")


def forget() -> None:
    """Measure again next time."""
    _file().unlink(missing_ok=True)


def _file() -> Path:
    return folders.cache() / "calibration.json"


def _machine(device: torch.device) -> str:
    """What has to be as it was for a measurement to hold."""
    # Not torch's threads, which a choice changes.
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    about = ["quiet", torch.__version__, platform.machine(), _processor(), f"{threads} of {processors.count()}"]
    if device.type == "cuda":
        about.append(torch.cuda.get_device_name(device))
    return " | ".join([str(device), *about])


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _measured(device: torch.device) -> Choice | None:
    """What is fastest; None where other programs were at work, too."""
    usual = default(device)
    if _busy(usual):
        return None
    choice = _best(usual, device)
    return None if _busy(usual) else choice


def _busy(choice: Choice) -> bool:
    """Whether torch's threads have to share their processors."""
    run = _work(choice)
    before = torch.get_num_threads()
    torch.set_num_threads(choice.threads)
    try:
        run()  # the first run prepares things
        started, own = time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - started) < LOOK_SECONDS:
            run()
        # Threads that wait for others to end a layer spin: they count as much as those that work.
        return (time.process_time() - own) / (passed * choice.threads) < QUIET
    finally:
        torch.set_num_threads(before)


def _best(choice: Choice, device: torch.device) -> Choice:
    """The fastest number type, then tile, then threads, each against `choice`, and int8 against the type."""
    until = time.perf_counter() + SECONDS
    for field, candidates in (
        ("precision", [name for name in precisions(device) if name not in ("fp16", "int8")]),
        ("tile", TILES),
        ("threads", _threads(choice.threads)),
    ):
        options = [choice] + [replace(choice, **{field: value}) for value in candidates]
        # A fourth of what is left for the first of four rounds, a third for the second, and so on.
        share = {"precision": 4, "tile": 3, "threads": 2}[field]
        ends = time.perf_counter() + (until - time.perf_counter()) / share
        choice = _fastest(list(dict.fromkeys(options)), BETTER[field], ends)
    if "int8" not in precisions(device):
        return choice
    options = [replace(choice, int8=False), replace(choice, int8=True)]
    return _fastest(options, BETTER["int8"], until, _banded_work, unmeasured=choice)


def _threads(usual: int) -> list[int]:
    """Half as many as usual: processors that share a core can be slower together."""
    return [max(1, usual // 2)]


Work = Callable[[Choice], Callable[[], object]]


def _fastest(
    options: list[Choice],
    better: float,
    until: float,
    work_of: Work | None = None,
    *,
    unmeasured: Choice | None = None,
) -> Choice:
    """The first option, unless another is `better` times as fast in the median of at least three rounds.

    Each round times every option once, and only what was timed in one round is compared: other programs come and go.
    Where there is no time for three rounds it is `unmeasured`, without which it is the first.
    """
    before = torch.get_num_threads()
    try:
        work = [(option, (work_of or _work)(option)) for option in options]
        started = time.perf_counter()
        for _, run in work:
            run()  # the first run prepares things
        if time.perf_counter() + 3 * (time.perf_counter() - started) > until + SECONDS / 2:
            return unmeasured or options[0]
        rounds: list[list[float]] = []
        while len(rounds) < 3 or time.perf_counter() < until:
            rounds.append([_seconds_a_pixel(option, run) for option, run in work])
    finally:
        torch.set_num_threads(before)
    gains = [statistics.median(taken[0] / taken[at] for taken in rounds) for at in range(len(options))]
    fastest = max(range(len(options)), key=gains.__getitem__)
    return options[fastest] if gains[fastest] > better else options[0]


def _seconds_a_pixel(choice: Choice, run: Callable[[], object]) -> float:
    torch.set_num_threads(choice.threads)
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) / choice.tile**2


def _work(choice: Choice) -> Callable[[], object]:
    """A run of a few layers over one tile and what it sees beyond."""
    side = choice.tile + 2 * CONTEXT
    layers = [
        layer
        for _ in range(LAYERS)
        for layer in (nn.Conv2d(FEATURES, FEATURES, 3, padding=1), nn.LeakyReLU(0.1, inplace=True))
    ]
    network = nn.Sequential(*layers).to(dtype=DTYPES[choice.precision], memory_format=torch.channels_last)
    x = torch.zeros(1, FEATURES, side, side, dtype=DTYPES[choice.precision])
    x = x.contiguous(memory_format=torch.channels_last)
    return torch.inference_mode()(lambda: network(x))


def _banded_work(choice: Choice) -> Callable[[], object]:
    """A run of a network in bands of rows, in int8 or in the type chosen."""
    network, dtype = VSRResNet(blocks=BLOCKS), DTYPES["int8" if choice.int8 else choice.precision]
    network = (int8.converted(network) if choice.int8 else network).to(dtype=dtype, memory_format=torch.channels_last)
    frames = torch.rand(1, network.window, network.channels, SIDE, SIDE, dtype=dtype)
    return torch.inference_mode()(lambda: collections.deque(network.rows_from_prepared(frames), maxlen=0))
