"""Pillow's pictures made from files and arrays, and arrays from them: what all formats that lean on Pillow share."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile

from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Arrays, library


@contextmanager
def unlimited() -> Iterator[None]:
    """Without Pillow's own limit of pixels: ours is looked at before anything is decoded, and is the user's to set."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def header(plugin: type[ImageFile.ImageFile], data: bytes) -> ImageFile.ImageFile:
    """The file opened by one of Pillow's classes; `Image.open` would choose by itself, and not always the same."""
    with library():
        return plugin(io.BytesIO(data))


def arrays(image: Image.Image) -> Arrays:
    """A Pillow picture of any mode as grey or RGB: 8 bits, or 16 or float where Pillow has them."""
    with library():
        image.load()
        image = _plain(image)
        array = np.atleast_3d(np.asarray(image))
    if image.mode == "I":
        # 32-bit integers, which mostly hold 16; larger ones are scaled to them.
        array = np.clip(array >> (16 if array.max() > 65535 else 0), 0, 65535)
    if image.mode.startswith("I"):
        array = array.astype(np.uint16)
    colours = 3 if image.mode.startswith("RGB") else 1
    return array[..., :colours], array[..., -1] if image.mode.endswith("A") else None


def _plain(image: Image.Image) -> Image.Image:
    """The picture in one of the modes that an array is taken of."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        return image.convert("LA" if image.mode == "L" else "RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA", "F") or image.mode.startswith("I"):
        return image
    if image.mode == "LAB":
        profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
        return ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    return image.convert("RGBA" if image.mode in ("RGBa", "La") else "RGB")


def frames(image: Image.Image, count: int) -> Iterator[tuple[Arrays, float]]:
    """The first `count` frames of an animation, each whole, with its milliseconds."""
    for index in range(count):
        with library():
            image.seek(index)
            image.load()
        yield arrays(image), float(image.info.get("duration") or 0)


def image_of(picture: Picture) -> Image.Image:
    """An 8-bit `picture` as Pillow's."""
    samples = picture.pixels if picture.alpha is None else np.dstack((picture.pixels, picture.alpha))
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


def save(file: BinaryIO, picture: Picture, kind: str, **options) -> None:
    """Encode an 8-bit `picture` as Pillow's format `kind`."""
    image_of(picture).save(Unnumbered(file), kind, **options)


def save_frames(file: BinaryIO, shown: Iterable[tuple[Image.Image, float]], kind: str, **options) -> None:
    """Encode pictures, each with its milliseconds, as an animation of Pillow's format `kind`."""
    images, milliseconds = zip(*shown, strict=True)
    options |= {"save_all": True, "append_images": images[1:], "duration": [round(value) for value in milliseconds]}
    images[0].save(Unnumbered(file), kind, **options)


class Unnumbered:
    """A file without its descriptor: given one, Pillow's encoders write past Python and lose the error's number."""

    def __init__(self, file: BinaryIO):
        self.write, self.tell, self.seek, self.flush = file.write, file.tell, file.seek, file.flush
