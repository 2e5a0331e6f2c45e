"""Reading a video: its frames as RGB arrays with their times."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from sa_upscale.errors import UpscaleError
from sa_upscale.media.clock import Part, SteadyClock, bounds, ticks, zero
from sa_upscale.media.colour import to_rgb
from sa_upscale.media.info import VideoInfo
from sa_upscale.media.source import is_end, seek

# What hardware decodes to the same pixels as any other decoder, by the standards.
EXACT_IN_HARDWARE = ("h264", "hevc", "vp9", "av1")
SEEK_MARGIN = 1  # s before --start: reordered frames of an earlier group may be shown after a later key frame


@dataclass(frozen=True)
class Frame:
    """One picture (H, W, 3), full-range RGB, uint8 or (above 8 bits) uint16, and its times in time-base units.

    `pixels` is None for a frame that was only counted.
    """

    pixels: np.ndarray | None
    pts: int
    duration: int


class Reader:
    """Decodes one video.

    `part` is cut out, its first moment becoming time zero.  With `deinterlace` set, interlaced frames are made whole.
    `hardware` is a kind of device to decode on, where it can and comes to the same pixels; `notices` says if not.
    After `events` has run out, `problems` holds one line for each way in which the file was not whole.
    """

    def __init__(
        self, info: VideoInfo, part: Part | None = None, *, deinterlace: bool = False, hardware: str | None = None
    ):
        self.info = info
        part = part or Part()
        self.trimmed = bool(part)
        self.begin, self.end = bounds(info, part)
        self.problems: list[str] = []
        self.frames = 0
        self.last_duration = Fraction(0)  # s
        self._first: int | None = None
        self._last = 0
        self.container = info.source.open(hardware if info.codec in EXACT_IN_HARDWARE else None)
        self.stream = self.container.streams[info.index]
        self.stream.thread_type = "AUTO"  # the library's default decodes with slice threads only
        self.notices: list[str] = []
        if hardware is not None and not self.stream.codec_context.is_hwaccel:
            self.notices.append(f"{info.codec} is decoded on the processor: {hardware} does not do it here")
        self._zero = zero(info, part, self.stream)
        self._filter = Deinterlacer() if deinterlace else None
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

    @property
    def length(self) -> Fraction:
        """Seconds from the first frame that `events` gave to the end of the last one."""
        if self._first is None:
            return Fraction(0)
        return (self._last - self._first) * self.info.time_base + (self.last_duration or self.info.frame_time)

    def events(self, skip: int = 0) -> Iterator[Frame]:
        """Frames in order of presentation; of the first `skip` only the times."""
        if self.begin > self.info.origin:
            seek(self.container, self.stream, self.begin - SEEK_MARGIN)
        info = self.info
        for decoded in self._shown():
            self.frames += 1
            self._damaged += decoded.is_corrupt
            self._first = decoded.pts if self._first is None else self._first
            self._last, self.last_duration = decoded.pts, (decoded.duration or 0) * info.time_base
            pixels = None
            if self.frames > skip:
                pixels = to_rgb(decoded, info.width, info.height, info.depth, info.colour)
            yield Frame(pixels, decoded.pts - self._zero, decoded.duration or 0)
        if self._damaged:
            self.problems.append(f"{self._damaged} damaged part(s) of the video could not be decoded cleanly")
        if self._bumped:
            self.problems.append(f"{self._bumped} frame(s) had a time no later than the one before; moved by a tick")
        if not self.frames and self.trimmed:
            raise UpscaleError(f"{self.info.source}: --start and --end or --duration leave no frame")

    def _shown(self) -> Iterator[av.VideoFrame]:
        """The decoded frames of the part, each with a `pts` later than the one before."""
        begin, end = ticks(self.begin, self.stream), ticks(self.end, self.stream)
        for decoded in self._whole():
            if end is not None and decoded.pts >= end:
                return
            if not self.trimmed or decoded.pts >= begin:
                yield decoded

    def _whole(self) -> Iterator[av.VideoFrame]:
        if self._filter is None:
            yield from self._decoded()
            return
        for decoded in self._decoded():
            yield from self._filter.push(decoded)
        yield from self._filter.finish()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        previous: int | None = None
        packets, furthest = 0, Fraction(0)
        for packet in self._demux():
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is not None:
                furthest = max(furthest, (stamp + (packet.duration or 0)) * packet.time_base)
            packets += not is_end(packet)
            for decoded in self._decode(packet):
                decoded.pts = previous = self._time(decoded, previous)
                yield decoded
        if not self.trimmed:
            self._compare_with_header(packets, furthest)

    def _demux(self) -> Iterator[av.Packet]:
        """Packets to the end, or to where the file breaks off; the last one always empties the decoder."""
        clock = SteadyClock(self.info)
        # A cut is by the file's own clock, and one stream alone does not tell how that of the file goes.
        wanted = () if clock.jumps and not self.trimmed else (self.stream,)
        try:
            for packet in self.container.demux(*wanted):
                placed = packet if wanted else clock.place(packet)
                if packet.stream.index == self.info.index:
                    yield placed
        except av.FFmpegError as error:
            self.problems.append(f"the file cannot be read to its end ({error.strerror})")
            flush = av.Packet()
            flush.stream = self.stream
            flush.time_base = self.info.time_base
            yield flush

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        if not packet.size and not is_end(packet):
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
            return ticks(self.info.origin, self.stream) if previous is None else previous + step
        if previous is not None and pts <= previous:
            # Encoders and containers demand rising times; a frame is worth more than its exact place.
            self._bumped += 1
            return previous + 1
        return pts

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
        elif "matroska" in container:
            end = self._length_in_matroska()
        if end is not None and end - furthest > max(Fraction(1, 10), 2 * self.info.frame_time):
            self.problems.append(f"the file is cut off: it ends at {float(furthest):.2f} s of {float(end):.2f} s")

    def _length_in_matroska(self) -> Fraction | None:
        """When the video ends: by its own tag, or the file's where nothing else is in it that may be longer."""
        if tag := self.stream.metadata.get("DURATION"):
            with suppress(ValueError):
                hours, minutes, seconds = tag.split(":")
                return self.info.origin + 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
        if self.container.duration and len(self.container.streams) == 1:
            return self.info.origin + Fraction(self.container.duration, av.time_base)
        return None


class Deinterlacer:
    """Makes frames whole that hold two moments in alternating rows; frames in and out are equally many.

    What is not marked as interlaced passes unchanged.  Frames come out one call late.
    """

    def __init__(self):
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[int, int, str] | None = None
        self._waiting: deque[av.VideoFrame] = deque()

    def push(self, frame: av.VideoFrame) -> list[av.VideoFrame]:
        """Take a frame; what is whole by now, with the times of the frames that went in."""
        kind = (frame.width, frame.height, frame.format.name)
        done = self.finish() if self._kind not in (None, kind) else []
        if self._graph is None:
            self._graph, self._kind = _bwdif(frame), kind
        self._waiting.append(frame)
        self._graph.vpush(frame)
        return done + self._pull()

    def finish(self) -> list[av.VideoFrame]:
        """The frames still held back."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        done = self._pull()
        self._graph = None
        return done

    def _pull(self) -> list[av.VideoFrame]:
        done = []
        with suppress(av.BlockingIOError, av.EOFError):
            while True:
                whole, given = self._graph.vpull(), self._waiting.popleft()
                whole.pts, whole.duration, whole.time_base = given.pts, given.duration, given.time_base
                done.append(whole)
        return done


def _bwdif(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base, name="in"
    )
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph
