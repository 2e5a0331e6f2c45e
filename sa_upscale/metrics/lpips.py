"""Learned perceptual image patch similarity, as torchmetrics computes it."""

from pathlib import Path

import torch

from sa_upscale.metrics.optional import find_backbone, hub_folder, load_library
from sa_upscale.metrics.pair import inside

ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
SMALLEST = 32  # AlexNet's strides and poolings leave nothing of less


class LPIPS:
    """Called with two batches `(N, 3, H, W)` in [0, 1] it gives the distance of each picture, `(N,)` on the CPU.

    AlexNet's features, compared with version 0.1 of the learned weights; 0 for equal pictures.  `network` is that of
    torchmetrics' LearnedPerceptualImagePatchSimilarity.

    Reference: R. Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018, eq. 1.
    """

    def __init__(self, network: torch.nn.Module, device: torch.device | str = "cpu"):
        self._network, self._device = network.to(device), device

    def __call__(self, sr: torch.Tensor, hr: torch.Tensor, border: int = 0) -> torch.Tensor:
        sr, hr = inside(sr, hr, border, smallest=SMALLEST)
        with torch.inference_mode():
            distance = self._network(*(x.to(self._device, torch.float32) for x in (sr, hr)), normalize=True)
        return distance.flatten().cpu()


def load(backbones: Path | None = None, device: torch.device | str = "cpu") -> LPIPS:
    """`LPIPS` with the AlexNet of the hub folder `backbones`; the learned weights lie in torchmetrics.

    Raises `UpscaleError` when a library or the network is missing.
    """
    load_library("lpips", "torchvision", "perceptual")
    library = load_library("lpips", "torchmetrics.image.lpip", "perceptual")
    find_backbone("lpips", ALEXNET, backbones)
    with hub_folder(backbones):
        return LPIPS(library.LearnedPerceptualImagePatchSimilarity(net_type="alex").net, device)
