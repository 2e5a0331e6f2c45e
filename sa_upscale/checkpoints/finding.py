"""Where the file of a checkpoint is: bundled, in a local folder, in the Hub's cache, or on the Hub."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sa_upscale.checkpoints import hub, registry
from sa_upscale.checkpoints.files import sha256_of
from sa_upscale.checkpoints.registry import Entry, bundled_file, instead_of, select, user_folder
from sa_upscale.errors import UpscaleError

_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

Notice = Callable[[str], None]


def path(
    name_or_path: str | Path,
    scale: float | None = None,
    kind: str | None = None,
    *,
    download: bool = True,
    on_progress: hub.Progress | None = None,
    on_notice: Notice | None = None,
) -> Path:
    """The file of a checkpoint, verified; fetched from the Hub when it is nowhere nearer and `download` allows.

    `on_progress(done, total)` counts the bytes of a download; `on_notice(line)` hears of corrupt files that were passed
    over.  Raises `UpscaleError` when there is no usable file.
    """
    return locate(name_or_path, scale, kind, download=download, on_progress=on_progress, on_notice=on_notice)[1]


def locate(
    name_or_path: str | Path,
    scale: float | None,
    kind: str | None,
    *,
    download: bool,
    on_progress: hub.Progress | None,
    on_notice: Notice | None,
) -> tuple[Entry | None, Path]:
    """As `path`, and the entry of the registry; None for the path of a file."""
    given = explicit(name_or_path)
    if given is not None:
        return None, given
    entry = select(str(name_or_path), scale, kind)
    _refuse_unusable(entry)
    refused = []
    for _, file in present(entry):
        if sha256_of(file) == entry.sha256:
            return entry, file
        refused.append(f"{file} is corrupt: its sha256 is not that of {entry.name}")
        if on_notice:
            on_notice(f"{refused[-1]}; it is not used")
    if not (download and entry.repo):
        raise UpscaleError("; ".join([*(refused or [_nowhere(entry)]), instead_of(entry)]))
    try:
        return entry, hub.download(entry, on_progress)
    except UpscaleError as error:
        raise UpscaleError("; ".join([*refused, str(error)])) from None


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


def explicit(name_or_path: str | Path) -> Path | None:
    """The file the user means by its path, None when it is a name.  A name of ours wins over a file called so."""
    text = str(name_or_path)
    file = Path(name_or_path).expanduser()
    if isinstance(name_or_path, str):
        if text in registry.names():
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
        raise UpscaleError(f"{entry.name} is not published yet; {instead_of(entry)}")
    if entry.sha256 is None:
        raise UpscaleError(f"{entry.name} is not there yet: weights.toml has no sha256 for it; {instead_of(entry)}")


def _nowhere(entry: Entry) -> str:
    if entry.repo:
        return f"{entry.name} is not on this machine"
    if entry.bundled:
        return f"{entry.bundled} is missing from {registry.PACKAGE / 'bundled'}, install the package again"
    return f"{entry.name} is on no Hub, put its {entry.file} into a folder and name that in SA_UPSCALE_WEIGHTS"


def present(entry: Entry) -> Iterator[tuple[str, Path]]:
    """Where the file of `entry` lies on this machine, best place first, unverified.

    The Hub's cache comes last and lazily: its client takes a noticeable moment to import.
    """
    if bundled := bundled_file(entry):
        yield "bundled", bundled
    wanted = Path(entry.bundled or entry.file or "").name
    for folder in _local_folders():
        if wanted and (folder / wanted).is_file():
            yield "local", folder / wanted
    if cached := hub.cached_file(entry):
        yield "cached", cached


def _local_folders() -> list[Path]:
    folders = [user_folder()]
    if (registry.PACKAGE.parent / "weights.toml").is_file():  # a source tree, not an installed package
        folders.append(registry.PACKAGE.parent / "checkpoints")
    return folders
