"""A film of which one end or both are at an address: fetched to a folder here, made there, and sent.

The folder outlives the run and is found again by the same command, which so goes on with what was fetched, with the
segments in the journal, or with the sending alone.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import posixpath
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from sa_upscale import disk, folders, media, video
from sa_upscale.cluster import places
from sa_upscale.errors import UpscaleError
from sa_upscale.journal import alone

FINISHED = "finished.json"
READ_ONLY = ("http", "https")


class Trip:
    """The way of a film from `source` to `output`, each a path, an address, "-", or None for beside the source.

    While it is open, `source` can be read here.  `showing` is a context that yields `progress(done, total, label)`, in
    bytes, for what is on its way.  Errors raised meanwhile speak of the addresses.  Where neither end is an address it
    does nothing.

    Raises `UpscaleError` for what cannot be reached, and while another run has the same source and output.
    """

    def __init__(self, source: str, output: str | None, showing: Callable):
        self.source, self.given, self.output = source, source, output
        self.folder: Path | None = None
        self._showing = showing
        self._address: str | None = None
        self._identity: dict[str, object] = {}
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "Trip":
        if not (places.is_address(self.given) or places.is_address(self.output)):
            return self
        for end in (self.given, self.output or ""):
            if places.is_address(end) and media.is_pattern(Path(end)):
                raise UpscaleError(f"{end}: numbered pictures have to be on a file system; mount it, or give a film")
        if places.is_address(self.output):
            _check_output(self.output)
        self._identity = _identity(self.given)
        key = hashlib.sha256(json.dumps([self._identity, self.output]).encode()).hexdigest()[:24]
        self.folder = folders.cache() / "films" / key
        with self._writing(), contextlib.ExitStack() as held:
            self._results.mkdir(parents=True, exist_ok=True)
            # In a folder of its own, because on Windows the lock is cleared away with all that is around it.
            held.enter_context(alone(self.folder / "held", self.output or self.given))
            if places.is_address(self.given):
                self._fetch()
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        self._held.close()
        if isinstance(error, UpscaleError) and not isinstance(error, _Kept) and self.folder is not None:
            raise kind(self._named(str(error))) from None

    def target(self, source: media.Source, scale: float, *, preview: bool = False) -> Path:
        """As `video.target_for`, for the `output`: where the result is made before it is sent, if it is to be."""
        beside = self.output is None and places.is_address(self.given)
        if not (beside or places.is_address(self.output)):
            return video.target_for(source, self.output and Path(self.output), scale, preview=preview)
        into = posixpath.dirname(self.given) if beside else self.output
        if beside or _is_folder(into):
            name = video.target_for(source, self._results, scale, preview=preview).name
            self._address = f"{into.rstrip('/')}/{name}"
        else:
            name, self._address = posixpath.basename(into), into
        if self._address == self.given:
            raise UpscaleError(f"{self.given}: the output is the input; give it another name")
        return self._results / name

    def finished(self, order: str) -> video.VideoResult | None:
        """The result that an earlier run of the same `order` made but could not send."""
        if self._address is None or self.given == "-":
            return None
        try:
            mark = json.loads((self.folder / FINISHED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        made = video.VideoResult(**mark["result"])
        return made if mark["order"] == self._order(order) and Path(made.target).is_file() else None

    def deliver(self, result: video.VideoResult, order: str) -> video.VideoResult:
        """Send the result, made in answer to `order`, to its address, and clear away what was needed here."""
        if self.folder is None:
            return result
        source = self.given if places.is_address(self.given) else result.source
        target = self._address or result.target
        if self._address is not None:
            self._mark(result, order)
            try:
                self._send(Path(result.target))
            except UpscaleError as error:
                raise _Kept(
                    f"{error}; the result is kept as {result.target}, the same command sends it again"
                ) from None
        shutil.rmtree(self.folder, ignore_errors=True)
        return dataclasses.replace(result, source=source, target=target)

    @property
    def _results(self) -> Path:
        return self.folder / "result"

    def _fetch(self) -> None:
        path = self.folder / posixpath.basename(self.given)
        self.source = str(path)
        if path.is_file():
            return
        size = self._identity.get("size")
        free = shutil.disk_usage(self.folder).free
        if size is not None and size > free:
            raise UpscaleError(
                f"{self.given}: {size / 1e9:.1f} GB, of which {free / 1e9:.1f} GB fit into {self.folder}; set "
                f"{folders.VARIABLE} to a folder with more room"
            )
        partial = path.with_name(f"{path.name}.part")
        try:
            with self._showing() as progress:
                places.fetch(self.given, partial, lambda done: progress(done, size, f"fetching {path.name}"))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _send(self, path: Path) -> None:
        size = path.stat().st_size
        with self._showing() as progress:
            places.send(path, self._address, lambda done: progress(done, size, f"sending {path.name}"))

    def _mark(self, result: video.VideoResult, order: str) -> None:
        mark = {"order": self._order(order), "result": dataclasses.asdict(result)}
        with self._writing(), disk.replacing(self.folder / FINISHED) as file:
            file.write(json.dumps(mark, default=str).encode())

    def _order(self, order: str) -> str:
        return f"{order} to {self._address}"

    def _named(self, text: str) -> str:
        """A text in which what is here has the names that the user gave."""
        if self._address is not None:
            text = text.replace(str(self._results / posixpath.basename(self._address)), self._address)
        return text.replace(self.source, self.given) if self.source != self.given else text

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UpscaleError(
                f"{self.folder}: {error.strerror or error}; set {folders.VARIABLE} to a folder that can be written"
            ) from None


class _Kept(UpscaleError):
    """Names a file here, and means it."""


def _identity(given: str) -> dict[str, object]:
    """What tells a film from another, and from an earlier one, of the same name."""
    if places.is_address(given):
        return {"address": given} | places.version(given)
    path = Path(given).absolute()
    files = sorted(path.parent.glob(f"*{path.suffix}")) if media.is_pattern(path) else [path]
    about = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return {"path": str(path), "files": about}


def _is_folder(address: str) -> bool:
    system, there = places.file_system(address)
    with places.reaching(address):
        return address.endswith("/") or system.isdir(there)


def _check_output(address: str) -> None:
    """Find out before the work, as far as can be seen without writing, that nothing could be sent there."""
    protocol = address.partition("://")[0]
    if protocol in READ_ONLY:
        raise UpscaleError(f"{address}: nothing can be written there; give a file, or an address of a store")
    if protocol in places.OBJECT_STORES:
        system, there = places.file_system(address)
        bucket = there.split("/")[0]
        # Who may write may not always look.
        with contextlib.suppress(PermissionError):
            with places.reaching(address, PermissionError):
                found = system.exists(bucket)
            if not found:
                raise UpscaleError(f"{address}: there is no bucket {bucket}; make it first")
