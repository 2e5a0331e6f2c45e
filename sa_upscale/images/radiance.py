"""Radiance HDR through OpenCV: float in, float out, in the 32 bits a pixel that the format has."""

import re
from typing import BinaryIO

import cv2
import numpy as np

from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Arrays, Damaged, Source, library

_SIZE = re.compile(rb"\n\n-Y (\d+) \+X (\d+)\n")


def begins(head: bytes) -> bool:
    return head.startswith((b"#?RADIANCE", b"#?RGBE"))


def opened(data: bytes) -> Source:
    found = _SIZE.search(data[:65536])
    if found is None:
        raise Damaged("no size")
    return Source(int(found[2]), int(found[1]), lambda: _pixels(data))


def _pixels(data: bytes) -> Arrays:
    with library():
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.float32:
        raise Damaged("its pixels cannot be decoded")
    return np.ascontiguousarray(array[..., ::-1]), None


def encode(file: BinaryIO, picture: Picture) -> None:
    colours = np.broadcast_to(picture.pixels[..., ::-1], (picture.height, picture.width, 3))
    done, encoded = cv2.imencode(".hdr", np.maximum(colours, 0))
    if not done:
        raise OSError("OpenCV could not encode it")
    file.write(encoded)
