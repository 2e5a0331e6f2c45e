"""TIFF written strip by strip, with all that a picture carries.

Ours, because no library writes ICC, XMP and a whole EXIF directory, maker notes untouched, without a second copy of
what may be a 600 MB picture.

Reference: TIFF 6.0; Adobe Photoshop TIFF Technical Notes (Deflate); BigTIFF.
"""

import os
import struct
import zlib
from collections.abc import Iterable
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from sa_upscale.images.directories import Field, byte_order, directory_tree, packed_directory
from sa_upscale.images.picture import Picture, band_rows, rebanded, sample_bands
from sa_upscale.images.source import unpack

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, XMP, ICC = 274, 282, 283, 296, 700, 34675
# Above this the strips may not leave room for 32-bit offsets, even when nothing compresses.
_LARGEST_CLASSIC = 3_900_000_000


def encode(file: BinaryIO, picture: Picture, bands: Iterable[np.ndarray] | None = None) -> None:
    """Write one picture, from `bands` of its rows where they are given."""
    order = byte_order(picture.exif) if picture.exif else "<"
    big = _largest(picture) > _LARGEST_CLASSIC
    at = _write_head(file, order, big)
    bands = sample_bands(picture) if bands is None else rebanded(bands, band_rows(picture.pixels))
    _write_page(file, picture, bands, at, order, big)


def encode_frames(file: BinaryIO, shown: Iterable[tuple[Picture, float]], count: int, loop: int) -> None:
    """Write pages, one after the other; how long each is shown is not held."""
    for index, (picture, _) in enumerate(shown):
        if index == 0:
            # One byte order for all: an EXIF block in the other one is not worth losing the pages for.
            order, big = byte_order(picture.exif) if picture.exif else "<", _largest(picture) * count > _LARGEST_CLASSIC
            at = _write_head(file, order, big)
        if picture.exif and byte_order(picture.exif) != order:
            picture.exif = None
        at = _write_page(file, picture, sample_bands(picture), at, order, big)


def _largest(picture: Picture) -> int:
    """Bytes of the picture where nothing compresses."""
    return picture.width * picture.height * picture.samples * picture.pixels.dtype.itemsize


def _write_head(file: BinaryIO, order: str, big: bool) -> int:
    """Write the head and return where its pointer to the first directory stands."""
    mark = b"II" if order == "<" else b"MM"
    file.write(mark + struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0))))
    return 8 if big else 4


def _write_page(file: BinaryIO, picture: Picture, bands: Iterable[np.ndarray], at: int, order: str, big: bool) -> int:
    """Write strips in Deflate with horizontal differences, then their directory, whose place goes to the pointer `at`.

    Returns where this directory's own pointer to the next one stands.
    """
    strips = [_write_strip(file, band, order) for band in bands]
    file.write(b"\0" * (file.tell() % 2))
    offset = file.tell()
    fields = _fields(picture, strips, order, big)
    if picture.exif:
        fields += directory_tree(picture.exif, unpack(order + "I", picture.exif, 4)[0], order)
    file.write(packed_directory(fields, offset, order, big))
    file.seek(at)
    file.write(struct.pack(order + ("Q" if big else "I"), offset))
    file.seek(0, os.SEEK_END)
    return offset + (8 + 20 * len(fields) if big else 2 + 12 * len(fields))


def _write_strip(file: BinaryIO, band: np.ndarray, order: str) -> tuple[int, int]:
    """(offset, bytes) of the strip written."""
    if band.dtype.kind == "u":
        band = np.concatenate((band[:, :1], np.diff(band, axis=1)), axis=1)
    packed = zlib.compress(band.astype(band.dtype.newbyteorder(order)).tobytes(), 4)
    offset = file.tell()
    file.write(packed)
    return offset, len(packed)


def _fields(picture: Picture, strips: list[tuple[int, int]], order: str, big: bool) -> list[Field]:
    def numbers(tag: int, kind: int, *values: int) -> Field:
        code = {3: "H", 4: "I", 16: "Q"}[kind]
        return Field(tag, kind, len(values), struct.pack(f"{order}{len(values)}{code}", *values))

    samples, integer = picture.samples, picture.pixels.dtype.kind == "u"
    place = 16 if big else 4
    rows = band_rows(picture.pixels)
    fields = [
        numbers(256, 4, picture.width),
        numbers(257, 4, picture.height),
        numbers(258, 3, *[8 * picture.pixels.dtype.itemsize] * samples),
        numbers(259, 3, 8),  # Deflate
        numbers(262, 3, 2 if picture.pixels.shape[2] == 3 else 1),  # RGB, or grey with black as 0
        numbers(273, place, *(offset for offset, _ in strips)),
        numbers(ORIENTATION, 3, 1),
        numbers(277, 3, samples),
        numbers(278, 4, min(rows, picture.height)),
        numbers(279, place, *(length for _, length in strips)),
        numbers(284, 3, 1),  # samples interleaved
        numbers(317, 3, 2 if integer else 1),  # horizontal differences
        numbers(339, 3, *[1 if integer else 3] * samples),  # unsigned or float
    ]
    if picture.alpha is not None:
        fields.append(numbers(338, 3, 2))  # alpha, not premultiplied
    if picture.dpi:
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), picture.dpi, strict=True):
            ratio = Fraction(value).limit_denominator(1000)
            fields.append(Field(tag, 5, 1, struct.pack(order + "II", ratio.numerator, ratio.denominator)))
        fields.append(numbers(RESOLUTION_UNIT, 3, 2))
    if picture.xmp:
        fields.append(Field(XMP, 1, len(picture.xmp), picture.xmp))
    if picture.icc:
        fields.append(Field(ICC, 7, len(picture.icc), picture.icc))
    return fields
