"""Deep image structure and texture similarity, as torchmetrics computes it."""

from pathlib import Path

import torch

from sa_upscale.metrics.optional import find_backbone, hub_folder, load_library
from sa_upscale.metrics.pair import inside

VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"
SMALLEST = 16  # four poolings


class DISTS:
    """Called with two batches `(N, 3, H, W)` in [0, 1] it gives the distance of each picture, `(N,)` on the CPU.

    0 for equal pictures.  They are taken as they are: the authors' script makes their shorter side 256 pixels first,
    which the tables of super-resolution do not.  `network` is torchmetrics' DISTSNetwork.

    Reference: K. Ding et al., "Image quality assessment: unifying structure and texture similarity", 2020, eq. 11.
    """

    def __init__(self, network: torch.nn.Module, device: torch.device | str = "cpu"):
        self._network, self._device = network.to(device), device

    def __call__(self, sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
        sr, hr = inside(sr, hr, border, smallest=SMALLEST)
        with torch.inference_mode():
            distance = self._network(*(x.to(self._device, torch.float32) for x in (sr, hr)))
        return distance.flatten().cpu()


def load(backbones: Path | None = None, device: torch.device | str = "cpu") -> DISTS:
    """`DISTS` with the VGG16 of the hub folder `backbones`; the learned weights lie in torchmetrics.

    Raises `UpscaleError` when a library or the network is missing.
    """
    load_library("dists", "torchvision", "perceptual")
    library = load_library("dists", "torchmetrics.functional.image.dists", "perceptual")
    find_backbone("dists", VGG16, backbones)
    with hub_folder(backbones):
        return DISTS(library.DISTSNetwork(), device)
