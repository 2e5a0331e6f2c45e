"""EXIF and XMP blocks: carried as they are, with only the numbers changed that the new pixels make wrong.

Ours, because editing in place keeps all else to the byte, maker notes with their absolute offsets among it; see
`directories`.
"""

import re

from sa_upscale.images.directories import EXIF_IFD, Field, byte_order, directory, number, set_number
from sa_upscale.images.source import Damaged, Source, unpack

ORIENTATION, X_RESOLUTION = 274, 282
EXIF_WIDTH, EXIF_HEIGHT = 0xA002, 0xA003


def carry_exif(opened: Source, exif: bytes | None) -> None:
    """Take over a file's EXIF block and the orientation it tells; a damaged block is left out and noted."""
    while exif and exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if not exif:
        return
    try:
        found = {field.tag: field for field in exif_fields(exif)}
        orientation = number(found[ORIENTATION], byte_order(exif)) if ORIENTATION in found else 1
    except Damaged:
        opened.notes.append("its EXIF block is damaged and was left out")
        return
    opened.exif = exif
    opened.orientation = orientation if orientation in range(1, 9) else 1


def exif_fields(exif: bytes) -> list[Field]:
    """The fields of an EXIF block's main directory and of the EXIF directory below it."""
    order = byte_order(exif)
    fields, _ = _main_directory(exif, order)
    below = [found for found in fields if found.tag == EXIF_IFD]
    return fields + directory(exif, number(below[0], order), order)[0] if below else fields


def _main_directory(exif: bytes, order: str) -> tuple[list[Field], int]:
    """The fields of an EXIF block's main directory and where its pointer to the thumbnail's stands."""
    return directory(exif, unpack(order + "I", exif, 4)[0], order)


def edited_exif(exif: bytes, numbers: dict[int, int], *, keep_thumbnail: bool = True) -> bytes:
    """`exif` with the integer fields `numbers` set where they exist; all else stays where it is, to the byte."""
    edited, order = bytearray(exif), byte_order(exif)
    for found in exif_fields(exif):
        if found.tag in numbers:
            set_number(edited, found, numbers[found.tag], order)
    if not keep_thumbnail:
        _, pointer = _main_directory(exif, order)
        edited[pointer : pointer + 4] = bytes(4)
    return bytes(edited)


def edited_xmp(xmp: bytes, numbers: dict[str, int]) -> bytes:
    """`xmp` with the properties `numbers` set where they stand, as attribute or as element."""
    for name, value in numbers.items():
        xmp = re.sub(rb"(\b" + name.encode() + rb"""(?:=["']|>))\d+""", rb"\g<1>%d" % value, xmp)
    return xmp
