"""Checkpoint files of the user's, known by a name from then on."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

from sa_upscale.checkpoints.files import write_whole
from sa_upscale.checkpoints.loading import load
from sa_upscale.checkpoints.registry import Entry, entries, names, user_folder
from sa_upscale.errors import UpscaleError

_NAME = re.compile(r"[a-z][a-z0-9._-]*")


def adopt(file: Path, name: str, *, licence: str = "unknown") -> Entry:
    """Copy a checkpoint file into `user_folder()` and have it known as `name` from now on, by its sha256.

    Raises `UpscaleError` for a name that is taken or has other characters than a-z, 0-9, "-", "_" and ".", for a file
    that is no network known here, and when it cannot be copied.
    """
    if not _NAME.fullmatch(name):
        raise UpscaleError(f"{name!r} cannot be a name; use a-z, 0-9, -, _ and ., and begin with a letter")
    if name in names():
        raise UpscaleError(f"{name} is the name of another checkpoint; choose another one")
    found = load(file)
    file = found.path  # with the home folder in place of "~"
    kept, registry = user_folder() / f"{name}{file.suffix.lower()}", user_folder() / "weights.toml"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        content, before = file.read_bytes(), registry.read_text(encoding="utf-8") if registry.is_file() else ""
    except OSError as error:
        raise UpscaleError(f"cannot import {file}: {error.strerror}: {error.filename}") from None
    write_whole(kept, content)
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
    write_whole(registry, "\n".join([*before.splitlines(), "", f'["{name}"]', *lines, ""]).encode())
    return entries()[name]
