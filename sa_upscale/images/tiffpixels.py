"""The pixels of TIFF files, decoded by whichever library reads the kind at hand.

tifffile for all that its own decoders cover, OpenCV for deep samples in other compressions, Pillow for 8 bits and less,
palettes and the like.  None of the three reads everything right, and two turn pictures unasked.

Reference: TIFF 6.0; BigTIFF.
"""

import struct
from collections.abc import Iterator

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from sa_upscale.images import opencv, pillow
from sa_upscale.images.colour import cmyk_to_rgb
from sa_upscale.images.directories import Field, byte_order, directory, packed_directory, set_number
from sa_upscale.images.picture import converted, finite, top
from sa_upscale.images.source import Arrays, Damaged, Refused, library
from sa_upscale.images.tiffwriting import ORIENTATION

_NATIVE_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
_OFFSETS, _COUNTS = (273, 324), (279, 325)  # of strips, of tiles
# What of a directory tells how samples are stored, the same for every plane.
_STORAGE = (256, 257, 259, 278, 317, 322, 323)


def pixels(data: bytes, page: tifffile.TiffPage, icc: bytes | None, notes: list[str]) -> Arrays:
    """The pixels of `page`; what only a forgiving library reads is noted in `notes`, as are other changes."""
    try:
        return _pixels(data, page, icc, notes)
    except Damaged:
        for forgiving in (_by_pillow, _by_opencv):
            try:
                colours, alpha = forgiving(data, page)
            except Damaged:
                continue
            if colours.shape[:2] == (page.imagelength, page.imagewidth):
                notes.append("its structure is damaged; look whether all of it is there")
                return colours, alpha
        raise


def _alone(data: bytes, page: tifffile.TiffPage) -> bytes:
    """The file with `page` as its first, upright: Pillow and OpenCV read the first and turn it, and once is enough."""
    order, big = byte_order(data), page.parent.is_bigtiff
    changed = bytearray(data)
    struct.pack_into(order + ("Q" if big else "I"), changed, 8 if big else 4, page.offset)
    for field in directory(data, page.offset, order, big)[0]:
        if field.tag == ORIENTATION:
            set_number(changed, field, 1, order, big)
    return bytes(changed)


def _by_pillow(data: bytes, page: tifffile.TiffPage) -> Arrays:
    return pillow.arrays(_image(data, page))


def _by_opencv(data: bytes, page: tifffile.TiffPage) -> Arrays:
    array = opencv.samples(_alone(data, page))
    if array.shape[2] not in (1, 3, 4):
        raise Damaged(f"{array.shape[2]} channels")
    array = _of_our_types(array, [])
    return array[..., :3], array[..., 3] if array.shape[2] == 4 else None


def _pixels(data: bytes, page: tifffile.TiffPage, icc: bytes | None, notes: list[str]) -> Arrays:
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


def _require_strips(data: bytes, page: tifffile.TiffPage) -> None:
    if len(page.dataoffsets) != len(page.databytecounts):
        raise Damaged("its list of strips is broken")
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not count or offset + count > len(data):
            raise Damaged("the file is cut short")


def _by_others(data: bytes, page: tifffile.TiffPage, notes: list[str]) -> Arrays:
    """What is of no plain kind: other colours, other depths."""
    kinds = tifffile.PHOTOMETRIC
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    if page.photometric in (kinds.MINISBLACK, kinds.RGB) and 8 < bits < 16:
        array = opencv.samples(_alone(data, page))
        if array.dtype == np.uint16 and array.shape[2] in (1, 3):  # with the bits at the top
            return opencv.rescaled(array, 65535 / (2**16 - 2 ** (16 - bits))), None
    colours, alpha = _by_pillow(data, page)
    if bits > 8 and colours.dtype == np.uint8:
        notes.append(f"its {bits} bits a channel are read as 8")
    return colours, alpha


def _array(data: bytes, page: tifffile.TiffPage) -> np.ndarray | None:
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


def _has_decoder(page: tifffile.TiffPage) -> bool:
    """Whether tifffile has; both tables raise on looking up what would need the imagecodecs package."""
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        tifffile.TIFF.UNPREDICTORS[page.predictor]
    except (KeyError, ImportError):
        return False
    return True


def _array_by_opencv(data: bytes, page: tifffile.TiffPage) -> np.ndarray | None:
    if page.dtype not in (np.uint16, np.float32, np.uint32):
        return None
    # OpenCV garbles separate planes and drops the alpha of grey pictures.
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        files = [_plane(data, page, index) for index in range(page.samplesperpixel)]
    elif page.samplesperpixel in (1, 3, 4):
        files = [_alone(data, page)]
    else:
        return None
    array = np.dstack([opencv.samples(file) for file in files])
    if array.dtype != page.dtype or array.shape != (page.imagelength, page.imagewidth, page.samplesperpixel):
        raise Damaged("its pixels cannot be decoded")
    return array


def _plane(data: bytes, page: tifffile.TiffPage, index: int) -> bytes:
    """The file with one more directory, which makes a grey picture of one of the separate planes."""
    order, big = byte_order(data), page.parent.is_bigtiff

    def numbers(tag: int, kind: int, *values: int) -> Field:
        return Field(tag, kind, len(values), struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values))

    fields = [field for field in directory(data, page.offset, order, big)[0] if field.tag in _STORAGE]
    pieces = len(page.dataoffsets) // page.samplesperpixel
    own = slice(index * pieces, (index + 1) * pieces)
    kind = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
    fields += [
        numbers(258, 3, 8 * page.dtype.itemsize),
        numbers(262, 3, 1),  # black is 0
        numbers(_OFFSETS[page.is_tiled], 4, *page.dataoffsets[own]),
        numbers(277, 3, 1),
        numbers(_COUNTS[page.is_tiled], 4, *page.databytecounts[own]),
        numbers(339, 3, kind),
    ]
    at = len(data) + len(data) % 2
    changed = bytearray(data.ljust(at, b"\0")) + packed_directory(fields, at, order, big)
    struct.pack_into(order + ("Q" if big else "I"), changed, 8 if big else 4, at)
    return bytes(changed)


def _colour_and_alpha(
    array: np.ndarray, page: tifffile.TiffPage, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
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


def can_stream(page: tifffile.TiffPage) -> bool:
    """Whether the strips, or rows of tiles, can be decoded one after the other."""
    kinds = tifffile.PHOTOMETRIC
    plain = page.photometric in (kinds.MINISBLACK, kinds.RGB) and str(page.dtype) in ("uint8", "uint16", "float32")
    whole = (
        plain and page.bitspersample == 8 * page.dtype.itemsize and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    )
    straight = not (page.extrasamples and page.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA)
    sides = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip,)
    return whole and straight and _has_decoder(page) and all(isinstance(side, int) and side > 0 for side in sides)


def rows(data: bytes, page: tifffile.TiffPage, notes: list[str]) -> Iterator[Arrays]:
    _require_strips(data, page)
    step, width = page.tilelength if page.is_tiled else page.rowsperstrip, page.imagewidth
    across = -(-width // page.tilewidth) if page.is_tiled else 1
    if len(page.dataoffsets) < -(-page.imagelength // step) * across:
        raise Damaged("its list of strips is broken")
    for top_row in range(0, page.imagelength, step):
        height = min(step, page.imagelength - top_row)
        band = np.empty((height, width, page.samplesperpixel), page.dtype)
        for column in range(across):
            index = top_row // step * across + column
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


def _image(data: bytes, page: tifffile.TiffPage) -> Image.Image:
    return pillow.header(TiffImagePlugin.TiffImageFile, _alone(data, page))


def _cmyk(data: bytes, page: tifffile.TiffPage) -> Image.Image:
    if page.dtype == np.uint8:
        return _image(data, page)
    array = _array(data, page)
    if array is None or array.shape[2] < 4:
        raise Refused("is a CMYK TIFF of a kind that is not read; save it as 8-bit CMYK or as RGB")
    return Image.fromarray(converted(np.ascontiguousarray(array[..., :4]), "uint8"), "CMYK")
