"""TIFF directories, of which TIFF files and EXIF blocks are made, read and written as raw bytes.

Ours, because the libraries that parse and rebuild directories (Pillow, tifffile) lose text that is not ASCII and the
offsets inside maker notes.

Reference: TIFF 6.0, section 2; Exif 2.32, section 4.6; BigTIFF (`big`) has 64-bit counts and offsets.
"""

import struct
from dataclasses import dataclass

from sa_upscale.images.source import Damaged, unpack

EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
# What a directory tells of the picture, not of the way its pixels are stored in this file.
_BRANCHES = (EXIF_IFD, GPS_IFD)
_DESCRIPTIVE = frozenset((11, 270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096), *_BRANCHES))
_KIND_BYTES = dict(enumerate((0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4))) | {16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class Field:
    """One entry of a directory; `value` is raw bytes in the file's order, or the fields of a directory below.

    `at` is where the entry stands.
    """

    tag: int
    kind: int
    count: int
    value: bytes | list["Field"]
    at: int = 0


def byte_order(data: bytes) -> str:
    """`<` or `>` for the byte order mark that `data` begins with."""
    if data[:2] not in (b"II", b"MM"):
        raise Damaged("no byte order mark")
    return "<" if data[:2] == b"II" else ">"


def _layout(big: bool) -> tuple[str, str, str, int]:
    """The struct codes of the count, of an entry without its value and of a pointer, and the bytes for the value."""
    return ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)


def directory(data: bytes, offset: int, order: str, big: bool = False) -> tuple[list[Field], int]:
    """The fields of the directory at `offset` and where its pointer to the next one stands.

    Bad fields are skipped, and so are those past the end of a block that was cut short.
    """
    head, entry, pointer, inline = _layout(big)
    (count,) = unpack(order + head, data, offset)
    at, step = offset + struct.calcsize(order + head), struct.calcsize(order + entry) + inline
    fitting = min(count, (len(data) - at) // step)
    if count > 0xFFFF or (count and not fitting):
        raise Damaged("a directory reaches past the end")
    fields = []
    for _ in range(fitting):
        tag, kind, values = unpack(order + entry, data, at)
        length = values * _KIND_BYTES.get(kind, 0)
        start = at + step - inline
        if length > inline:
            (start,) = unpack(order + pointer, data, start)
        if length and start + length <= len(data):
            fields.append(Field(tag, kind, values, bytes(data[start : start + length]), at))
        at += step
    return fields, at if fitting == count else len(data)


def number(found: Field, order: str) -> int:
    """The first value of an integer field."""
    if found.kind not in _INTEGERS:
        raise Damaged(f"field {found.tag} is no number")
    return unpack(order + _INTEGERS[found.kind], found.value)[0]


def set_number(data: bytearray, found: Field, value: int, order: str, big: bool = False) -> None:
    """Make `found` one integer in its place."""
    _, entry, _, inline = _layout(big)
    kind = 3 if value < 65536 else 4
    changed = struct.pack(order + entry, found.tag, kind, 1)
    changed += struct.pack(order + _INTEGERS[kind], value).ljust(inline, b"\0")
    data[found.at : found.at + len(changed)] = changed


def directory_tree(data: bytes, offset: int, order: str, big: bool = False) -> list[Field]:
    """The descriptive fields of the directory at `offset`, with the EXIF, GPS and interoperability ones below it."""
    fields = [found for found in directory(data, offset, order, big)[0] if found.tag in _DESCRIPTIVE]
    return _with_children(data, fields, order, big)


def _with_children(data: bytes, fields: list[Field], order: str, big: bool) -> list[Field]:
    """`fields` with the directories they point to in place of the pointers; one that is damaged is left out."""
    whole = []
    for found in fields:
        if found.tag not in (*_BRANCHES, INTEROP_IFD):
            whole.append(found)
            continue
        try:
            below, _ = directory(data, number(found, order), order, big)
        except Damaged:
            continue
        below = [child for child in below if child.tag not in _BRANCHES]
        # Only the EXIF directory holds another, and a pointer to itself would never end.
        if found.tag == EXIF_IFD:
            below = _with_children(data, below, order, big)
        whole.append(Field(found.tag, 4, 1, below))
    return whole


def packed_directory(fields: list[Field], offset: int, order: str, big: bool = False) -> bytes:
    """`fields` as the directory that stands at `offset` of a file, followed by the values it points to."""
    head, entry, pointer, inline = _layout(big)
    table = bytearray(struct.pack(order + head, len(fields)))
    values = bytearray()
    start = offset + len(table) + len(fields) * (struct.calcsize(order + entry) + inline) + inline
    for found in sorted(fields, key=lambda item: item.tag):
        table += struct.pack(order + entry, found.tag, found.kind, found.count)
        if isinstance(found.value, bytes) and len(found.value) <= inline:
            table += found.value.ljust(inline, b"\0")
            continue
        at = start + len(values)
        table += struct.pack(order + pointer, at)
        value = found.value
        values += value if isinstance(value, bytes) else packed_directory(value, at, order, big)
        values += b"\0" * (len(values) % 2)
    return bytes(table + b"\0" * inline + values)
