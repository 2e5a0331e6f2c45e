"""PNG: chunks read by us and pixels by the libraries; written by us.

Reading: metadata is taken from the chunks here, and the decoders get the pixels' chunks only, so that no broken text
chunk can spoil a good picture and no decoder applies gamma of its own accord.  Pillow decodes up to 8 bits and OpenCV
16, as Pillow has no 16-bit RGB; neither notices a stream that ends early, so the rows are counted here.

Writing: row band by row band, because no library writes 16-bit RGB with ICC and EXIF without a second copy of what may
be a 600 MB picture.

Reference: Portable Network Graphics, third edition (W3C).
"""

import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO

import numpy as np
from PIL import PngImagePlugin

from sa_upscale.images import apng, opencv, pillow
from sa_upscale.images.deflating import deflated
from sa_upscale.images.exif import carry_exif
from sa_upscale.images.picture import Picture, band_rows, rebanded, sample_bands, top
from sa_upscale.images.pngtext import carry_texts, inflated
from sa_upscale.images.source import Arrays, Damaged, Source, plain_dpi, unpack

EFFORT = 3
"""zlib's level.  Beside the usual 6 it takes a third of the time for 8 % more bytes in text; photographs are packed by
run lengths, faster still."""

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The interlacing passes: first column, first row, column step, row step."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_GREY, _RGB, _INDEXED, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _INDEXED: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
_INFLATE_BYTES = 1 << 20
_STREAM_BYTES = 16 << 20

Chunk = tuple[bytes, memoryview]


def begins(head: bytes) -> bool:
    return head.startswith(_SIGNATURE)


# --- reading ---


def opened(data: bytes) -> Source:
    chunks = _chunks(data)
    if not chunks or chunks[0][0] != b"IHDR":
        raise Damaged("no header chunk")
    width, height, _, kind = unpack(">IIBB", chunks[0][1])
    if kind not in _SAMPLES:
        raise Damaged(f"colour type {kind}")
    first = dict(reversed(chunks))
    source = Source(
        width,
        height,
        lambda: _pixels(chunks),
        rows=(lambda: _rows(chunks)) if _can_stream(chunks) else None,
        colour_chunks=tuple((name, bytes(first[name])) for name in _COLOUR_CHUNKS if name in first),
    )
    raw = carry_texts(source, chunks)
    carry_exif(source, bytes(first.get(b"eXIf", b"")) or raw)
    if b"acTL" in first:
        _animate(source, chunks)
    if b"iCCP" in first:
        source.icc = _profile(bytes(first[b"iCCP"]))
        if source.icc is None:
            source.notes.append("its colour profile is damaged and was left out")
    if b"pHYs" in first:
        across, down, unit = unpack(">IIB", first[b"pHYs"])
        source.dpi = plain_dpi((across * 0.0254, down * 0.0254)) if unit == 1 else None
    return source


def _animate(source: Source, chunks: list[Chunk]) -> None:
    """Make an animation of the `source` where its chunks tell of one; a still that is no part of it comes first."""
    promised, loop = unpack(">II", dict(chunks)[b"acTL"])
    names = [name for name, _ in chunks]
    if (
        b"IDAT" not in names
        or names.count(b"acTL") > 1
        or names.index(b"acTL") > names.index(b"IDAT")
        or not 0 < promised < 2**31
    ):
        return
    parts, still = apng.frames(chunks, promised)
    if len(parts) < promised:
        source.notes.append(f"only {len(parts)} of its {promised} frames could be read")
    if not parts:
        return
    source.frames, source.loop = len(parts) + still, loop
    source.play = lambda: apng.shown(chunks, parts, still, _pixels)


def _chunks(data: bytes) -> list[Chunk]:
    """(type, content) of the chunks; damaged ancillary ones are left out, a damaged critical one raises."""
    view, at, chunks = memoryview(data), len(_SIGNATURE), []
    while at + 8 <= len(data):
        length, name = unpack(">I4s", data, at)
        end = at + 12 + length
        critical = not name[0] & 0x20
        if end > len(data):
            # What is missing may be nothing but the end mark or a comment; the rows are counted later.
            if name == b"IDAT":
                chunks.append((name, view[at + 8 :]))
            elif name != b"IEND" and critical:
                raise Damaged("the file is cut short")
            break
        # Pixels have a checksum of their own.
        if name == b"IDAT" or zlib.crc32(view[at + 4 : end - 4]) == unpack(">I", data, end - 4)[0]:
            chunks.append((name, view[at + 8 : end - 4]))
        elif critical:
            raise Damaged(f"wrong checksum in chunk {name.decode('latin-1')!a}")
        if name == b"IEND":
            break
        at = end
    return chunks


def _can_stream(chunks: list[Chunk]) -> bool:
    _, _, _, kind, _, _, interlaced = unpack(">IIBBBBB", chunks[0][1])
    return not interlaced and kind != _INDEXED and not any(name == b"tRNS" for name, _ in chunks)


def _rows(chunks: list[Chunk]) -> Iterator[Arrays]:
    """The picture in bands: each is made a small PNG of its own, which a library decodes.

    Filters refer to the row above, so that the last row of a band stands, unfiltered, at the head of the next.
    """
    width, height, depth, kind = unpack(">IIBB", chunks[0][1])
    row_bytes = 1 + -(-width * depth * _SAMPLES[kind] // 8)
    count = max(1, _STREAM_BYTES // row_bytes)
    above = bytes(row_bytes)
    for filtered in _inflated_rows(chunks, row_bytes * count, row_bytes * height):
        rows = len(filtered) // row_bytes
        header = struct.pack(">IIBBBBB", width, rows + 1, depth, kind, 0, 0, 0)
        small = [(b"IHDR", memoryview(header)), (b"IDAT", memoryview(zlib.compress(above + filtered, 0)))]
        pixels, alpha = _pixels(small)
        pixels, alpha = pixels[1:], None if alpha is None else alpha[1:]
        above = _unfiltered(pixels[-1:], None if alpha is None else alpha[-1:], depth)
        yield pixels, alpha


def _unfiltered(pixels: np.ndarray, alpha: np.ndarray | None, depth: int) -> bytes:
    """One row as it stands in a file, with no filter."""
    row = pixels if alpha is None else np.dstack((pixels, alpha))
    if depth < 8:
        row = row // (255 // (2**depth - 1))
        bits = np.unpackbits(row.reshape(-1, 1), axis=1)[:, 8 - depth :]
        return b"\0" + np.packbits(bits).tobytes()
    return b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes()


def _inflated_rows(chunks: list[Chunk], step: int, whole: int) -> Iterator[bytes]:
    """`whole` bytes of filtered rows in pieces of `step`."""
    inflate, found, done = zlib.decompressobj(), bytearray(), 0
    try:
        for name, content in chunks:
            waiting = content if name == b"IDAT" else b""
            while waiting:
                found += inflate.decompress(waiting, _INFLATE_BYTES)
                waiting = inflate.unconsumed_tail
                while len(found) >= min(step, whole - done) > 0:
                    piece = min(step, whole - done)
                    yield bytes(found[:piece])
                    del found[:piece]
                    done += piece
    except zlib.error as error:
        raise Damaged(str(error)) from error
    if done < whole:
        raise Damaged("the file is cut short")


def _pixels(chunks: list[Chunk]) -> tuple[np.ndarray, np.ndarray | None]:
    first = dict(reversed(chunks))
    width, height, depth, kind, _, _, interlaced = unpack(">IIBBBBB", first[b"IHDR"])
    _require_all_rows(chunks, width, height, depth * _SAMPLES[kind], ADAM7 if interlaced else ((0, 0, 1, 1),))
    needed = (b"IHDR", b"PLTE", b"IDAT", b"tRNS") if kind == _INDEXED else (b"IHDR", b"IDAT")
    lean = b"".join([_SIGNATURE, *(_chunk(*chunk) for chunk in chunks if chunk[0] in needed), _chunk(b"IEND", b"")])
    if depth == 16:
        pixels, alpha = _pixels_of_16_bits(lean, kind)
    else:
        pixels, alpha = pillow.arrays(pillow.header(PngImagePlugin.PngImageFile, lean))
    grey_palette = kind == _INDEXED and b"iCCP" not in first
    if grey_palette and np.array_equal(pixels, np.broadcast_to(pixels[..., :1], pixels.shape)):
        pixels = pixels[..., :1]
    if b"tRNS" in first and kind in (_GREY, _RGB):
        alpha = _alpha_of_key(pixels, unpack(f">{_SAMPLES[kind]}H", first[b"tRNS"]), depth)
    return pixels, alpha


def _pixels_of_16_bits(lean: bytes, kind: int) -> tuple[np.ndarray, np.ndarray | None]:
    pixels, alpha = opencv.arrays(lean, "uint16")
    # Grey with alpha comes as three equal colours; what OpenCV makes of a transparent colour is done by us.
    return pixels[..., :1] if kind in (_GREY, _GREY_ALPHA) else pixels, alpha if kind in (
        _GREY_ALPHA,
        _RGB_ALPHA,
    ) else None


def _alpha_of_key(pixels: np.ndarray, key: tuple[int, ...], depth: int) -> np.ndarray:
    """Alpha `(H, W)` of a picture in which the one colour `key`, at the file's bit depth, is transparent."""
    if depth < 16:
        most = 2**depth - 1
        key = [(sample & most) * (255 // most) for sample in key]
    hidden = (pixels == np.array(key, pixels.dtype)).all(axis=2)
    return np.where(hidden, 0, top(pixels.dtype)).astype(pixels.dtype)


def _require_all_rows(chunks: list[Chunk], width: int, height: int, pixel_bits: int, passes) -> None:
    """Count the bytes of the rows: OpenCV, and Pillow where it is interlaced, leave black in a short stream's place."""
    expected = 0
    for x, y, step_x, step_y in passes:
        columns, rows = -((x - width) // step_x), -((y - height) // step_y)
        expected += rows * (1 + -(-columns * pixel_bits // 8)) if columns > 0 and rows > 0 else 0
    inflate, found = zlib.decompressobj(), 0
    try:
        for name, content in chunks:
            if name != b"IDAT":
                continue
            found += len(inflate.decompress(content, _INFLATE_BYTES))
            while inflate.unconsumed_tail and found <= expected:
                found += len(inflate.decompress(inflate.unconsumed_tail, _INFLATE_BYTES))
        found += len(inflate.flush())
    except zlib.error as error:
        raise Damaged(str(error)) from error
    if found < expected:
        raise Damaged("the file is cut short")


def _profile(chunk: bytes) -> bytes | None:
    _, _, packed = chunk.partition(b"\0")
    return inflated(packed[1:]) or None


# --- writing ---


def encode(file: BinaryIO, picture: Picture, bands: Iterable[np.ndarray] | None = None) -> None:
    """Write the picture, from `bands` of its rows where they are given."""
    _write_head(file, picture)
    bands = sample_bands(picture) if bands is None else rebanded(bands, band_rows(picture.pixels))
    for packed in _packed(picture, bands):
        file.write(_chunk(b"IDAT", packed))
    file.write(_chunk(b"IEND", b""))


def encode_frames(file: BinaryIO, shown: Iterable[tuple[Picture, float | None]], count: int, loop: int) -> None:
    """Write an animation of whole frames, each in place of the one before; what has no time is no part of it.

    Reference: PNG specification, 11.3.6.
    """
    sequence, frames = itertools.count(), 0
    for index, (picture, milliseconds) in enumerate(shown):
        if index == 0:
            _write_head(file, picture)
            at = file.tell()
            file.write(_chunk(b"acTL", struct.pack(">II", count, loop)))
        if milliseconds is not None:
            frames += 1
            # Sixteen bits for a numerator and a denominator: tenths of milliseconds reach 6.5 seconds.
            delay = (round(10 * milliseconds), 10000) if milliseconds < 6553 else (round(milliseconds / 10), 100)
            placed = struct.pack(">IIIIIHHBB", next(sequence), picture.width, picture.height, 0, 0, *delay, 0, 0)
            file.write(_chunk(b"fcTL", placed))
        for packed in _packed(picture, sample_bands(picture)):
            if index == 0:
                file.write(_chunk(b"IDAT", packed))
            else:
                file.write(_chunk(b"fdAT", struct.pack(">I", next(sequence)) + packed))
    file.write(_chunk(b"IEND", b""))
    # How many there are is known only now: damaged ones were left out.
    file.seek(at)
    file.write(_chunk(b"acTL", struct.pack(">II", frames, loop)))
    file.seek(0, os.SEEK_END)


def _write_head(file: BinaryIO, picture: Picture) -> None:
    kind = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGB_ALPHA}[picture.samples]
    bits = 8 * picture.pixels.dtype.itemsize
    header = struct.pack(">IIBBBBB", picture.width, picture.height, bits, kind, 0, 0, 0)
    file.write(_SIGNATURE)
    for name, content in ((b"IHDR", header), *_metadata_chunks(picture)):
        file.write(_chunk(name, content))


def _packed(picture: Picture, bands: Iterable[np.ndarray]) -> Iterator[bytes]:
    """The rows deflated, all Paeth-filtered: the best single filter for photographs."""
    return deflated(_filtered(picture, bands), EFFORT)


def _filtered(picture: Picture, bands: Iterable[np.ndarray]) -> Iterator[Callable[[], bytes]]:
    """What filters each band."""
    depth = picture.pixels.dtype.itemsize
    above = np.zeros(picture.width * picture.samples * depth, np.uint8)
    for band in bands:
        rows = np.ascontiguousarray(band.astype(">u2") if depth == 2 else band).view(np.uint8).reshape(len(band), -1)
        yield partial(_paeth_filtered, rows, above, picture.samples * depth)
        above = rows[-1].copy()


def _metadata_chunks(picture: Picture) -> list[tuple[bytes, bytes]]:
    chunks = list(picture.colour_chunks)
    if picture.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc)))
    if picture.dpi:
        per_metre = (round(value / 0.0254) for value in picture.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if picture.exif:
        chunks.append((b"eXIf", picture.exif))
    if picture.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + picture.xmp))
    if picture.software:
        # A keyword may stand several times; readers that take one take the last, which is the user's own.
        chunks.append((b"tEXt", b"Software\0" + picture.software.encode("latin-1", "replace")))
    return chunks + list(picture.texts)


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)))


def _paeth_filtered(rows: np.ndarray, above: np.ndarray, step: int) -> bytes:
    """`rows` `(N, bytes)` with PNG's filter 4 applied; `above` is the row before them, `step` the bytes of a pixel.

    Reference: PNG specification, 9.4.
    """
    up = np.vstack((above[None], rows[:-1]))
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], corner[:, step:] = rows[:, :-step], up[:, :-step]
    # All in bytes.  Where left and up lie on one side of the corner, left + up - corner is farther from the corner than
    # from either; else that distance is the difference of the other two.
    from_left, from_up = _distance(up, corner), _distance(left, corner)
    from_corner = _distance(from_left, from_up) | _mask((left >= corner) == (up >= corner))
    predicted = _choice(from_up <= from_corner, up, corner)
    predicted = _choice(from_left <= np.minimum(from_up, from_corner), left, predicted)
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 4
    np.subtract(rows, predicted, out=filtered[:, 1:])
    return filtered.tobytes()


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a, b) - np.minimum(a, b)


def _choice(condition: np.ndarray, then: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """`np.where` for bytes, in a fifth of its time."""
    return otherwise ^ ((then ^ otherwise) & _mask(condition))


def _mask(condition: np.ndarray) -> np.ndarray:
    """255 where true, else 0."""
    return -condition.view(np.uint8)
