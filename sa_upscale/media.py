"""Video files through PyAV: frames in as RGB arrays, frames out with the source's times, tags and other streams.

`probe` looks at a file, `Reader` decodes it, `windows` groups frames around each other, `plan` decides how the
result is encoded, `Writer` encodes and copies everything else, `tally` counts what a finished file holds.

Times are carried as integers in the source's own time base, so that a variable frame rate survives.  Colour is
converted here, by matrices made from the standards: left to itself the library converts every RGB frame with BT.601,
whatever the stream's tag says, rounds full-range chroma down, and puts chroma samples where no decoder looks for them.
"""

import dataclasses
import difflib
import errno
import io
import math
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc, Interpolation

from sa_upscale.errors import UpscaleError

T = TypeVar("T")

# Containers written, by the suffix of the file.  AVI is read only: it has no presentation timestamps to write.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}

# Names people type for what the encoders call themselves.
ALIASES = {
    "h264": "libx264",
    "x264": "libx264",
    "h265": "libx265",
    "hevc": "libx265",
    "x265": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}
DEFAULT_OPTIONS = {
    "libx264": {"crf": "17", "preset": "medium"},
    # x265 otherwise reports its whole configuration on stderr.
    "libx265": {"crf": "18", "preset": "medium", "x265-params": "log-level=error"},
    "libsvtav1": {"crf": "20", "preset": "6"},
    "libvpx-vp9": {"crf": "20", "cpu-used": "3", "row-mt": "1"},
    "prores_ks": {"profile": "3"},
}
HIGHEST_CRF = {"libx264": 51, "libx265": 51, "libsvtav1": 63, "libvpx-vp9": 63}
X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)

# Shares of red and blue in luma, by AVColorSpace; a matrix that is not here cannot be converted.
# Reference: ITU-T H.273, table 4 (MatrixCoefficients).
LUMA_SHARES = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
BT709, BT470BG, SMPTE170M = 1, 5, 6  # values of AVColorSpace and AVColorPrimaries alike
UNSPECIFIED_TAGS = (0, 2, 3)  # reserved, unspecified, reserved
FULL_QUALITY = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)

# Written afresh by the muxer, or wrong once the pictures have another size.
STALE_METADATA = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")
STALE_STATISTICS = ("bps", "number_of_frames", "number_of_bytes", "_statistics_")

FINEST_CLOCK = 10_000_000  # ticks per second; beyond it, players' 32-bit arithmetic is not to be trusted
SEEK_MARGIN = 1  # s before --start: reordered frames of an earlier group may be shown after a later key frame
INTERLEAVE_MARGIN = 5  # s after --duration within which the other streams' packets are still looked for


@dataclass(frozen=True)
class Colour:
    """How samples encode colour, in FFmpeg's numbers: AVColorSpace, AVColorPrimaries, AVColorTransferCharacteristic."""

    matrix: int
    primaries: int
    transfer: int
    full_range: bool


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a file's first real video stream before it is read through.

    `rate` (frames per second), `frames` and `duration` (s) are the container's claims and None where it makes none;
    `origin` (s) is the time at which the file starts; `depth` is in bits per sample; `display_matrix` is FFmpeg's nine
    integers, kept so that a rotated clip stays rotated exactly once; `notices` says what will not come through.
    """

    path: Path
    container: str
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
    sample_aspect: Fraction | None
    display_matrix: tuple[int, ...] | None
    notices: tuple[str, ...] = ()

    @property
    def frame_time(self) -> Fraction:
        """Seconds one frame lasts on average; 1/25 where the container does not say."""
        return 1 / self.rate if self.rate else Fraction(1, 25)


@dataclass(frozen=True)
class Frame:
    """One picture (H, W, 3), full-range RGB, uint8 or (above 8 bits) uint16, and its times in time-base units."""

    pixels: np.ndarray
    pts: int
    duration: int


@dataclass(frozen=True)
class Encoding:
    """How the result is encoded; `width` and `height` are what the pixel format allows, `notices` what was changed."""

    container: str
    codec: str
    options: dict[str, str]
    pixel_format: str
    width: int
    height: int
    colour: Colour
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tally:
    """Shown frames of a finished file, and the seconds at which the first starts and the last one starts and ends."""

    frames: int
    first: Fraction
    last: Fraction
    end: Fraction


# --- reading -------------------------------------------------------------------------------------------------------


def probe(path: Path) -> VideoInfo:
    """Look at a file and decode its first frame: colour tags and rotation are surest there.

    Raises UpscaleError, in one line, for whatever is not a readable video with at least one frame.
    """
    with _open_input(path) as container:
        stream = _video_stream(container, path)
        frame = _first_frame(container, stream)
        if frame is None:
            raise UpscaleError(f"{path}: no frame of its video can be decoded; the file is empty, damaged or encrypted")
        rate = stream.average_rate or stream.guessed_rate or None
        seconds = None
        if stream.duration:
            seconds = stream.duration * stream.time_base
        elif container.duration:
            seconds = Fraction(container.duration, av.time_base)
        return VideoInfo(
            path=path,
            container=container.format.name,
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
            colour=_source_colour(frame, path),
            sample_aspect=stream.sample_aspect_ratio or None,
            display_matrix=_display_matrix(frame),
            notices=tuple(_source_notices(frame)),
        )


class Reader:
    """Decodes one video and hands on the packets of every other stream.

    `start` and `duration` (s, counted from the file's own start) cut a part out and move its times to zero.  After
    `events` has run out, `problems` holds one line for each way in which the file was not whole.
    """

    def __init__(self, info: VideoInfo, *, start: float | None = None, duration: float | None = None):
        self.info = info
        self.trimmed = start is not None or duration is not None
        self.begin = info.origin + _seconds(start or 0, "--start", minimum=0)
        self.end = None if duration is None else self.begin + _seconds(duration, "--duration")
        if start and info.duration is not None and start >= info.duration:
            raise UpscaleError(
                f"{info.path}: --start {start:g} is at or after the end; it lasts {float(info.duration):.2f} s"
            )
        self.problems: list[str] = []
        self.frames = 0
        self.container = _open_input(info.path)
        self.stream = self.container.streams[info.index]
        self.stream.thread_type = "AUTO"  # the library's default decodes with slice threads only
        self._damaged = 0
        self._bumped = 0

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def total(self) -> int | None:
        """How many frames `events` will probably give; None where the container gives no clue."""
        info = self.info
        if not self.trimmed or info.rate is None or info.duration is None:
            return None if self.trimmed else info.frames
        end = info.origin + info.duration if self.end is None else min(self.end, info.origin + info.duration)
        return max(1, round((end - self.begin) * info.rate))

    def others(self) -> list[av.stream.Stream]:
        """Every stream but the one that is upscaled."""
        return [stream for stream in self.container.streams if stream.index != self.info.index]

    def chapters(self) -> list[dict]:
        """The chapters, cut to the part that is read."""
        kept = []
        for chapter in self.container.chapters():
            base = chapter["time_base"]
            start, end = chapter["start"], chapter["end"]
            if self.trimmed:
                first = math.floor(self.begin / base)
                last = end if self.end is None else math.floor(self.end / base)
                if end <= first or start >= last:
                    continue
                start, end = max(start, first) - first, min(end, last) - first
            kept.append({**chapter, "start": start, "end": end})
        return kept

    def events(self, copied: Iterable[int] = ()) -> Iterator[Frame | av.Packet]:
        """Frames in order of presentation, and between them the packets of the streams in `copied` as they come."""
        copied = set(copied)
        wanted = [s for s in self.container.streams if s.index == self.info.index or s.index in copied]
        if self.begin > self.info.origin:
            self._seek()
        yield from self._read(wanted)
        if self._damaged:
            self.problems.append(f"{self._damaged} damaged part(s) of the video could not be decoded cleanly")
        if self._bumped:
            self.problems.append(f"{self._bumped} frame(s) had a time no later than the one before; moved by a tick")
        if not self.frames and self.trimmed:
            raise UpscaleError(f"{self.info.path}: --start and --duration leave no frame")

    def _read(self, wanted: list[av.stream.Stream]) -> Iterator[Frame | av.Packet]:
        begin, end = self._ticks(self.begin, self.stream), self._ticks(self.end, self.stream)
        previous: int | None = None
        packets, furthest, finished = 0, Fraction(0), False
        for packet in self._demux(wanted):
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is not None:
                furthest = max(furthest, (stamp + (packet.duration or 0)) * packet.time_base)
                if finished and stamp * packet.time_base > self.end + INTERLEAVE_MARGIN:
                    return
            if packet.stream.index != self.info.index:
                if packet.size and self._place(packet, stamp):
                    yield packet
                continue
            packets += not _is_end(packet)
            for decoded in () if finished else self._decode(packet):
                pts = self._time(decoded, previous)
                previous = pts
                if end is not None and pts >= end:
                    finished = True
                    break
                if not self.trimmed or pts >= begin:
                    self.frames += 1
                    self._damaged += decoded.is_corrupt
                    offset = begin if self.trimmed else 0
                    yield Frame(to_rgb(decoded, self.info), pts - offset, decoded.duration or 0)
        if not self.trimmed:
            self._compare_with_header(packets, furthest)

    def _seek(self) -> None:
        # A container without an index cannot seek; reading from the start then gives the same frames, later.
        with suppress(av.FFmpegError):
            target = max(self.begin - SEEK_MARGIN, self.info.origin)
            self.container.seek(math.floor(target / self.info.time_base), stream=self.stream)

    def _demux(self, wanted: list[av.stream.Stream]) -> Iterator[av.Packet]:
        """Packets to the end, or to where the file breaks off; the last one always empties the decoder."""
        try:
            yield from self.container.demux(wanted)
        except av.FFmpegError as error:
            self.problems.append(f"the file cannot be read to its end ({error.strerror})")
            flush = av.Packet()
            flush.stream = self.stream
            flush.time_base = self.info.time_base
            yield flush

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        if not packet.size and not _is_end(packet):
            return []  # AVI and Theora say "the same picture again" so; the decoder would take it for the end
        try:
            return self.stream.decode(packet)
        except av.FFmpegError:
            # After a seek the first packets may lean on pictures from before it; nothing of the cut is lost by that.
            self._damaged += not self.trimmed or self.frames > 0
            return []

    def _time(self, frame: av.VideoFrame, previous: int | None) -> int:
        """The frame's timestamp; where the container has none (AVI) the decoder's, else one frame after the last."""
        pts = frame.dts if frame.pts is None else frame.pts
        if pts is None:
            step = max(1, round(self.info.frame_time / self.info.time_base))
            return self._ticks(self.info.origin, self.stream) if previous is None else previous + step
        if previous is not None and pts <= previous:
            # Encoders and containers demand rising times; a frame is worth more than its exact place.
            self._bumped += 1
            return previous + 1
        return pts

    def _place(self, packet: av.Packet, stamp: int | None) -> bool:
        """Move a copied packet to the cut's own time; False where it lies outside the cut."""
        if not self.trimmed or stamp is None or _is_cover(packet.stream):
            return True
        begin, end = self._ticks(self.begin, packet.stream), self._ticks(self.end, packet.stream)
        if end is not None and stamp >= end:
            return False
        if packet.stream.type == "subtitle" and packet.duration and stamp < begin < stamp + packet.duration:
            # A line already on screen when the cut starts stays for the rest of its time.
            packet.duration = stamp + packet.duration - begin
            packet.pts = packet.dts = begin
        elif stamp < begin:
            return False
        packet.pts = None if packet.pts is None else packet.pts - begin
        packet.dts = None if packet.dts is None else packet.dts - begin
        return True

    def _compare_with_header(self, packets: int, furthest: Fraction) -> None:
        """Note frames that the container's header or index promises but the file no longer holds."""
        container = self.info.container
        end = None
        if "mov" in container:
            promised = len(self.stream.index_entries)
            if packets < promised:
                self.problems.append(f"the file is cut off: {packets} of {promised} frames are there")
        elif container == "avi":
            # Its header counts ticks, pictures that stay included.
            end = self.info.origin + self.stream.frames * self.stream.time_base
        elif "matroska" in container and self.container.duration:
            end = self.info.origin + Fraction(self.container.duration, av.time_base)
        if end is not None and end - furthest > max(Fraction(1, 10), 2 * self.info.frame_time):
            self.problems.append(f"the file is cut off: it ends at {float(furthest):.2f} s of {float(end):.2f} s")

    @staticmethod
    def _ticks(seconds: Fraction | None, stream: av.stream.Stream) -> int | None:
        return None if seconds is None else math.ceil(seconds / stream.time_base)


def windows(frames: Iterable[T], size: int, is_cut: Callable[[T, T], bool] | None = None) -> Iterator[list[T]]:
    """For every frame the `size` frames around it, itself in the middle, at most `size` held at a time.

    Beyond the first and the last frame the outermost one is repeated.  `is_cut(before, after)` says whether a new shot
    starts between two neighbours; no window reaches across such a cut.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a window needs an odd number of frames, not {size}")
    reach = size // 2
    recent: deque[T] = deque(maxlen=size)  # the latest frames of this shot
    waiting = 0  # how many of them still wait for their own window
    for frame in frames:
        if is_cut is not None and recent and is_cut(recent[-1], frame):
            yield from _last_windows(recent, waiting, reach)
            recent.clear()
            waiting = 0
        recent.append(frame)
        waiting += 1
        if waiting > reach:
            yield _around(recent, len(recent) - waiting, reach)
            waiting -= 1
    yield from _last_windows(recent, waiting, reach)


def _last_windows(recent: deque[T], waiting: int, reach: int) -> Iterator[list[T]]:
    for middle in range(len(recent) - waiting, len(recent)):
        yield _around(recent, middle, reach)


def _around(recent: deque[T], middle: int, reach: int) -> list[T]:
    last = len(recent) - 1
    return [recent[min(max(at, 0), last)] for at in range(middle - reach, middle + reach + 1)]


# --- writing -------------------------------------------------------------------------------------------------------


def plan(
    info: VideoInfo,
    target: Path,
    scale: float,
    *,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
) -> Encoding:
    """Decide encoder, options, pixel format and size of the upscaled video.

    10-bit sources stay 10-bit where the encoder can.  Raises UpscaleError for an unknown container or codec, or an
    option the codec does not have.
    """
    container = CONTAINERS.get(target.suffix.lower())
    if container is None:
        raise UpscaleError(f"{target}: cannot write this kind of file; use {', '.join(CONTAINERS)}")
    encoder = _encoder(codec or ("libvpx-vp9" if container == "webm" else "libx264"))
    if encoder.name not in _muxer_codecs(container):
        hint = "choose another --codec" if container == "matroska" else "choose another --codec or write an .mkv"
        raise UpscaleError(f"{target}: a {target.suffix} file cannot hold {encoder.name}; {hint}")
    notices = []
    pixel_format = _pixel_format(encoder, info.depth)
    if max(part.bits for part in av.VideoFormat(pixel_format).components) < min(info.depth, 10):
        notices.append(f"{encoder.name} encodes 8 bits; the source's {info.depth} are reduced")
    exact = round(info.width * scale), round(info.height * scale)
    width, height = even_size(*exact, pixel_format)
    if (width, height) != exact:
        notices.append(f"{exact[0]}x{exact[1]} made {width}x{height}: {pixel_format} needs even numbers of pixels")
    return Encoding(
        container=container,
        codec=encoder.name,
        options=_options(encoder, crf, preset),
        pixel_format=pixel_format,
        width=width,
        height=height,
        colour=_target_colour(info),
        notices=tuple(notices),
    )


def even_size(width: int, height: int, pixel_format: str) -> tuple[int, int]:
    """The largest size up to this one whose sides the pixel format's chroma samples divide evenly."""
    form = av.VideoFormat(pixel_format, 8, 8)
    step_x, step_y = 8 // form.chroma_width(8), 8 // form.chroma_height(8)
    return max(step_x, width // step_x * step_x), max(step_y, height // step_y * step_y)


class Writer:
    """Encodes frames and copies packets into one new file; every stream of the source that fits the container is in it.

    Raises UpscaleError when the encoder refuses the settings, or the container an audio stream.  `notices` names what
    else had to stay behind.  `close` finishes the file; `abandon` lets go of it as it is.
    """

    def __init__(self, path: Path, reader: Reader, encoding: Encoding, *, target: Path | None = None):
        self.name = path if target is None else target  # what messages call the file
        self.encoding = encoding
        self.notices: list[str] = []
        self._copies: dict[int, av.stream.Stream] = {}
        self._last_dts: dict[int, int] = {}
        self._durations: dict[int, int] = {}
        self._time_base = reader.info.time_base
        with _write_errors(self.name):
            self._container = av.open(
                _address(path),
                "w",
                format=encoding.container,
                container_options=_container_options(encoding.container, reader),
                metadata_errors="surrogateescape",
            )
            self._add_streams(reader)
            self._container.metadata.update(_lasting(reader.container.metadata))
            self._container.set_chapters(reader.chapters())
        self._open_encoder()
        with _write_errors(self.name):
            self._container.start_encoding()

    @property
    def copied(self) -> set[int]:
        """Indices of the source's streams whose packets `write_packet` takes."""
        return set(self._copies)

    def write_frame(self, frame: Frame) -> None:
        """Encode one upscaled picture (height, width, 3) of the planned size."""
        picture = from_rgb(frame.pixels, self.encoding.pixel_format, self.encoding.colour)
        picture.pts = frame.pts
        picture.time_base = self._time_base
        self._durations[frame.pts] = frame.duration
        with _write_errors(self.name):
            self._mux(self._stream.encode(picture))

    def write_packet(self, packet: av.Packet) -> None:
        """Copy a packet of another stream unchanged but for its time base."""
        stream = self._copies[packet.stream.index]
        if packet.dts is not None:
            last = self._last_dts.get(stream.index)
            if last is not None and packet.dts <= last:
                # Muxers refuse a step back in time, which broken recorders write; one tick is not heard.
                packet.dts = last + 1
                packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
            self._last_dts[stream.index] = packet.dts
        packet.stream = stream
        with _write_errors(self.name):
            self._container.mux(packet)

    def close(self) -> None:
        """Empty the encoder, write the index, and put everything on the disk."""
        with _write_errors(self.name):
            self._mux(self._stream.encode(None))
            self._container.close()

    def abandon(self) -> None:
        """Close the file without caring what is in it, so that it can be removed."""
        with suppress(av.FFmpegError, OSError):
            self._container.close()

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            # Encoders drop the durations, and with them how long the last picture of a clip stays.
            packet.duration = self._durations.pop(packet.pts, 0)
            self._container.mux(packet)

    def _add_streams(self, reader: Reader) -> None:
        for stream in reader.container.streams:
            if stream.index == reader.info.index:
                self._stream = self._add_video(reader.info, stream)
            elif _can_hold(self.encoding.container, stream):
                copy = self._container.add_stream_from_template(stream, opaque=True)
                copy.disposition = stream.disposition
                copy.metadata.update(_lasting(stream.metadata))
                self._copies[stream.index] = copy
            elif stream.type == "audio":
                raise UpscaleError(
                    f"{self.name}: a {self.name.suffix} file cannot hold the source's {_codec_name(stream)} audio;"
                    " write an .mkv"
                )
            elif not _is_chapter_track(stream, reader):
                self.notices.append(
                    f"stream {stream.index} ({stream.type}, {_codec_name(stream)}) left out:"
                    f" {self.name.suffix} cannot hold it"
                )

    def _add_video(self, info: VideoInfo, source: av.video.stream.VideoStream) -> av.video.stream.VideoStream:
        encoding, colour = self.encoding, self.encoding.colour
        stream = self._container.add_stream(
            encoding.codec,
            rate=info.rate or 25,  # only a hint for rate control: every frame brings its own time
            options=encoding.options,
            width=encoding.width,
            height=encoding.height,
            time_base=info.time_base,
        )
        stream.time_base = info.time_base
        context = stream.codec_context
        context.pix_fmt = encoding.pixel_format
        context.colorspace = colour.matrix
        context.color_primaries = colour.primaries
        context.color_trc = colour.transfer
        context.color_range = _range(colour)
        if info.sample_aspect:
            context.sample_aspect_ratio = info.sample_aspect
        if encoding.codec == "libx265" and encoding.container in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # the tag under which Apple's players accept HEVC
        if info.display_matrix is not None:
            stream.set_display_matrix(info.display_matrix)
        stream.disposition = source.disposition
        stream.metadata.update(_lasting(source.metadata))
        return stream

    def _open_encoder(self) -> None:
        encoding = self.encoding
        if encoding.codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # it reports on stderr; errors only
        try:
            self._stream.codec_context.open()
        except (av.FFmpegError, ValueError) as error:
            options = " ".join(f"{key}={value}" for key, value in encoding.options.items())
            raise UpscaleError(
                f"{self.name}: {encoding.codec} refuses {encoding.width}x{encoding.height} {encoding.pixel_format}"
                f" with {options or 'its defaults'} ({getattr(error, 'strerror', None) or error});"
                " try another --codec or a smaller scale"
            ) from None


def tally(path: Path) -> Tally:
    """Count the pictures of a finished file and find when they start and end, without decoding them."""
    frames = 0
    first = last = end = None
    with _open_input(path) as container:
        stream = _video_stream(container, path)
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard or packet.pts is None:
                continue
            frames += 1
            first = packet.pts if first is None else min(first, packet.pts)
            last = packet.pts if last is None else max(last, packet.pts)
            stop = packet.pts + (packet.duration or 0)
            end = stop if end is None else max(end, stop)
        base = stream.time_base
    return Tally(frames, *(Fraction(0) if at is None else at * base for at in (first, last, end)))


# --- colour --------------------------------------------------------------------------------------------------------


def to_rgb(frame: av.VideoFrame, info: VideoInfo) -> np.ndarray:
    """The frame as (H, W, 3) RGB in full range, uint8, or uint16 where the source has more than 8 bits.

    Always of the size `info` names: a stream that changes size in the middle is brought back to its first one.
    """
    deep = info.depth > 8
    if _is_rgb(frame.format):
        form = "rgb48le" if deep else "rgb24"
        picture = frame.reformat(info.width, info.height, form, interpolation=FULL_QUALITY)
        return np.ascontiguousarray(picture.to_ndarray())
    form = "yuv444p16le" if deep else "yuv444p"
    samples = cv2.merge(_planes(_reformat(frame, form, info.colour, info.width, info.height)))
    # The 16-bit format holds deeper samples shifted up to its top bits.
    unit, white = (1 << (16 - info.depth), 65535) if deep else (1, 255)
    matrix, offset = _encoding_matrix(info.colour, info.depth if deep else 8)
    inverse = np.linalg.inv(matrix * unit) * white
    return cv2.transform(samples, np.column_stack([inverse, -inverse @ (offset * unit)]))


def from_rgb(pixels: np.ndarray, pixel_format: str, colour: Colour) -> av.VideoFrame:
    """A frame of `pixel_format` with matrix and range as `colour` says, from (H, W, 3) RGB uint8 or uint16.

    Where chroma is subsampled, its samples sit on every second column and between two rows: the place that MPEG-2,
    H.264 and HEVC give them unless they say otherwise.
    """
    height, width = pixels.shape[:2]
    form = av.VideoFormat(pixel_format, 8, 8)
    steps = 8 // form.chroma_width(8), 8 // form.chroma_height(8)
    bits = 8 if form.components[0].bits == 8 else 10
    matrix, offset = _encoding_matrix(colour, bits)
    matrix /= 255 if pixels.dtype == np.uint8 else 65535
    if bits > 8:
        pixels = pixels.astype(np.uint16, copy=False)
    samples = cv2.transform(pixels, np.column_stack([matrix, offset]))
    kind = np.uint8 if bits == 8 else np.uint16
    if samples.dtype != np.uint8:
        samples = np.minimum(samples, (1 << bits) - 1).astype(kind, copy=False)  # a pure blue rounds up past the end
    luma, *chroma = cv2.split(samples)
    layout = {(2, 2): "420", (2, 1): "422"}.get(steps, "444")
    frame = av.VideoFrame(width, height, f"yuv{layout}p" + ("10le" if bits > 8 else ""))
    for plane, values in zip(_planes(frame), (luma, *(_subsampled(c, layout) for c in chroma)), strict=True):
        plane[:] = values
    frame = _reformat(frame, pixel_format, colour, width, height)
    frame.colorspace = colour.matrix
    frame.color_range = _range(colour)
    frame.color_primaries = colour.primaries
    frame.color_trc = colour.transfer
    return frame


def _encoding_matrix(colour: Colour, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (3, 3) and offset (3,) from RGB in [0, 1] to Y'CbCr codes of `bits` bits.

    Reference: ITU-T H.273, equations 20 to 47 (limited and full range, Y'CbCr from R'G'B').
    """
    red, blue = LUMA_SHARES[colour.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    matrix = np.stack([luma, (np.eye(3)[2] - luma) / (2 - 2 * blue), (np.eye(3)[0] - luma) / (2 - 2 * red)])
    unit, middle, white = 1 << (bits - 8), 1 << (bits - 1), (1 << bits) - 1
    spans = [white] * 3 if colour.full_range else [219 * unit, 224 * unit, 224 * unit]
    black = 0 if colour.full_range else 16 * unit
    return matrix * np.array(spans, float)[:, None], np.array([black, middle, middle], float)


def _subsampled(chroma: np.ndarray, layout: str) -> np.ndarray:
    if layout == "444":
        return chroma
    even = cv2.sepFilter2D(chroma, -1, np.array([0.25, 0.5, 0.25]), np.array([1.0]))[:, ::2]
    if layout == "422":
        return even
    return cv2.resize(even, (even.shape[1], even.shape[0] // 2), interpolation=cv2.INTER_AREA)


def _reformat(frame: av.VideoFrame, form: str, colour: Colour, width: int, height: int) -> av.VideoFrame:
    """Another layout or size of the same Y'CbCr samples; naming one range on both sides keeps them as they are."""
    return frame.reformat(
        width=width,
        height=height,
        format=form,
        src_color_range=_range(colour),
        dst_color_range=_range(colour),
        interpolation=FULL_QUALITY,
    )


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """The planes of a planar frame as arrays that share its memory."""
    kind = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    arrays = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind().itemsize)
        arrays.append(rows[:, : plane.width])
    return arrays


def _range(colour: Colour) -> ColorRange:
    return ColorRange.JPEG if colour.full_range else ColorRange.MPEG


def _is_rgb(form: av.VideoFormat) -> bool:
    return form.is_rgb or form.has_palette


def _source_colour(frame: av.VideoFrame, path: Path) -> Colour:
    """The frame's own tags, or for what is untagged what players assume at this size.

    Reference: mpv's rules (mp_colorspace_merge): BT.601 up to 576 lines and below 1280 columns, BT.709 above;
    primaries by the number of lines.
    """
    large = frame.width >= 1280 or frame.height > 576
    matrix, primaries, transfer = int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)
    if _is_rgb(frame.format) or (matrix in UNSPECIFIED_TAGS and large):
        matrix = BT709
    elif matrix in UNSPECIFIED_TAGS:
        matrix = BT470BG if frame.height == 576 else SMPTE170M
    if matrix not in LUMA_SHARES:
        raise UpscaleError(f"{path}: its colour matrix (number {matrix}) is not supported; convert it to BT.709")
    if primaries in UNSPECIFIED_TAGS:
        standard = {576: ColorPrimaries.BT470BG, 480: ColorPrimaries.SMPTE170M, 486: ColorPrimaries.SMPTE170M}
        primaries = ColorPrimaries.BT709 if large else standard.get(frame.height, ColorPrimaries.BT709)
    if transfer in UNSPECIFIED_TAGS:
        transfer = ColorTrc.BT709
    name = frame.format.name
    # FFmpeg reads grey pictures in full range whatever their tag.
    full_range = frame.color_range == ColorRange.JPEG or name.startswith(("yuvj", "gray")) or _is_rgb(frame.format)
    return Colour(matrix, int(primaries), int(transfer), full_range)


def _target_colour(info: VideoInfo) -> Colour:
    """The source's colour, tagged in full: left open, players would judge the larger picture by another rule."""
    if _is_rgb(av.VideoFormat(info.pixel_format)) or info.pixel_format.startswith("gray"):
        # The source had no Y'CbCr range to keep, and limited is what every player takes right.
        return dataclasses.replace(info.colour, full_range=False)
    return info.colour


def _source_notices(frame: av.VideoFrame) -> Iterator[str]:
    if frame.interlaced_frame:
        yield "the video is interlaced and is upscaled as it is; deinterlace it first for a clean result"
    has_alpha = any(part.is_alpha for part in frame.format.components)
    if has_alpha and frame.reformat(format="rgba").to_ndarray()[..., 3].min() < 255:
        yield "the video's transparency is not kept"
    if {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"} & {data.type.name for data in frame.side_data}:
        yield "the HDR colours and tags are kept; the mastering display's data is not"


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return struct.unpack("=9i", bytes(data))
    return None


# --- small matters -------------------------------------------------------------------------------------------------


def _open_input(path: Path) -> av.container.InputContainer:
    if path.is_dir():
        raise UpscaleError(f"{path} is a folder; name a video file")
    if not path.exists():
        raise UpscaleError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UpscaleError(f"{path} is empty (0 bytes)")
    try:
        container = av.open(_address(path), metadata_errors="surrogateescape")
    except PermissionError:
        raise UpscaleError(f"{path}: no permission to read it") from None
    except (av.FFmpegError, OSError):
        raise UpscaleError(
            f"{path} cannot be read as a video: it is not one, or it is damaged or cut off before its index"
        ) from None
    form = container.format.name
    if form == "tty":
        container.close()
        raise UpscaleError(f"{path} cannot be read as a video: it is a text file")
    if form == "image2" or form.endswith("_pipe"):
        container.close()
        raise UpscaleError(f"{path} is a still picture; use the image command")
    return container


def _address(path: Path) -> str:
    # A relative name such as "take:2.mp4" would be taken for a protocol.
    return str(path.absolute())


def _video_stream(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    """The first video stream that is not a cover picture."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        raise UpscaleError(f"{path} has no video stream")
    if streams[0].codec_context is None:
        raise UpscaleError(f"{path}: its video is in a format that this build of FFmpeg cannot decode")
    return streams[0]


def _first_frame(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> av.VideoFrame | None:
    with suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if not packet.size and not _is_end(packet):
                continue
            with suppress(av.FFmpegError):  # a damaged packet; a later one may be whole
                for frame in stream.decode(packet):
                    return frame
    return None


def _is_end(packet: av.Packet) -> bool:
    """Whether this is the empty packet without a time by which the demuxer says that a stream is over."""
    return not packet.size and packet.pts is None and packet.dts is None


def _is_cover(stream: av.stream.Stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _is_chapter_track(stream: av.stream.Stream, reader: Reader) -> bool:
    """QuickTime files carry their chapters a second time as a text track, which the muxer writes by itself."""
    chapters = reader.container.chapters()
    return (
        stream.type == "data" and "mov" in reader.info.container and bool(chapters) and stream.frames == len(chapters)
    )


def _codec_name(stream: av.stream.Stream) -> str:
    return stream.codec_context.name if stream.codec_context is not None else stream.name or "unknown"


def _can_hold(container: str, stream: av.stream.Stream) -> bool:
    """Whether a file of this kind can hold this stream, found by writing a header with it into memory.

    Asking the muxer by codec alone is not enough: it says yes to some streams whose header it then refuses.
    """
    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        copy = trial.add_stream_from_template(stream, opaque=True)
        copy.disposition = stream.disposition
        copy.metadata.update(stream.metadata)
        trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    finally:
        with suppress(av.FFmpegError):
            trial.close()
    return True


def _container_options(container: str, reader: Reader) -> dict[str, str]:
    """MP4 and QuickTime with the index in front, so that a browser can play before it has everything.

    Their edit lists hold the streams' starts in a clock of their own, by default milliseconds; it is made fine enough
    that every stream starts exactly when it did.
    """
    if container not in ("mp4", "mov"):
        return {}
    clock = math.lcm(*(stream.time_base.denominator for stream in reader.container.streams if stream.time_base))
    if clock > FINEST_CLOCK:
        clock = reader.info.time_base.denominator
    return {"movflags": "+faststart", "movie_timescale": str(max(1000, clock))}


def _muxer_codecs(container: str) -> set[str]:
    return av.open(io.BytesIO(), "w", format=container).supported_codecs


def _encoder(name: str) -> av.Codec:
    """The video encoder of this name or alias; UpscaleError, with near names, when there is none."""
    with suppress(av.codec.codec.UnknownCodecError):
        encoder = av.Codec(ALIASES.get(name, name), "w")
        if encoder.type == "video":
            return encoder
    near = difflib.get_close_matches(name, sorted({*_video_encoders(), *ALIASES}), n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(near)}?" if near else f"try {', '.join(DEFAULT_OPTIONS)}"
    raise UpscaleError(f"--codec {name}: no such video encoder; {hint}")


def _video_encoders() -> Iterator[str]:
    for name in av.codecs_available:
        with suppress(av.codec.codec.UnknownCodecError):
            if av.Codec(name, "w").type == "video":
                yield name


def _options(encoder: av.Codec, crf: int | None, preset: str | None) -> dict[str, str]:
    """The encoder's options, the user's in front of the defaults, checked as far as they are known."""
    options = dict(DEFAULT_OPTIONS.get(encoder.name, {}))
    known = {option.name for option in encoder.create("video").supported_options.private}
    for key, value in (("crf", crf), ("preset", preset)):
        if value is None:
            continue
        if key not in known:
            raise UpscaleError(f"--{key}: {encoder.name} has no such setting; leave it out")
        options[key] = str(value)
    highest = HIGHEST_CRF.get(encoder.name)
    if crf is not None and highest is not None and not 0 <= crf <= highest:
        raise UpscaleError(f"--crf {crf}: {encoder.name} takes 0 (best) to {highest}")
    if preset is not None and encoder.name in ("libx264", "libx265") and preset not in X26X_PRESETS:
        raise UpscaleError(f"--preset {preset}: {encoder.name} takes {', '.join(X26X_PRESETS)}")
    return options


def _pixel_format(encoder: av.Codec, depth: int) -> str:
    """4:2:0 with 8 bits, or 10 for deeper sources; where the encoder has neither, what loses least."""
    wanted = "yuv420p" if depth <= 8 else "yuv420p10le"
    offered = encoder.video_formats
    if offered is None:
        return wanted
    names = [form.name for form in offered if not _is_rgb(form)]
    if not names:
        raise UpscaleError(f"--codec {encoder.name}: it is for RGB pictures, not for video; try libx264")
    best, _ = av.codec.find_best_pix_fmt_of_list(names, wanted)
    return names[0] if best is None else best.name


def _lasting(metadata: dict[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in STALE_METADATA and not key.lower().startswith(STALE_STATISTICS)
    }


def _seconds(value: float, option: str, minimum: float | None = None) -> Fraction:
    """A number of seconds as an exact fraction; a decimal number means what it says, 0.1 is one tenth."""
    if not math.isfinite(value) or (value <= 0 if minimum is None else value < minimum):
        raise UpscaleError(f"{option} {value:g}: give a number of seconds above zero")
    return Fraction(value).limit_denominator(1_000_000)


@contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    """Turn what libav reports while writing into one line."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        if error.errno == errno.ENOSPC:
            raise UpscaleError(f"{target}: no space left on the disk; free some and start again") from None
        raise UpscaleError(f"{target} cannot be written: {error.strerror or error}") from None
