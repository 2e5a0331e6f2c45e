"""Pictures in and out of files: PNG, JPEG, WebP, TIFF and BMP with their depth, transparency and metadata.

A file is known by its content, never by its name.  Reading is in two steps, so that nothing is decoded before its size
is known: an opener (`_OPENERS`) looks at the header and gives a `_Source`, whose `decode` makes the pixels.  Writing is
one encoder per format (`_ENCODERS`) behind `_fitted`, which takes away what the format cannot hold and says so.
A new format is a line in `FORMATS`, an opener and an encoder.
"""

import errno
import io
import logging
import os
import re
import shutil
import struct
import tempfile
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import tifffile
from PIL import (
    BmpImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from sa_upscale.errors import UpscaleError

MAX_PIXELS = 400_000_000
"""A picture with more pixels than this is refused unless `read` is told otherwise: a few kilobytes can unpack to it."""

DEFAULT_QUALITY = 95
PNG_EFFORT = 3
BAND_BYTES = 1 << 20
SPOOL_BYTES = 64 << 20


@dataclass(frozen=True)
class Format:
    """What a file format can hold."""

    name: str
    suffixes: tuple[str, ...]
    depths: tuple[str, ...]
    longest_side: int
    alpha: bool = True
    metadata: bool = True  # ICC, EXIF and XMP
    dpi: bool = True
    largest_block: int | None = None  # bytes of one EXIF or XMP block


FORMATS = {
    "png": Format("PNG", (".png",), ("uint8", "uint16"), 2**31 - 1),
    "jpeg": Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), ("uint8",), 65500, alpha=False, largest_block=65500),
    "webp": Format("WebP", (".webp",), ("uint8",), 16383, dpi=False),
    "tiff": Format("TIFF", (".tif", ".tiff"), ("uint8", "uint16", "float32"), 2**32 - 1),
    "bmp": Format("BMP", (".bmp", ".dib"), ("uint8",), 2**31 - 1, metadata=False),
}
SUFFIXES = {suffix: key for key, known in FORMATS.items() for suffix in known.suffixes}


@dataclass
class Picture:
    """One picture in memory.

    `pixels` is `(H, W, C)` with C = 1 (grey) or 3 (RGB), uint8, uint16 or float32 (nominally in [0, 1]); `alpha` is
    `(H, W)` of the same type, not premultiplied, or None.  `exif` is a TIFF stream without the `Exif\\0\\0` of JPEG;
    its orientation is 1, as the pixels already stand upright.  `dpi` is (horizontal, vertical).  `quality` is the
    estimate of a JPEG source, `lossless` says that a WebP source was, `colour_chunks` are PNG's gAMA, cHRM, sRGB, cICP
    and the like as (type, data).  `notes` are the changes that reading had to make, for the user.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str = "png"
    quality: int | None = None
    lossless: bool = False
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


@dataclass
class _Source:
    """A file whose header has been read: its size as stored, its metadata, and how to get at its pixels."""

    width: int
    height: int
    decode: Callable[[], tuple[np.ndarray, np.ndarray | None]]
    frames: int = 1
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    quality: int | None = None
    lossless: bool = False
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    notes: list[str] = field(default_factory=list)


# ---------------------------------------------------------------------------------------------------------------
# Reading


def read(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture, upright and with everything it carries.

    Palettes and bilevel pictures become grey or RGB, with their transparency; CMYK becomes sRGB through its profile.

    Raises `UpscaleError` for what is missing, unreadable, damaged, cut short, animated, of an unknown format, or has
    more than `max_pixels` pixels.
    """
    name = _shown(source)
    key, opened = _open(source, name)
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
    with _decoding(name, FORMATS[key].name):
        pixels, alpha = opened.decode()
    if pixels.shape[:2] != (opened.height, opened.width):
        raise UpscaleError(f"{name} is damaged: its header and its pixels disagree about its size")
    pixels = np.ascontiguousarray(_upright(pixels, opened.orientation))
    if alpha is not None:
        alpha = np.ascontiguousarray(_upright(alpha, opened.orientation))
    exif, xmp = opened.exif, opened.xmp
    if opened.orientation != 1:
        # A thumbnail was stored the way the picture was, and turning it as well is not worth a JPEG round trip.
        exif = exif and _edited_exif(exif, {_ORIENTATION: 1}, keep_thumbnail=False)
        xmp = xmp and _edited_xmp(xmp, {b"tiff:Orientation": 1})
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
    _, opened = _open(source, _shown(source))
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


def _open(source: Path | bytes, name: str) -> tuple[str, _Source]:
    data = source if isinstance(source, bytes | bytearray) else _file_bytes(Path(source))
    if not data:
        raise UpscaleError(f"{name} is empty (0 bytes)")
    key = _format_of(data[:32])
    if key is None:
        raise UpscaleError(_not_a_picture(name, data[:512]))
    with _decoding(name, FORMATS[key].name):
        opened = _OPENERS[key](data)
        if opened.width < 1 or opened.height < 1:
            raise ValueError("a side of no pixels")
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
    if head.startswith(_PNG_SIGNATURE):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    # "BM" alone begins many a text; the header size that follows is one of a few.
    if head[:2] == b"BM" and len(head) >= 18 and struct.unpack_from("<I", head, 14)[0] in _BMP_HEADERS:
        return "bmp"
    return None


def _not_a_picture(name: str, head: bytes) -> str:
    readable = ", ".join(known.name for known in FORMATS.values())
    for begins, at, what in _RECOGNISED:
        if head[at : at + len(begins)] == begins:
            return f"{name} is {what}, which is not read yet; convert it first (readable: {readable})"
    try:
        head[:256].decode("utf-8")
    except UnicodeDecodeError:
        return f"{name} is no picture of a known format (readable: {readable})"
    return f"{name} is a text file, not a picture (readable: {readable})"


@contextmanager
def _decoding(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a decoder throws at a bad file into one line, and keep the libraries' own complaints off stderr."""
    level, tifffile_log = cv2.utils.logging.getLogLevel(), logging.getLogger("tifffile")
    disabled, tifffile_log.disabled = tifffile_log.disabled, True
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UpscaleError as error:
        raise UpscaleError(f"{name} {error}") from None
    except MemoryError:
        raise UpscaleError(f"{name} needs more memory than there is") from None
    # A damaged file can make a decoder raise anything at all, so nothing narrower will do.
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UpscaleError(f"{name} is a damaged or incomplete {kind}: {reason}") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
        tifffile_log.disabled = disabled


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
    return array


def _pillow_arrays(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """An 8-bit Pillow picture of any mode as grey or RGB `(H, W, C)` and alpha `(H, W)` or None."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.mode in ("RGBa", "La") else "RGB")
    array = np.atleast_3d(np.asarray(image))
    colours = 3 if image.mode.startswith("RGB") else 1
    return array[..., :colours], array[..., -1] if image.mode.endswith("A") else None


def _plain_dpi(dpi) -> tuple[float, float] | None:
    if not dpi:
        return None
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


# --- PNG ---

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_LARGEST_PROFILE = 32 << 20


def _open_png(data: bytes) -> _Source:
    """Metadata is taken from the chunks here; the decoders get the pixels' chunks only.

    So no broken text chunk can spoil a good picture, and no decoder applies orientation or gamma of its own accord.
    """
    chunks = _png_chunks(data)
    if not chunks or chunks[0][0] != b"IHDR":
        raise ValueError("no header chunk")
    width, height, depth, kind, _, _, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    if kind not in _PNG_SAMPLES:
        raise ValueError(f"colour type {kind}")
    first = {}
    for name, content in chunks:
        first.setdefault(name, content)
    exif = bytes(first[b"eXIf"]) if b"eXIf" in first else None
    opened = _Source(
        width,
        height,
        lambda: _png_pixels(chunks, depth, kind, interlace),
        frames=struct.unpack_from(">I", first[b"acTL"])[0] if b"acTL" in first else 1,
        xmp=_png_xmp(chunks),
        colour_chunks=tuple((name, bytes(first[name])) for name in _PNG_COLOUR_CHUNKS if name in first),
    )
    _carry_exif(opened, exif)
    if b"iCCP" in first:
        opened.icc = _png_profile(bytes(first[b"iCCP"]))
        if opened.icc is None:
            opened.notes.append("its colour profile is damaged and was left out")
    if b"pHYs" in first:
        across, down, unit = struct.unpack(">IIB", first[b"pHYs"])
        opened.dpi = _plain_dpi((across * 0.0254, down * 0.0254)) if unit == 1 else None
    return opened


def _png_chunks(data: bytes) -> list[tuple[bytes, memoryview]]:
    """(type, content) of the chunks; damaged ancillary ones are left out, a damaged critical one raises."""
    view, at, chunks = memoryview(data), len(_PNG_SIGNATURE), []
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        critical = not name[0] & 0x20
        if end > len(data):
            # What is missing may be nothing but the end mark or a comment; without pixels the decoder will say so.
            if name == b"IEND" or not critical:
                break
            raise ValueError("the file is cut short")
        if zlib.crc32(view[at + 4 : end - 4]) == struct.unpack_from(">I", data, end - 4)[0]:
            chunks.append((name, view[at + 8 : end - 4]))
        elif critical:
            raise ValueError(f"wrong checksum in chunk {name.decode('latin-1')}")
        if name == b"IEND":
            break
        at = end
    return chunks


def _png_pixels(chunks, depth: int, kind: int, interlace: int) -> tuple[np.ndarray, np.ndarray | None]:
    needed = (b"IHDR", b"PLTE", b"IDAT", b"tRNS") if kind == 3 else (b"IHDR", b"IDAT")
    lean = b"".join(
        [_PNG_SIGNATURE]
        + [_png_chunk(name, content) for name, content in chunks if name in needed]
        + [_png_chunk(b"IEND", b"")]
    )
    _require_all_png_rows(chunks, depth * _PNG_SAMPLES[kind], interlace)
    if depth == 16:
        pixels, alpha = _png_16_bit(lean, kind)
    else:
        image = PngImagePlugin.PngImageFile(io.BytesIO(lean))
        image.load()
        pixels, alpha = _pillow_arrays(image)
        grey_palette = kind == 3 and not any(name == b"iCCP" for name, _ in chunks)
        if grey_palette and np.array_equal(pixels, np.broadcast_to(pixels[..., :1], pixels.shape)):
            pixels = pixels[..., :1]
    transparent = next((content for name, content in chunks if name == b"tRNS"), None)
    if transparent is not None and kind in (0, 2):
        key = np.frombuffer(transparent, ">u2", count=_PNG_SAMPLES[kind]).astype(np.uint16)
        if depth < 16:
            key = (key & (2**depth - 1)) * (255 // (2**depth - 1))
        top = np.iinfo(pixels.dtype).max
        alpha = np.where((pixels == key.astype(pixels.dtype)).all(axis=2), 0, top).astype(pixels.dtype)
    return pixels, alpha


def _png_16_bit(lean: bytes, kind: int) -> tuple[np.ndarray, np.ndarray | None]:
    array = cv2.imdecode(np.frombuffer(lean, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise ValueError("its pixels cannot be decoded")
    if kind == 0:
        return array.reshape(array.shape[0], array.shape[1], -1)[..., :1], None
    if kind == 4:  # grey and alpha come as B = G = R and alpha
        return array[..., :1], array[..., 3]
    return array[..., 2::-1], array[..., 3] if kind == 6 else None


def _require_all_png_rows(chunks, pixel_bits: int, interlace: int) -> None:
    """Count the bytes of the rows: OpenCV, and Pillow where it is interlaced, leave black in a short stream's place."""
    width, height = struct.unpack_from(">II", chunks[0][1])
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    expected = 0
    for x, y, step_x, step_y in passes:
        columns, rows = -((x - width) // step_x), -((y - height) // step_y)
        expected += rows * (1 + -(-columns * pixel_bits // 8)) if columns > 0 and rows > 0 else 0
    inflate, found = zlib.decompressobj(), 0
    for name, content in chunks:
        if name != b"IDAT":
            continue
        found += len(inflate.decompress(content, BAND_BYTES))
        while inflate.unconsumed_tail and found < expected:
            found += len(inflate.decompress(inflate.unconsumed_tail, BAND_BYTES))
    if found + len(inflate.flush()) < expected:
        raise ValueError("the file is cut short")


_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def _png_profile(chunk: bytes) -> bytes | None:
    _, _, packed = chunk.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], _LARGEST_PROFILE) or None
    except zlib.error:
        return None


def _png_xmp(chunks) -> bytes | None:
    for name, content in chunks:
        keyword, _, rest = bytes(content).partition(b"\0") if name == b"iTXt" else (b"", b"", b"")
        if keyword != b"XML:com.adobe.xmp" or len(rest) < 2:
            continue
        text = rest[2:].split(b"\0", 2)[-1]
        if not rest[0]:
            return text
        try:
            return zlib.decompressobj().decompress(text, _LARGEST_PROFILE)
        except zlib.error:
            return None
    return None


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return b"".join(
        (
            struct.pack(">I", len(content)),
            name,
            content,
            struct.pack(">I", zlib.crc32(content, zlib.crc32(name))),
        )
    )


# --- JPEG ---

# Sums of the example tables for luminance and chrominance, of which quality 50 is exactly one time.
# Reference: ITU-T T.81, annex K.1; the scaling is that of the Independent JPEG Group.
_JPEG_TABLE_SUMS = (3688, 5505)


def _open_jpeg(data: bytes) -> _Source:
    # The plug-in's class, not Image.open: that takes a phone's JPEG with a second picture inside for another format.
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    info = image.info
    opened = _Source(
        *image.size,
        lambda: _pillow_arrays(_loaded(image)),
        icc=info.get("icc_profile"),
        xmp=info.get("xmp"),
        dpi=_plain_dpi(info.get("dpi")),
        quality=_jpeg_quality(image.quantization),
    )
    _carry_exif(opened, info.get("exif"))
    if image.mode == "CMYK":
        profile, opened.icc = opened.icc, None
        opened.notes.append(_cmyk_note(profile))
        opened.decode = lambda: _pillow_arrays(_cmyk_to_rgb(_loaded(image), profile))
    if "photoshop" in info:
        opened.notes.append("its IPTC block is not carried")
    if "mp" in info:
        opened.notes.append("the second picture inside it (a gain map, depth or preview) is not carried")
    return opened


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _jpeg_quality(tables: dict[int, list[int]]) -> int | None:
    """The quality setting (1-100) of the Independent JPEG Group's encoder whose tables weigh as much as these."""
    estimates = []
    for table, reference in zip(tables.values(), _JPEG_TABLE_SUMS, strict=False):
        percent = 100 * sum(table) / reference
        # The rounding of small entries makes every quality look a little worse than it was: round up.
        estimates.append(-(-(200 - percent) // 2) if percent <= 100 else 5000 / percent)
    return min(100, max(1, round(max(estimates)))) if estimates else None


def _cmyk_note(profile: bytes | None) -> str:
    way = "through its colour profile" if _profile_space(profile) == b"CMYK" else "without a colour profile"
    return f"CMYK was converted to sRGB {way}"


def _cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if _profile_space(profile) != b"CMYK":
        return image.convert("RGB")
    return ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _profile_space(profile: bytes | None) -> bytes:
    """The colour space an ICC profile is for, four letters. Reference: ICC.1:2022, 7.2.8."""
    return profile[16:20] if profile else b""


# --- WebP ---


def _open_webp(data: bytes) -> _Source:
    declared = struct.unpack_from("<I", data, 4)[0] + 8
    if declared > len(data):
        raise ValueError("the file is cut short")
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    opened = _Source(
        *image.size,
        lambda: _pillow_arrays(_loaded(image)),
        frames=image.n_frames,
        icc=image.info.get("icc_profile"),
        xmp=image.info.get("xmp"),
        lossless=_webp_is_lossless(data),
    )
    _carry_exif(opened, image.info.get("exif"))
    return opened


def _webp_is_lossless(data: bytes) -> bool:
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        at += 8 + length + length % 2
    return False


# --- BMP ---

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def _open_bmp(data: bytes) -> _Source:
    image = BmpImagePlugin.BmpImageFile(io.BytesIO(data))
    return _Source(*image.size, lambda: _pillow_arrays(_loaded(image)), dpi=_plain_dpi(image.info.get("dpi")))


# --- TIFF ---

_SUBFILE_TYPE, _TIFF_ORIENTATION, _TIFF_XMP, _TIFF_ICC = 254, 274, 700, 34675
_REDUCED, _MASK = 1, 4  # bits of the subfile type
_NATIVE_TIFF_TYPES = ("uint8", "uint16", "float16", "float32", "float64")
_RAW_PHOTO_TAGS = (50706, 50752)  # DNG's version, Canon's slices


def _open_tiff(data: bytes) -> _Source:
    file = tifffile.TiffFile(io.BytesIO(data))
    page = file.pages[0]
    tags = page.tags
    if page.is_reduced or any(tag in tags for tag in _RAW_PHOTO_TAGS):
        raise UpscaleError("is a camera's raw file; develop it to TIFF, PNG or JPEG first")
    icc = _tag_bytes(tags, _TIFF_ICC)
    opened = _Source(
        page.imagewidth,
        page.imagelength,
        lambda: _tiff_pixels(data, page, icc),
        frames=_tiff_pages(data, file.is_bigtiff),
        orientation=_tag_number(tags, _TIFF_ORIENTATION),
        icc=icc,
        xmp=_tag_bytes(tags, _TIFF_XMP),
        dpi=_tiff_dpi(tags),
        exif=_tiff_exif(data, page.offset, file.is_bigtiff),
    )
    if opened.orientation not in range(1, 9):
        opened.orientation = 1
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        opened.icc = None
        opened.notes.append(_cmyk_note(icc))
    if len(page.extrasamples) > 1:
        opened.notes.append(f"{len(page.extrasamples) - 1} of its extra channels are not carried")
    return opened


def _tiff_pages(data: bytes, big: bool) -> int:
    """How many pictures are chained in the file, thumbnails and masks not counted.

    Counted here because tifffile follows a damaged chain in circles.
    """
    order, pointer = _byte_order(data), "Q" if big else "I"
    (offset,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
    pages, seen = 0, set()
    while offset and offset not in seen:
        seen.add(offset)
        try:
            fields, next_pointer = _directory(data, offset, order, big)
            kind = next((_number(found, order) for found in fields if found.tag == _SUBFILE_TYPE), 0)
            (offset,) = struct.unpack_from(order + pointer, data, next_pointer)
        except (struct.error, ValueError):
            break
        pages += not kind & (_REDUCED | _MASK)
    return max(1, pages)


def _tag_number(tags, code: int) -> int:
    value = tags[code].value if code in tags else 1
    return int(value) if isinstance(value, int) else 1


def _tag_bytes(tags, code: int) -> bytes | None:
    value = tags[code].value if code in tags else None
    if isinstance(value, str):
        value = value.encode()
    return bytes(value) if isinstance(value, bytes | tuple) and value else None


def _tiff_dpi(tags) -> tuple[float, float] | None:
    per_inch = {2: 1.0, 3: 2.54}.get(int(tags[296].value) if 296 in tags else 2)
    if per_inch is None or 282 not in tags or 283 not in tags:
        return None
    across, down = tags[282].value, tags[283].value
    if not (across[1] and down[1]):
        return None
    return _plain_dpi((across[0] / across[1] * per_inch, down[0] / down[1] * per_inch))


def _tiff_exif(data: bytes, offset: int, big: bool) -> bytes | None:
    """The descriptive part of a TIFF's own directory as a stand-alone EXIF block; None when there is none."""
    order = _byte_order(data)
    try:
        entries = _directory_tree(data, offset, order, big)
    except (struct.error, ValueError):
        return None
    if not entries:
        return None
    return data[:2] + struct.pack(order + "HI", 42, 8) + _packed_directory(entries, 8, order)


def _tiff_pixels(data: bytes, page, icc: bytes | None) -> tuple[np.ndarray, np.ndarray | None]:
    """`page` decoded by tifffile, or, where that lacks the codec, by OpenCV (deep) or Pillow (8 bit and less)."""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not count or offset + count > len(data):
            raise ValueError("the file is cut short")
    kinds = tifffile.PHOTOMETRIC
    plain = page.photometric in (kinds.MINISBLACK, kinds.MINISWHITE, kinds.RGB)
    native = str(page.dtype) in _NATIVE_TIFF_TYPES and page.bitspersample == 8 * page.dtype.itemsize
    if plain and native:
        array = _tiff_array(data, page)
        if array is not None:
            return _tiff_channels(array, page)
    if page.photometric == kinds.SEPARATED and native:
        return _pillow_arrays(_cmyk_to_rgb(_tiff_cmyk(data, page), icc))
    small = page.bitspersample in (1, 2, 4, 8) and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
    if small and (plain or page.photometric in (kinds.PALETTE, kinds.YCBCR)):
        return _pillow_arrays(_loaded(_pillow_tiff(data, page)))
    raise UpscaleError(
        f"is a TIFF of {page.bitspersample}-bit samples, colour {page.photometric!s} and compression "
        f"{page.compression!s}, which is not read; save it as 8 or 16 bit RGB or grey, uncompressed or with Deflate"
    )


def _tiff_array(data: bytes, page) -> np.ndarray | None:
    """The samples `(H, W, S)` as stored; None when neither tifffile nor OpenCV reads their compression right."""
    try:
        # Both tables raise on looking up what would need the imagecodecs package.
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        tifffile.TIFF.UNPREDICTORS[page.predictor]
    except (KeyError, ImportError):
        # OpenCV garbles separate planes and drops the alpha of grey pictures.
        interleaved = page.planarconfig == tifffile.PLANARCONFIG.CONTIG and page.samplesperpixel in (1, 3, 4)
        if page.dtype not in (np.uint16, np.float32) or not interleaved:
            return None
        array = cv2.imdecode(np.frombuffer(_unturned(data, page), np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None or array.dtype != page.dtype:
            raise ValueError("its pixels cannot be decoded") from None
        array = array.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
        return array if page.samplesperpixel == 1 else array[..., [2, 1, 0, 3][: page.samplesperpixel]]
    array = page.asarray()
    if page.axes == "YX":
        return array[..., None]
    if page.axes not in ("YXS", "SYX"):
        raise ValueError(f"axes {page.axes}")
    return array if page.axes == "YXS" else np.moveaxis(array, 0, -1)


def _tiff_channels(array: np.ndarray, page) -> tuple[np.ndarray, np.ndarray | None]:
    colours = 3 if page.photometric == tifffile.PHOTOMETRIC.RGB else 1
    if array.shape[2] < colours:
        raise ValueError("too few channels")
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise UpscaleError("holds samples that are not finite numbers; replace them first")
    pixels = array[..., :colours]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = _top(array.dtype) - pixels
    if array.shape[2] == colours:
        return pixels, None
    # An extra channel without a stated meaning is what OpenCV and others write for alpha.
    alpha = array[..., colours]
    if page.extrasamples and page.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA:
        pixels = _unpremultiplied(pixels, alpha)
    return pixels, alpha


def _unpremultiplied(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    top = _top(alpha.dtype)
    opacity = alpha[..., None].astype(np.float32) / top
    colour = np.divide(pixels, opacity, out=np.zeros(pixels.shape, np.float32), where=opacity > 0)
    return colour if alpha.dtype == np.float32 else np.rint(np.minimum(colour, top)).astype(pixels.dtype)


def _tiff_cmyk(data: bytes, page) -> Image.Image:
    if page.dtype == np.uint8:
        return _loaded(_pillow_tiff(data, page))
    array = _tiff_array(data, page)
    if array is None or array.shape[2] < 4:
        raise UpscaleError("is a CMYK TIFF of a kind that is not read; save it as 8-bit CMYK or as RGB")
    return Image.fromarray(_converted(np.ascontiguousarray(array[..., :4]), "uint8"), "CMYK")


def _pillow_tiff(data: bytes, page) -> Image.Image:
    return TiffImagePlugin.TiffImageFile(io.BytesIO(_unturned(data, page)))


def _unturned(data: bytes, page) -> bytes:
    """`data` with orientation 1: Pillow and OpenCV turn TIFFs by themselves, and once is enough."""
    if _TIFF_ORIENTATION not in page.tags:
        return data
    turned = bytearray(data)
    struct.pack_into(_byte_order(data) + "H", turned, page.tags[_TIFF_ORIENTATION].valueoffset, 1)
    return bytes(turned)


_OPENERS: dict[str, Callable[[bytes], _Source]] = {
    "png": _open_png,
    "jpeg": _open_jpeg,
    "webp": _open_webp,
    "tiff": _open_tiff,
    "bmp": _open_bmp,
}

# (first bytes, where, what it is): formats worth naming when they are refused.
_RECOGNISED = (
    (b"GIF8", 0, "a GIF"),
    (b"ftypavif", 4, "an AVIF picture"),
    (b"ftypheic", 4, "a HEIC picture"),
    (b"ftypmif1", 4, "a HEIF picture"),
    (b"ftypcrx", 4, "a camera's raw file"),
    (b"ftyp", 4, "a video"),
    (b"\x1aE\xdf\xa3", 0, "a video"),
    (b"\0\0\0\x0cjP", 0, "a JPEG 2000 picture"),
    (b"\xff\x0a", 0, "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL", 0, "a JPEG XL picture"),
    (b"8BPS", 0, "a Photoshop document"),
    (b"%PDF", 0, "a PDF"),
    (b"<svg", 0, "an SVG drawing"),
    (b"v/1\x01", 0, "an OpenEXR picture"),
)


# ---------------------------------------------------------------------------------------------------------------
# EXIF and XMP
#
# Directories are handled as raw bytes: libraries that parse and rebuild them lose text that is not ASCII and the
# offsets inside maker notes.  Reference: TIFF 6.0, section 2; Exif 2.32, section 4.6.

_ORIENTATION, _X_RESOLUTION, _EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 274, 282, 34665, 34853, 40965
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003
_SIDE_TAGS = {256: 0, 257: 1, _EXIF_WIDTH: 0, _EXIF_HEIGHT: 1}
_FIELD_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
# What a directory tells of the picture, not of the way its pixels are stored in this file.
_BRANCHES = (_EXIF_IFD, _GPS_IFD)
_DESCRIPTIVE = frozenset((270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096), *_BRANCHES))


@dataclass(frozen=True)
class _Field:
    """One entry of a TIFF directory; `value` is raw bytes in the file's order, or the fields of a directory below."""

    tag: int
    kind: int
    count: int
    value: bytes | list["_Field"]
    at: int = 0


def _byte_order(data: bytes) -> str:
    if data[:2] not in (b"II", b"MM"):
        raise ValueError("no byte order mark")
    return "<" if data[:2] == b"II" else ">"


def _directory(data: bytes, offset: int, order: str, big: bool = False) -> tuple[list[_Field], int]:
    """The fields of the directory at `offset` and where its pointer to the next one stands; bad fields are skipped."""
    head, entry, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    (count,) = struct.unpack_from(order + head, data, offset)
    at, step = offset + struct.calcsize(order + head), struct.calcsize(order + entry) + inline
    if at + count * step + inline > len(data):
        raise ValueError("a directory reaches past the end")
    fields = []
    for _ in range(count):
        tag, kind, values = struct.unpack_from(order + entry, data, at)
        length = values * _FIELD_BYTES.get(kind, 0)
        start = at + step - inline
        if length > inline:
            (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, start)
        if length and start + length <= len(data):
            fields.append(_Field(tag, kind, values, bytes(data[start : start + length]), at))
        at += step
    return fields, at


def _number(found: _Field, order: str) -> int:
    """The first value of an integer field."""
    code = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(found.kind)
    if code is None:
        raise ValueError(f"field {found.tag} is no number")
    return struct.unpack_from(order + code, found.value)[0]


def _directory_tree(data: bytes, offset: int, order: str, big: bool = False) -> list[_Field]:
    """The descriptive fields of the directory at `offset`, with the EXIF, GPS and interoperability ones below it."""
    fields = [found for found in _directory(data, offset, order, big)[0] if found.tag in _DESCRIPTIVE]
    return _with_children(data, fields, order, big)


def _with_children(data: bytes, fields: list[_Field], order: str, big: bool) -> list[_Field]:
    """`fields` with the directories they point to in place of the pointers; one that is damaged is left out."""
    whole = []
    for found in fields:
        if found.tag not in (_EXIF_IFD, _GPS_IFD, _INTEROP_IFD):
            whole.append(found)
            continue
        try:
            below, _ = _directory(data, _number(found, order), order, big)
        except (struct.error, ValueError):
            continue
        # Only the EXIF directory holds another, and a pointer to itself would never end.
        if found.tag == _EXIF_IFD:
            below = _with_children(data, [child for child in below if child.tag not in _BRANCHES], order, big)
        whole.append(_Field(found.tag, 4, 1, [child for child in below if child.tag not in _BRANCHES]))
    return whole


def _packed_directory(fields: list[_Field], offset: int, order: str, big: bool = False) -> bytes:
    """`fields` as the directory that stands at `offset` of a file, followed by the values it points to."""
    head, entry, pointer, inline = ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)
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
        values += value if isinstance(value, bytes) else _packed_directory(value, at, order, big)
        values += b"\0" * (len(values) % 2)
    return bytes(table + b"\0" * inline + values)


def _carry_exif(opened: _Source, exif: bytes | None) -> None:
    """Take over a file's EXIF block and the orientation it tells; a damaged block is left out and noted."""
    while exif and exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if not exif:
        return
    try:
        found = {found.tag: (found, order) for found, order in _exif_fields(exif)}
        orientation = _number(*found[_ORIENTATION]) if _ORIENTATION in found else 1
    except (struct.error, ValueError):
        opened.notes.append("its EXIF block is damaged and was left out")
        return
    opened.exif = exif
    opened.orientation = orientation if orientation in range(1, 9) else 1


def _exif_fields(exif: bytes) -> list[tuple[_Field, str]]:
    """The fields of an EXIF block's main and EXIF directories, each with the byte order."""
    order = _byte_order(exif)
    fields, _ = _directory(exif, struct.unpack_from(order + "I", exif, 4)[0], order)
    below = [found for found in fields if found.tag == _EXIF_IFD]
    if below:
        fields = fields + _directory(exif, _number(below[0], order), order)[0]
    return [(found, order) for found in fields]


def _edited_exif(exif: bytes, numbers: dict[int, int], *, keep_thumbnail: bool = True) -> bytes:
    """`exif` with the integer fields `numbers` set where they exist; all else stays where it is, to the byte."""
    edited = bytearray(exif)
    for found, order in _exif_fields(exif):
        if found.tag in numbers:
            value = numbers[found.tag]
            kind, code = (3, "HHIHH") if value < 65536 else (4, "HHII")
            struct.pack_into(order + code, edited, found.at, found.tag, kind, 1, value, *([0] * (kind == 3)))
    if not keep_thumbnail:
        order = _byte_order(exif)
        _, next_pointer = _directory(exif, struct.unpack_from(order + "I", exif, 4)[0], order)
        struct.pack_into(order + "I", edited, next_pointer, 0)
    return bytes(edited)


def _edited_xmp(xmp: bytes, numbers: dict[bytes, int]) -> bytes:
    """`xmp` with the properties `numbers` set where they stand, as attribute or as element."""
    for name, value in numbers.items():
        xmp = re.sub(rb"(\b" + name + rb"""(?:=["']|>))\d+""", rb"\g<1>%d" % value, xmp)
    return xmp


# ---------------------------------------------------------------------------------------------------------------
# Writing


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
    fitted, lost = _fitted(picture, FORMATS[key])
    quality = quality or max(DEFAULT_QUALITY, picture.quality or 0)
    lossless = picture.lossless if lossless is None else lossless
    if isinstance(target, str | os.PathLike):
        with _replacing(Path(target)) as file:
            _ENCODERS[key](file, fitted, quality, lossless)
        return lost
    # A pipe cannot be sought in, and whoever reads it should not get the first half of a picture.
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file, _writing("standard output"):
        _ENCODERS[key](file, fitted, quality, lossless)
        file.seek(0)
        shutil.copyfileobj(file, target)
        target.flush()
    return lost


def format_for(target: Path | BinaryIO, own: str, format: str | None = None) -> str:
    """The key in `FORMATS` of what is written to `target`: by `format`, else the ending, else the picture's `own`."""
    if format:
        wanted = format.lower().lstrip(".")
        key = wanted if wanted in FORMATS else SUFFIXES.get(f".{wanted}")
        if key is None:
            raise UpscaleError(f"unknown format {format!r}; use one of {', '.join(FORMATS)}")
        return key
    suffix = Path(target).suffix.lower() if isinstance(target, str | os.PathLike) else ""
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
    if not isinstance(target, str | os.PathLike):
        return
    target = Path(os.path.realpath(target))
    if target.is_dir():
        raise UpscaleError(f"{target} is a folder; name a file in it")
    if not target.parent.is_dir():
        raise UpscaleError(f"the folder {target.parent} does not exist; create it or choose another")
    writable = os.access(target, os.W_OK) if target.exists() else os.access(target.parent, os.W_OK | os.X_OK)
    if not writable:
        what = target if target.exists() else f"the folder {target.parent}"
        raise UpscaleError(f"{what} is not writable; change its permissions or choose another place")


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `target` when the block ends well, and leaves no trace otherwise."""
    place = Path(os.path.realpath(target))
    if place.exists() and not place.is_file():
        # A device or a pipe is written to; renaming a file over /dev/null would take it away from everyone.
        with _writing(target), place.open("wb") as device, tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
            yield file
            file.seek(0)
            shutil.copyfileobj(file, device)
        return
    partial = place.with_name(f".{uuid.uuid4().hex}.part")
    with _writing(target):
        try:
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if place.exists():
                shutil.copymode(place, partial)
            os.replace(partial, place)
        except BaseException:  # Ctrl-C too leaves nothing behind
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def _writing(target) -> Iterator[None]:
    """Turn a failed write into one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UpscaleError(f"no space left for {target}; free some or choose another place") from None
        raise UpscaleError(f"{target} cannot be written: {error.strerror or error}") from None


def _fitted(picture: Picture, known: Format) -> tuple[Picture, list[str]]:
    """`picture` without what the format cannot hold, and a line for each thing lost."""
    lost, changes = [], {}
    depth = picture.pixels.dtype.name
    if depth not in known.depths:
        depth = known.depths[-1]
        lost.append(f"{known.name} holds at most {8 * np.dtype(depth).itemsize} bits a channel: depth reduced")
    pixels, alpha = _converted(picture.pixels, depth), picture.alpha
    if alpha is not None:
        alpha = _converted(alpha, depth)
        if not known.alpha:
            opaque = alpha.min() == _top(alpha.dtype)
            if not opaque:
                lost.append(f"{known.name} holds no transparency: shown on white")
                pixels = _on_white(pixels, alpha)
            alpha = None
    if known.metadata:
        changes = _fitted_metadata(picture, known, lost)
    else:
        carried = {"ICC profile": picture.icc, "EXIF": picture.exif, "XMP": picture.xmp}
        lost += [f"{known.name} holds no {name}" for name, block in carried.items() if block]
        changes = dict.fromkeys(("icc", "exif", "xmp"))
    if picture.dpi and not known.dpi and not (changes["exif"] and _has_resolution(changes["exif"])):
        lost.append(f"{known.name} holds no resolution (dpi)")
    if picture.colour_chunks and known.name != "PNG" and not _is_srgb(picture.colour_chunks):
        lost.append(f"{known.name} holds no gamma or primaries: colours may look different")
    return replace(picture, pixels=pixels, alpha=alpha, **changes), lost


def _fitted_metadata(picture: Picture, known: Format, lost: list[str]) -> dict[str, bytes | None]:
    sides = (picture.width, picture.height)
    exif = picture.exif and _edited_exif(picture.exif, {tag: sides[axis] for tag, axis in _SIDE_TAGS.items()})
    xmp = picture.xmp and _edited_xmp(
        picture.xmp,
        {
            b"exif:PixelXDimension": sides[0],
            b"exif:PixelYDimension": sides[1],
            b"tiff:ImageWidth": sides[0],
            b"tiff:ImageLength": sides[1],
        },
    )
    icc = picture.icc
    # WebP has no grey pixels, and a grey profile on coloured ones makes readers refuse or ignore it.
    if known.name == "WebP" and _profile_space(icc) == b"GRAY":
        icc = None
        lost.append("WebP holds no grey ICC profile")
    if known.largest_block and exif and len(exif) > known.largest_block:
        exif = None
        lost.append(f"EXIF above {known.largest_block // 1000} kB does not fit in {known.name}")
    if known.largest_block and xmp and len(xmp) > known.largest_block:
        xmp = None
        lost.append(f"XMP above {known.largest_block // 1000} kB does not fit in {known.name}")
    return {"icc": icc, "exif": exif, "xmp": xmp}


def _has_resolution(exif: bytes) -> bool:
    return any(found.tag == _X_RESOLUTION for found, _ in _exif_fields(exif))


def _is_srgb(chunks: tuple[tuple[bytes, bytes], ...]) -> bool:
    found = dict(chunks)
    return b"sRGB" in found or (set(found) == {b"gAMA"} and found[b"gAMA"] == struct.pack(">I", 45455))


def _top(dtype) -> int | float:
    """The value of white."""
    return 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max


def _converted(array: np.ndarray, depth: str) -> np.ndarray:
    """`array` at another depth, rounded to nearest and clipped, a band of rows at a time."""
    if array.dtype == depth:
        return array
    result = np.empty(array.shape, depth)
    factor = _top(depth) / _top(array.dtype)
    for rows in _row_bands(array):
        result[rows] = np.rint(np.clip(array[rows] * np.float32(factor), 0, _top(depth)))
    return result


def _on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    result = np.empty_like(pixels)
    white = np.float32(_top(pixels.dtype))
    for rows in _row_bands(pixels):
        opacity = alpha[rows][..., None] / white
        result[rows] = np.rint(pixels[rows] * opacity + white * (1 - opacity))
    return result


def _row_bands(array: np.ndarray) -> Iterator[slice]:
    step = max(1, BAND_BYTES // max(1, array[:1].nbytes))
    for start in range(0, array.shape[0], step):
        yield slice(start, start + step)


def _sample_bands(picture: Picture) -> Iterator[np.ndarray]:
    """Bands of rows `(rows, W, C)` with alpha, if there is one, as the last channel."""
    for rows in _row_bands(picture.pixels):
        band = picture.pixels[rows]
        yield band if picture.alpha is None else np.dstack((band, picture.alpha[rows]))


def _channels(picture: Picture) -> int:
    return picture.pixels.shape[2] + (picture.alpha is not None)


def _encode_png(file: BinaryIO, picture: Picture, quality: int, lossless: bool) -> None:
    """PNG row band by row band, all of it Paeth-filtered, so that no second copy of the picture is held.

    Measured beside zlib's usual level 6, level 3 takes a third of the time for 5 % more bytes in photographs and 8 % in
    text; the faster run-length strategy made text three times as large.
    """
    channels, depth = _channels(picture), picture.pixels.dtype.itemsize
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    file.write(_PNG_SIGNATURE)
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8 * depth, kind, 0, 0, 0)
    file.write(_png_chunk(b"IHDR", header))
    for name, content in picture.colour_chunks:
        file.write(_png_chunk(name, content))
    if picture.icc:
        file.write(_png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc)))
    if picture.dpi:
        per_metre = (round(value / 0.0254) for value in picture.dpi)
        file.write(_png_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if picture.exif:
        file.write(_png_chunk(b"eXIf", picture.exif))
    if picture.xmp:
        file.write(_png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + picture.xmp))
    deflate = zlib.compressobj(PNG_EFFORT)
    above = np.zeros(picture.width * channels * depth, np.uint8)
    for band in _sample_bands(picture):
        rows = np.ascontiguousarray(band.astype(">u2") if depth == 2 else band).view(np.uint8).reshape(len(band), -1)
        packed = deflate.compress(_paeth_filtered(rows, above, channels * depth))
        if packed:
            file.write(_png_chunk(b"IDAT", packed))
        above = rows[-1]
    file.write(_png_chunk(b"IDAT", deflate.flush()))
    file.write(_png_chunk(b"IEND", b""))


def _paeth_filtered(rows: np.ndarray, above: np.ndarray, step: int) -> bytes:
    """`rows` `(N, bytes)` with PNG's filter 4 applied; `above` is the row before them, `step` the bytes of a pixel.

    Reference: PNG specification, 9.4.
    """
    up = np.vstack((above[None], rows[:-1]))
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], corner[:, step:] = rows[:, :-step], up[:, :-step]
    a, b, c = (part.astype(np.int16) for part in (left, up, corner))
    from_left, from_up, from_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    take_left = (from_left <= from_up) & (from_left <= from_corner)
    predicted = np.where(take_left, left, np.where(from_up <= from_corner, up, corner))
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 4
    np.subtract(rows, predicted, out=filtered[:, 1:])
    return filtered.tobytes()


def _encode_tiff(file: BinaryIO, picture: Picture, quality: int, lossless: bool) -> None:
    """TIFF in strips, Deflate with horizontal differences, in the byte order of the EXIF block that goes into it."""
    order = _byte_order(picture.exif) if picture.exif else "<"
    # Above this the strips may not leave room for 32-bit offsets, even when nothing compresses.
    big = picture.pixels.nbytes * _channels(picture) // picture.pixels.shape[2] > 3_900_000_000
    mark = b"II" if order == "<" else b"MM"
    file.write(mark + struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0))))
    strips = [_write_tiff_strip(file, band, order) for band in _sample_bands(picture)]
    file.write(b"\0" * (file.tell() % 2))
    offset = file.tell()
    fields = _tiff_fields(picture, strips, order, big)
    if picture.exif:
        start = struct.unpack_from(order + "I", picture.exif, 4)[0]
        fields += _directory_tree(picture.exif, start, order)
    file.write(_packed_directory(fields, offset, order, big))
    file.seek(8 if big else 4)
    file.write(struct.pack(order + ("Q" if big else "I"), offset))
    file.seek(0, os.SEEK_END)


def _write_tiff_strip(file: BinaryIO, band: np.ndarray, order: str) -> tuple[int, int]:
    """(offset, bytes) of the strip written."""
    if band.dtype.kind == "u":
        band = np.concatenate((band[:, :1], np.diff(band, axis=1)), axis=1)
    packed = zlib.compress(band.astype(band.dtype.newbyteorder(order)).tobytes(), 4)
    offset = file.tell()
    file.write(packed)
    return offset, len(packed)


def _tiff_fields(picture: Picture, strips: list[tuple[int, int]], order: str, big: bool) -> list[_Field]:
    def numbers(tag: int, kind: int, *values: int) -> _Field:
        code = {3: "H", 4: "I", 16: "Q"}[kind]
        return _Field(tag, kind, len(values), struct.pack(f"{order}{len(values)}{code}", *values))

    channels, integer = _channels(picture), picture.pixels.dtype.kind == "u"
    place = 16 if big else 4
    rows = next(_row_bands(picture.pixels)).stop
    fields = [
        numbers(256, 4, picture.width),
        numbers(257, 4, picture.height),
        numbers(258, 3, *[8 * picture.pixels.dtype.itemsize] * channels),
        numbers(259, 3, 8),
        numbers(262, 3, 2 if picture.pixels.shape[2] == 3 else 1),
        numbers(273, place, *(offset for offset, _ in strips)),
        numbers(_TIFF_ORIENTATION, 3, 1),
        numbers(277, 3, channels),
        numbers(278, 4, min(rows, picture.height)),
        numbers(279, place, *(length for _, length in strips)),
        numbers(284, 3, 1),
        numbers(317, 3, 2 if integer else 1),
        numbers(339, 3, *[1 if integer else 3] * channels),
    ]
    if picture.alpha is not None:
        fields.append(numbers(338, 3, 2))
    if picture.dpi:
        for tag, value in zip((282, 283), picture.dpi, strict=True):
            ratio = Fraction(value).limit_denominator(1000)
            fields.append(_Field(tag, 5, 1, struct.pack(order + "II", ratio.numerator, ratio.denominator)))
        fields.append(numbers(296, 3, 2))
    if picture.xmp:
        fields.append(_Field(_TIFF_XMP, 1, len(picture.xmp), picture.xmp))
    if picture.icc:
        fields.append(_Field(_TIFF_ICC, 7, len(picture.icc), picture.icc))
    return fields


def _encode_jpeg(file: BinaryIO, picture: Picture, quality: int, lossless: bool) -> None:
    exif = b"Exif\0\0" + picture.exif if picture.exif else b""
    _pillow_image(picture).save(
        _Unnumbered(file),
        "JPEG",
        quality=quality,
        subsampling="4:4:4",
        dpi=tuple(round(value) for value in picture.dpi) if picture.dpi else (0, 0),
        icc_profile=picture.icc,
        exif=exif,
        xmp=picture.xmp or b"",
    )


def _encode_webp(file: BinaryIO, picture: Picture, quality: int, lossless: bool) -> None:
    _pillow_image(picture).save(
        _Unnumbered(file),
        "WEBP",
        lossless=lossless,
        quality=75 if lossless else quality,  # in lossless coding this is effort, not loss
        exact=True,
        icc_profile=picture.icc or b"",
        exif=picture.exif or b"",
        xmp=picture.xmp or b"",
    )


def _encode_bmp(file: BinaryIO, picture: Picture, quality: int, lossless: bool) -> None:
    if picture.alpha is None:
        _pillow_image(picture).save(_Unnumbered(file), "BMP", dpi=picture.dpi or (0, 0))
        return
    # Pillow drops the alpha of a BMP; OpenCV writes the header that tells of it, but no resolution.
    samples = np.dstack((np.broadcast_to(picture.pixels[..., ::-1], (*picture.alpha.shape, 3)), picture.alpha))
    done, encoded = cv2.imencode(".bmp", samples)
    if not done:
        raise OSError("OpenCV could not encode it")
    if picture.dpi:
        struct.pack_into("<ii", encoded, 38, *(round(value / 0.0254) for value in picture.dpi))
    file.write(encoded)


def _pillow_image(picture: Picture) -> Image.Image:
    samples = picture.pixels if picture.alpha is None else np.dstack((picture.pixels, picture.alpha))
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


class _Unnumbered:
    """A file without its descriptor: given one, Pillow's encoders write past Python and lose the error's number."""

    def __init__(self, file: BinaryIO):
        self.write, self.tell, self.seek, self.flush = file.write, file.tell, file.seek, file.flush


_ENCODERS: dict[str, Callable[[BinaryIO, Picture, int, bool], None]] = {
    "png": _encode_png,
    "jpeg": _encode_jpeg,
    "webp": _encode_webp,
    "tiff": _encode_tiff,
    "bmp": _encode_bmp,
}
