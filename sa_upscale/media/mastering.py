"""What an HDR film says of the display it was made on, written where players look first: beside the stream.

The encoders put it into their streams.  The container has a place of its own for it, which the library fills only from
what a stream that was read brings along; so a header with it is made in memory, and read.
"""

import io
import struct
from fractions import Fraction

import av

from sa_upscale.media.encoding import BESIDE, Encoding
from sa_upscale.media.info import Mastering, VideoInfo
from sa_upscale.media.segments import configure, describe, open_encoder

CHROMATICITY, LUMINANCE = 50_000, 10_000  # units of the boxes: 0.00002, and 0.0001 cd/m²
PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
ENTRIES = {b"stsd": 8}  # bytes of a box before the first box in it


def add_stream(
    container: av.container.OutputContainer, info: VideoInfo, encoding: Encoding, name: str
) -> av.video.stream.VideoStream:
    """The stream of the result in its container, with `info.mastering` beside it where there is a place for that.

    Raises UpscaleError when the encoder refuses its settings.
    """
    if info.mastering is None or av.Codec(encoding.codec, "w").canonical_name not in BESIDE:
        return _plain(container, info, encoding, name)
    header, extradata = _header(info, encoding, name)
    with av.open(io.BytesIO(_inside(header, PATH, _boxes(info.mastering)))) as film:
        stream = container.add_stream_from_template(film.streams.video[0], opaque=True)
    stream.time_base = info.time_base
    # Said anew: a header without a picture does not tell all of it, and in it the extradata took the form of MP4, which
    # the encoder's packets do not have.
    describe(stream.codec_context, info, encoding)
    stream.codec_context.extradata = extradata
    return stream


def _plain(
    container: av.container.OutputContainer, info: VideoInfo, encoding: Encoding, name: str
) -> av.video.stream.VideoStream:
    stream = container.add_stream(encoding.codec, rate=info.rate or 25)
    configure(stream.codec_context, info, encoding)
    stream.time_base = info.time_base
    open_encoder(stream.codec_context, encoding, name)
    return stream


def _header(info: VideoInfo, encoding: Encoding, name: str) -> tuple[bytes, bytes | None]:
    """The header of a film in fragments, without a picture, and what the encoder says in front of its stream."""
    file = io.BytesIO()
    form = "mov" if encoding.codec.startswith("prores") else "mp4"
    with av.open(file, "w", format=form, container_options={"movflags": "empty_moov+frag_custom"}) as film:
        stream = _plain(film, info, encoding, name)
        film.start_encoding()
        return file.getvalue(), stream.codec_context.extradata


def _boxes(mastering: Mastering) -> bytes:
    """The boxes `mdcv` and `clli`.

    Reference: ISO/IEC 14496-12, 12.1.6 and 12.1.7, in the units of SMPTE ST 2086; green, blue, red, white.
    """
    boxes = b""
    if mastering.primaries and mastering.luminance:
        red, green, blue, white = (mastering.primaries[at : at + 2] for at in (0, 2, 4, 6))
        points = [_count(value, CHROMATICITY) for point in (green, blue, red, white) for value in point]
        darkest, brightest = (_count(value, LUMINANCE) for value in mastering.luminance)
        boxes += _box(b"mdcv", struct.pack(">8H2I", *points, brightest, darkest))
    if mastering.light:
        boxes += _box(b"clli", struct.pack(">2H", *mastering.light))
    return boxes


def _inside(data: bytes, path: tuple[bytes, ...], boxes: bytes) -> bytes:
    """`data`, a row of boxes, with more boxes at the end of the first box that is in the last of `path`."""
    result, at = b"", 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        if not path:
            body += boxes
        elif kind == path[0]:
            begin = ENTRIES.get(kind, 0)
            body = body[:begin] + _inside(body[begin:], path[1:], boxes)
        result += _box(kind, body)
        at += size
    return result


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _count(value: Fraction, unit: int) -> int:
    return round(value * unit)
