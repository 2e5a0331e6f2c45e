"""Checkpoints by name: found or fetched, checked against their sha256, read into a network, and written.

A name is looked for among the bundled files, in the local weights folders, in the Hub's cache and on the Hub, in this
order; nothing is used whose sha256 is not the one in `weights.toml`.  Importing this module, and everything but `load`,
`save` and `canonical`, is free of torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa_upscale import __version__
from sa_upscale.errors import UpscaleError, near

if TYPE_CHECKING:
    import torch
    from torch import nn

PACKAGE = Path(__file__).resolve().parent.parent
DEFAULTS = {"image": "compact", "video": "compact"}
FORMAT_VERSION = "1"
ANSWER_SECONDS = 5

_WRAPPERS = ("params_ema", "params", "state_dict", "generator")  # the averaged weights before the last ones
_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z][a-z0-9._-]*")

Progress = Callable[[int, int | None], None]
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """One table of `weights.toml`; its head explains the keys."""

    name: str
    family: str
    architecture: str
    scale: int
    window: int
    description: str
    licence: str
    trained_on: str = ""
    repo: str | None = None
    file: str | None = None
    revision: str | None = None
    sha256: str | None = None
    bundled: str | None = None
    fidelity: str | None = None
    denoise: str | None = None
    published: bool = True

    @property
    def kind(self) -> str:
        """Either "image" or "video", the latter for a network that takes several frames."""
        return "video" if self.window > 1 else "image"

    @property
    def usable(self) -> bool:
        """Whether the file exists somewhere in the world and is known by its hash."""
        return self.published and self.sha256 is not None


@dataclass
class Checkpoint:
    """A network in evaluation mode, float32, on the CPU, and the file it came from."""

    model: nn.Module
    metadata: dict[str, str]
    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Row:
    """A line of `models list`.

    `where` is "bundled", "local", "cached", "to fetch", "local file needed", "not there yet" or "not published"; `size`
    is in bytes, None without a file.
    """

    entry: Entry
    where: str
    path: Path | None
    size: int | None


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: `state` is "ok", "corrupt", "absent", "not there yet" or "not published"."""

    name: str
    state: str
    path: Path | None = None


@dataclass(frozen=True)
class Info:
    """All that is known of a checkpoint; a file's own facts are None without a file, or where only torch could tell."""

    entry: Entry | None
    where: str
    path: Path | None
    size: int | None
    sha256: str | None
    metadata: dict[str, str]
    weights: int | None  # numbers in all tensors together
    dtypes: tuple[str, ...]


# ---- the registry ----------------------------------------------------------------------------------------------------


def entries() -> dict[str, Entry]:
    """The checkpoints of `weights.toml` by name, in its order, and after them those that were imported."""
    packed = PACKAGE / "weights.toml"
    known = _registered(packed if packed.is_file() else PACKAGE.parent / "weights.toml")
    imported = user_folder() / "weights.toml"
    # A name of ours stays ours, whatever a registry of the user's says.
    return known | (_registered(imported) if imported.is_file() else {}) | known


def _registered(registry: Path) -> dict[str, Entry]:
    try:
        return _parsed(registry, registry.stat().st_mtime_ns)
    except (OSError, ValueError, TypeError) as error:
        raise UpscaleError(f"{registry} cannot be read ({_first_line(error)}); mend it or move it away") from None


@functools.cache
def _parsed(registry: Path, _mtime: int) -> dict[str, Entry]:
    tables = tomllib.loads(registry.read_text(encoding="utf-8"))
    return {name: Entry(name=name, **table) for name, table in tables.items()}


def user_folder() -> Path:
    """Where imported checkpoints and their `weights.toml` lie: SA_UPSCALE_WEIGHTS, or a place for the user's data."""
    if named := os.environ.get("SA_UPSCALE_WEIGHTS"):
        return Path(named).expanduser()
    data = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "sa-upscale"


def adopt(file: Path, name: str, *, licence: str = "unknown") -> Entry:
    """Copy a checkpoint file into `user_folder()` and have it known as `name` from now on, by its sha256.

    Raises `UpscaleError` for a name that is taken or has other characters than a-z, 0-9, "-", "_" and ".", for a file
    that is no network known here, and when it cannot be copied.
    """
    if not _NAME.fullmatch(name):
        raise UpscaleError(f"{name!r} cannot be a name; use a-z, 0-9, -, _ and ., and begin with a letter")
    known = entries()
    if name in known or any(entry.family == name for entry in known.values()):
        raise UpscaleError(f"{name} is the name of another checkpoint; choose another one")
    found = load(file)
    kept, registry = user_folder() / f"{name}{file.suffix.lower()}", user_folder() / "weights.toml"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        content, before = file.read_bytes(), registry.read_text(encoding="utf-8") if registry.is_file() else ""
    except OSError as error:
        raise UpscaleError(f"cannot import {file}: {error.strerror}: {error.filename}") from None
    _write_whole(kept, content)
    entry = Entry(
        name=name,
        family=name,
        architecture=found.metadata["architecture"],
        scale=found.model.scale,
        window=found.model.window,
        description=f"imported from {file.name}",
        licence=licence,
        file=kept.name,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    facts = dataclasses.asdict(entry).items()
    # JSON's numbers and quoted texts are TOML's, too.
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts if key not in ("name", "published") and value]
    _write_whole(registry, "\n".join([*before.splitlines(), "", f'["{name}"]', *lines, ""]).encode())
    return entries()[name]


def select(name: str, scale: float | None = None, kind: str | None = None) -> Entry:
    """The entry called `name`, or the member of the family `name` that fits `scale`.

    Of a family, that is the smallest native scale that suffices, else (or without a scale) its largest; members that
    are not there yet count only when there are no others.  `kind="image"` refuses video networks; `kind="video"` takes
    both, an image network working frame by frame.  Raises `UpscaleError` for an unknown name, suggesting near ones.
    """
    known = entries()
    members = [known[name]] if name in known else [entry for entry in known.values() if entry.family == name]
    if not members:
        names = list(dict.fromkeys([*known, *(entry.family for entry in known.values())]))
        raise UpscaleError(f"no checkpoint is called {name!r}; {near(name, names)}")
    members = sorted((entry for entry in members if entry.usable), key=_by_scale) or sorted(members, key=_by_scale)
    chosen = next((entry for entry in members if scale is not None and entry.scale >= scale), members[-1])
    if kind == "image" and chosen.kind == "video":
        raise UpscaleError(_wrong_kind(chosen.name, chosen.window))
    return chosen


def _by_scale(entry: Entry) -> int:
    return entry.scale


def _wrong_kind(name: str, window: int) -> str:
    return f"{name} is a video network, it needs {window} frames; for a picture take --model {DEFAULTS['image']}"


def _elsewhere(entry: Entry) -> str:
    """What to do without `entry`: the bundled checkpoint nearest in kind and scale."""
    bundled = [other for other in entries().values() if other.usable and _bundled_file(other) and other != entry]
    if not bundled:
        return "give the path of a file you have"
    best = min(bundled, key=lambda other: (other.kind != entry.kind, abs(other.scale - entry.scale)))
    return f"the bundled {best.name} needs no network (--model {best.name})"


# ---- where the files are ---------------------------------------------------------------------------------------------


def path(
    name_or_path: str | Path,
    scale: float | None = None,
    kind: str | None = None,
    *,
    download: bool = True,
    on_progress: Progress | None = None,
    on_notice: Notice | None = None,
) -> Path:
    """The file of a checkpoint, verified; fetched from the Hub when it is nowhere nearer and `download` allows.

    `on_progress(done, total)` counts the bytes of a download; `on_notice(line)` hears of corrupt files that were passed
    over.  Raises `UpscaleError` when there is no usable file.
    """
    return _locate(name_or_path, scale, kind, download=download, on_progress=on_progress, on_notice=on_notice)[1]


def _locate(
    name_or_path: str | Path,
    scale: float | None,
    kind: str | None,
    *,
    download: bool,
    on_progress: Progress | None,
    on_notice: Notice | None,
) -> tuple[Entry | None, Path]:
    explicit = _explicit(name_or_path)
    if explicit is not None:
        return None, explicit
    entry = select(str(name_or_path), scale, kind)
    _refuse_unusable(entry)
    refused = []
    for _, file in _present(entry):
        if sha256_of(file) == entry.sha256:
            return entry, file
        refused.append(f"{file} is corrupt: its sha256 is not that of {entry.name}")
        if on_notice:
            on_notice(f"{refused[-1]}; it is not used")
    if not (download and entry.repo):
        raise UpscaleError("; ".join([*(refused or [_nowhere(entry)]), _elsewhere(entry)]))
    try:
        return entry, _download(entry, on_progress)
    except UpscaleError as error:
        raise UpscaleError("; ".join([*refused, str(error)])) from None


def _explicit(name_or_path: str | Path) -> Path | None:
    """The file the user means by its path, None when it is a name.  A name of ours wins over a file called so."""
    text = str(name_or_path)
    file = Path(name_or_path).expanduser()
    if isinstance(name_or_path, str):
        known = entries()
        if text in known or any(entry.family == text for entry in known.values()):
            return None
        looks_like_path = file.suffix.lower() in _FILE_SUFFIXES or os.sep in text or "/" in text
        if not looks_like_path and not file.exists():
            return None
    if file.is_dir():
        raise UpscaleError(f"{file} is a folder, not a checkpoint; give a file in it")
    if not file.is_file():
        raise UpscaleError(f"there is no checkpoint file {file}; `sa-upscale models list` shows the names")
    return file


def _refuse_unusable(entry: Entry) -> None:
    if not entry.published:
        raise UpscaleError(f"{entry.name} is not published yet; {_elsewhere(entry)}")
    if entry.sha256 is None:
        raise UpscaleError(f"{entry.name} is not there yet: weights.toml has no sha256 for it; {_elsewhere(entry)}")


def _nowhere(entry: Entry) -> str:
    if entry.repo:
        return f"{entry.name} is not on this machine"
    if entry.bundled:
        return f"{entry.bundled} is missing from {PACKAGE / 'bundled'}, install the package again"
    return f"{entry.name} is on no Hub, put its {entry.file} into a folder and name that in SA_UPSCALE_WEIGHTS"


def _present(entry: Entry) -> Iterator[tuple[str, Path]]:
    """Where the file of `entry` lies on this machine, best place first, unverified.

    The Hub's cache comes last and lazily: its client takes a noticeable moment to import.
    """
    if bundled := _bundled_file(entry):
        yield "bundled", bundled
    wanted = Path(entry.bundled or entry.file or "").name
    for folder in _local_folders():
        if wanted and (folder / wanted).is_file():
            yield "local", folder / wanted
    if cached := _cached_file(entry):
        yield "cached", cached


def _bundled_file(entry: Entry) -> Path | None:
    file = PACKAGE / "bundled" / (entry.bundled or "")
    return file if file.is_file() else None


def _local_folders() -> list[Path]:
    folders = [user_folder()]
    if (PACKAGE.parent / "weights.toml").is_file():  # a source tree, not an installed package
        folders.append(PACKAGE.parent / "checkpoints")
    return folders


def _cached_file(entry: Entry) -> Path | None:
    if not entry.repo:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(entry.repo, entry.file, revision=entry.revision or "main")
    return Path(found) if isinstance(found, str) else None


def sha256_of(file: Path) -> str:
    """The sha256 of a file in hexadecimal; read once per process as long as its size and time stay."""
    try:
        status = file.stat()
        return _digest(file.resolve(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UpscaleError(f"cannot read {file}: {error.strerror}") from None


@functools.lru_cache(maxsize=256)
def _digest(file: Path, _size: int, _mtime: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---- the Hub ---------------------------------------------------------------------------------------------------------


def _download(entry: Entry, on_progress: Progress | None) -> Path:
    """Fetch the file into the Hub's cache and verify it; what does not verify is deleted.

    A file in the cache that did not verify is deleted only once the Hub has answered that it can give another.
    """
    with _quiet("huggingface_hub"):
        promised = _promised_sha256(entry)
        if promised is not None and promised != entry.sha256:
            raise UpscaleError(_other_file(entry, "it was not fetched"))
        _discard(_cached_file(entry))
        fetched = _transfer(entry, on_progress)
    if sha256_of(fetched) != entry.sha256:
        _discard(fetched)
        raise UpscaleError(_other_file(entry, "it was deleted"))
    return fetched


def _promised_sha256(entry: Entry) -> str | None:
    """Ask the Hub, once and without retries, for the file; the sha256 it names, None when it names another kind of tag.

    Left to itself the client asks a Hub out of reach again for some 25 seconds.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        raise _unfetched(entry, "HF_HUB_OFFLINE is set")
    url = hub.hf_hub_url(entry.repo, entry.file, revision=entry.revision or "main")
    try:
        served = hub.get_hf_file_metadata(url, timeout=_answer_seconds())
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        hint = " (a private or gated repository needs HF_TOKEN)" if code in (401, 403) else ""
        wanted = f"{entry.repo}/{entry.file} at {entry.revision or 'main'}"
        raise _unfetched(entry, f"the Hub answered {code} for {wanted}{hint}") from None
    # The base of the HTTP client's own errors, whichever client this version of huggingface_hub is built on.
    except (errors.HTTPError, OSError) as error:
        raise _unfetched(entry, f"{constants.ENDPOINT} cannot be reached ({_first_line(error)})") from None
    if served.commit_hash is None or served.etag is None:
        raise _unfetched(entry, f"{constants.ENDPOINT} does not answer as a Hub")
    return served.etag if _SHA256.fullmatch(served.etag) else None


def _transfer(entry: Entry, on_progress: Progress | None) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    try:
        return Path(
            hub.hf_hub_download(
                entry.repo,
                entry.file,
                revision=entry.revision or "main",
                etag_timeout=_answer_seconds(),
                tqdm_class=_counter(on_progress),
            )
        )
    # The Xet transport reports what goes wrong as OSError or RuntimeError.
    except (errors.HTTPError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise _unfetched(entry, f"{error.strerror}: {error.filename or constants.HF_HUB_CACHE}") from None
        raise _unfetched(entry, f"the download broke off ({_first_line(error)})") from None


def _answer_seconds() -> float:
    """How long the Hub may take to answer before it counts as out of reach."""
    from huggingface_hub import constants

    return constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else ANSWER_SECONDS


def _unfetched(entry: Entry, reason: str) -> UpscaleError:
    return UpscaleError(f"cannot fetch {entry.name}: {reason}; {_elsewhere(entry)}")


def _other_file(entry: Entry, consequence: str) -> str:
    return (
        f"what the Hub has as {entry.repo}/{entry.file} is not the {entry.name} of weights.toml (another sha256), so "
        f"{consequence}; {_elsewhere(entry)}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _discard(file: Path | None) -> None:
    """Delete a file of the Hub's cache and every link on the way to its bytes, as far as they lie in that cache."""
    if file is None:
        return
    from huggingface_hub import constants

    cache = Path(os.path.abspath(constants.HF_HUB_CACHE))
    file = Path(os.path.abspath(file))
    while file.is_relative_to(cache):
        target = Path(os.path.abspath(file.parent / os.readlink(file))) if file.is_symlink() else None
        file.unlink(missing_ok=True)
        if target is None:
            return
        file = target


def _counter(on_progress: Progress | None) -> type:
    """A progress bar in the shape the Hub's client wants that draws nothing and hands the byte counts on."""
    from huggingface_hub.utils import tqdm

    class Counter(tqdm):
        def __init__(self, *_, total: int | None = None, initial: int = 0, **__):
            super().__init__(disable=True, total=total)
            self.done, self.expected = initial, total

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            if on_progress:
                on_progress(self.done, self.expected)

        # With this one, Xet uses a single bar and not a second one for the same bytes on the wire.
        def update_transfer(self, n: float) -> None:
            pass

        def set_transfer_postfix_str(self, text: str, refresh: bool = True) -> None:
            pass

    return Counter


@contextlib.contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep a library's warnings off the terminal: what they say ends up in our one line."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


# ---- what the command line shows -------------------------------------------------------------------------------------


def listing() -> list[Row]:
    """Every checkpoint and where its file is; nothing is verified, fetched or asked of the Hub."""
    return [_row(entry) for entry in entries().values()]


def _row(entry: Entry) -> Row:
    if not entry.usable:
        return Row(entry, "not there yet" if entry.published else "not published", None, None)
    where, file = next(_present(entry), (None, None))
    if file is None:
        return Row(entry, "to fetch" if entry.repo else "local file needed", None, None)
    return Row(entry, where, file, file.stat().st_size)


def info(name_or_path: str | Path) -> Info:
    """What the registry and the file itself say of a checkpoint.  Raises `UpscaleError` for an unknown name."""
    file = _explicit(name_or_path)
    if file is None:
        row = _row(select(str(name_or_path)))
        entry, where, file = row.entry, row.where, row.path
    else:
        entry, where = None, "file"
    if file is None:
        return Info(entry, where, None, None, entry.sha256, {}, None, ())
    metadata, tensors = header(file) if _is_safetensors(file) else ({}, None)
    return Info(
        entry,
        where,
        file,
        file.stat().st_size,
        sha256_of(file),
        metadata,
        None if tensors is None else sum(_product(tensor["shape"]) for tensor in tensors.values()),
        tuple(sorted({tensor["dtype"] for tensor in (tensors or {}).values()})),
    )


def _product(shape: list[int]) -> int:
    return functools.reduce(lambda a, b: a * b, shape, 1)


def verify() -> list[Verdict]:
    """Check every file of every checkpoint on this machine against its sha256: one verdict a file."""
    verdicts = []
    for entry in entries().values():
        if not entry.usable:
            verdicts.append(Verdict(entry.name, "not there yet" if entry.published else "not published"))
            continue
        found = [file for _, file in _present(entry)]
        verdicts += [
            Verdict(entry.name, "ok" if sha256_of(file) == entry.sha256 else "corrupt", file) for file in found
        ] or [Verdict(entry.name, "absent")]
    return verdicts


def fetch(
    names: Iterable[str],
    on_progress: Callable[[str, int, int | None], None] | None = None,
    on_notice: Notice | None = None,
) -> dict[str, Path]:
    """Have the checkpoints called `names` on this machine, verified; `on_progress(name, done, total)` counts bytes.

    Returns their files by their full names.  Raises `UpscaleError` at the first that cannot be had.
    """
    files = {}
    for name in names:
        entry = select(name)
        report = functools.partial(on_progress, entry.name) if on_progress else None
        files[entry.name] = path(entry.name, on_progress=report, on_notice=on_notice)
    return files


# ---- reading ---------------------------------------------------------------------------------------------------------


def header(file: Path) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Metadata and tensor table (dtype, shape, data_offsets) of a safetensors file, without torch.

    Raises `UpscaleError` for a file that is none, or is cut short.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(length) if 2 <= length <= min(size - 8, _LONGEST_HEADER) else b""
    except OSError as error:
        raise UpscaleError(f"cannot read {file}: {error.strerror}") from None
    if size == 0:
        raise UpscaleError(f"{file} is empty; fetch or copy it again")
    try:
        tensors = json.loads(text)
        metadata = {str(key): str(value) for key, value in tensors.pop("__metadata__", {}).items()}
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (ValueError, AttributeError, LookupError, TypeError):
        raise UpscaleError(f"{file} is no safetensors file, or its head is damaged; fetch or copy it again") from None
    if 8 + length + end != size:
        raise UpscaleError(f"{file} is cut short or damaged; fetch or copy it again")
    return metadata, tensors


def _is_safetensors(file: Path) -> bool:
    """By its name, or by its first bytes: a JSON object after eight bytes of length."""
    if file.suffix.lower() == ".safetensors":
        return True
    try:
        with file.open("rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise UpscaleError(f"cannot read {file}: {error.strerror}") from None
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def load(
    name_or_path: str | Path,
    scale: float | None = None,
    kind: str | None = None,
    *,
    download: bool = True,
    on_progress: Progress | None = None,
    on_notice: Notice | None = None,
) -> Checkpoint:
    """The network of a checkpoint, ready to run.  Arguments as for `path`.

    Our own files carry all it takes in their metadata; for others the network is recognised by its weights.  Raises
    `UpscaleError` for a file that is no network known here, or one of the wrong `kind`.
    """
    from sa_upscale import models

    entry, file = _locate(name_or_path, scale, kind, download=download, on_progress=on_progress, on_notice=on_notice)
    metadata, state = _read(file)
    try:
        if "architecture" in metadata:
            architecture, parameters = metadata["architecture"], _parameters(metadata)
        else:
            architecture, parameters, state = canonical(state)
        plan = _plan(architecture, parameters)
    except (UpscaleError, ValueError, TypeError, RuntimeError) as error:
        raise UpscaleError(f"{file} cannot be used: {_first_line(error)}") from None
    if misfit := _misfit(plan, state):
        raise UpscaleError(f"{file} does not fit the network it names ({architecture}): {misfit}")
    if kind == "image" and plan.window > 1:
        raise UpscaleError(_wrong_kind(str(file), plan.window))
    model = models.build_empty(architecture, **parameters).eval()
    model.load_state_dict(state)
    described = _described(plan, architecture, parameters)
    if entry:
        described |= {"licence": entry.licence, "trained_on": entry.trained_on}
    return Checkpoint(model, described | metadata, entry.name if entry else file.stem, file, sha256_of(file))


def _read(file: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata (empty for a pickle) and the content of a checkpoint file."""
    if file.stat().st_size == 0:
        raise UpscaleError(f"{file} is empty; fetch or copy it again")
    if not _is_safetensors(file):
        return {}, _read_pickle(file)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata, _ = header(file)
    if metadata.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise UpscaleError(f"{file} was written by a newer program ({metadata.get('tool')}); update to read it")
    try:
        return metadata, load_file(file)
    except (SafetensorError, OSError) as error:
        raise UpscaleError(f"{file} cannot be read: {_first_line(error)}") from None


def _read_pickle(file: Path) -> dict[str, Any]:
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            # torch wonders aloud about foreign pickles before it refuses them.
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if wanted := re.search(r"Unsupported global: GLOBAL ([\w.]+)", str(error)):
            refusal = f"{file} holds more than weights ({wanted[1]}), which could run code and is refused"
            raise UpscaleError(f"{refusal}; take a safetensors file, or one of plain weights") from None
        raise UpscaleError(f"{file} is not a checkpoint file") from None
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, OSError):
        raise UpscaleError(f"{file} is not a checkpoint file, or is damaged") from None
    if not isinstance(content, Mapping):
        raise UpscaleError(f"{file} holds a {type(content).__name__}, not the weights of a network")
    return dict(content)


def _parameters(metadata: Mapping[str, str]) -> dict:
    parameters = json.loads(metadata.get("parameters", "{}"))
    if not isinstance(parameters, dict):
        raise ValueError("its parameters are not a table")
    return parameters


def _plan(architecture: str, parameters: Mapping[str, Any]) -> nn.Module:
    """The network without memory for its weights: what a file asks for costs nothing until it is known to fit."""
    from sa_upscale import models

    return models.build_empty(architecture, device="meta", **parameters)


def _misfit(plan: nn.Module, state: Mapping[str, torch.Tensor]) -> str | None:
    """In what the weights differ from those of the network in name and shape; None when they fit."""
    wanted = plan.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    extra = sorted(state.keys() - wanted.keys())
    reshaped = [name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape]
    if not (missing or extra or reshaped):
        return None
    example = (missing or extra or sorted(reshaped))[0]
    return f"{len(missing)} weights missing, {len(extra)} too many, {len(reshaped)} of another shape, such as {example}"


def _described(model: nn.Module, architecture: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    return {
        "architecture": architecture,
        "parameters": json.dumps(dict(parameters), sort_keys=True),
        "scale": str(model.scale),
        "window": str(model.window),
    }


def canonical(state_dict: Mapping[str, Any]) -> tuple[str, dict, dict]:
    """Architecture, its parameters and a clean state dict for weights that came without a description.

    Takes what public files hold: the weights themselves or wrapped (`params_ema`, `params`, `state_dict`, `generator`),
    with or without `module.` before every name.  Raises `UpscaleError` when they are no network known here.
    """
    from sa_upscale.models.rrdbnet import canonical_rrdbnet
    from sa_upscale.models.swinir import canonical_swinir

    state = _unwrapped(state_dict)
    if found := canonical_rrdbnet(state):
        return "rrdbnet", *found
    if found := canonical_swinir(state):
        return "swinir", *found
    for architecture, guess in (("compact", _compact_parameters), ("srresnet", _srresnet_parameters)):
        parameters = guess(state)
        if parameters is not None and _misfit(_plan(architecture, parameters), state) is None:
            return architecture, parameters, state
    raise UpscaleError("these are not the weights of a network known here (ESRGAN family, SwinIR, Compact, SRResNet)")


def _unwrapped(state_dict: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    import torch

    state = state_dict
    for _ in _WRAPPERS:  # as often as there are names, and no more: a table in a file may hold itself
        wrapper = next((key for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        state = state[wrapper] if wrapper else state
    state = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    while state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _compact_parameters(state: Mapping[str, torch.Tensor]) -> dict | None:
    head, tail = state.get("head.weight"), state.get("tail.weight")
    if head is None or tail is None or head.dim() != 4 or tail.shape[0] % head.shape[1]:
        return None
    features, channels = head.shape[:2]
    parameters = {
        "scale": round((tail.shape[0] // channels) ** 0.5),
        "features": features,
        "convs": _numbered(state, "body"),
        "channels": channels,
    }
    return parameters | ({"branches": True} if "body.0.expand" in state else {})


def _srresnet_parameters(state: Mapping[str, torch.Tensor]) -> dict | None:
    first, stages = state.get("conv_first.weight"), _numbered(state, "upscale")
    if first is None or first.dim() != 4 or stages not in (1, 2):
        return None
    features, channels = first.shape[:2]
    return {"scale": 2 * stages, "blocks": _numbered(state, "body"), "features": features, "channels": channels}


def _numbered(state: Mapping[str, Any], prefix: str) -> int:
    """How many numbers follow `prefix.` in the names."""
    return len({name.split(".")[1] for name in state if name.startswith(f"{prefix}.")})


# ---- writing ---------------------------------------------------------------------------------------------------------


def save(
    path: str | Path,
    state_dict: Mapping[str, torch.Tensor],
    *,
    architecture: str,
    parameters: Mapping[str, Any],
    metadata: Mapping[str, str],
    dtype: str | None = None,
) -> str:
    """Write a safetensors file that `load` reads with no other knowledge, and return its sha256.

    `dtype` "fp16" or "fp32" converts the weights, None keeps them.  What describes the network goes over `metadata` of
    the same name.  The file appears whole or not at all, and the same weights and metadata give the same bytes.  Raises
    `ValueError` for metadata that is not text, weights that do not fit the network and an unknown dtype; `UpscaleError`
    for weights that are not finite (in that type) and for a file that cannot be written.
    """
    import torch

    not_text = [name for name, value in metadata.items() if not isinstance(value, str)]
    if not_text:
        raise ValueError(f"safetensors metadata is text only; not so: {', '.join(not_text)}")
    kinds = {"fp16": torch.float16, "fp32": torch.float32, None: None}
    if dtype not in kinds:
        raise ValueError(f"dtype is fp16, fp32 or None, not {dtype!r}")
    plan = _plan(architecture, parameters)
    if misfit := _misfit(plan, state_dict):
        raise ValueError(f"these weights do not fit {architecture} with {dict(parameters)}: {misfit}")
    tensors = {name: _stored(name, value, kinds[dtype]) for name, value in state_dict.items()}
    described = _described(plan, architecture, parameters)
    described |= {"format_version": FORMAT_VERSION, "tool": f"sa-upscale {__version__}"}
    content = _serialised(tensors, dict(metadata) | described)
    _write_whole(Path(path), content)
    return hashlib.sha256(content).hexdigest()


def _stored(name: str, tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    import torch

    tensor = tensor.detach().cpu()
    if dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise UpscaleError(f"{name} holds numbers that are not finite in {tensor.dtype}; no checkpoint was written")
    return tensor.clone(memory_format=torch.contiguous_format)


def _serialised(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Safetensors bytes with the metadata in alphabetical order; the library's own order changes from call to call."""
    from safetensors.torch import save as to_bytes

    content = to_bytes(dict(tensors))
    start = 8 + int.from_bytes(content[:8], "little")
    table = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(content[8:start])
    head = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)  # the format wants the tensors aligned
    return len(head).to_bytes(8, "little") + head + content[start:]


def _write_whole(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as error:
        raise UpscaleError(f"cannot write {file}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the new name itself is on disk only when its folder is
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
