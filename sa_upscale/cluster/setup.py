"""What every worker needs to begin with, and what it tells of itself."""

import contextlib
import hashlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sa_upscale import __version__, checkpoints, disk, processors
from sa_upscale.cluster import claims, cores
from sa_upscale.cluster.pool import Crew, Seat, Worker
from sa_upscale.defaults import AUTO
from sa_upscale.errors import UpscaleError


@dataclass(frozen=True)
class Where:
    """Where the work is done: `engine` is "processes" or "ray", `address` that of a Ray cluster, `devices` as in
    `parse_devices`, each None unless asked for."""

    engine: str | None = None
    address: str | None = None
    devices: str | None = None

    def __bool__(self) -> bool:
        return (self.engine, self.address, self.devices) != (None, None, None)


@dataclass(frozen=True)
class Weights:
    """A checkpoint's file, with its bytes for machines that do not have it."""

    path: str
    sha256: str
    content: bytes | None

    @classmethod
    def of(cls, model: str, *, travel: bool) -> "Weights | None":
        """Those of a model that is a file, or was imported; None for other names, which all machines can look up."""
        entry = checkpoints.entries().get(model)
        imported = entry and (checkpoints.user_folder() / (entry.file or "")).is_file()
        if model in (AUTO, *checkpoints.registry.names()) and not imported:
            return None
        path = checkpoints.path(model)
        return cls(str(path.absolute()), checkpoints.sha256_of(path), path.read_bytes() if travel else None)

    def here(self) -> str:
        """Where the file is on this machine; fetched from the driver and verified where it was not."""
        path = Path(self.path)
        if self._is_at(path):
            return str(path)
        if self.content is None or hashlib.sha256(self.content).hexdigest() != self.sha256:
            raise UpscaleError(f"{socket.gethostname()}: {path} is not the checkpoint that the run began with")
        place = Path(tempfile.gettempdir()) / f"sa-upscale-{os.getuid() if hasattr(os, 'getuid') else ''}"
        place.mkdir(mode=0o700, exist_ok=True)
        kept = place / f"{self.sha256}{path.suffix}"
        if not self._is_at(kept):
            with disk.replacing(kept) as file:
                file.write(self.content)
        return str(kept)

    def _is_at(self, path: Path) -> bool:
        try:
            return checkpoints.sha256_of(path) == self.sha256
        except UpscaleError:
            return False


@dataclass(frozen=True)
class Setup:
    """How workers load and run their networks.

    `options` are those of `upscale.Networks`.  `claim` (file, token) is what each must see, None where results do not
    go to a folder.
    """

    model: str
    options: dict[str, object]
    weights: Weights | None = None
    claim: tuple[str, str] | None = None


@dataclass(frozen=True)
class Share:
    """What a worker has of its machine: a device as for `Engine`, threads, and cores of its own, None for any."""

    device: str | None
    threads: int
    cores: frozenset[int] | None = None


@dataclass
class Place:
    """Where a worker is: what of a machine it has, and what it has loaded there."""

    setup: Setup
    share: Share
    notices: list[str] = field(default_factory=list)
    loaded: dict[str, str] = field(default_factory=dict)
    _all_cores: frozenset[int] = field(default_factory=processors.usable)

    def networks(self, **more) -> dict:
        """The keywords for `upscale.Networks`; also keeps to the share of the machine and checks the output folder."""
        if self.setup.claim:
            claims.check(Path(self.setup.claim[0]), self.setup.claim[1])
        self._keep_to_share()
        return {
            **self.setup.options,
            **more,
            "device": self.share.device,
            "on_notice": self.notices.append,
            "load": self._load,
            "engine": self._engine,
        }

    @contextlib.contextmanager
    def whole_machine(self) -> Iterator[None]:
        """Lets this thread see all cores: what looks at them for how to work, works as it would for a single process.

        Afterwards it, and whatever threads it has begun, keep to the share.
        """
        if self.share.cores:
            os.sched_setaffinity(0, self._all_cores)
        try:
            yield
        finally:
            self._keep_to_share()

    @property
    def model(self) -> str:
        return self.setup.weights.here() if self.setup.weights else self.setup.model

    def facts(self) -> dict[str, object]:
        """What the driver holds the workers against each other by."""
        import av

        libraries = {name: list(version) for name, version in av.library_versions.items()}
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "libraries": libraries,
            "checkpoints": sorted(self.loaded.values()),
        }

    def told(self) -> list[str]:
        """The lines for the user since the last time."""
        lines, self.notices[:] = list(self.notices), []
        return lines

    def _keep_to_share(self) -> None:
        import cv2
        import torch

        torch.set_num_threads(self.share.threads)
        cv2.setNumThreads(self.share.threads)
        if self.share.cores:
            cores.keep_to(self.share.cores)

    def _engine(self, *arguments, **options):
        from sa_upscale.engine import Engine

        # An engine takes what this machine was once measured to be fastest with, threads included.
        with self.whole_machine():
            return Engine(*arguments, keep_memory=True, **options)

    def _load(self, name: str, *arguments, **options):
        checkpoint = checkpoints.load(name, *arguments, **options)
        self.loaded[checkpoint.name] = checkpoint.sha256
        return checkpoint


class Admission:
    """Lets workers in that fit to the first: the same version, the same networks, and what `also` names by its key."""

    def __init__(self, **also: str):
        self._keys = {"version": "version of sa-upscale", "checkpoints": "checkpoint", **also}
        self.first: dict[str, object] | None = None

    def __call__(self, facts: dict[str, object]) -> None:
        """Raise `UpscaleError` for a worker that would give other results."""
        expected = {"version": __version__} if self.first is None else self.first
        for key, what in self._keys.items():
            if key in expected and facts.get(key) != expected[key]:
                other = "here" if self.first is None else f"on {self.first['host']}"
                raise UpscaleError(
                    f"{facts['host']} has another {what} ({_shown(facts.get(key))}) than there is {other} "
                    f"({_shown(expected[key])}); bring all machines to the same"
                )
        if self.first is None:
            self.first = facts


def parse_devices(text: str | None) -> list[str]:
    """The devices of a list such as "cuda:0,cuda:1,cpu" or "2*cpu"; none for None."""
    devices: list[str] = []
    for part in text.split(",") if text else []:
        count, _, device = part.strip().rpartition("*")
        if not device or (count and not (count.isdecimal() and 1 <= int(count) <= 4096)):
            raise UpscaleError(f"--devices {text}: give devices with commas, such as cuda:0,cuda:1,cpu or 2*cpu")
        devices += [device] * int(count or 1)
    return devices


def crew_for(where: Where, factory: Callable[..., Worker], setup: Setup) -> Crew:
    """The workers that are made by `factory(setup, share)`, one for each device.

    Raises `UpscaleError` for an engine or a device that is not there.
    """
    devices = parse_devices(where.devices)
    if where.engine == "ray":
        from sa_upscale.cluster import rays

        cluster = rays.Cluster(where.address)
        with _closing_on_error(cluster):
            nodes = cluster.nodes()
            seats, resources, threads = rays.seats_for(devices, nodes)
            # A GPU of Ray's is the only one that its actor sees.
            kinds = ["cuda" if need["gpus"] else "cpu" for need in resources]
            # Which cores are whose is ours to say only where all of them are ours.
            alone = cluster.is_own and nodes[0].get("CPU") == processors.count()
            given = [(setup, share) for share in shares(kinds, threads, apart=alone)]
            return rays.Actors(cluster, seats, factory, given, resources)
    if where.address:
        raise UpscaleError("--address is that of a Ray cluster; give --engine ray with it")
    from sa_upscale.cluster import processes

    devices = devices or [None]
    threads = [max(1, processors.count() // len(devices))] * len(devices)
    mixed = any(device != "cpu" for device in devices)
    names = [device or "this machine" for device in devices]
    seats = [
        Seat(
            at, f"{name} {names[: at + 1].count(name)}" if names.count(name) > 1 else name, slow=mixed and name == "cpu"
        )
        for at, name in enumerate(names)
    ]
    return processes.Processes(seats, factory, [(setup, share) for share in shares(devices, threads)])


def shares(devices: Sequence[str | None], threads: Sequence[int], *, apart: bool = True) -> list[Share]:
    """What each of the workers on these devices of this machine has of it.

    With `apart`, workers that are all on the CPU have cores of their own where there are enough: otherwise one reads
    and writes on the cores on which the others' networks are at work.
    """
    own = cores.divided(threads) if apart and set(devices) == {"cpu"} else [None] * len(devices)
    return [Share(*share) for share in zip(devices, threads, own, strict=True)]


@contextlib.contextmanager
def _closing_on_error(cluster):
    try:
        yield
    except BaseException:
        cluster.close()
        raise


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(part)[:12] for part in value) or "none"
    return str(value)
