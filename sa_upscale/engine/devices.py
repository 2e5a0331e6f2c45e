"""What a device is, can compute in and has room for."""

import copy
import math
import os
from pathlib import Path

import torch
from torch import nn

from sa_upscale.errors import UpscaleError
from sa_upscale.models import int8

# int8 is a way to multiply; all else is in float32.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
# The types to fall back on, in order, when numbers do not fit.
WIDER = {"fp16": ("bf16", "fp32"), "bf16": ("fp32",), "int8": ("fp32",), "fp32": ()}
KINDS = ("cpu", "cuda", "mps")
# What a tile adds to the picture, in LR pixels a side, its overlap not counted.  On a CPU the feature maps
# of a larger one fall out of the caches: measured on Compact, two cores with 32 MB, 300×300 with the
# overlap is the best in fp32 and within a tenth of the best in bf16.
DEFAULT_TILE = {"cpu": 256, "cuda": 512, "mps": 256}
# The same for networks that a processor works through in bands of rows (`models.bands`): the fewer tiles the better, as
# far as a few rows of maps stay in the caches; and the rows of a result that goes on as it is made, which are held.
BANDED_TILE, BANDED_ROWS = 2048, 1024
PROBE = 16  # side of a picture for which nothing is measured
UNKNOWN_FREE_MEMORY = 2 << 30


def find_device(name: str | None) -> torch.device:
    """The device of that name, the best one for None; `UpscaleError` when it is not there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name is None:
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind, _, index = name.partition(":")
    if kind not in KINDS or (index and (kind != "cuda" or not index.isdecimal())):
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
    in fp16.  int8 is never the first: what it costs differs from network to network.
    """
    if device.type == "cpu":
        # Older releases of torch do not tell: then nothing is known, and fp32 is right everywhere.
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        half = ["fp16"] if capabilities.get("avx512_fp16") or capabilities.get("amx_fp16") else []
        return (["bf16", "fp32"] if fast else ["fp32", "bf16"]) + half + (["int8"] if int8.able() else [])
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
    return min(_free_of_machine(), free_of_group())


def _free_of_machine() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        if "MemAvailable" in fields:
            return int(fields["MemAvailable"].split()[0]) * 1024
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNKNOWN_FREE_MEMORY


def free_of_group(group: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that a container's limit leaves; the machine's figures do not know of it."""
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
    # High rather than wide: some networks make their last stage of a few rows at a time.
    height, width = 4 * PROBE, PROBE // 2
    shape = (1, *((model.window,) if model.window > 1 else ()), model.channels, height, width)
    with torch.inference_mode():
        probed(torch.zeros(shape))
    return 2 * largest // (height * width)


def values_per_pixel_in_bands(model: nn.Module) -> int:
    """The same for a network that works in bands of rows: what it is given, three times; all else passes by."""
    given = model.window * model.channels * (model.scale**2 if hasattr(model, "prepare") else 1)
    return 3 * given


def is_out_of_memory(error: Exception) -> bool:
    """Whether the exception says that memory ran out; the CPU's and Apple's allocators have no class of their own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("can't allocate memory", "out of memory", "cudnn_status_alloc_failed"))
