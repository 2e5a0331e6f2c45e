"""PGM and PPM, and PAM read; 16-bit colour by us, as Pillow reduces it to 8 bits, and all else through Pillow."""

import re
from typing import BinaryIO

import numpy as np
from PIL import PpmImagePlugin

from sa_upscale.images import opencv, pillow
from sa_upscale.images.picture import Picture, sample_bands
from sa_upscale.images.source import Arrays, Damaged, Source

_SPACE = rb"(?:\s+|#[^\n]*\n)+"
_DEEP_COLOUR = re.compile(rb"P6%s(\d+)%s(\d+)%s(\d+)\s" % (_SPACE, _SPACE, _SPACE))

# For what Pillow refuses and OpenCV reads.
_SIZE = re.compile(rb"P[2356]%s(\d+)%s(\d+)\s" % (_SPACE, _SPACE))
_PAM_SIZE = re.compile(rb"P7\s(?=.*?^WIDTH\s+(\d+))(?=.*?^HEIGHT\s+(\d+)).*?^ENDHDR", re.DOTALL | re.MULTILINE)


def begins(head: bytes) -> bool:
    return head[:2] in (b"P2", b"P3", b"P5", b"P6", b"P7") and head[2:3] in (b" ", b"\n", b"\t", b"\r", b"#")


def opened(data: bytes) -> Source:
    found = _DEEP_COLOUR.match(data[:4096])
    if found and 255 < int(found[3]) < 65536:
        width, height, most = (int(digits) for digits in found.groups())
        return Source(width, height, lambda: _deep(data, found.end(), width, height, most))
    becomes = "png" if data.startswith(b"P7") else None
    try:
        image = pillow.header(PpmImagePlugin.PpmImageFile, data)
    except Damaged:
        found = _SIZE.match(data[:4096]) or _PAM_SIZE.match(data[:4096])
        if not found:
            raise
        return Source(int(found[1]), int(found[2]), lambda: opencv.arrays(data, "uint8", "uint16"), becomes=becomes)
    return Source(*image.size, lambda: pillow.arrays(image), becomes=becomes)


def _deep(data: bytes, at: int, width: int, height: int, most: int) -> Arrays:
    if at + 6 * width * height > len(data):
        raise Damaged("the file is cut short")
    samples = np.frombuffer(data, ">u2", 3 * width * height, at).reshape(height, width, 3)
    if most == 65535:
        return samples.astype(np.uint16), None
    return np.rint(np.minimum(samples, most) * np.float32(65535 / most)).astype(np.uint16), None


def encode(file: BinaryIO, picture: Picture) -> None:
    depth = picture.pixels.dtype.itemsize
    kind = b"P6" if picture.pixels.shape[2] == 3 else b"P5"
    file.write(b"%s\n%d %d\n%d\n" % (kind, picture.width, picture.height, 256**depth - 1))
    for band in sample_bands(picture):
        file.write(band.astype(">u2" if depth == 2 else np.uint8).tobytes())
