"""What a file format can hold, and how a picture is made to fit: nothing is lost without a line that says so."""

import struct
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np

from sa_upscale.images.colour import profile_space
from sa_upscale.images.exif import (
    EXIF_HEIGHT,
    EXIF_WIDTH,
    X_RESOLUTION,
    edited_exif,
    edited_xmp,
    exif_fields,
    signed_exif,
)
from sa_upscale.images.picture import Picture, converted, row_bands, top


@dataclass(frozen=True)
class Format:
    """A file format: what it can hold, and the module that reads and writes it.

    `codec` offers `begins(head) -> bool` (by the first 32 bytes), `opened(data) -> Source` and `encode(file, picture)`;
    where it holds several pictures, `encode_frames(file, shown, count, loop)` too.  A format that is only read has no
    depths and `becomes` another.
    """

    name: str
    codec: ModuleType
    suffixes: tuple[str, ...]
    depths: tuple[str, ...]
    longest_side: int
    alpha: bool = True
    metadata: bool = True  # ICC, EXIF and XMP
    dpi: bool = True
    grey: bool = True
    lossless: bool = True  # whether it can be
    becomes: str | None = None
    frame_depths: tuple[str, ...] | None = None  # of animations, where they hold less
    streams: bool = False  # whether `encode` takes bands of rows
    largest_block: int | None = None  # bytes of one EXIF or XMP block
    texts: bool = False  # by name, as PNG has them
    comment: bool = False


def held_depth(known: Format, depth: str) -> tuple[str, list[str]]:
    """The type of samples nearest to `depth` that the format holds, and a line where that is less."""
    if depth in known.depths:
        return depth, []
    deeper = [held for held in known.depths if np.dtype(held).itemsize > np.dtype(depth).itemsize]
    if deeper:
        return deeper[0], []
    bits = 8 * np.dtype(known.depths[-1]).itemsize
    return known.depths[-1], [f"{known.name} holds at most {bits} bits a channel: depth reduced"]


def fitted(picture: Picture, known: Format, wanted: str | None = None) -> tuple[Picture, list[str]]:
    """`picture` at the `wanted` depth (None: its own) without what the format cannot hold, and a line for each loss."""
    depth, lost = held_depth(known, wanted or picture.pixels.dtype.name)
    pixels, alpha = converted(picture.pixels, depth), picture.alpha
    if alpha is not None:
        alpha = converted(alpha, depth)
        if not known.alpha:
            if alpha.min() < top(depth):
                lost.append(f"{known.name} holds no transparency: shown on white")
                pixels = _on_white(pixels, alpha)
            alpha = None
    icc, exif, xmp = _fitted_metadata(picture, known, lost)
    if picture.dpi and not known.dpi and not (exif and _has_resolution(exif)):
        lost.append(f"{known.name} holds no resolution (dpi)")
    if picture.texts and not known.texts:
        lost.append(f"{known.name} holds no texts by name (author, description …)")
    if picture.comment and not known.comment:
        lost.append(f"{known.name} holds no comment")
    if picture.colour_chunks and known.name != "PNG" and not _is_srgb(picture.colour_chunks):
        lost.append(f"{known.name} holds no gamma or primaries: colours may look different")
    return replace(picture, pixels=pixels, alpha=alpha, icc=icc, exif=exif, xmp=xmp), lost


def _fitted_metadata(picture: Picture, known: Format, lost: list[str]) -> tuple[bytes | None, ...]:
    """(ICC, EXIF, XMP) with the picture's size in them, None for what the format cannot hold; adds to `lost`."""
    icc, exif, xmp = picture.icc, picture.exif, picture.xmp
    if not known.metadata:
        carried = {"ICC profile": icc, "EXIF": exif, "XMP": xmp}
        lost += [f"{known.name} holds no {name}" for name, block in carried.items() if block]
        return None, None, None
    across, down = picture.width, picture.height
    exif = exif and edited_exif(exif, {256: across, 257: down, EXIF_WIDTH: across, EXIF_HEIGHT: down})
    xmp = xmp and edited_xmp(
        xmp,
        {
            "exif:PixelXDimension": across,
            "exif:PixelYDimension": down,
            "tiff:ImageWidth": across,
            "tiff:ImageLength": down,
        },
    )
    # Without grey pixels: a grey profile on coloured ones makes readers refuse or ignore it.
    if not known.grey and profile_space(icc) == b"GRAY":
        icc = None
        lost.append(f"{known.name} holds no grey ICC profile")
    if picture.software and not known.texts:
        signed = signed_exif(exif, picture.software)
        exif = signed if len(signed) <= (known.largest_block or len(signed)) else exif
    most = known.largest_block
    if most and exif and len(exif) > most:
        exif = None
        lost.append(f"EXIF above {most // 1000} kB does not fit in {known.name}")
    if most and xmp and len(xmp) > most:
        xmp = None
        lost.append(f"XMP above {most // 1000} kB does not fit in {known.name}")
    return icc, exif, xmp


def _has_resolution(exif: bytes) -> bool:
    return any(found.tag == X_RESOLUTION for found in exif_fields(exif))


def _is_srgb(chunks: tuple[tuple[bytes, bytes], ...]) -> bool:
    found = dict(chunks)
    return b"sRGB" in found or (set(found) == {b"gAMA"} and found[b"gAMA"] == struct.pack(">I", 45455))


def _on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    result = np.empty_like(pixels)
    white = np.float32(top(pixels.dtype))
    for rows in row_bands(pixels):
        opacity = alpha[rows][..., None] / white
        result[rows] = np.rint(pixels[rows] * opacity + white * (1 - opacity))
    return result
