"""What can be known of a video before it is read through: its size, its clock, its colours, what it carries."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from sa_upscale.errors import UpscaleError
from sa_upscale.media.colour import LUMA_SHARES, Colour, is_rgb
from sa_upscale.media.source import Source, is_end, video_stream

BT709, BT470BG, SMPTE170M = 1, 5, 6  # values of AVColorSpace and AVColorPrimaries alike
UNSPECIFIED_TAGS = (0, 2, 3)  # reserved, unspecified, reserved
# Data of single pictures that no encoder here takes, by the names of the library.
WITHIN_PICTURES = {
    "A53_CC": "closed captions",
    "DYNAMIC_HDR_PLUS": "HDR10+ data",
    "DOVI_METADATA": "Dolby Vision data",
    "DOVI_RPU_BUFFER": "Dolby Vision data",
}
LOOKED_AT = 8  # frames; films brought to a video rate have progressive ones between the interlaced


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
