"""BMP through Pillow, and through OpenCV where there is transparency to write."""

import struct
from typing import BinaryIO

import cv2
import numpy as np
from PIL import BmpImagePlugin

from sa_upscale.images import pillow
from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Arrays, Damaged, Source, library, plain_dpi, unpack

_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)


def begins(head: bytes) -> bool:
    # "BM" alone begins many a text; the header size that follows is one of a few.
    return head[:2] == b"BM" and len(head) >= 18 and int.from_bytes(head[14:18], "little") in _HEADER_SIZES


def opened(data: bytes) -> Source:
    try:
        image = pillow.header(BmpImagePlugin.BmpImageFile, data)
    except Damaged:
        # Unusual orders of the channels, which Pillow refuses.
        width, height = unpack("<ii", data, 18)
        return Source(width, abs(height), lambda: _by_opencv(data))
    return Source(*image.size, lambda: pillow.arrays(image), dpi=plain_dpi(image.info.get("dpi")))


def _by_opencv(data: bytes) -> Arrays:
    with library():
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.ndim != 3:
        raise Damaged("its pixels cannot be decoded")
    return array[..., 2::-1], array[..., 3] if array.shape[2] == 4 else None


def encode(file: BinaryIO, picture: Picture) -> None:
    if picture.alpha is None:
        pillow.save(file, picture, "BMP", dpi=picture.dpi or (0, 0))
        return
    # Pillow drops the alpha of a BMP; OpenCV writes the header that tells of it, but no resolution.
    samples = np.dstack((np.broadcast_to(picture.pixels[..., ::-1], (*picture.alpha.shape, 3)), picture.alpha))
    done, encoded = cv2.imencode(".bmp", samples)
    if not done:
        raise OSError("OpenCV could not encode it")
    if picture.dpi:
        struct.pack_into("<ii", encoded, 38, *(round(value / 0.0254) for value in picture.dpi))
    file.write(encoded)
