"""AVIF: 8 bits through Pillow; 10 and 12 bits through OpenCV, as Pillow reduces them to 8."""

from collections.abc import Iterator
from typing import BinaryIO

import cv2
import numpy as np
from PIL import AvifImagePlugin

from sa_upscale.images import opencv, pillow
from sa_upscale.images.exif import carry_exif
from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Source, library

_DEEPEST = 12  # bits


def begins(head: bytes) -> bool:
    return head[4:12] in (b"ftypavif", b"ftypavis") or (head[4:12] == b"ftypmif1" and b"avif" in head[16:32])


def opened(data: bytes) -> Source:
    image = pillow.header(AvifImagePlugin.AvifImageFile, data)
    bits = _bits(data)
    with library():
        frames = image.n_frames
    source = Source(
        *image.size,
        lambda: pillow.arrays(image) if bits == 8 or frames > 1 else opencv.arrays(data, "uint16", bits=bits),
        frames=frames,
        play=lambda: pillow.frames(image, frames),
        icc=image.info.get("icc_profile"),
    )
    if bits > 8 and frames > 1:
        source.notes.append(f"its frames of {bits} bits a channel are read as 8")
    carry_exif(source, image.info.get("exif"))
    # After that, as it does not tell how the picture stands; a box in the file does.
    source.xmp = image.info.get("xmp")
    return source


def _bits(data: bytes) -> int:
    """Bits a channel of the first picture. Reference: AV1-ISOBMFF, 2.3.3 (AV1CodecConfigurationBox)."""
    at = data.find(b"av1C")
    flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def encode(file: BinaryIO, picture: Picture) -> None:
    if picture.pixels.dtype == np.uint16:
        _encode_deep(file, picture)
        return
    pillow.save(file, picture, "AVIF", **_options(picture))


def _encode_deep(file: BinaryIO, picture: Picture) -> None:
    samples = opencv.rescaled(opencv.coloured(picture), (2**_DEEPEST - 1) / 65535)
    blocks = {
        cv2.IMAGE_METADATA_ICCP: picture.icc,
        cv2.IMAGE_METADATA_EXIF: picture.exif,
        cv2.IMAGE_METADATA_XMP: picture.xmp,
    }
    quality = 100 if picture.lossless else picture.quality
    settings = [cv2.IMWRITE_AVIF_DEPTH, _DEEPEST, cv2.IMWRITE_AVIF_QUALITY, quality]
    opencv.save(file, samples, ".avif", settings, blocks)


def encode_frames(file: BinaryIO, shown: Iterator[tuple[Picture, float]], count: int, loop: int) -> None:
    first = next(shown)
    frames = [(pillow.image_of(picture), milliseconds) for picture, milliseconds in (first, *shown)]
    pillow.save_frames(file, frames, "AVIF", **_options(first[0]))


def _options(picture: Picture) -> dict:
    return {
        "quality": 100 if picture.lossless else picture.quality,
        "subsampling": "4:4:4",
        "icc_profile": picture.icc or b"",
        "exif": picture.exif or b"",
        "xmp": picture.xmp or b"",
    }
