"""Files at an address such as s3://bucket/scans, through fsspec: found, fetched, brought back.

Object stores show an upload only once it is whole, so it goes to its name at once (they cannot rename: that would be a
second copy).  Anywhere else a file is sent under a temporary name and renamed.
"""

import contextlib
import posixpath
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from sa_upscale import upscale
from sa_upscale.errors import UpscaleError

OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "r2")
AT_ONCE = 8  # files on their way
BLOCK = 1 << 20  # bytes read at once
MARKS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class Errand:
    """As `upscale.Job`, for a picture of which one end or both are addresses; `weight` is its size in bytes."""

    source: str
    target: str
    format: str | None
    weight: int
    problem: str | None = None

    @property
    def label(self) -> str:
        return posixpath.basename(self.source)


def is_address(name: str | Path | None) -> bool:
    return name is not None and "://" in str(name)


def plan_jobs(inputs: Sequence[str], output: str | None, *, recursive: bool = False, **options) -> list[Errand]:
    """As `upscale.plan_jobs`, where inputs or the output are addresses.

    The names there are laid out as empty files in a temporary folder, so that the same rules decide of them.
    """
    with tempfile.TemporaryDirectory(prefix="sa-upscale-") as folder:
        shadow = _Shadow(Path(folder))
        given = [shadow.of_input(name, recursive) if is_address(name) else name for name in inputs]
        to = shadow.of_output(output) if is_address(output) else output
        try:
            jobs = upscale.plan_jobs(given, to, recursive=recursive, **options)
        except UpscaleError as error:
            raise UpscaleError(shadow.named(str(error))) from None
        return [
            Errand(
                shadow.named(str(job.source)),
                shadow.named(str(job.target)),
                job.format,
                shadow.sizes.get(str(job.source), 0) or _size(job.source),
                job.problem and shadow.named(job.problem),
            )
            for job in jobs
        ]


class _Shadow:
    """The names at some addresses as empty files of a folder; `sizes` of those that stand for a file, in bytes."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._addresses: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    def of_input(self, address: str, recursive: bool) -> str:
        address = address.rstrip("/")
        top = self._place(address)
        system, path = file_system(address)
        with reaching(address):
            if not system.isdir(path):
                if system.exists(path):
                    self._file(top, system.size(path))
                return str(top)
            top.mkdir()
            found = system.find(path, detail=True).values() if recursive else system.ls(path, detail=True)
        for about in found:
            below = about["name"].removeprefix(system._strip_protocol(path)).strip("/")
            if not below:
                continue
            if about["type"] == "directory":
                (top / below).mkdir(parents=True, exist_ok=True)
            else:
                self._file(top / below, about["size"])
        return str(top)

    def of_output(self, address: str) -> str:
        top = self._place(address.rstrip("/"))
        system, path = file_system(address)
        with reaching(address):
            if address.endswith("/") or system.isdir(path):
                top.mkdir()
        return str(top)

    def named(self, text: str) -> str:
        """A text in which the shadows have their own names again."""
        for shadow, address in self._addresses.items():
            text = text.replace(shadow, address)
        return text

    def _place(self, address: str) -> Path:
        parent, name = address.rsplit("/", 1)
        folder = self._folder / str(len(self._addresses))
        folder.mkdir()
        self._addresses[str(folder)] = parent
        return folder / name

    def _file(self, path: Path, size: int | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.sizes[str(path)] = size or 1


@contextlib.contextmanager
def brought(tasks: Sequence[upscale.Job | Errand], *, skip_existing: bool) -> Iterator[list[upscale.Job]]:
    """The tasks as jobs on this machine: what is far has been fetched, its result too if that is to be looked at."""
    with tempfile.TemporaryDirectory(prefix="sa-upscale-") as folder, ThreadPoolExecutor(AT_ONCE, "fetch") as pool:

        def bring(at: int, task: upscale.Job | Errand) -> upscale.Job:
            return _fetched(task, Path(folder) / str(at), skip_existing) if isinstance(task, Errand) else task

        yield list(pool.map(bring, range(len(tasks)), tasks))


def taken_back(
    tasks: Sequence[upscale.Job | Errand], jobs: Sequence[upscale.Job], results: Sequence[upscale.Result]
) -> list[upscale.Result]:
    """The results of `jobs` that `brought` made of the `tasks`, sent to where they belong."""
    with ThreadPoolExecutor(AT_ONCE, "send") as pool:
        return list(pool.map(_sent, tasks, jobs, results))


def _fetched(errand: Errand, folder: Path, skip_existing: bool) -> upscale.Job:
    folder.mkdir()
    job = upscale.Job(Path(errand.source), Path(errand.target), errand.format, in_folder=True, problem=errand.problem)
    try:
        if is_address(errand.source):
            job = replace(job, source=folder / posixpath.basename(errand.source))
            fetch(errand.source, job.source)
        if is_address(errand.target):
            job = replace(job, target=folder / "result" / posixpath.basename(errand.target))
            if skip_existing and exists(errand.target):
                job.target.parent.mkdir()
                fetch(errand.target, job.target)
    except UpscaleError as error:
        return replace(job, problem=str(error))
    return job


def _sent(task: upscale.Job | Errand, job: upscale.Job, result: upscale.Result) -> upscale.Result:
    if not isinstance(task, Errand):
        return result
    result = replace(result, source=task.source, target=task.target)
    if result.error is not None:
        near = ((str(job.source), task.source), (str(job.target), task.target))
        for here, there in near:
            result.error = result.error.replace(here, there)
    elif is_address(task.target) and not result.skipped:
        try:
            send(job.target, task.target)
        except UpscaleError as error:
            return replace(result, width=None, height=None, error=str(error))
    return result


def fetch(address: str, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
    """Copy what is at an address to a file here; `on_bytes` is told how many bytes are."""
    system, there = file_system(address)
    with reaching(address), system.open(there, "rb") as source, path.open("wb") as file:
        while block := source.read(BLOCK):
            file.write(block)
            if on_bytes:
                on_bytes(file.tell())


def send(path: Path, address: str, on_bytes: Callable[[int], None] | None = None) -> None:
    """Copy a file to an address, where it appears whole or not at all; `on_bytes` is told how many bytes are there."""
    system, there = file_system(address)
    watching = {}
    if on_bytes:
        from fsspec.callbacks import Callback

        watching["callback"] = Callback(hooks={"bytes": lambda size, value, **_: on_bytes(value)})
    with reaching(address):
        if address.partition("://")[0] in OBJECT_STORES:
            system.put_file(str(path), there, **watching)
            return
        folder, name = posixpath.split(there)
        system.makedirs(folder, exist_ok=True)
        partial = posixpath.join(folder, f".{uuid.uuid4().hex}.part")
        try:
            system.put_file(str(path), partial, **watching)
            system.mv(partial, posixpath.join(folder, name))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                system.rm_file(partial)
            raise


def exists(address: str) -> bool:
    """Whether there is a file at an address."""
    system, there = file_system(address)
    with reaching(address):
        system.invalidate_cache()
        return system.isfile(there)


def version(address: str) -> dict[str, object]:
    """The size in bytes (None: unknown) of the file at an address, and what changes with its content."""
    system, there = file_system(address)
    with reaching(address):
        system.invalidate_cache()
        about = system.info(there)
    if about["type"] == "directory":
        raise UpscaleError(f"{address} is a folder; name a file in it")
    return {"size": about.get("size"), "marks": [str(about[mark]) for mark in MARKS if mark in about]}


def file_system(address: str):
    """The file system of an address, and the path on it; `UpscaleError` where what reaches it is not installed."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        protocol = address.partition("://")[0]
        extra = "s3" if protocol in ("s3", "s3a") else "gs" if protocol in ("gs", "gcs") else "s3"
        raise UpscaleError(f'{address}: {error}; pip install "sa-upscale[{extra}]"') from None
    except ValueError as error:
        raise UpscaleError(f"{address}: {error}") from None


@contextlib.contextmanager
def reaching(address: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn what a file system raises into one line, but for what is `passed` on."""
    try:
        yield
    except (UpscaleError, *passed):
        raise
    except FileNotFoundError:
        raise UpscaleError(f"{address}: there is nothing") from None
    # Every service has exceptions of its own, for credentials, names and networks, with no common ancestor.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UpscaleError(f"{address} cannot be reached: {reason}") from None


def _size(path: Path) -> int:
    try:
        return max(1, path.stat().st_size)
    except OSError:
        return 1
