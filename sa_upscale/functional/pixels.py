"""Pictures as tensors."""

import numpy as np
import torch


def values(pixels: np.ndarray) -> torch.Tensor:
    """`(H, W, 1 or 3)` as float32 `(1, 3, H, W)`: uint8 and uint16 in [0, 1], float as it is, grey three times."""
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    scaled = pixels.astype(np.float32) / np.float32(white)
    return torch.from_numpy(scaled).permute(2, 0, 1)[None].expand(1, 3, -1, -1)
