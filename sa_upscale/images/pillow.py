"""Pillow's pictures made from files and arrays, and arrays from them: what all formats that lean on Pillow share."""

import io
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from sa_upscale.images.picture import Picture
from sa_upscale.images.source import library


def header(plugin: type[ImageFile.ImageFile], data: bytes) -> ImageFile.ImageFile:
    """The file opened by one of Pillow's classes; `Image.open` would choose by itself, and not always the same."""
    with library():
        return plugin(io.BytesIO(data))


def arrays(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """An 8-bit Pillow picture of any mode as grey or RGB `(H, W, C)` and alpha `(H, W)` or None."""
    with library():
        image.load()
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
        if image.mode == "1":
            image = image.convert("L")
        if image.mode not in ("L", "LA", "RGB", "RGBA"):
            image = image.convert("RGBA" if image.mode in ("RGBa", "La") else "RGB")
        array = np.atleast_3d(np.asarray(image))
    colours = 3 if image.mode.startswith("RGB") else 1
    return array[..., :colours], array[..., -1] if image.mode.endswith("A") else None


def save(file: BinaryIO, picture: Picture, kind: str, **options) -> None:
    """Encode an 8-bit `picture` as Pillow's format `kind`."""
    samples = picture.pixels if picture.alpha is None else np.dstack((picture.pixels, picture.alpha))
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    image.save(_Unnumbered(file), kind, **options)


class _Unnumbered:
    """A file without its descriptor: given one, Pillow's encoders write past Python and lose the error's number."""

    def __init__(self, file: BinaryIO):
        self.write, self.tell, self.seek, self.flush = file.write, file.tell, file.seek, file.flush
