"""BMP through Pillow, and through OpenCV where there is transparency to write."""

import io
import struct
from typing import BinaryIO

from PIL import BmpImagePlugin

from sa_upscale.images import opencv, pillow
from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Damaged, Source, plain_dpi, unpack

_LARGEST_HEADER = 256


def begins(head: bytes) -> bool:
    # "BM" alone begins many a text; the size of the header that follows is small.
    return head[:2] == b"BM" and len(head) >= 18 and 12 <= int.from_bytes(head[14:18], "little") <= _LARGEST_HEADER


def opened(data: bytes) -> Source:
    try:
        image = pillow.header(BmpImagePlugin.BmpImageFile, data)
    except Damaged:
        # Unusual orders of the channels and sizes of the header, which Pillow refuses.
        width, height = unpack("<ii", data, 18)
        return Source(width, abs(height), lambda: opencv.arrays(data, "uint8"))
    return Source(*image.size, lambda: pillow.arrays(image), dpi=plain_dpi(image.info.get("dpi")))


def encode(file: BinaryIO, picture: Picture) -> None:
    if picture.alpha is None:
        pillow.save(file, picture, "BMP", dpi=picture.dpi or (0, 0))
        return
    # Pillow drops the alpha of a BMP; OpenCV writes the header that tells of it, but no resolution.
    stream = io.BytesIO()
    opencv.save(stream, opencv.coloured(picture), ".bmp")
    encoded = bytearray(stream.getvalue())
    if picture.dpi:
        struct.pack_into("<ii", encoded, 38, *(round(value / 0.0254) for value in picture.dpi))
    file.write(encoded)
