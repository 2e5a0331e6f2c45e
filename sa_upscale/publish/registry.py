"""Edits of `weights.toml`, line by line, so that its comments and its order stay.

Reading TOML is in the standard library, writing it is not.  The file is ours, one table a checkpoint and one line a
key, so a few lines of editing do, and no edit is taken that does not read back as what was meant.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from sa_upscale import checkpoints, images
from sa_upscale.errors import UpscaleError

# Where a new key goes: after those before it.
ORDER = (
    "family",
    "architecture",
    "scale",
    "window",
    "description",
    "bundled",
    "repo",
    "file",
    "revision",
    "sha256",
    "int8_loss",
    "licence",
    "trained_on",
    "fidelity",
    "denoise",
    "published",
)

Value = str | int | float | bool

_LINE = re.compile(r"""[^=]*=\s*("(\\.|[^"\\])*"|'[^']*'|[^"'#]*?)(?P<comment>\s*(#.*)?)""")


def writable() -> Path:
    """The `weights.toml` of the checkout that is running.

    Raises `UpscaleError` for an installed package, whose file would be lost with the next version, and for a file that
    cannot be replaced.
    """
    file = checkpoints.registry.PACKAGE.parent / "weights.toml"
    if (checkpoints.registry.PACKAGE / "weights.toml").is_file() or not file.is_file():
        raise UpscaleError(
            f"{checkpoints.registry.PACKAGE} is an installed package; run this from a checkout, whose weights.toml "
            "keeps the result"
        )
    if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        raise UpscaleError(f"{file} is not writable; what is published must be written down in it")
    return file


def update(file: Path, name: str, values: Mapping[str, Value | None], *, after: str | None = None) -> None:
    """Do `edited` to a file, which is replaced whole or not at all."""
    with file.open(encoding="utf-8", newline="") as stream:
        text = stream.read()
    changed = edited(text, name, values, after=after)
    if changed != text:
        with images.replacing(file) as stream:
            stream.write(changed.encode())


def edited(text: str, name: str, values: Mapping[str, Value | None], *, after: str | None = None) -> str:
    """The text with keys of the table `name` set, or taken out where the value is None; all else stays as it is.

    A table that is not there is added at the end.  With `after`, the table comes behind the one of that name, wherever
    it was.  Raises `UpscaleError` when the text is written in a way that this cannot edit.
    """
    tables = tomllib.loads(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines()
    if name not in tables:
        lines += ["", f"[{name}]"]
    start, stop = _table(lines, name)
    table = _with(lines[start:stop], values)
    del lines[start:stop]
    if after:
        if not lines[start - 1].strip():
            del lines[start - 1]
        start, table = _table(lines, after)[1], ["", *table]
    lines[start:start] = table
    result = newline.join([*lines, ""])
    meant = tables.get(name, {}) | values
    meant = {key: value for key, value in meant.items() if value is not None}
    try:
        sound = tomllib.loads(result) == tables | {name: meant}
    except tomllib.TOMLDecodeError:
        sound = False
    if not sound:
        raise UpscaleError(f"[{name}] of weights.toml cannot be edited line by line; write one key on one line each")
    return result


def _table(lines: list[str], name: str) -> tuple[int, int]:
    """The table from its head to behind its last key; blank lines and comments after that introduce the next one."""
    head = re.compile(rf"""\s*\[\s*["']?{re.escape(name)}["']?\s*\]""")
    start = next((at for at, line in enumerate(lines) if head.match(line)), len(lines))
    stop = next((at for at in range(start + 1, len(lines)) if lines[at].lstrip().startswith("[")), len(lines))
    while stop > start + 1 and lines[stop - 1].strip()[:1] in ("", "#"):
        stop -= 1
    return start, stop


def _with(table: list[str], values: Mapping[str, Value | None]) -> list[str]:
    """The lines of one table with the values set."""
    for key, value in values.items():
        at = next((at for at, line in enumerate(table) if _key(line) == key), None)
        if value is None:
            table = [line for line in table if _key(line) != key]
            continue
        # JSON's strings, numbers and truth values are TOML's, too.
        written = f"{key} = {json.dumps(value, ensure_ascii=False)}"
        if at is None:
            before = ORDER[: ORDER.index(key)]
            at = max(at for at, line in enumerate(table) if line.lstrip().startswith("[") or _key(line) in before)
            table = [*table[: at + 1], written, *table[at + 1 :]]
        else:
            line = _LINE.fullmatch(table[at])
            table = [*table[:at], written + (line["comment"] if line else ""), *table[at + 1 :]]
    return table


def _key(line: str) -> str | None:
    found = re.match(r"\s*([\w-]+)\s*=", line)
    return found and found[1]
