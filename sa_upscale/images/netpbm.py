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
_PAM = re.compile(
    rb"P7\s(?=.*?^WIDTH\s+(\d+))(?=.*?^HEIGHT\s+(\d+))(?=.*?^DEPTH\s+([1-4])\s)(?=.*?^MAXVAL\s+(\d+)).*?^ENDHDR\n",
    re.DOTALL | re.MULTILINE,
)


def begins(head: bytes) -> bool:
    # "P7 332" is another format's.
    return head[:3] == b"P7\n" or (head[:2] in (b"P2", b"P3", b"P5", b"P6") and head[2:3] in b" \n\t\r#")


def opened(data: bytes) -> Source:
    found = _DEEP_COLOUR.match(data[:4096])
    if found and 255 < int(found[3]) < 65536:
        width, height, most = (int(digits) for digits in found.groups())
        return Source(width, height, lambda: _samples(data, found.end(), width, height, 3, most))
    if data.startswith(b"P7"):
        return _pam(data)
    try:
        image = pillow.header(PpmImagePlugin.PpmImageFile, data)
    except Damaged:
        found = _SIZE.match(data[:4096])
        if not found:
            raise
        return Source(int(found[1]), int(found[2]), lambda: opencv.arrays(data, "uint8", "uint16"))
    return Source(*image.size, lambda: pillow.arrays(image))


def _pam(data: bytes) -> Source:
    """PAM, of which Pillow refuses some and OpenCV swaps the colours. Reference: Netpbm, pam(5)."""
    found = _PAM.match(data[:4096])
    if not found or not 0 < int(found[4]) < 65536:
        raise Damaged("its header is broken")
    numbers = [int(digits) for digits in found.groups()]
    return Source(*numbers[:2], lambda: _samples(data, found.end(), *numbers), becomes="png")


def _samples(data: bytes, at: int, width: int, height: int, depth: int, most: int) -> Arrays:
    """Interleaved samples from 0 to `most`, `depth` a pixel, an even number of them with alpha last."""
    kind, white = (">u2", 65535) if most > 255 else ("u1", 255)
    count = depth * width * height
    if at + np.dtype(kind).itemsize * count > len(data):
        raise Damaged("the file is cut short")
    samples = np.frombuffer(data, kind, count, at).reshape(height, width, depth)
    if most != white:
        samples = np.rint(np.minimum(samples, most) * np.float32(white / most))
    samples = samples.astype(np.uint16 if white > 255 else np.uint8)
    return (samples, None) if depth % 2 else (samples[..., :-1], samples[..., -1])


def encode(file: BinaryIO, picture: Picture) -> None:
    depth = picture.pixels.dtype.itemsize
    kind = b"P6" if picture.pixels.shape[2] == 3 else b"P5"
    file.write(b"%s\n%d %d\n%d\n" % (kind, picture.width, picture.height, 256**depth - 1))
    for band in sample_bands(picture):
        file.write(band.astype(">u2" if depth == 2 else np.uint8).tobytes())
