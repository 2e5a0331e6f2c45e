"""JPEG 2000: 8 bits and deep grey through Pillow, deep colour through OpenCV, as Pillow reduces that to 8."""

from typing import BinaryIO

import cv2
import numpy as np
from PIL import Jpeg2KImagePlugin

from sa_upscale.errors import UpscaleError
from sa_upscale.images import opencv, pillow
from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Damaged, Source, plain_dpi, unpack

_CODESTREAM = b"\xff\x4f\xff\x51"
_LOSSLESS_PER_MILLE = 1000
_SMALLEST_DEEP = 32  # pixels a side: OpenCV's encoder always halves five times


def begins(head: bytes) -> bool:
    return head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", _CODESTREAM))


def opened(data: bytes) -> Source:
    try:
        image = pillow.header(Jpeg2KImagePlugin.Jpeg2KImageFile, data)
    except Damaged:
        # Broken boxes around a whole picture.
        return Source(*_size(data), lambda: opencv.arrays(data, "uint8", "uint16"))
    bits = _bits(data)
    deep = 8 < bits <= 16 and image.mode in ("RGB", "RGBA")
    return Source(
        *image.size,
        lambda: opencv.arrays(data, "uint16", bits=bits) if deep else pillow.arrays(image),
        icc=image.info.get("icc_profile"),
        dpi=plain_dpi(image.info.get("dpi")),
    )


def _size(data: bytes) -> tuple[int, int]:
    """Reference: ISO/IEC 15444-1, A.5.1 (SIZ)."""
    at = data.find(_CODESTREAM)
    if at < 0:
        raise Damaged("no codestream")
    right, bottom, left, top = unpack(">IIII", data, at + 8)
    return right - left, bottom - top


def _bits(data: bytes) -> int:
    """Bits of the first channel. Reference: ISO/IEC 15444-1, A.5.1 (SIZ)."""
    at = data.find(_CODESTREAM)
    return (data[at + 42] & 0x7F) + 1 if 0 <= at < len(data) - 42 else 8


def encode(file: BinaryIO, picture: Picture) -> None:
    """Without loss."""
    if picture.pixels.dtype == np.uint16 and picture.samples > 1:
        _encode_deep(file, picture)
        return
    image = pillow.image_of(picture)
    smallest = min(image.size)
    # Each level of the wavelet halves the picture; the library refuses more levels than there are halvings.
    levels = max(1, min(6, smallest.bit_length()))
    image.save(pillow.Unnumbered(file), "JPEG2000", num_resolutions=levels)


def _encode_deep(file: BinaryIO, picture: Picture) -> None:
    if min(picture.width, picture.height) < _SMALLEST_DEEP:
        raise UpscaleError(
            f"JPEG 2000 of 16 bits a channel needs {_SMALLEST_DEEP} pixels a side, and the result has "
            f"{picture.width}x{picture.height}; choose PNG or 8 bits"
        )
    settings = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, _LOSSLESS_PER_MILLE]
    opencv.save(file, opencv.coloured(picture), ".jp2", settings)
