"""What is known of the checkpoints and their files on this machine, for `models list`, `info` and `verify`."""

import math
from dataclasses import dataclass
from pathlib import Path

from sa_upscale.checkpoints.files import header, is_safetensors, sha256_of
from sa_upscale.checkpoints.finding import explicit, present
from sa_upscale.checkpoints.registry import Entry, entries, select

HERE = ("bundled", "local")
"""The `where` of those whose file came with the package or lies in a folder of the user's or the checkout."""


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


def listing() -> list[Row]:
    """Every checkpoint and where its file is; nothing is verified, fetched or asked of the Hub."""
    return [_row(entry) for entry in entries().values()]


def _row(entry: Entry) -> Row:
    if not entry.usable:
        return Row(entry, _unusable(entry), None, None)
    where, file = next(present(entry), (None, None))
    if file is None:
        return Row(entry, "to fetch" if entry.repo else "local file needed", None, None)
    return Row(entry, where, file, file.stat().st_size)


def _unusable(entry: Entry) -> str:
    return "not there yet" if entry.published else "not published"


def info(name_or_path: str | Path) -> Info:
    """What the registry and the file itself say of a checkpoint.  Raises `UpscaleError` for an unknown name."""
    file = explicit(name_or_path)
    if file is None:
        row = _row(select(str(name_or_path)))
        entry, where, file = row.entry, row.where, row.path
    else:
        entry, where = None, "file"
    if file is None:
        return Info(entry, where, None, None, entry.sha256, {}, None, ())
    metadata, tensors = header(file) if is_safetensors(file) else ({}, None)
    return Info(
        entry,
        where,
        file,
        file.stat().st_size,
        sha256_of(file),
        metadata,
        None if tensors is None else sum(math.prod(tensor["shape"]) for tensor in tensors.values()),
        tuple(sorted({tensor["dtype"] for tensor in (tensors or {}).values()})),
    )


def verify() -> list[Verdict]:
    """Check every file of every checkpoint on this machine against its sha256: one verdict a file."""
    verdicts = []
    for entry in entries().values():
        if not entry.usable:
            verdicts.append(Verdict(entry.name, _unusable(entry)))
            continue
        found = [file for _, file in present(entry)]
        verdicts += [
            Verdict(entry.name, "ok" if sha256_of(file) == entry.sha256 else "corrupt", file) for file in found
        ] or [Verdict(entry.name, "absent")]
    return verdicts
