"""What else Pillow reads: icons, textures, scans of the nineties.  Read only; results are PNG, or TIFF for floats."""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from sa_upscale.images import pillow
from sa_upscale.images.colour import cmyk_note, cmyk_to_rgb
from sa_upscale.images.picture import finite
from sa_upscale.images.source import Arrays, Source, plain_dpi

# Pillow's readers, without those that start other programs or only recognise a file.
_READERS = (
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "IMT", "MCIDAS", "MSP"),
    *("PCD", "PCX", "PIXAR", "PPM", "PSD", "QOI", "SGI", "SPIDER", "SUN", "TGA", "XBM", "XPM", "XVTHUMB"),
)
_ANIMATED, _PAGED = ("FLI",), ("DCX",)
SUFFIXES = (
    *(".blp", ".cur", ".dcx", ".dds", ".fits", ".flc", ".fli", ".icns", ".ico", ".im", ".msp", ".pam", ".pbm", ".pcx"),
    *(".pfm", ".psd", ".qoi", ".ras", ".sgi", ".tga", ".xbm", ".xpm"),
)


def recognised(file: Path | BinaryIO) -> Image.Image | None:
    """The file opened, None when it is none of these: some have no mark, so that only trying tells."""
    try:
        with pillow.unlimited():
            return Image.open(file, formats=_READERS)
    except MemoryError:
        raise
    # Readers of old formats trip over each other's files in every way there is.
    except Exception:
        return None


def becomes(file: Path | BinaryIO) -> str:
    """The format of the result for a file: PNG, and TIFF for floats."""
    image = recognised(file)
    return "tiff" if image is not None and image.mode == "F" else "png"


def begins(head: bytes) -> bool:
    return False


def opened(data: bytes) -> Source | None:
    image = recognised(io.BytesIO(data))
    if image is None:
        return None
    info = image.info
    many = image.n_frames if image.format in (*_ANIMATED, *_PAGED) else 1
    notes: list[str] = []

    def decode() -> Arrays:
        pixels, alpha = pillow.arrays(image)
        return (finite(pixels, notes) if pixels.dtype == np.float32 else pixels), alpha

    source = Source(
        *image.size,
        decode,
        notes=notes,
        frames=many,
        play=lambda: pillow.frames(image, many),
        becomes=becomes(io.BytesIO(data)),
        icc=info.get("icc_profile") or None,
        dpi=plain_dpi(info.get("dpi")),
    )
    if image.mode == "CMYK":
        profile, source.icc = source.icc, None
        source.notes.append(cmyk_note(profile))
        source.decode = lambda: pillow.arrays(cmyk_to_rgb(image, profile))
    return source
