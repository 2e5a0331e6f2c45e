"""Fréchet inception distance, as torchmetrics and torch-fidelity compute it."""

from pathlib import Path

import torch

from sa_upscale.errors import UpscaleError
from sa_upscale.metrics.optional import find_backbone, load_library
from sa_upscale.metrics.pair import inside

INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)


class FID:
    """The distance between the distributions of a whole set of results and of its references.

    Pictures are resized to 299x299 without antialiasing, as the authors' code does.  The 2048 features of a set of
    fewer than a few thousand pictures say little: compare such figures only on the same set.

    `metric` is torchmetrics' FrechetInceptionDistance.

    Reference: M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium",
    2017, eq. 6.
    """

    def __init__(self, metric, device: torch.device | str = "cpu"):
        self._metric, self._device = metric.to(device), device

    def reset(self) -> None:
        """Forget every picture."""
        self._metric.reset()

    def update(self, sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> None:
        """Add the results and references of two batches `(N, 3, H, W)` in [0, 1], rounded to 8 bits."""
        sr, hr = inside(sr, hr, border)
        with torch.inference_mode():
            self._metric.update(_bytes(sr).to(self._device), real=False)
            self._metric.update(_bytes(hr).to(self._device), real=True)

    def compute(self) -> float:
        """The distance for the pictures so far.  Raises `UpscaleError` for fewer than two."""
        if self._metric.real_features_num_samples < 2:
            raise UpscaleError("fid compares sets and needs two pictures at least; leave it out for this one")
        return self._metric.compute().item()


def load(backbones: Path | None = None, device: torch.device | str = "cpu") -> FID:
    """`FID` with the Inception network of the hub folder `backbones`.

    Raises `UpscaleError` when a library or the network is missing.
    """
    load_library("fid", "torch_fidelity", "perceptual")
    library = load_library("fid", "torchmetrics.image.fid", "perceptual")
    weights = str(find_backbone("fid", INCEPTION, backbones))
    return FID(library.FrechetInceptionDistance(feature_extractor_weights_path=weights, antialias=False), device)


def _bytes(x: torch.Tensor) -> torch.Tensor:
    return (x.clamp(0, 1) * 255).round().byte()
