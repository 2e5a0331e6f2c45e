"""The Python interface: a network by its name, as a function of pictures.

import sa_upscale

enlarge = sa_upscale.load("compact")
large = enlarge("photo.jpg")
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import overload

import numpy as np
import torch

from sa_upscale import images, upscale
from sa_upscale.defaults import DEFAULTS


def load(
    name: str | Path = DEFAULTS["image"],
    *,
    scale: float = 4,
    device: str | None = None,
    precision: str | None = None,
    tile: int | None = None,
    strength: float | None = None,
    denoise: float | None = None,
    tta: bool = False,
    match_color: bool = False,
    on_notice: Callable[[str], None] | None = None,
) -> "Model":
    """The network called `name`, ready to enlarge by `scale` (1 to 8).

    `name` is a checkpoint or family of `models list`, or a file; what is not on this machine is fetched.  By default
    noise and compression found in each picture decide between compact, compact-photo and compact-real.  `device` is
    "cpu", "cuda", "cuda:N" or "mps", `precision` "fp32", "bf16" or "fp16", `tile` the side of tiles in source pixels;
    by default each is the best there is.  `strength` and `denoise` (0 to 1) mix the weights of siblings, `tta` takes
    the mean of eight turned runs, `match_color` keeps the low frequencies of the source.  `on_notice(line)` hears what
    is good to know; by default it becomes a warning.

    Raises `UpscaleError` for a name or device that is not there and a scale out of range.
    """
    return Model(
        name,
        scale,
        device=device,
        precision=precision,
        tile=tile,
        strength=strength,
        denoise=denoise,
        tta=tta,
        match_color=match_color,
        on_notice=on_notice or warnings.warn,
    )


class Model:
    """What `load` gives.  Calling it enlarges one picture, `file` does so from file to file."""

    def __init__(self, name: str | Path, scale: float, **options):
        self.name, self.scale = str(name), scale
        self._upscaler = upscale.Upscaler(name, scale, **options)

    def __repr__(self) -> str:
        return f"<sa_upscale {self.name} x{self.scale:g}>"

    @overload
    def __call__(self, picture: torch.Tensor) -> torch.Tensor: ...

    @overload
    def __call__(self, picture: np.ndarray | str | os.PathLike) -> np.ndarray: ...

    def __call__(self, picture):
        """`picture` enlarged, as what it came as: an array, a tensor, or, for the path of a file, an array.

        Arrays are `(H, W)`, or `(H, W, C)` with C = 1, 3 (RGB), or 2 and 4 with alpha last; uint8, uint16, or float in
        [0, 1], which becomes float32.  Tensors are `(C, H, W)` or `(N, C, H, W)` with C = 1 or 3, uint8 or float in
        [0, 1]; the result has their type and device, and no gradient.  A file's picture is upright, and has its own
        depth; colour profile and EXIF are kept by `file` only.

        Raises `ValueError` for other shapes and types, `UpscaleError` for a file that is no picture.
        """
        if isinstance(picture, torch.Tensor):
            return self._tensor(picture)
        if isinstance(picture, np.ndarray):
            return self._array(picture)
        return _together(self._enlarged(images.read(Path(picture))))

    def file(self, source: str | os.PathLike, target: str | os.PathLike, **output) -> upscale.Result:
        """Enlarge the file `source` into the file `target`, with all that the picture carries.

        `output` is format, quality, lossless, depth, strip and tag, as for `upscale.Output`; `tag=False` leaves out the
        note in the metadata that names tool, version, checkpoint and scale.  Raises `UpscaleError` when the one cannot
        be read or the other not written.
        """
        return self._upscaler.image_file(Path(source), Path(target), upscale.Output(**output))

    def _array(self, array: np.ndarray) -> np.ndarray:
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)) or not array.size:
            raise ValueError(f"an array is (H, W) or (H, W, 1 to 4), not {array.shape}")
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        elif array.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"an array is uint8, uint16 or float, not {array.dtype}")
        samples = array if array.ndim == 3 else array[..., None]
        alpha = samples[..., -1] if samples.shape[2] in (2, 4) else None
        pixels = samples if alpha is None else samples[..., :-1]
        result = _together(self._enlarged(images.Picture(np.ascontiguousarray(pixels), alpha)))
        return result if array.ndim == 3 else result[..., 0]

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 4:
            return torch.stack([self._tensor(each) for each in tensor])
        if tensor.dim() != 3 or tensor.shape[0] not in (1, 3):
            raise ValueError(f"a tensor is (C, H, W) or (N, C, H, W) with 1 or 3 channels, not {tuple(tensor.shape)}")
        if not (tensor.is_floating_point() or tensor.dtype == torch.uint8):
            raise ValueError(f"a tensor is uint8 or float, not {tensor.dtype}")
        plain = tensor.detach().cpu()
        plain = plain.float() if plain.is_floating_point() else plain
        result = torch.from_numpy(self._array(plain.permute(1, 2, 0).numpy()))
        return result.permute(2, 0, 1).contiguous().to(tensor)

    def _enlarged(self, picture: images.Picture) -> images.Picture:
        size = upscale.Size(self.scale).of(picture.width, picture.height)
        engines = self._upscaler.engines_for(picture, size.scale)
        return upscale.enlarge(picture, engines, size.width, size.height)


def _together(picture: images.Picture) -> np.ndarray:
    """Pixels and alpha as one array that can be written to."""
    if picture.alpha is not None:
        return np.dstack((picture.pixels, picture.alpha))
    return picture.pixels if picture.pixels.flags.writeable else picture.pixels.copy()
