"""Measures of a result against its reference, by name.

A metric of pictures is a function `(sr, hr, border) -> (N,)` of two batches `(N, 3, H, W)` in [0, 1]; `border` pixels
on each side are left out.  A metric of a set has `reset()`, `update(sr, hr, border)` and `compute() -> float` instead.
Adding one: a file in this folder and a line in `METRICS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from sa_upscale.errors import UpscaleError, near
from sa_upscale.metrics import dists, fid, lpips, vgg_percep, vif
from sa_upscale.metrics.psnr import psnr, psnr_y
from sa_upscale.metrics.ssim import ssim, ssim_y

__all__ = ["METRICS", "Metric", "Needs", "build", "psnr", "psnr_y", "ssim", "ssim_y"]


@dataclass(frozen=True)
class Needs:
    """What metrics may ask for: a file of VGG19's weights, torch's hub folder with other backbones, where to run."""

    vgg_weights: Path | None = None
    backbones: Path | None = None
    device: torch.device | str = "cpu"


@dataclass(frozen=True)
class Metric:
    """One line of `METRICS`.

    `load` makes the measure; `needs` says in words what that takes beyond this package.  `cropped`: the tables of the
    field leave out a border; else they take whole pictures.  `of_set`: one figure for a set, none for a picture.
    """

    load: Callable[[Needs], Callable]
    higher_is_better: bool
    needs: str = ""
    cropped: bool = True
    of_set: bool = False


_LIBRARY = "the extra metrics"
_BACKBONE = "the extra perceptual, and {} in torch's hub folder, downloaded unless it is there"

METRICS: dict[str, Metric] = {
    "psnr": Metric(lambda needs: psnr, True),
    "psnr-y": Metric(lambda needs: psnr_y, True),
    "ssim": Metric(lambda needs: ssim, True),
    "ssim-y": Metric(lambda needs: ssim_y, True),
    "vif": Metric(lambda needs: vif.load(), True, _LIBRARY),
    "vif-y": Metric(lambda needs: vif.load_y(), True, _LIBRARY),
    "vgg-percep": Metric(
        lambda needs: vgg_percep.load(needs.vgg_weights, needs.device), False, "the option --vgg-weights", cropped=False
    ),
    "lpips": Metric(
        lambda needs: lpips.load(needs.backbones, needs.device),
        False,
        _BACKBONE.format(lpips.ALEXNET),
        cropped=False,
    ),
    "dists": Metric(
        lambda needs: dists.load(needs.backbones, needs.device),
        False,
        _BACKBONE.format(dists.VGG16),
        cropped=False,
    ),
    "fid": Metric(
        lambda needs: fid.load(needs.backbones, needs.device),
        False,
        _BACKBONE.format(fid.INCEPTION),
        cropped=False,
        of_set=True,
    ),
}


def build(names: Iterable[str], needs: Needs = Needs()) -> dict[str, Callable]:
    """The measures of these names, ready to be called.

    Raises `UpscaleError` for an unknown name, and when what one needs is missing.
    """
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in METRICS:
            raise UpscaleError(f"unknown metric {name!r}; {near(name, METRICS)}")
    return {name: METRICS[name].load(needs) for name in names}
