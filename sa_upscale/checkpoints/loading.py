"""A checkpoint's file read into its network."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sa_upscale.checkpoints import files
from sa_upscale.checkpoints.finding import Notice, locate
from sa_upscale.checkpoints.fitting import description, difference, planned
from sa_upscale.checkpoints.foreign import canonical
from sa_upscale.checkpoints.hub import Progress
from sa_upscale.checkpoints.registry import wrong_kind
from sa_upscale.errors import UpscaleError, first_line

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass
class Checkpoint:
    """A network in evaluation mode, float32, on the CPU, and the file it came from."""

    model: nn.Module
    metadata: dict[str, str]
    name: str
    path: Path
    sha256: str

    def mixed_with(self, other: Checkpoint, share: float) -> dict[str, torch.Tensor]:
        """The weights of this network at `share` (0 to 1) and those of the other at the rest.

        Raises `UpscaleError` where they are not of one kind.  Reference: X. Wang et al., "ESRGAN", 2018, section 3.4
        (network interpolation).
        """
        ours, theirs = self.model.state_dict(), other.model.state_dict()
        if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
            raise UpscaleError(f"{self.name} and {other.name} are different networks and cannot be mixed")
        return {name: theirs[name].lerp(value, share) for name, value in ours.items()}


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

    Our own files carry all it takes in their metadata; for others the network is recognised by its weights.  The
    model's `int8_loss` is the PSNR-Y, in dB, that int8 was measured to cost it on Set5, as its metadata or else the
    registry have it, and infinite where it was not.
    Raises `UpscaleError` for a file that is no network known here, or one of the wrong `kind`.
    """
    from sa_upscale import models

    entry, file = locate(name_or_path, scale, kind, download=download, on_progress=on_progress, on_notice=on_notice)
    metadata, state = files.read(file)
    try:
        if "architecture" in metadata:
            architecture, parameters = metadata["architecture"], _parameters(metadata)
        else:
            architecture, parameters, state = canonical(state)
        plan = planned(architecture, parameters)
        registered = math.inf if entry is None or entry.int8_loss is None else entry.int8_loss
        int8_loss = float(metadata.get("int8_loss", registered))
    except (UpscaleError, ValueError, TypeError, RuntimeError) as error:
        raise UpscaleError(f"{file} cannot be used: {first_line(error)}") from None
    if misfit := difference(plan, state):
        raise UpscaleError(f"{file} does not fit the network it names ({architecture}): {misfit}")
    if kind == "image" and plan.window > 1:
        raise UpscaleError(wrong_kind(str(file), plan.window))
    model = models.build_empty(architecture, **parameters).eval()
    model.load_state_dict(state)
    model.int8_loss = int8_loss
    described = description(plan, architecture, parameters)
    if entry:
        described |= {"licence": entry.licence, "trained_on": entry.trained_on}
    return Checkpoint(model, described | metadata, entry.name if entry else file.stem, file, files.sha256_of(file))


def _parameters(metadata: Mapping[str, str]) -> dict:
    parameters = json.loads(metadata.get("parameters", "{}"))
    if not isinstance(parameters, dict):
        raise ValueError("its parameters are not a table")
    return parameters
