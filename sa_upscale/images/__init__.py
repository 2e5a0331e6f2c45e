"""Pictures in and out of files: PNG, JPEG, WebP, TIFF and BMP with their depth, transparency and metadata.

A file is known by its content, never by its name.  Reading is in two steps, so that nothing is decoded before its size
is known: a format's `opened` looks at the header and gives a `Source`, whose `decode` makes the pixels.  Writing takes
away what the format cannot hold, says so (`fitting`), and hands the rest to the format's `encode`.
A new format is a module with `begins`, `opened` and `encode`, and a line in `FORMATS`.
"""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sa_upscale.errors import UpscaleError
from sa_upscale.images import bmp, files, jpeg, png, tiff, unread, webp
from sa_upscale.images.exif import ORIENTATION, edited_exif, edited_xmp
from sa_upscale.images.fitting import Format, fitted
from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Damaged, Source, one_line

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "Picture",
    "check_target",
    "content_format",
    "format_for",
    "read",
    "size",
    "write",
]

MAX_PIXELS = 400_000_000
"""A picture with more pixels than this is refused unless `read` is told otherwise: a few kilobytes can unpack to it."""

DEFAULT_QUALITY = 95

FORMATS = {
    "png": Format("PNG", png, (".png",), ("uint8", "uint16"), 2**31 - 1),
    "jpeg": Format(
        "JPEG", jpeg, (".jpg", ".jpeg", ".jpe", ".jfif"), ("uint8",), 65500, alpha=False, largest_block=65500
    ),
    "webp": Format("WebP", webp, (".webp",), ("uint8",), 16383, dpi=False),
    "tiff": Format("TIFF", tiff, (".tif", ".tiff"), ("uint8", "uint16", "float32"), 2**32 - 1),
    "bmp": Format("BMP", bmp, (".bmp", ".dib"), ("uint8",), 2**31 - 1, metadata=False),
}
SUFFIXES = {suffix: key for key, known in FORMATS.items() for suffix in known.suffixes}


def read(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture, upright and with everything it carries.

    Palettes and bilevel pictures become grey or RGB, with their transparency; CMYK becomes sRGB through its profile.

    Raises `UpscaleError` for what is missing, unreadable, damaged, cut short, animated, of an unknown format, or has
    more than `max_pixels` pixels.
    """
    name = _shown(source)
    key, opened = _opened(source, name)
    if opened.frames > 1:
        kind = "pages" if key == "tiff" else "frames"
        raise UpscaleError(
            f"{name} is a {FORMATS[key].name} of {opened.frames} {kind}, and only single pictures are upscaled yet; "
            f"save the {kind[:-1]} you want as a file of its own"
        )
    if opened.width * opened.height > max_pixels:
        raise UpscaleError(
            f"{name} unpacks to {opened.width}x{opened.height} pixels, above the limit of "
            f"{max_pixels / 1e6:g} million; raise it if you trust the file"
        )
    with one_line(name, FORMATS[key].name):
        pixels, alpha = opened.decode()
        if pixels.shape[:2] != (opened.height, opened.width):
            raise Damaged("its header and its pixels disagree about its size")
    pixels = _upright(pixels, opened.orientation)
    if alpha is not None:
        alpha = _upright(alpha, opened.orientation)
    exif, xmp = opened.exif, opened.xmp
    if opened.orientation != 1:
        # A thumbnail was stored the way the picture was, and turning it as well is not worth a JPEG round trip.
        exif = exif and edited_exif(exif, {ORIENTATION: 1}, keep_thumbnail=False)
        xmp = xmp and edited_xmp(xmp, {"tiff:Orientation": 1})
    return Picture(
        pixels=pixels,
        alpha=alpha,
        icc=opened.icc,
        exif=exif,
        xmp=xmp,
        dpi=opened.dpi if opened.orientation < 5 or opened.dpi is None else opened.dpi[::-1],
        format=key,
        quality=opened.quality,
        lossless=opened.lossless,
        colour_chunks=opened.colour_chunks,
        notes=opened.notes,
    )


def size(source: Path | bytes) -> tuple[int, int]:
    """(width, height) in pixels of a picture as `read` would give it, from its header alone; errors as `read`'s."""
    _, opened = _opened(source, _shown(source))
    upright = (opened.width, opened.height)
    return upright if opened.orientation < 5 else upright[::-1]


def content_format(path: Path) -> str | None:
    """The key in `FORMATS` of what the file holds, by its first bytes; None when it is none of them or unreadable."""
    try:
        with path.open("rb") as file:
            return _format_of(file.read(32))
    except OSError:
        return None


def _shown(source: Path | bytes) -> str:
    return "standard input" if isinstance(source, bytes | bytearray) else str(source)


def _opened(source: Path | bytes, name: str) -> tuple[str, Source]:
    """The key in `FORMATS` of a file and its header."""
    data = source if isinstance(source, bytes | bytearray) else _file_bytes(Path(source))
    if not data:
        raise UpscaleError(f"{name} is empty (0 bytes)")
    key = _format_of(data[:32])
    if key is None:
        raise UpscaleError(_not_a_picture(name, data[:512]))
    with one_line(name, FORMATS[key].name):
        opened = FORMATS[key].codec.opened(data)
        if opened.width < 1 or opened.height < 1:
            raise Damaged("a side of no pixels")
    return key, opened


def _file_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(512)
            # A mistyped name may be a film of many gigabytes: look before loading all of it.
            if head and _format_of(head[:32]) is None:
                raise UpscaleError(_not_a_picture(str(path), head))
            return head + file.read()
    except FileNotFoundError:
        raise UpscaleError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise UpscaleError(f"{path} is a folder, not a picture") from None
    except PermissionError:
        raise UpscaleError(f"{path} may not be read; check its permissions") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UpscaleError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _format_of(head: bytes) -> str | None:
    return next((key for key, known in FORMATS.items() if known.codec.begins(head)), None)


def _not_a_picture(name: str, head: bytes) -> str:
    return f"{name} {unread.reason(head)} (readable: {', '.join(known.name for known in FORMATS.values())})"


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror `(H, W, …)` as stored with EXIF `orientation` (1-8) into what is to be seen.

    Reference: Exif 2.32, tag 274.
    """
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def write(
    target: Path | BinaryIO,
    picture: Picture,
    *,
    format: str | None = None,
    quality: int | None = None,
    lossless: bool | None = None,
) -> list[str]:
    """Write `picture` and return what the format could not keep, a line each.

    The format is `format` (a key or ending of `FORMATS`), or that of the target's ending, or the picture's own.  A file
    appears whole or not at all: it is written beside its place, flushed to the disk and renamed.  `quality` (1-100)
    is for JPEG and lossy WebP; by default 95, or what a JPEG source had if that is more.  JPEG keeps colour at full
    resolution (4:4:4).  WebP is lossless where the source was, or where `lossless` says so.

    Raises `UpscaleError` for a target that cannot be written and a picture that the format cannot hold.
    """
    key = format_for(target, picture.format, format)
    check_target(target, key, picture.width, picture.height)
    kept, lost = fitted(picture, FORMATS[key])
    kept.quality = quality or max(DEFAULT_QUALITY, picture.quality or 0)
    kept.lossless = picture.lossless if lossless is None else lossless
    place = files.replacing(Path(target)) if _is_path(target) else files.spooled(target, "standard output")
    with place as file:
        FORMATS[key].codec.encode(file, kept)
    return lost


def format_for(target: Path | BinaryIO, own: str, format: str | None = None) -> str:
    """The key in `FORMATS` of what is written to `target`: by `format`, else the ending, else the picture's `own`."""
    if format:
        wanted = format.lower().lstrip(".")
        key = wanted if wanted in FORMATS else SUFFIXES.get(f".{wanted}")
        if key is None:
            raise UpscaleError(f"unknown format {format!r}; use one of {', '.join(FORMATS)}")
        return key
    suffix = Path(target).suffix.lower() if _is_path(target) else ""
    if not suffix:
        return own
    if suffix not in SUFFIXES:
        raise UpscaleError(f"{target}: no known picture format ends in {suffix}; use one of {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]


def check_target(target: Path | BinaryIO, format: str, width: int, height: int) -> None:
    """Raise `UpscaleError` when `width` x `height` pixels cannot be written to `target`: ask before the long work."""
    known = FORMATS[format]
    if max(width, height) > known.longest_side:
        able = [other.name for other in FORMATS.values() if other.longest_side >= max(width, height)]
        raise UpscaleError(
            f"{known.name} holds at most {known.longest_side} pixels a side, and the result has {width}x{height}; "
            f"choose {' or '.join(able)}"
        )
    if _is_path(target):
        files.check_place(Path(os.path.realpath(target)))


def _is_path(target: Path | BinaryIO) -> bool:
    return isinstance(target, str | os.PathLike)
