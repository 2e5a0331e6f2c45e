"""Radiance HDR through OpenCV: float in, float out, in the 32 bits a pixel that the format has."""

import re
from typing import BinaryIO

import numpy as np

from sa_upscale.images import opencv
from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Arrays, Damaged, Source

_SIZE = re.compile(rb"\n\n-Y (\d+) \+X (\d+)\n")


def begins(head: bytes) -> bool:
    return head.startswith((b"#?RADIANCE", b"#?RGBE"))


def opened(data: bytes) -> Source:
    found = _SIZE.search(data[:65536])
    if found is None:
        raise Damaged("no size")
    return Source(int(found[2]), int(found[1]), lambda: _pixels(data))


def _pixels(data: bytes) -> Arrays:
    pixels, _ = opencv.arrays(data, "float32")
    return np.ascontiguousarray(pixels), None


def encode(file: BinaryIO, picture: Picture) -> None:
    opencv.save(file, np.maximum(opencv.coloured(picture)[..., :3], 0), ".hdr")
