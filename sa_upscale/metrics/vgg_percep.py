"""The distance `vgg-percep`: how far apart the features of a VGG19 are.  It is not LPIPS, which has learned weights."""

from pathlib import Path

import torch
from torch.nn.functional import normalize

from sa_upscale.errors import UpscaleError
from sa_upscale.functional import vgg
from sa_upscale.metrics.pair import inside

LAYERS = ("conv1_2", "conv2_2", "conv3_4")
SMALLEST = 4  # two poolings stand before conv3_4


class VGGDistance:
    """Called with two batches `(N, 3, H, W)` in [0, 1] it gives the distance of each picture, `(N,)` on the CPU.

    Each layer's features after their activation are divided by their norm over the channels at each pixel; the squared
    difference is summed over the channels and averaged over the pixels, then over the three layers.  0 for equal
    pictures, less than 2 for any.  Factors that a file of weights has on whole layers cancel out.

    `network` is `functional.vgg.VGG` with `LAYERS`.  Raises `UpscaleError` when its weights do not reach so far.
    """

    def __init__(self, network: vgg.VGG, device: torch.device | str = "cpu"):
        network.require(LAYERS)
        self._network, self._device = network.to(device), device

    def __call__(self, sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
        sr, hr = inside(sr, hr, border, smallest=SMALLEST)
        with torch.inference_mode():
            of_sr, of_hr = (self._network(x.to(self._device, torch.float32), LAYERS) for x in (sr, hr))
            distances = [_distance(of_sr[layer], of_hr[layer]) for layer in LAYERS]
        return torch.stack(distances).mean(dim=0).cpu()


def load(weights: Path | None, device: torch.device | str = "cpu") -> VGGDistance:
    """`VGGDistance` with the weights of a file.  Raises `UpscaleError` without one or when it is of no use."""
    if weights is None:
        raise UpscaleError("vgg-percep needs the weights of a VGG19; name a file with --vgg-weights FILE")
    return VGGDistance(vgg.load(weights), device)


def _distance(features: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    features, others = (normalize(x.relu(), dim=1, eps=1e-10) for x in (features, others))
    return (features - others).square().sum(dim=1).mean(dim=(1, 2))
