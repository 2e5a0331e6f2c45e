"""What the losses of one training step share."""

from dataclasses import dataclass

import torch


@dataclass
class Step:
    """One batch: `lr` as the generator took it, `hr` and `sr` of shape `(N, 3, H, W)`, all in [0, 1]."""

    lr: torch.Tensor
    hr: torch.Tensor
    sr: torch.Tensor
