"""OpenEXR through FFmpeg: float in, float out, half floats read as float.

PyAV is imported where it is used, because few pictures need it and every start would take longer.
"""

from fractions import Fraction
from typing import BinaryIO

import numpy as np

from sa_upscale.images.picture import Picture, finite
from sa_upscale.images.source import Arrays, Damaged, Refused, Source, library, unpack

_GREY, _COLOUR, _COLOUR_ALPHA = "grayf32le", "gbrpf32le", "gbrapf32le"


def begins(head: bytes) -> bool:
    return head.startswith(b"v/1\x01")


def opened(data: bytes) -> Source:
    left, top, right, bottom = _data_window(data)
    notes: list[str] = []
    return Source(right - left + 1, bottom - top + 1, lambda: _pixels(data, notes), notes=notes)


def _data_window(data: bytes) -> tuple[int, ...]:
    """Reference: OpenEXR File Layout, "Header": name, type, size and value of each attribute."""
    at = 8
    while at < len(data) and data[at]:
        # A name and a type, each ending in a zero byte; names have at most 255 bytes.
        name, kind, *_ = (*bytes(data[at : at + 512]).split(b"\0", 2), b"")
        at += len(name) + len(kind) + 2
        (size,) = unpack("<i", data, at)
        if name == b"dataWindow":
            return unpack("<4i", data, at + 4)
        at += 4 + max(0, size)
    raise Damaged("no data window")


def _pixels(data: bytes, notes: list[str]) -> Arrays:
    import av

    with library():
        decoder = av.CodecContext.create("exr", "r")
        frames = decoder.decode(av.Packet(bytes(data))) or decoder.decode(None)
    if not frames:
        raise Damaged("its pixels cannot be decoded")
    frame = frames[0]
    kind = {"f32le": "<f4", "f16le": "<f2"}.get(frame.format.name[-5:])
    if kind is None:
        raise Refused(f"is an OpenEXR picture of {frame.format.name} samples, which is not read")
    planes = [finite(_plane(plane, kind), notes) for plane in frame.planes]
    if len(planes) == 1:
        return planes[0][..., None], None
    green, blue, red = planes[:3]
    return np.dstack((red, green, blue)), planes[3] if len(planes) == 4 else None


def _plane(plane, kind: str) -> np.ndarray:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return np.ascontiguousarray(rows[:, : plane.width * np.dtype(kind).itemsize]).view(kind).astype(np.float32)


def encode(file: BinaryIO, picture: Picture) -> None:
    import av

    name = _GREY if picture.samples == 1 else _COLOUR if picture.alpha is None else _COLOUR_ALPHA
    samples = picture.pixels[..., 0] if name == _GREY else picture.pixels
    if picture.alpha is not None:
        samples = np.dstack((np.broadcast_to(samples, (*picture.alpha.shape, 3)), picture.alpha))
    encoder = av.CodecContext.create("exr", "w")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, name
    encoder.time_base = Fraction(1)
    encoder.options = {"compression": "zip16", "format": "float"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(samples), format=name)
    for packet in (*encoder.encode(frame), *encoder.encode(None)):
        file.write(bytes(packet))
