"""The maps behind the losses, of one's own picture: where edges weigh, and where a result looks like an artifact."""

from pathlib import Path

import numpy as np
import torch

from sa_upscale import images
from sa_upscale.errors import UpscaleError
from sa_upscale.functional.pixels import values
from sa_upscale.images.picture import converted
from sa_upscale.losses.edges import EdgeMap
from sa_upscale.losses.ldl import artifact_map, residual
from sa_upscale.report.panels import Panel, panels

LDL_WINDOW = 7
BRIGHTEST = 0.99  # the share of pixels below the top of the scale, for maps of which a few points outshine the rest


def draw(
    file: Path,
    target: Path,
    *,
    hr: Path | None = None,
    ema: Path | None = None,
    window: int = 5,
    delta: float = 0.01,
    low: float = 100,
    high: float = 200,
) -> None:
    """Write a picture of the maps of `file`, which is a result where there is an `hr` to hold it against.

    Both edge maps W are of the HR picture, which is `file` itself without `hr`: local variance (`window`, `delta`) and
    Canny (thresholds `low`, `high`).  With `hr` follow LDL's residual and artifact map; with `ema`, the result of the
    averaged network, the refined map, too.

    Raises `UpscaleError` for pictures that differ in size or are too small, an even window, and what cannot be read or
    written.

    Reference: SA paper, eq. 1-3; LDL paper, eq. 2-6.
    """
    if ema and not hr:
        raise UpscaleError("the refined map needs the original, too; give --hr")
    if window < 3 or window % 2 == 0:
        raise UpscaleError(f"a window of {window} pixels is not possible; give an odd number from 3")
    read = {role: images.read(path) for role, path in (("sr", file), ("hr", hr), ("ema", ema)) if path}
    _check({role: (path, read[role]) for role, path in (("sr", file), ("hr", hr), ("ema", ema)) if path}, window)
    tensors = {role: values(picture.pixels) for role, picture in read.items()}
    original = tensors.get("hr", tensors["sr"])
    shown = [_picture("result" if hr else file.name, read["sr"])]
    if hr:
        shown.append(_picture("original", read["hr"]))
    shown.append(_map("W, local variance", EdgeMap("lv", window=window, delta=delta)(original), top=1))
    shown.append(_map("W, Canny", EdgeMap("canny", low=low, high=high)(original), top=1))
    if hr:
        shown.append(_map("LDL residual", residual(original, tensors["sr"])))
        shown.append(_map("LDL artifact map, sigma M", _artifacts(original, tensors["sr"])))
    if ema:
        shown.append(_map("refined artifact map", _artifacts(original, tensors["sr"], tensors["ema"])))
    images.write(target, images.Picture(panels(shown)))


def _check(read: dict[str, tuple[Path, images.Picture]], window: int) -> None:
    file, first = read["sr"]
    for path, picture in read.values():
        if (picture.width, picture.height) != (first.width, first.height):
            raise UpscaleError(
                f"{path} is {picture.width}x{picture.height} and {file} {first.width}x{first.height}; maps need "
                "results of the size of the original"
            )
    least = max(window, LDL_WINDOW) // 2 + 1
    if min(first.width, first.height) < least:
        raise UpscaleError(f"{file} is {first.width}x{first.height}; maps need {least} pixels a side")


def _artifacts(hr: torch.Tensor, sr: torch.Tensor, ema: torch.Tensor | None = None) -> torch.Tensor:
    return artifact_map(hr, sr, ema, window=LDL_WINDOW)


def _picture(title: str, picture: images.Picture) -> Panel:
    pixels = converted(picture.pixels, "uint8")
    return Panel(title, np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _map(title: str, found: torch.Tensor, top: float | None = None) -> Panel:
    """The mean over channels of `(1, C, H, W)`; without a `top` the scale ends where the brightest hundredth begins."""
    plane = found.mean(dim=1)[0].numpy()
    if top is None:
        top = float(np.quantile(plane, BRIGHTEST)) or float(plane.max())
    return Panel(title, plane, top)
