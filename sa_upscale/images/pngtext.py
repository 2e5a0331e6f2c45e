"""The text chunks of PNG: kept as they are, but for those that hold EXIF or XMP in disguise.

Reference: Portable Network Graphics, third edition (W3C), 11.3.3; "Raw profile type" is ImageMagick's.
"""

import re
import zlib

from sa_upscale.images.source import Source

TEXTS = (b"tEXt", b"zTXt", b"iTXt")
LARGEST = 32 << 20
"""Bytes that a metadata chunk may unpack to."""

_XMP = b"XML:com.adobe.xmp"
_RAW = re.compile(rb"\s*\S+\s+\d+\s+([0-9a-fA-F\s]*)")
_RAW_EXIF, _RAW_XMP = (b"Raw profile type exif", b"Raw profile type APP1"), (b"Raw profile type xmp",)


def carry_texts(opened: Source, chunks: list[tuple[bytes, memoryview]]) -> bytes | None:
    """Take over the XMP and the texts of a file; returns an EXIF block if one of the texts is that."""
    exif, kept = None, []
    for name, content in chunks:
        keyword, separator, _ = bytes(content[:80]).partition(b"\0") if name in TEXTS else (b"", b"", b"")
        if not separator:
            continue
        if keyword == _XMP:
            opened.xmp = opened.xmp or _text(name, bytes(content)[len(keyword) + 1 :])
        elif keyword in (*_RAW_EXIF, *_RAW_XMP):
            block = _raw(_text(name, bytes(content)[len(keyword) + 1 :]))
            if keyword in _RAW_XMP or block.startswith(b"http://ns.adobe.com/xap/"):
                opened.xmp = opened.xmp or block.split(b"\0", 1)[-1] or None
            else:
                exif = exif or block
        else:
            kept.append((name, bytes(content)))
    opened.texts = tuple(kept)
    return exif


def _text(name: bytes, rest: bytes) -> bytes | None:
    """What stands after the keyword of a text chunk, unpacked; None when it is damaged."""
    if name == b"tEXt":
        return rest
    if name == b"zTXt":
        return inflated(rest[1:])
    if len(rest) < 2:
        return None
    text = rest[2:].split(b"\0", 2)[-1]
    return inflated(text) if rest[0] else text


def _raw(text: bytes | None) -> bytes:
    found = _RAW.match(text or b"")
    try:
        return bytes.fromhex(found[1].decode("ascii")) if found else b""
    except ValueError:
        return b""


def inflated(packed: bytes) -> bytes | None:
    """What a metadata chunk unpacks to, up to a sane size; None when it is damaged."""
    try:
        return zlib.decompressobj().decompress(packed, LARGEST)
    except zlib.error:
        return None
