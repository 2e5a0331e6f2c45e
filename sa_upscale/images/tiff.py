"""TIFF: its directories read and its metadata kept; `tiffpixels` decodes and `tiffwriting` writes.

Reference: TIFF 6.0; BigTIFF.
"""

import io
import struct

import tifffile

from sa_upscale.images.colour import cmyk_note
from sa_upscale.images.directories import Field, byte_order, directory, directory_tree, number, packed_directory
from sa_upscale.images.source import Damaged, Refused, Source, library, plain_dpi, unpack
from sa_upscale.images.tiffpixels import can_stream, pixels, rows
from sa_upscale.images.tiffwriting import (
    ICC,
    ORIENTATION,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    XMP,
    Y_RESOLUTION,
    encode,
    encode_frames,
)

__all__ = ["begins", "encode", "encode_frames", "opened"]

_SUBFILE_TYPE = 254
_REDUCED, _MASK = 1, 4  # bits of the subfile type
_RAW_PHOTO_TAGS = (50706, 50752)  # DNG's version, Canon's slices


def begins(head: bytes) -> bool:
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def opened(data: bytes) -> Source:
    with library():
        file = tifffile.TiffFile(io.BytesIO(data))
    page = _page(file, 0)
    order, big = byte_order(data), page.parent.is_bigtiff
    fields = {found.tag: found for found in reversed(directory(data, page.offset, order, big)[0])}
    if page.is_reduced or any(tag in fields for tag in _RAW_PHOTO_TAGS):
        raise Refused("is a camera's raw file; develop it to TIFF, PNG or JPEG first")
    icc = fields[ICC].value if ICC in fields else None
    notes: list[str] = []
    pages = _pages(data, order, big)
    source = Source(
        page.imagewidth,
        page.imagelength,
        lambda: pixels(data, page, icc, notes),
        frames=len(pages),
        play=lambda: ((pixels(data, _page(file, index), icc, notes), 0.0) for index in pages),
        rows=(lambda: rows(data, page, notes)) if can_stream(page) else None,
        notes=notes,
        orientation=_plain_number(fields, ORIENTATION, 1, order),
        icc=icc,
        xmp=fields[XMP].value.rstrip(b"\0") if XMP in fields else None,
        dpi=_dpi(fields, order),
        exif=_exif(data, page.offset, order, big),
    )
    if source.orientation not in range(1, 9):
        source.orientation = 1
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        source.icc = None
        source.notes.append(cmyk_note(icc))
    if len(page.extrasamples) > 1:
        source.notes.append(f"{len(page.extrasamples) - 1} of its extra channels are not carried")
    return source


def _page(file: tifffile.TiffFile, index: int) -> tifffile.TiffPage:
    """tifffile's description of a picture in the file, once it is sure that the numbers in it are numbers."""
    with library():
        page = file.pages[index]
    for name in ("imagewidth", "imagelength", "samplesperpixel", "rowsperstrip", "tilewidth", "tilelength"):
        if not isinstance(getattr(page, name), int):
            raise Damaged(f"its {name} is no number")
    for name in ("dataoffsets", "databytecounts", "extrasamples"):
        values = getattr(page, name)
        if not isinstance(values, tuple | bytes) or not all(isinstance(value, int) for value in values):
            raise Damaged(f"its {name} are no numbers")
    return page


def _pages(data: bytes, order: str, big: bool) -> list[int]:
    """Where in the chain of the file's directories the pictures are, thumbnails and masks left out.

    Followed here because tifffile follows a damaged chain in circles.
    """
    pointer = order + ("Q" if big else "I")
    (offset,) = unpack(pointer, data, 8 if big else 4)
    pages, seen = [], []
    while offset and offset not in seen:
        try:
            fields, next_pointer = directory(data, offset, order, big)
            kind = next((number(found, order) for found in fields if found.tag == _SUBFILE_TYPE), 0)
            following = unpack(pointer, data, next_pointer)[0]
        except Damaged:
            break
        if not kind & (_REDUCED | _MASK):
            pages.append(len(seen))
        seen.append(offset)
        offset = following
    return pages or [0]


def _plain_number(fields: dict[int, Field], tag: int, otherwise: int, order: str) -> int:
    try:
        return number(fields[tag], order) if tag in fields else otherwise
    except Damaged:
        return otherwise


def _dpi(fields: dict[int, Field], order: str) -> tuple[float, float] | None:
    per_inch = {2: 1.0, 3: 2.54}.get(_plain_number(fields, RESOLUTION_UNIT, 2, order))
    pair = [fields[tag] for tag in (X_RESOLUTION, Y_RESOLUTION) if tag in fields]
    if per_inch is None or len(pair) < 2 or any(found.kind not in (5, 10) for found in pair):
        return None
    ratios = [unpack(order + "II", found.value) for found in pair]
    return plain_dpi([over / under * per_inch if under else 0 for over, under in ratios])


def _exif(data: bytes, offset: int, order: str, big: bool) -> bytes | None:
    """The descriptive part of a TIFF's own directory as a stand-alone EXIF block; None when there is none."""
    entries = directory_tree(data, offset, order, big)
    return data[:2] + struct.pack(order + "HI", 42, 8) + packed_directory(entries, 8, order) if entries else None
