"""WebP through Pillow, with lossless sources kept lossless."""

from collections.abc import Iterator
from typing import BinaryIO

from PIL import WebPImagePlugin

from sa_upscale.images import opencv, pillow
from sa_upscale.images.exif import carry_exif
from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Damaged, Source, unpack


def begins(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def opened(data: bytes) -> Source:
    (length,) = unpack("<I", data, 4)
    if length + 8 > len(data):
        raise Damaged("the file is cut short")
    try:
        image = pillow.header(WebPImagePlugin.WebPImageFile, data)
    except Damaged:
        if data[12:16] != b"VP8X":
            raise
        # A broken chunk beside whole pixels.
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        notes = ["its metadata is damaged and was left out"]
        return Source(width, height, lambda: opencv.arrays(data, "uint8"), notes=notes)
    source = Source(
        *image.size,
        lambda: pillow.arrays(image),
        frames=image.n_frames,
        loop=image.info.get("loop", 0),
        play=lambda: pillow.frames(image, image.n_frames),
        icc=image.info.get("icc_profile"),
        xmp=image.info.get("xmp"),
        lossless=_is_lossless(data),
    )
    carry_exif(source, image.info.get("exif"))
    return source


def _is_lossless(data: bytes) -> bool:
    """Whether the first picture in the file is; Pillow does not tell. Reference: RFC 9649, 2.7."""
    at = 12
    while at + 8 <= len(data):
        name, length = unpack("<4sI", data, at)
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        at += 8 + length + length % 2
    return False


def encode(file: BinaryIO, picture: Picture) -> None:
    pillow.save(file, picture, "WEBP", **_options(picture))


def encode_frames(file: BinaryIO, shown: Iterator[tuple[Picture, float]], count: int, loop: int) -> None:
    first = next(shown)
    frames = [(pillow.image_of(picture), milliseconds) for picture, milliseconds in (first, *shown)]
    pillow.save_frames(file, frames, "WEBP", loop=loop, minimize_size=False, **_options(first[0]))


def _options(picture: Picture) -> dict:
    return {
        "lossless": picture.lossless,
        "quality": 75 if picture.lossless else picture.quality,  # in lossless coding this is effort, not loss
        "exact": True,
        "icc_profile": picture.icc or b"",
        "exif": picture.exif or b"",
        "xmp": picture.xmp or b"",
    }
