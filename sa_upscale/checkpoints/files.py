"""Files of weights: their sha256, what their heads say, what they hold, and how they are written."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sa_upscale import disk
from sa_upscale.errors import UpscaleError, first_line

FORMAT_VERSION = "1"

_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself


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


def is_safetensors(file: Path) -> bool:
    """Whether a file is one, by its name or by its first bytes: a JSON object after eight bytes of length."""
    if file.suffix.lower() == ".safetensors":
        return True
    try:
        with file.open("rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise UpscaleError(f"cannot read {file}: {error.strerror}") from None
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def read(file: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata (empty for a pickle) and the content of a checkpoint file; `UpscaleError` when it is none."""
    if file.stat().st_size == 0:
        raise UpscaleError(f"{file} is empty; fetch or copy it again")
    if not is_safetensors(file):
        return {}, _read_pickle(file)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata, _ = header(file)
    if metadata.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise UpscaleError(f"{file} was written by a newer program ({metadata.get('tool')}); update to read it")
    try:
        return metadata, load_file(file)
    except (SafetensorError, OSError) as error:
        raise UpscaleError(f"{file} cannot be read: {first_line(error)}") from None


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


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, and is on the disk on return; `UpscaleError` when it cannot be."""
    try:
        with disk.replacing(file) as stream:
            stream.write(content)
    except OSError as error:
        raise UpscaleError(f"cannot write {file}: {error.strerror}") from None
    disk.sync_folder(file.parent)
