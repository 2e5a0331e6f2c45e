"""The table of formats, and which of them a file is or is to be."""

import os
from pathlib import Path
from typing import BinaryIO

from sa_upscale.errors import UpscaleError
from sa_upscale.images import (
    avif,
    bmp,
    exr,
    files,
    gif,
    heif,
    jpeg,
    jpeg2000,
    netpbm,
    other,
    png,
    radiance,
    tiff,
    unread,
    webp,
)
from sa_upscale.images.fitting import Format

FORMATS = {
    "png": Format("PNG", png, (".png", ".apng"), ("uint8", "uint16"), 2**31 - 1, streams=True, texts=True),
    "jpeg": Format(
        "JPEG",
        jpeg,
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        ("uint8",),
        65500,
        alpha=False,
        lossless=False,
        largest_block=65500,
        comment=True,
    ),
    "webp": Format("WebP", webp, (".webp",), ("uint8",), 16383, dpi=False, grey=False),
    "tiff": Format("TIFF", tiff, (".tif", ".tiff"), ("uint8", "uint16", "float32"), 2**32 - 1, streams=True),
    "bmp": Format("BMP", bmp, (".bmp", ".dib"), ("uint8",), 2**31 - 1, metadata=False),
    "avif": Format(
        "AVIF",
        avif,
        (".avif", ".avifs"),
        ("uint8", "uint16"),
        32768,  # what decoders allow
        dpi=False,
        grey=False,
        lossless=False,
        frame_depths=("uint8",),
    ),
    "jp2": Format(
        "JPEG 2000",
        jpeg2000,
        (".jp2", ".j2k", ".jpx", ".j2c"),
        ("uint8", "uint16"),
        2**31 - 1,
        metadata=False,
        dpi=False,
    ),
    "ppm": Format(
        "PPM", netpbm, (".ppm", ".pgm", ".pnm"), ("uint8", "uint16"), 2**31 - 1, alpha=False, metadata=False, dpi=False
    ),
    "gif": Format("GIF", gif, (".gif",), ("uint8",), 65535, metadata=False, dpi=False, lossless=False, comment=True),
    "exr": Format("OpenEXR", exr, (".exr",), ("float32",), 2**31 - 1, metadata=False, dpi=False),
    "hdr": Format("Radiance HDR", radiance, (".hdr",), ("float32",), 2**31 - 1, alpha=False, metadata=False, dpi=False),
    "heif": Format("HEIC", heif, (".heic", ".heif", ".hif"), (), 0, becomes="png"),
    "other": Format("picture", other, other.SUFFIXES, (), 0, becomes="png"),
}
SUFFIXES = {suffix: key for key, known in FORMATS.items() for suffix in known.suffixes}
WRITTEN = [key for key, known in FORMATS.items() if known.becomes is None]


def format_of(head: bytes) -> str | None:
    """The key in `FORMATS` of what a file begins with; None for what only trying tells, or nothing does."""
    return next((key for key, known in FORMATS.items() if known.codec.begins(head)), None)


def content_format(path: Path) -> str | None:
    """The key in `FORMATS` of what the file holds, by its first bytes; None when it is none of them or unreadable."""
    try:
        with path.open("rb") as file:
            return format_of(file.read(32))
    except OSError:
        return None


def result_format(path: Path) -> str:
    """The format that the result for a file is written in unless another is asked for; PNG where nothing is known."""
    key = SUFFIXES.get(path.suffix.lower()) or content_format(path) or "png"
    return other.becomes(path) if key == "other" else FORMATS[key].becomes or key


def not_a_picture(name: str, head: bytes) -> str:
    readable = ", ".join(known.name for key, known in FORMATS.items() if key != "other")
    return f"{name} {unread.reason(head)} (readable: {readable} and more)"


def format_for(target: Path | BinaryIO, own: str, format: str | None = None) -> str:
    """The key in `FORMATS` of what is written to `target`: by `format`, else the ending, else the picture's `own`."""
    if format:
        wanted = format.lower().lstrip(".")
        key = wanted if wanted in FORMATS else SUFFIXES.get(f".{wanted}")
        if key not in WRITTEN:
            raise UpscaleError(f"unknown format {format!r}; use one of {', '.join(WRITTEN)}")
        return key
    suffix = Path(target).suffix.lower() if is_path(target) else ""
    if not suffix:
        return own
    if SUFFIXES.get(suffix) not in WRITTEN:
        endings = [ending for ending, key in SUFFIXES.items() if key in WRITTEN]
        raise UpscaleError(f"{target}: no picture format that is written ends in {suffix}; use {', '.join(endings)}")
    return SUFFIXES[suffix]


def check_target(target: Path | BinaryIO, format: str, width: int, height: int) -> None:
    """Raise `UpscaleError` when `width` x `height` pixels cannot be written to `target`: ask before the long work."""
    known = FORMATS[format]
    if max(width, height) > known.longest_side:
        able = [FORMATS[key].name for key in WRITTEN if FORMATS[key].longest_side >= max(width, height)]
        raise UpscaleError(
            f"{known.name} holds at most {known.longest_side} pixels a side, and the result has {width}x{height}; "
            f"choose {' or '.join(able)}"
        )
    if is_path(target):
        files.check_place(Path(os.path.realpath(target)))


def is_path(target: Path | BinaryIO) -> bool:
    return isinstance(target, str | os.PathLike)
