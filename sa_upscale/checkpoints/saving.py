"""Weights written into a file that carries all it takes to load it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa_upscale import __version__
from sa_upscale.checkpoints.files import FORMAT_VERSION, write_whole
from sa_upscale.checkpoints.fitting import description, difference, planned
from sa_upscale.errors import UpscaleError

if TYPE_CHECKING:
    import torch


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
    plan = planned(architecture, parameters)
    if misfit := difference(plan, state_dict):
        raise ValueError(f"these weights do not fit {architecture} with {dict(parameters)}: {misfit}")
    tensors = {name: _stored(name, value, kinds[dtype]) for name, value in state_dict.items()}
    described = description(plan, architecture, parameters)
    described |= {"format_version": FORMAT_VERSION, "tool": f"sa-upscale {__version__}"}
    content = _serialised(tensors, dict(metadata) | described)
    write_whole(Path(path), content)
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
