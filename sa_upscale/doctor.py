"""What this machine has for the networks, and what of it is wrong, with the cure."""

import os
import platform
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from sa_upscale import __version__, checkpoints, processors
from sa_upscale.defaults import CLEAN
from sa_upscale.errors import UpscaleError

LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python-headless",
    "av",
    "pillow",
    "huggingface-hub",
    "safetensors",
)
SIDE = 96  # pixels a side of the picture that speed is measured with
MEASURING_SECONDS = 3.0
ANSWER_SECONDS = 3.0
SCARCE = 2e9  # bytes on the disk of the cache; the larger checkpoints take some 100 MB each


@dataclass(frozen=True)
class Finding:
    """One line: `state` is "ok", "note" (good to know) or "bad", which has a `cure`."""

    topic: str
    name: str
    value: str
    state: str = "ok"
    cure: str = ""


def examine(*, offline: bool = False, reset: bool = False) -> Iterator[Finding]:
    """Every finding, as soon as it is there; `offline` asks nothing of the network.  Takes a few seconds.

    What each device is fastest with is measured when it is not known yet, or again with `reset`.
    """
    yield from _python()
    torch = _torch()
    if isinstance(torch, Finding):
        yield torch
    else:
        yield from _spared("devices", _devices(torch, reset))
        for problem in (_blind_torch(torch), _torchvision(torch)):
            if problem:
                yield problem
    yield from _opencv()
    yield from _video()
    yield from _folders()
    yield from _spared("checkpoints", _checkpoints())
    if not offline:
        yield _network()


def _spared(topic: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, the last of which is what ended them: whoever asks wants to know the rest as well."""
    try:
        yield from findings
    except UpscaleError as error:
        what, _, cure = str(error).partition("; ")
        yield Finding(topic, "error", what, "bad", cure)


def _python() -> Iterator[Finding]:
    yield Finding("software", "sa-upscale", __version__)
    yield Finding("software", "python", f"{platform.python_version()} ({sys.prefix})")
    yield Finding("software", "system", platform.platform())
    for name in LIBRARIES:
        if version := _version(name):
            yield Finding("software", name, version)


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _torch():
    """The module, or why there is none: a library it loads may be missing or of another machine."""
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding("software", "torch", reason, "bad", "install torch again, for this system and Python")
    return torch


def _devices(torch, reset: bool) -> Iterator[Finding]:
    """Each device, what it is run with, and how many megapixels of result a second the default network gives there."""
    from sa_upscale import engine
    from sa_upscale.engine import calibration

    if reset:
        calibration.forget()

    model = checkpoints.load(CLEAN, 4, download=False).model
    for name, about in _found(torch).items():
        yield Finding("devices", name, about)
        device = torch.device(name)
        before = calibration.known(device)
        measured = before or calibration.calibrate(device)
        choice = measured or calibration.default(device)
        text = (
            f"{choice.precision}{', int8 for networks that lose nothing by it' * choice.int8}, tiles of {choice.tile}"
        )
        text += f", {choice.threads} threads" if name == "cpu" else ""
        how = f"measured {'earlier' if before else 'now'}" if measured else f"as usual: {calibration.BUSY}"
        yield Finding("devices", f"{name} runs with", f"{text}, {how}", "ok" if measured else "note")
        until = time.perf_counter() + MEASURING_SECONDS
        for precision in engine.precisions(device):
            notices = []
            made = engine.Engine(model, device=name, precision=precision, on_notice=notices.append)
            speed = _speed(made, until)
            if speed is None:
                yield Finding("devices", f"{name} {precision}", "not measured, time was up", "note")
            else:
                text = "; ".join([f"{speed:.2f} megapixels a second", *notices])
                yield Finding("devices", f"{name} {precision}", text, "note" if notices else "ok")


def _found(torch) -> dict[str, str]:
    found = {}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found[f"cuda:{index}"] = f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if torch.backends.mps.is_available():
        found["mps"] = platform.machine()
    found["cpu"] = f"{platform.machine()}, {torch.get_num_threads()} threads of {processors.count()} processors"
    return found


def _speed(made, until: float) -> float | None:
    """Megapixels of result a second; None where the time is up before the measuring begins."""
    import numpy as np

    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    if time.perf_counter() > until:
        return None
    made.run(picture)  # the first run prepares things
    started, runs = time.perf_counter(), 0
    while not runs or (runs < 5 and time.perf_counter() < until):
        made.run(picture)
        runs += 1
    return runs * (SIDE * made.scale) ** 2 / 1e6 / (time.perf_counter() - started)


def _blind_torch(torch) -> Finding | None:
    """A graphics card beside a torch that cannot use it."""
    if torch.version.cuda or torch.version.hip or not shutil.which("nvidia-smi"):
        return None
    return Finding(
        "devices",
        "torch",
        f"{torch.__version__} is built for the CPU alone, yet there is an NVIDIA driver",
        "bad",
        "install the CUDA build of torch to use the card",
    )


def _torchvision(torch) -> Finding | None:
    """A torchvision built for another torch, such as the registry's beside a torch for the CPU: LPIPS and FID fail."""
    if util.find_spec("torchvision") is None:
        return None
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, ImportError, OSError) as error:
        return Finding(
            "software",
            "torchvision",
            f"does not work with torch {torch.__version__}: {str(error).splitlines()[0]}",
            "bad",
            "install torch and torchvision from the same place, or remove it (LPIPS, DISTS and FID need it)",
        )
    return None


def _opencv() -> Iterator[Finding]:
    """Several packages that write into the one folder cv2, of which removing one breaks the others."""
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
    found = [name for name in names if _version(name)]
    if util.find_spec("cv2") is None or len(found) > 1:
        value = f"{' and '.join(found)} overwrite each other" if found[1:] else "cv2 cannot be found"
        cure = "uninstall every opencv package, then install opencv-python-headless"
        yield Finding("software", "opencv", value, "bad", cure)


def _video() -> Iterator[Finding]:
    from sa_upscale import media

    encoders = media.encoders()
    hardware = [name for name, works in encoders.items() if works and "_" in name and not name.startswith("prores")]
    software = [name for name, works in encoders.items() if works and name not in hardware]
    yield Finding("video", "encoders", ", ".join(software))
    yield Finding("video", "in hardware", ", ".join(hardware) or "none that works here", "ok" if hardware else "note")


def _folders() -> Iterator[Finding]:
    from huggingface_hub import constants

    for name, folder in (("Hub cache", Path(constants.HF_HUB_CACHE)), ("weights", checkpoints.user_folder())):
        there = folder.is_dir()
        yield Finding(
            "folders", name, f"{folder}, {_size(folder) / 1e6:.1f} MB" if there else f"{folder}, not there yet"
        )
    named = os.environ.get("SA_UPSCALE_WEIGHTS")
    if named and not Path(named).expanduser().is_dir():
        cure = "make the folder, or unset SA_UPSCALE_WEIGHTS"
        yield Finding("folders", "SA_UPSCALE_WEIGHTS", f"{named} is no folder", "bad", cure)
    free = shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE))).free
    yield Finding("folders", "free for the cache", f"{free / 1e9:.1f} GB", "ok" if free > SCARCE else "note")


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())


def _size(folder: Path) -> int:
    """Bytes of the files below; what the Hub's cache links to is counted once."""
    files = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in files if not file.is_symlink())


def _checkpoints() -> Iterator[Finding]:
    verdicts = checkpoints.verify()
    for verdict in verdicts:
        if verdict.state == "ok":
            yield Finding("checkpoints", verdict.name, str(verdict.path))
        elif verdict.state == "corrupt":
            cure = f"delete the file, then: sa-upscale models fetch {verdict.name}"
            yield Finding("checkpoints", verdict.name, f"{verdict.path} has another sha256", "bad", cure)
    absent = sum(verdict.state == "absent" for verdict in verdicts)
    yield Finding("checkpoints", "not here", f"{absent}; `sa-upscale models list` shows them")


def _network(open_url: Callable = urllib.request.urlopen) -> Finding:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding("network", "Hub", "not asked: HF_HUB_OFFLINE is set", "note")
    started = time.perf_counter()
    try:
        with open_url(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=ANSWER_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        return Finding("network", "Hub", f"{constants.ENDPOINT} answers with {error.code}", "note")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Finding(
            "network", "Hub", f"{constants.ENDPOINT} cannot be reached ({reason}); bundled ones work", "note"
        )
    return Finding("network", "Hub", f"{constants.ENDPOINT} answers after {time.perf_counter() - started:.1f} s")
