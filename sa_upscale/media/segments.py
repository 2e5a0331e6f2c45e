"""Encoded pictures, and the files in which they wait until the whole result is put together of them.

Every segment of a film has an encoder of its own, so that it is the same whether or not what came before it was made
in the same run.
"""

import errno
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import cv2

from sa_upscale import disk
from sa_upscale.errors import UpscaleError
from sa_upscale.media.colour import from_rgb, is_rgb, range_of
from sa_upscale.media.encoding import Encoding
from sa_upscale.media.info import VideoInfo
from sa_upscale.media.reader import Frame

AVX512_SKX = 256  # in the numbers of OpenCV
# Before each packet: its time and duration in time-base units, whether decoding can start there, its bytes.
HEADER = struct.Struct("<qq?I")


@dataclass(frozen=True)
class Chunk:
    """One encoded picture, its times in time-base units; chunks stand in the order in which they are decoded."""

    data: bytes
    pts: int
    duration: int
    key: bool


class Encoder:
    """Turns upscaled pictures into chunks.

    Raises UpscaleError, with `name` in front, when the encoder refuses its settings.
    """

    def __init__(self, info: VideoInfo, encoding: Encoding, name: str):
        self._encoding = encoding
        self._time_base = info.time_base
        self._durations: dict[int, int] = {}
        self._context = av.CodecContext.create(encoding.codec, "w")
        self._context.flags |= av.codec.context.Flags.global_header
        configure(self._context, info, encoding)
        open_encoder(self._context, encoding, name)

    def encode(self, frame: Frame) -> list[Chunk]:
        """Take one picture (height, width, 3) of the planned size; what is encoded by now."""
        picture = from_rgb(frame.pixels, self._encoding.pixel_format, self._encoding.colour)
        picture.pts, picture.time_base = frame.pts, self._time_base
        self._durations[frame.pts] = frame.duration
        return self._chunks(self._context.encode(picture))

    def finish(self) -> list[Chunk]:
        """What the encoder still held back."""
        return self._chunks(self._context.encode(None))

    def _chunks(self, packets: list[av.Packet]) -> list[Chunk]:
        # Encoders drop the durations, and with them how long the last picture of a clip stays.
        return [Chunk(bytes(p), p.pts, self._durations.pop(p.pts, 0), p.is_keyframe) for p in packets]


class SegmentFile:
    """A file of chunks being written; `close` puts it on the disk, `abandon` does not care."""

    def __init__(self, path: Path):
        self._file = open(path, "wb")  # noqa: SIM115
        self._digest = hashlib.sha256()

    def write(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            for part in (HEADER.pack(chunk.pts, chunk.duration, chunk.key, len(chunk.data)), chunk.data):
                self._file.write(part)
                self._digest.update(part)

    def close(self) -> str:
        """Wait until the file is on the disk; its sha256."""
        with self._file:
            disk.sync(self._file)
        return self._digest.hexdigest()

    def abandon(self) -> None:
        with suppress(OSError):
            self._file.close()


def chunks(path: Path) -> Iterator[Chunk]:
    """The chunks of a segment's file."""
    with open(path, "rb") as file:
        while header := file.read(HEADER.size):
            pts, duration, key, size = HEADER.unpack(header)
            yield Chunk(file.read(size), pts, duration, key)


def stamps(path: Path) -> Iterator[int]:
    """The times of a segment's chunks, without reading the pictures."""
    with open(path, "rb") as file:
        while header := file.read(HEADER.size):
            pts, _, _, size = HEADER.unpack(header)
            file.seek(size, os.SEEK_CUR)
            yield pts


def configure(context: av.VideoCodecContext, info: VideoInfo, encoding: Encoding) -> None:
    """Set an encoder up for the planned result."""
    describe(context, info, encoding)
    context.time_base = info.time_base
    context.framerate = info.rate or 25  # only a hint for rate control: every frame brings its own time
    context.options = _repeatable(encoding)


def describe(context: av.VideoCodecContext, info: VideoInfo, encoding: Encoding) -> None:
    """Say of a codec what its pictures are."""
    colour = encoding.colour
    context.width, context.height, context.pix_fmt = encoding.width, encoding.height, encoding.pixel_format
    if not is_rgb(av.VideoFormat(encoding.pixel_format)):
        context.colorspace = colour.matrix
    context.color_primaries = colour.primaries
    context.color_trc = colour.transfer
    context.color_range = range_of(colour)
    if info.sample_aspect:
        context.sample_aspect_ratio = info.sample_aspect
    if context.codec.canonical_name == "hevc" and encoding.container in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # the name by which Apple's players want HEVC


def _repeatable(encoding: Encoding) -> dict[str, str]:
    """The encoder's options, without what makes it give other bytes for the same pictures now and then.

    Measured with x264 164 and libavcodec 62: with AVX-512 its macroblock tree varies from run to run, most of all in
    small pictures; with AVX2 it never did.  Segments must not depend on who made them.
    """
    options = dict(encoding.options)
    own = options.get("x264-params", "")
    if encoding.codec == "libx264" and "asm=" not in own and cv2.checkHardwareSupport(AVX512_SKX):
        options["x264-params"] = f"{own}:asm=avx2".lstrip(":")
    return options


def open_encoder(context: av.VideoCodecContext, encoding: Encoding, name: str) -> None:
    """Open it; UpscaleError when it refuses."""
    if encoding.codec == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # it reports on stderr; errors only
    try:
        context.open()
    except (av.FFmpegError, ValueError) as error:
        options = " ".join(f"{key}={value}" for key, value in encoding.options.items())
        raise UpscaleError(
            f"{name}: {encoding.codec} refuses {encoding.width}x{encoding.height} {encoding.pixel_format}"
            f" with {options or 'its defaults'} ({getattr(error, 'strerror', None) or error});"
            " try another --codec or a smaller scale"
        ) from None


@contextmanager
def write_errors(name: str) -> Iterator[None]:
    """Turn what the system reports while a result is written into one line."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UpscaleError(
                f"{name}: no space left on the disk; free some, and the same command goes on from here"
            ) from None
        raise UpscaleError(f"{name} cannot be written: {error.strerror or error}") from None
