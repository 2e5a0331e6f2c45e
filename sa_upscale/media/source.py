"""What a video file is: where it comes from, how it is opened, what can be known of it before it is read through."""

import io
import math
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from PIL import Image, ImageSequence, UnidentifiedImageError

from sa_upscale.errors import UpscaleError
from sa_upscale.media.colour import LUMA_SHARES, Colour, is_rgb

SEQUENCE_RATE = Fraction(24)  # frames per second of numbered pictures, which do not say it themselves
NUMBER = re.compile(r"%(0?\d*)d")

BT709, BT470BG, SMPTE170M = 1, 5, 6  # values of AVColorSpace and AVColorPrimaries alike
UNSPECIFIED_TAGS = (0, 2, 3)  # reserved, unspecified, reserved
# Data of single pictures that no encoder here takes, by the names of the library.
WITHIN_PICTURES = {
    "A53_CC": "closed captions",
    "DYNAMIC_HDR_PLUS": "HDR10+ data",
    "DOVI_METADATA": "Dolby Vision data",
    "DOVI_RPU_BUFFER": "Dolby Vision data",
}
LOOK_BACK, BEFORE_START = (0, 2, 8, 32, 128), 10  # s
LOOKED_AT = 8  # frames; films brought to a video rate have progressive ones between the interlaced


class Pipe(io.RawIOBase):
    """Bytes that come only once, of which the first ones can be read twice: for a look before the work.

    All that is read is kept until `rewind`, and what is then read anew is let go.
    """

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._kept = bytearray()
        self._again = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._again and self._kept:
            part = bytes(self._kept[:size])
            del self._kept[:size]
            return part
        part = self._stream.read(size)
        if not self._again:
            self._kept += part
        return part

    def rewind(self) -> None:
        """Begin anew with the first byte; once."""
        self._again = True


@dataclass(frozen=True)
class Source:
    """A video that can be opened: a file, numbered pictures (`frames/%06d.png`, `rate` per second), or a pipe (y4m)."""

    path: Path
    rate: Fraction = SEQUENCE_RATE
    pipe: Pipe | None = None

    def __str__(self) -> str:
        return str(self.path) if self.pipe is None else "stdin"

    @property
    def is_sequence(self) -> bool:
        return self.pipe is None and is_pattern(self.path)

    @property
    def first_number(self) -> int:
        """Of numbered pictures, the first one's; 1 for a film."""
        return _first_number(self.path) if self.is_sequence else 1

    def open(self, hardware: str | None = None) -> av.container.InputContainer:
        """The opened container; UpscaleError, in one line, for what cannot be read as a video.

        `hardware` is a kind of device to decode on; which of a container's streams it takes, their contexts say.
        """
        if not self.is_sequence and self.pipe is None:
            _check_file(self.path)
        try:
            container = self._open(hardware)
        except PermissionError:
            raise UpscaleError(f"{self}: no permission to read it") from None
        except (av.FFmpegError, OSError):
            hint = "it is not one, or it is damaged or cut off before its index"
            raise UpscaleError(
                f"{self} cannot be read as a video: {hint if self.pipe is None else 'only y4m is taken there'}"
            ) from None
        form = container.format.name
        if form == "tty" or (not self.is_sequence and (form == "image2" or form.endswith("_pipe"))):
            container.close()
            if form == "tty":
                raise UpscaleError(f"{self} cannot be read as a video: it is a text file")
            raise UpscaleError(f"{self} is a still picture; use the image command")
        return container

    def _open(self, hardware: str | None) -> av.container.InputContainer:
        if self.pipe is not None:
            return av.open(self.pipe, format="yuv4mpegpipe")
        if self.is_sequence:
            options = {"framerate": str(self.rate), "start_number": str(self.first_number)}
            return av.open(address(self.path), format="image2", options=options)
        if self.path.suffix.lower() == ".webp":
            return av.open(_webp_as_matroska(self.path))
        return av.open(address(self.path), metadata_errors="surrogateescape", hwaccel=_device(hardware))


@dataclass(frozen=True)
class Mastering:
    """What an HDR film says of the display it was made on, and of its brightest pixels.

    `primaries` are x and y of red, green, blue and white; `luminance` (cd/m²) is the display's darkest and brightest;
    `light` (cd/m²) is the brightest pixel and the brightest frame average.
    """

    primaries: tuple[Fraction, ...] | None
    luminance: tuple[Fraction, Fraction] | None
    light: tuple[int, int] | None


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a file's first real video stream before it is read through.

    `rate` (frames per second), `frames` and `duration` (s) are the container's claims and None where it makes none;
    `origin` (s) is the time at which the file starts; `depth` is in bits per sample; `display_matrix` is FFmpeg's nine
    integers, kept so that a rotated clip stays rotated exactly once; `notices` says what will not come through.
    """

    source: Source
    container: str
    codec: str
    index: int
    width: int
    height: int
    pixel_format: str
    depth: int
    time_base: Fraction
    rate: Fraction | None
    frames: int | None
    origin: Fraction
    duration: Fraction | None
    colour: Colour
    mastering: Mastering | None
    interlaced: bool
    sample_aspect: Fraction | None
    display_matrix: tuple[int, ...] | None
    notices: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def frame_time(self) -> Fraction:
        """Seconds one frame lasts on average; 1/25 where the container does not say."""
        return 1 / self.rate if self.rate else Fraction(1, 25)

    @property
    def turned(self) -> bool:
        """Whether players show the picture with its sides exchanged."""
        return self.display_matrix is not None and self.display_matrix[0] == 0


def probe(path: Path | Source) -> VideoInfo:
    """Look at a file and decode its first frames: colour tags and rotation are surest there.

    Raises UpscaleError, in one line, for whatever is not a readable video with at least one frame.
    """
    source = path if isinstance(path, Source) else Source(path)
    with source.open() as container:
        stream = video_stream(container, source)
        frame, interlaced = _first_frame(container, stream, source)
        if source.pipe is not None:
            source.pipe.rewind()
        if frame is None:
            raise UpscaleError(
                f"{source}: no frame of its video can be decoded; the file is empty, damaged or encrypted"
            )
        rate = stream.average_rate or stream.guessed_rate or None
        seconds = None
        if stream.duration:
            seconds = stream.duration * stream.time_base
        elif container.duration:
            seconds = Fraction(container.duration, av.time_base)
        return VideoInfo(
            source=source,
            container=container.format.name,
            codec=stream.codec_context.name,
            index=stream.index,
            width=frame.width,
            height=frame.height,
            pixel_format=frame.format.name,
            depth=max(part.bits for part in frame.format.components),
            time_base=stream.time_base,
            rate=rate,
            frames=stream.frames or (round(seconds * rate) if seconds and rate else None),
            origin=Fraction(container.start_time or 0, av.time_base),
            duration=seconds,
            colour=_source_colour(frame, source),
            mastering=_mastering(frame),
            interlaced=interlaced,
            sample_aspect=stream.sample_aspect_ratio or None,
            display_matrix=_display_matrix(frame),
            notices=tuple(_source_notices(frame, stream)),
        )


def video_stream(container: av.container.InputContainer, source: Source | Path) -> av.video.stream.VideoStream:
    """The first video stream that is not a cover picture."""
    streams = [stream for stream in container.streams.video if not is_cover(stream)]
    if not streams:
        raise UpscaleError(f"{source} has no video stream")
    if streams[0].codec_context is None:
        raise UpscaleError(f"{source}: its video is in a format that this build of FFmpeg cannot decode")
    return streams[0]


def is_cover(stream: av.stream.Stream) -> bool:
    """Whether this is a picture of the film's cover, not of the film."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def is_end(packet: av.Packet) -> bool:
    """Whether this is the empty packet without a time by which the demuxer says that a stream is over."""
    return not packet.size and packet.pts is None and packet.dts is None


def is_pattern(path: Path) -> bool:
    """Whether a path names numbered pictures, such as `frames/%06d.png`."""
    return NUMBER.search(path.name) is not None and not path.exists()


def _device(kind: str | None) -> HWAccel | None:
    """A device that decodes; None where there is none of this kind, and the processor has to."""
    if kind not in hwdevices_available():
        return None
    device = HWAccel(kind, allow_software_fallback=True)
    try:
        av.CodecContext.create("h264", "r", hwaccel=device)
    except (av.FFmpegError, OSError, NotImplementedError):
        return None
    return device


def address(path: Path) -> str:
    """The path as libav takes it: a relative name such as "take:2.mp4" would be taken for a protocol."""
    return str(path.absolute())


def seek(container: av.container.InputContainer, stream: av.video.stream.VideoStream, seconds: Fraction) -> None:
    """Go to a key frame at or before this time of the stream's clock, or to the file's start.

    Transport streams have no index, and where a seek in them ends the next key frame may come too late: so it is looked
    at, and if need be searched for further back.  What cannot seek at all is left where it is.
    """
    if av.format.Flags.no_timestamps & av.format.Flags(container.format.flags):
        return
    start = Fraction(container.start_time or 0, av.time_base)
    for back in LOOK_BACK:
        aim = seconds - back
        if aim <= start:
            break
        if not _go(container, stream, aim):
            return
        key = next((packet.pts for packet in container.demux(stream) if packet.is_keyframe and packet.size), None)
        if key is not None and key * stream.time_base <= seconds:
            _go(container, stream, aim)
            return
    # Before the start: a seek to it may end behind the first key frame.
    if not _go(container, stream, start - BEFORE_START):
        _go(container, stream, start)


def _go(container: av.container.InputContainer, stream: av.video.stream.VideoStream, seconds: Fraction) -> bool:
    try:
        container.seek(math.floor(seconds / stream.time_base), stream=stream)
    except av.FFmpegError:
        return False
    return True


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UpscaleError(f"{path} is a folder; name a video file, or numbered pictures as {path}/%06d.png")
    if not path.exists():
        raise UpscaleError(f"{path}: no such file")
    if not path.is_file():
        raise UpscaleError(f"{path} is no file that can be read twice; convert it to y4m and pipe that to -")
    if path.stat().st_size == 0:
        raise UpscaleError(f"{path} is empty (0 bytes)")


def _first_number(pattern: Path) -> int:
    """The number of the first picture; UpscaleError when there is none, or one is missing between two others."""
    before, after = (re.escape(part) for part in NUMBER.split(pattern.name, maxsplit=1)[::2])
    name = re.compile(f"{before}(\\d+){after}")
    found = [name.fullmatch(file.name) for file in pattern.parent.iterdir()] if pattern.parent.is_dir() else []
    numbers = sorted(int(match[1]) for match in found if match and pattern.name % int(match[1]) == match[0])
    if not numbers:
        raise UpscaleError(f"{pattern}: no such pictures")
    missing = numbers[0] + next((at for at, number in enumerate(numbers) if number != numbers[0] + at), len(numbers))
    if missing < numbers[-1]:
        raise UpscaleError(
            f"{pattern.parent / (pattern.name % missing)} is missing, though pictures after it are there"
        )
    return numbers[0]


def _webp_as_matroska(path: Path) -> io.BytesIO:
    """An animated WebP, which libav does not decode, as a lossless film in memory."""
    film = io.BytesIO()
    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) < 2:
                raise UpscaleError(f"{path} is a still picture; use the image command")
            with av.open(film, "w", format="matroska") as container:
                stream = container.add_stream("ffv1", rate=1000, width=picture.width, height=picture.height)
                stream.pix_fmt = "bgra"
                stamp = 0
                for shown in ImageSequence.Iterator(picture):
                    frame = av.VideoFrame.from_ndarray(np.asarray(shown.convert("RGBA")), "rgba")
                    frame.pts, frame.time_base = stamp, Fraction(1, 1000)
                    lasts = max(1, round(shown.info.get("duration", 100)))
                    for packet in stream.encode(frame.reformat(format="bgra")):
                        packet.duration = lasts
                        container.mux(packet)
                    stamp += lasts
                container.mux(stream.encode(None))
    except (UnidentifiedImageError, OSError, SyntaxError):
        raise UpscaleError(f"{path} cannot be read as an animation: it is damaged") from None
    film.seek(0)
    return film


def _first_frame(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, source: Source
) -> tuple[av.VideoFrame | None, bool]:
    """The first frame that can be decoded, and whether one of the first few is interlaced."""
    first, count, interlaced = None, 0, False
    with suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if not packet.size and not is_end(packet):
                continue
            if packet.has_sidedata("encryption_info"):
                raise UpscaleError(f"{source}: its video is encrypted; only its owner's player can show it")
            with suppress(av.FFmpegError):  # a damaged packet; a later one may be whole
                for frame in stream.decode(packet):
                    first = first or frame
                    count, interlaced = count + 1, interlaced or frame.interlaced_frame
            if count >= LOOKED_AT:
                break
    return first, interlaced


def _source_colour(frame: av.VideoFrame, source: Source) -> Colour:
    """The frame's own tags, or for what is untagged what players assume at this size.

    Reference: mpv's rules (mp_colorspace_merge): BT.601 up to 576 lines and below 1280 columns, BT.709 above;
    primaries by the number of lines.
    """
    large = frame.width >= 1280 or frame.height > 576
    matrix, primaries, transfer = int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)
    if is_rgb(frame.format) or (matrix in UNSPECIFIED_TAGS and large):
        matrix = BT709
    elif matrix in UNSPECIFIED_TAGS:
        matrix = BT470BG if frame.height == 576 else SMPTE170M
    if matrix not in LUMA_SHARES:
        raise UpscaleError(f"{source}: its colour matrix (number {matrix}) is not supported; convert it to BT.709")
    if primaries in UNSPECIFIED_TAGS:
        standard = {576: ColorPrimaries.BT470BG, 480: ColorPrimaries.SMPTE170M, 486: ColorPrimaries.SMPTE170M}
        primaries = ColorPrimaries.BT709 if large else standard.get(frame.height, ColorPrimaries.BT709)
    if transfer in UNSPECIFIED_TAGS:
        transfer = ColorTrc.BT709
    name = frame.format.name
    # FFmpeg reads grey pictures in full range whatever their tag.
    full_range = frame.color_range == ColorRange.JPEG or name.startswith(("yuvj", "gray")) or is_rgb(frame.format)
    return Colour(matrix, int(primaries), int(transfer), full_range)


def _source_notices(frame: av.VideoFrame, stream: av.video.stream.VideoStream) -> Iterator[str]:
    has_alpha = any(part.is_alpha for part in frame.format.components)
    # VP8 and VP9 keep it beside the pictures, where the decoder does not look.
    beside = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    if beside or (has_alpha and frame.reformat(format="rgba").to_ndarray()[..., 3].min() < 255):
        yield "the video's transparency is not kept"
    lost = {what for data in frame.side_data if (what := WITHIN_PICTURES.get(data.type.name))}
    for what in sorted(lost):
        yield f"the video's {what}, which lie within its pictures, are not kept"


def _mastering(frame: av.VideoFrame) -> Mastering | None:
    """The frame's AVMasteringDisplayMetadata and AVContentLightMetadata, which the library hands out as bytes."""
    data = {data.type.name: bytes(data) for data in frame.side_data}
    primaries = luminance = light = None
    if display := data.get("MASTERING_DISPLAY_METADATA"):
        *terms, has_primaries, has_luminance = struct.unpack("=22i", display)
        numbers = [Fraction(top, bottom or 1) for top, bottom in zip(terms[::2], terms[1::2], strict=True)]
        primaries = tuple(numbers[:8]) if has_primaries else None
        luminance = (numbers[8], numbers[9]) if has_luminance else None
    if level := data.get("CONTENT_LIGHT_LEVEL"):
        light = struct.unpack("=2I", level)
    return Mastering(primaries, luminance, light) if primaries or luminance or light else None


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return struct.unpack("=9i", bytes(data))
    return None
