"""Pictures as tensors."""

import numpy as np
import torch

from sa_upscale.functional.resize import resize


def values(pixels: np.ndarray) -> torch.Tensor:
    """`(H, W, 1 or 3)` as float32 `(1, 3, H, W)`: uint8 and uint16 in [0, 1], float as it is, grey three times."""
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    scaled = pixels.astype(np.float32) / np.float32(white)
    return torch.from_numpy(scaled).permute(2, 0, 1)[None].expand(1, 3, -1, -1)


def resized(pixels: np.ndarray, size: tuple[int, int], computed_in: type = np.float32) -> np.ndarray:
    """`(H, W, C)` of any type at `size = (height, width)` by `resize`; integers are rounded and stay in their range."""
    if pixels.shape[:2] == size:
        return pixels
    result = resize(torch.from_numpy(pixels.astype(computed_in)).movedim(-1, 0), size).movedim(0, -1).numpy()
    if pixels.dtype.kind == "u":
        result = np.rint(result).clip(0, np.iinfo(pixels.dtype).max)
    return result.astype(pixels.dtype)
