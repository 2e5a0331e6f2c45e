"""Workers that are Ray actors, on one machine or many.  Ray is imported only here, and only when it is asked for."""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from sa_upscale import __version__
from sa_upscale.cluster.pool import Report, Seat, Worker
from sa_upscale.errors import UpscaleError

ANSWER_SECONDS = 3.0  # for a cluster's head to take a connection
STATUS_SECONDS = 20.0  # for it to say how it is, the start of an interpreter included
STORE_BYTES = 128 << 20  # shared memory of a Ray that runs for us only; nothing large goes through it
CORES = 4  # of a machine without a GPU for each worker
GRACE = 10.0  # s; what is given up has so long to leave nothing behind

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Under `uv run`, Ray would send the working directory to all nodes.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# By default Ray waits for a minute and more, and then ends the whole process.
IMPATIENT = {
    "RAY_gcs_rpc_server_connect_timeout_s": "2",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "4",
    "RAY_gcs_server_request_timeout_seconds": "4",
}


class Desk:
    """What runs in an actor: the worker, made once the actor is there, so that its mistakes come back as they are."""

    def start(self, factory: Callable[..., Worker], arguments: tuple) -> dict | UpscaleError:
        # Ray sets it to the cores that an actor reserves.  Our workers are told their threads; to them it would only
        # hide what `doctor` measured on this machine, and they would take other number types than a single process.
        os.environ.pop("OMP_NUM_THREADS", None)
        try:
            self._worker = factory(*arguments)
        except UpscaleError as error:
            return error
        return self._worker.facts()

    def do(self, tasks: list) -> Report:
        return self._worker.do(tasks)

    def stop(self) -> None:
        self._worker.stop()


class Actors:
    """A worker for each of the `seats`, which reserves the `resources` of its number ("cpus" and "gpus")."""

    def __init__(
        self,
        cluster: "Cluster",
        seats: Sequence[Seat],
        factory: Callable[..., Worker],
        arguments: Sequence[tuple],
        resources: Sequence[dict[str, float]],
    ):
        self.seats = seats
        self.deaths = (cluster.ray.exceptions.RayActorError,)
        self._cluster = cluster
        self._factory, self._arguments, self._resources = factory, arguments, resources

    def hire(self, seat: Seat) -> "Actor":
        return Actor(self._cluster.ray, self._factory, self._arguments[seat.number], self._resources[seat.number])

    def close(self) -> None:
        self._cluster.close()


class Actor:
    """One actor with a worker in it."""

    def __init__(self, ray, factory: Callable[..., Worker], arguments: tuple, resources: dict[str, float]):
        self._ray, self._making = ray, (factory, arguments)
        # Two calls at once: `stop` has to come through while `do` is at work.
        options = {"max_concurrency": 2, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        made = ray.remote(**options, num_cpus=resources["cpus"], num_gpus=resources["gpus"])(Desk)
        self._actor = made.remote()
        self._starting = True
        self._call: Future | None = None

    def start(self) -> Future:
        told = Future()

        def pass_on(call: Future) -> None:
            if error := call.exception():
                is_death = isinstance(error, self._ray.exceptions.RayActorError)
                told.set_exception(error if is_death else _unfit(error))
            elif isinstance(call.result(), UpscaleError):
                told.set_exception(call.result())
            else:
                self._starting = False
                told.set_result(call.result())

        self._actor.start.remote(*self._making).future().add_done_callback(pass_on)
        self._call = told
        return told

    def do(self, tasks: list) -> Future:
        self._call = self._actor.do.remote(tasks).future()
        return self._call

    def stop(self) -> None:
        self._actor.stop.remote()

    def leave(self) -> None:
        if self._starting:
            self._ray.kill(self._actor)
            return
        with contextlib.suppress(Exception):  # a dead or dying actor refuses in many ways, all of them welcome
            self._call.result(GRACE)
        self._ray.kill(self._actor)


class Cluster:
    """The connection to a Ray cluster, or a Ray of our own on this machine for as long as we need it.

    `address` is `host:port`, or "auto" for the cluster that this machine belongs to; None also takes what RAY_ADDRESS
    names, and begins one where there is none.  Raises `UpscaleError` without Ray and when nothing answers.
    """

    def __init__(self, address: str | None = None):
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        try:
            import ray
        except ImportError:
            raise UpscaleError('Ray is not installed; pip install "sa-upscale[ray]", or leave --engine out') from None
        self.ray = ray
        self._folder: Path | None = None
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        address = address or os.environ.get("RAY_ADDRESS")
        if address and address != "auto":
            _check_address(address)
        _silence(ray)
        try:
            self._join(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if address == "auto":
                raise UpscaleError(
                    "no Ray cluster runs on this machine; begin one with `ray start --head`, or leave --address out"
                ) from None
            at = f" at {address}" if address else ""
            raise UpscaleError(f"no Ray cluster can be used{at}: {' '.join(str(error).split())[:300]}") from None

    @property
    def is_own(self) -> bool:
        """Whether it is one that was begun here, for us alone."""
        return self._folder is not None

    def nodes(self) -> list[dict[str, float]]:
        """The resources ("CPU", "GPU") of each machine that is there."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def close(self) -> None:
        """Let go of it; what we began ends."""
        self.ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _join(self, address: str | None) -> None:
        quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR"}
        if address is None:
            with contextlib.suppress(ConnectionError):
                self.ray.init(address="auto", **quiet)
                return
            self._folder = Path(tempfile.mkdtemp(prefix="sa-ray-"))
            own = {"include_dashboard": False, "object_store_memory": STORE_BYTES, "_temp_dir": str(self._folder)}
            self.ray.init(address="local", **own, **quiet)
        else:
            self.ray.init(address=address, **quiet)


def seats_for(devices: Sequence[str], nodes: Sequence[dict[str, float]]) -> tuple[list[Seat], list[dict], list[int]]:
    """The seats on a cluster, the resources that each reserves, and its threads.

    Without `devices` there is one for each GPU, or where there is none one for every four cores of a machine.  With,
    each "cuda" is a GPU anywhere and each "cpu" an equal share of the cores.  Raises `UpscaleError` for more GPUs than
    there are.
    """
    cores = [int(node.get("CPU", 0)) for node in nodes]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if not devices:
        devices = ["cuda"] * gpus or ["cpu"] * sum(max(1, count // CORES) for count in cores if count)
    wanted, on_cpu = devices.count("cuda"), devices.count("cpu")
    if other := next((device for device in devices if device not in ("cuda", "cpu")), None):
        raise UpscaleError(f"--devices {other}: on a Ray cluster give cuda or cpu, such as 8*cuda; Ray chooses which")
    if wanted > gpus:
        raise UpscaleError(f"{wanted} GPU{'s' * (wanted > 1)} asked for, and the cluster has {gpus or 'none'}")
    if on_cpu > sum(cores) - wanted:
        raise UpscaleError(f"{on_cpu} workers on CPUs asked for, and the cluster has {sum(cores) - wanted} cores free")
    # A GPU's worker reserves one core, so that it always finds a place, and may use its share of them.
    for_gpu = max(1, sum(cores) // max(1, wanted + on_cpu))
    for_cpu = _largest_share(cores, on_cpu, wanted)
    seats, resources, threads = [], [], []
    for number, device in enumerate(devices):
        is_gpu = device == "cuda"
        seats.append(Seat(number, f"{device} {number + 1}", slow=not is_gpu and wanted > 0))
        resources.append({"cpus": 1 if is_gpu else for_cpu, "gpus": int(is_gpu)})
        threads.append(for_gpu if is_gpu else for_cpu)
    return seats, resources, threads


def _largest_share(cores: Sequence[int], workers: int, reserved: int) -> int:
    """With how many cores each so many workers fit on the machines, beside so many cores reserved for others."""
    free = list(cores)
    for _ in range(reserved):
        free[max(range(len(free)), key=lambda node: free[node])] -= 1
    share = max(free, default=1)
    while share > 1 and sum(count // share for count in free) < workers:
        share -= 1
    return max(1, share)


def _check_address(address: str) -> None:
    """Raise `UpscaleError` in a few seconds where Ray itself would try for minutes and then end the process."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise UpscaleError(f"--address {address}: give host:port, such as head:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UpscaleError(
            f"no Ray cluster answers at {address} ({reason}); is it up, and reachable from here?"
        ) from None
    asking = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        subprocess.run(asking, check=True, capture_output=True, timeout=STATUS_SECONDS, env=os.environ | IMPATIENT)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        problem = f"what answers at {address} is no Ray cluster, or one of another version; try `ray status` there"
        raise UpscaleError(problem) from None


def _silence(ray) -> None:
    """Keep Ray's lines about its workers from the terminal: we tell of them ourselves."""
    # There is no public way: the thread that listens for errors writes them to stdout, among our JSON lines.
    with contextlib.suppress(AttributeError):
        ray._private.worker.print_worker_logs = lambda *_: None


def _unfit(error: BaseException) -> UpscaleError:
    """What is told of a machine on which a worker cannot even be made: our code there is another, or none."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    if "No module named 'sa_upscale'" in reason:
        return UpscaleError("a machine of the cluster has no sa-upscale; install the same version on all of them")
    return UpscaleError(
        f"a machine of the cluster cannot make a worker ({reason}); is this version of sa-upscale, {__version__}, with "
        "all it needs on all of them?"
    )
