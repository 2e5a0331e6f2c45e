"""TIFF: decoded by whichever library reads the kind at hand; written by us.

Reading: tifffile for all that its own decoders cover, OpenCV for 16-bit and float samples in other compressions, Pillow
for 8 bits and less, palettes and the like.  None of the three reads everything right, and two turn pictures unasked.

Writing: strip by strip, because no library writes ICC, XMP and a whole EXIF directory, maker notes untouched, without a
second copy of what may be a 600 MB picture.

Reference: TIFF 6.0; Adobe Photoshop TIFF Technical Notes (Deflate); BigTIFF.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import BinaryIO

import cv2
import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from sa_upscale.images import pillow
from sa_upscale.images.colour import cmyk_note, cmyk_to_rgb
from sa_upscale.images.directories import (
    Field,
    byte_order,
    directory,
    directory_tree,
    number,
    packed_directory,
    set_number,
)
from sa_upscale.images.picture import Picture, band_rows, converted, finite, rebanded, sample_bands, top
from sa_upscale.images.source import Arrays, Damaged, Refused, Source, library, plain_dpi, unpack

_SUBFILE_TYPE, _ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 254, 274, 282, 283, 296
_XMP, _ICC = 700, 34675
_REDUCED, _MASK = 1, 4  # bits of the subfile type
_NATIVE_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
_STREAM_BYTES = 16 << 20
_RAW_PHOTO_TAGS = (50706, 50752)  # DNG's version, Canon's slices
# Above this the strips may not leave room for 32-bit offsets, even when nothing compresses.
_LARGEST_CLASSIC = 3_900_000_000


def begins(head: bytes) -> bool:
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


# --- reading ---


def opened(data: bytes) -> Source:
    with library():
        file = tifffile.TiffFile(io.BytesIO(data))
    page = _page(file, 0)
    order, big = byte_order(data), page.parent.is_bigtiff
    fields = {found.tag: found for found in reversed(directory(data, page.offset, order, big)[0])}
    if page.is_reduced or any(tag in fields for tag in _RAW_PHOTO_TAGS):
        raise Refused("is a camera's raw file; develop it to TIFF, PNG or JPEG first")
    icc = fields[_ICC].value if _ICC in fields else None
    notes: list[str] = []
    pages = _pages(data, order, big)
    source = Source(
        page.imagewidth,
        page.imagelength,
        lambda: _pixels(data, page, icc, notes),
        frames=len(pages),
        play=lambda: ((_pixels(data, _page(file, index), icc, notes), 0.0) for index in pages),
        rows=(lambda: _rows(data, page, notes)) if _can_stream(data, page) else None,
        notes=notes,
        orientation=_plain_number(fields, _ORIENTATION, 1, order),
        icc=icc,
        xmp=fields[_XMP].value.rstrip(b"\0") if _XMP in fields else None,
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
    per_inch = {2: 1.0, 3: 2.54}.get(_plain_number(fields, _RESOLUTION_UNIT, 2, order))
    pair = [fields[tag] for tag in (_X_RESOLUTION, _Y_RESOLUTION) if tag in fields]
    if per_inch is None or len(pair) < 2 or any(found.kind not in (5, 10) for found in pair):
        return None
    ratios = [unpack(order + "II", found.value) for found in pair]
    return plain_dpi([over / under * per_inch if under else 0 for over, under in ratios])


def _exif(data: bytes, offset: int, order: str, big: bool) -> bytes | None:
    """The descriptive part of a TIFF's own directory as a stand-alone EXIF block; None when there is none."""
    entries = directory_tree(data, offset, order, big)
    return data[:2] + struct.pack(order + "HI", 42, 8) + packed_directory(entries, 8, order) if entries else None


def _unturned(data: bytes, page) -> bytes:
    """`data` with orientation 1: Pillow and OpenCV turn TIFFs by themselves, and once is enough."""
    order, big = byte_order(data), page.parent.is_bigtiff
    found = [field for field in directory(data, page.offset, order, big)[0] if field.tag == _ORIENTATION]
    if not found:
        return data
    turned = bytearray(data)
    set_number(turned, found[0], 1, order, big)
    return bytes(turned)


def _pixels(data: bytes, page, icc: bytes | None, notes: list[str]) -> Arrays:
    """`page` decoded by tifffile, or, where that lacks the codec, by OpenCV (deep) or Pillow; adds to `notes`."""
    _require_strips(data, page)
    kinds = tifffile.PHOTOMETRIC
    plain = page.photometric in (kinds.MINISBLACK, kinds.MINISWHITE, kinds.RGB)
    native = (
        page.dtype is not None and str(page.dtype) in _NATIVE_TYPES and page.bitspersample == 8 * page.dtype.itemsize
    )
    if plain and native:
        array = _array(data, page)
        if array is not None:
            return _colour_and_alpha(array, page, notes)
    if page.photometric == kinds.SEPARATED and native:
        return pillow.arrays(cmyk_to_rgb(_cmyk(data, page), icc))
    return _by_others(data, page, notes)


def _require_strips(data: bytes, page) -> None:
    if len(page.dataoffsets) != len(page.databytecounts):
        raise Damaged("its list of strips is broken")
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not count or offset + count > len(data):
            raise Damaged("the file is cut short")


def _by_others(data: bytes, page, notes: list[str]) -> Arrays:
    """What is of no plain kind: other colours, other depths, damaged strips that a library forgives."""
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    if page.photometric == tifffile.PHOTOMETRIC.MINISBLACK and 8 < bits < 16:
        array = _array_by_opencv(data, page)
        if array is not None:  # with the bits at the top
            return np.rint(array / np.float32(2**16 - 2 ** (16 - bits)) * 65535).astype(np.uint16), None
    pixels, alpha = pillow.arrays(_by_pillow(data, page))
    if bits > 8 and pixels.dtype == np.uint8:
        notes.append(f"its {bits} bits a channel are read as 8")
    return pixels, alpha


def _array(data: bytes, page) -> np.ndarray | None:
    """The samples `(H, W, S)` as stored; None when neither tifffile nor OpenCV reads their compression right."""
    if not _has_decoder(page):
        return _array_by_opencv(data, page)
    with library():
        array = page.asarray()
    if array.ndim != len(page.axes):
        raise Damaged(f"{array.ndim} axes")
    if page.axes == "YX":
        return array[..., None]
    if page.axes not in ("YXS", "SYX"):
        raise Damaged(f"axes {page.axes}")
    return array if page.axes == "YXS" else np.moveaxis(array, 0, -1)


def _has_decoder(page) -> bool:
    """Whether tifffile has; both tables raise on looking up what would need the imagecodecs package."""
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        tifffile.TIFF.UNPREDICTORS[page.predictor]
    except (KeyError, ImportError):
        return False
    return True


def _array_by_opencv(data: bytes, page) -> np.ndarray | None:
    # OpenCV garbles separate planes and drops the alpha of grey pictures.
    interleaved = page.planarconfig == tifffile.PLANARCONFIG.CONTIG and page.samplesperpixel in (1, 3, 4)
    if page.dtype not in (np.uint16, np.float32, np.uint32) or not interleaved:
        return None
    with library():
        array = cv2.imdecode(np.frombuffer(_unturned(data, page), np.uint8), cv2.IMREAD_UNCHANGED)
    shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
    if array is None or array.dtype != page.dtype or np.atleast_3d(array).shape != shape:
        raise Damaged("its pixels cannot be decoded")
    return np.atleast_3d(array)[..., [2, 1, 0, 3][: shape[2]] if shape[2] > 1 else slice(None)]


def _colour_and_alpha(array: np.ndarray, page, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    colours = 3 if page.photometric == tifffile.PHOTOMETRIC.RGB else 1
    if array.shape[2] < colours:
        raise Damaged("too few channels")
    array = _of_our_types(array, notes)
    pixels = array[..., :colours]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = top(array.dtype) - pixels
    if array.shape[2] == colours:
        return pixels, None
    # An extra channel without a stated meaning is what OpenCV and others write for alpha.
    alpha = array[..., colours]
    if page.extrasamples and page.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA:
        pixels = _unpremultiplied(pixels, alpha)
    return pixels, alpha


def _of_our_types(array: np.ndarray, notes: list[str]) -> np.ndarray:
    """Samples of any type as uint8, uint16 or float32, with what is below zero black."""
    if array.dtype.kind == "f":
        return finite(array.astype(np.float32), notes)
    if array.dtype == np.int8:
        return array.view(np.uint8)  # written so by mistake: libraries read the bits as unsigned
    if array.dtype in (np.uint8, np.uint16):
        return array
    # 32-bit integers mostly hold 16.
    return np.clip(array >> (16 if array.max() > 65535 else 0), 0, 65535).astype(np.uint16)


def _can_stream(data: bytes, page) -> bool:
    """Whether the strips, or rows of tiles, can be decoded one after the other."""
    kinds = tifffile.PHOTOMETRIC
    plain = page.photometric in (kinds.MINISBLACK, kinds.RGB) and str(page.dtype) in ("uint8", "uint16", "float32")
    whole = (
        plain and page.bitspersample == 8 * page.dtype.itemsize and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    )
    straight = not (page.extrasamples and page.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA)
    sides = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip,)
    return whole and straight and _has_decoder(page) and all(isinstance(side, int) and side > 0 for side in sides)


def _rows(data: bytes, page, notes: list[str]) -> Iterator[Arrays]:
    _require_strips(data, page)
    rows, width = page.tilelength if page.is_tiled else page.rowsperstrip, page.imagewidth
    across = -(-width // page.tilewidth) if page.is_tiled else 1
    if len(page.dataoffsets) < -(-page.imagelength // rows) * across:
        raise Damaged("its list of strips is broken")
    for top_row in range(0, page.imagelength, rows):
        height = min(rows, page.imagelength - top_row)
        band = np.empty((height, width, page.samplesperpixel), page.dtype)
        for column in range(across):
            index = top_row // rows * across + column
            offset, count = page.dataoffsets[index], page.databytecounts[index]
            with library():
                samples, place, _ = page.decode(data[offset : offset + count], index)
            left = place[-2]
            part = samples[0][:height, : width - left]
            band[:, left : left + part.shape[1]] = part
        yield _colour_and_alpha(band, page, notes)


def _unpremultiplied(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    most = top(alpha.dtype)
    opacity = alpha[..., None].astype(np.float32) / most
    colour = np.divide(pixels, opacity, out=np.zeros(pixels.shape, np.float32), where=opacity > 0)
    return colour if alpha.dtype == np.float32 else np.rint(np.minimum(colour, most)).astype(pixels.dtype)


def _by_pillow(data: bytes, page) -> Image.Image:
    return pillow.header(TiffImagePlugin.TiffImageFile, _unturned(data, page))


def _cmyk(data: bytes, page) -> Image.Image:
    if page.dtype == np.uint8:
        return _by_pillow(data, page)
    array = _array(data, page)
    if array is None or array.shape[2] < 4:
        raise Refused("is a CMYK TIFF of a kind that is not read; save it as 8-bit CMYK or as RGB")
    return Image.fromarray(converted(np.ascontiguousarray(array[..., :4]), "uint8"), "CMYK")


# --- writing ---


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
        numbers(_ORIENTATION, 3, 1),
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
        for tag, value in zip((_X_RESOLUTION, _Y_RESOLUTION), picture.dpi, strict=True):
            ratio = Fraction(value).limit_denominator(1000)
            fields.append(Field(tag, 5, 1, struct.pack(order + "II", ratio.numerator, ratio.denominator)))
        fields.append(numbers(_RESOLUTION_UNIT, 3, 2))
    if picture.xmp:
        fields.append(Field(_XMP, 1, len(picture.xmp), picture.xmp))
    if picture.icc:
        fields.append(Field(_ICC, 7, len(picture.icc), picture.icc))
    return fields
