"""EXIF and XMP blocks: carried as they are, with only the numbers changed that the new pixels make wrong.

Ours, because editing in place keeps all else to the byte, maker notes with their absolute offsets among it; see
`directories`.
"""

import re
import struct

from sa_upscale.images.directories import EXIF_IFD, Field, byte_order, directory, number, set_number
from sa_upscale.images.source import Damaged, Source, unpack

ORIENTATION, X_RESOLUTION = 274, 282
_SOFTWARE, _PROCESSING_SOFTWARE = 305, 11
EXIF_WIDTH, EXIF_HEIGHT = 0xA002, 0xA003
_OURS = b"sa-upscale "

_XMP_ORIENTATION = re.compile(rb"""\btiff:Orientation(?:\s*=\s*["']|>)\s*([1-8])""")


def carry_exif(opened: Source, exif: bytes | None) -> None:
    """Take over a file's EXIF block and the orientation that it or XMP tells; a damaged block is left out and noted."""
    turned = _XMP_ORIENTATION.search(opened.xmp or b"")
    if turned:
        opened.orientation = int(turned[1])
    while exif and exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if not exif:
        return
    try:
        found = {field.tag: field for field in exif_fields(exif)}
        orientation = number(found[ORIENTATION], byte_order(exif)) if ORIENTATION in found else None
    except Damaged:
        opened.notes.append("its EXIF block is damaged and was left out")
        return
    opened.exif = exif
    if orientation is not None:
        opened.orientation = orientation if orientation in range(1, 9) else 1


def exif_fields(exif: bytes) -> list[Field]:
    """The fields of an EXIF block's main directory and, unless that is damaged, of the EXIF directory below it."""
    order = byte_order(exif)
    fields, _ = _main_directory(exif, order)
    below = [found for found in fields if found.tag == EXIF_IFD]
    try:
        return fields + directory(exif, number(below[0], order), order)[0] if below else fields
    except Damaged:
        return fields


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
        edited[pointer : pointer + 4] = bytes(len(edited[pointer : pointer + 4]))
    return bytes(edited)


def signed_exif(exif: bytes | None, software: str) -> bytes:
    """`exif` that tells which `software` made the picture, beside the user's own and not in its place.

    That goes into the field Software, into ProcessingSoftware where another program stands in that, and nowhere where
    both are taken.  The main directory is written anew at the end; all else stays where it is.
    """
    order = byte_order(exif) if exif else "<"
    exif = exif or b"II*\0" + struct.pack("<IHI", 8, 0, 0)
    fields, end = _main_directory(exif, order)
    taken = {field.tag for field in fields if not field.value.startswith(_OURS)}
    free = [tag for tag in (_SOFTWARE, _PROCESSING_SOFTWARE) if tag not in taken]
    if not free or end + 4 > len(exif):
        return exif
    begins = unpack(order + "I", exif, 4)[0] + 2
    entries = [exif[at : at + 12] for at in range(begins, end, 12)]
    entries = [entry for entry in entries if unpack(order + "H", entry)[0] != free[0]]
    exif += b"\0" * (len(exif) % 2)
    text = software.encode() + b"\0"
    at = len(exif) + 2 + 12 * (len(entries) + 1) + 4
    entries.append(struct.pack(order + "HHII", free[0], 2, len(text), at))
    entries.sort(key=lambda entry: unpack(order + "H", entry)[0])
    table = struct.pack(order + "H", len(entries)) + b"".join(entries) + exif[end : end + 4] + text
    return exif[:4] + struct.pack(order + "I", len(exif)) + exif[8:] + table


def edited_xmp(xmp: bytes, numbers: dict[str, int]) -> bytes:
    """`xmp` with the properties `numbers` set where they stand, as attribute or as element."""
    for name, value in numbers.items():
        xmp = re.sub(rb"(\b" + name.encode() + rb"""(?:\s*=\s*["']|>)\s*)\d+""", rb"\g<1>%d" % value, xmp)
    return xmp
