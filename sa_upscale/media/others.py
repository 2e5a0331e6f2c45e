"""What a file holds beside the video that is upscaled."""

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress

import av

from sa_upscale.media.clock import Part, SteadyClock, bounds, ticks, zero
from sa_upscale.media.info import VideoInfo
from sa_upscale.media.source import is_cover, seek

LONGEST_LINE = 60  # s before --start from which on subtitles are looked for that are still on screen
INTERLEAVE_MARGIN = 5  # s after the part's end within which the other streams' packets are still looked for


class Others:
    """The streams of a file beside the video that is upscaled, and its chapters and metadata, cut to `part`."""

    def __init__(self, info: VideoInfo, part: Part | None = None):
        self.info = info
        part = part or Part()
        self._part = part
        self._begin, self._end = bounds(info, part)
        self._container = None if info.source.pipe else info.source.open()

    def __enter__(self) -> "Others":
        return self

    def __exit__(self, *_: object) -> None:
        if self._container is not None:
            self._container.close()

    @property
    def video(self) -> av.video.stream.VideoStream | None:
        """The stream that is upscaled, for what is said of it; None when it comes from a pipe."""
        return None if self._container is None else self._container.streams[self.info.index]

    @property
    def streams(self) -> list[av.stream.Stream]:
        """Every other stream."""
        return [stream for stream in self._all() if stream.index != self.info.index]

    @property
    def metadata(self) -> dict[str, str]:
        return {} if self._container is None else self._container.metadata

    @property
    def clocks(self) -> list[int]:
        """Ticks per second of every stream."""
        return [stream.time_base.denominator for stream in self._all() if stream.time_base]

    def chapters(self) -> list[dict]:
        """The chapters, cut to the part that is read."""
        kept = []
        for chapter in [] if self._container is None else self._container.chapters():
            base = chapter["time_base"]
            start, end = chapter["start"], chapter["end"]
            if self._part:
                first = math.floor(self._begin / base)
                last = end if self._end is None else math.floor(self._end / base)
                if end <= first or start >= last:
                    continue
                start, end = max(start, first) - first, min(end, last) - first
            kept.append({**chapter, "start": start, "end": end})
        return kept

    def cover(self, stream: av.stream.Stream) -> bytes:
        """The file of a cover picture."""
        with self.info.source.open() as container:
            return next(
                (bytes(packet) for packet in container.demux(container.streams[stream.index]) if packet.size), b""
            )

    def packets(self, indices: Iterable[int]) -> Iterator[av.Packet]:
        """The packets of these streams as they lie in the file, their times those of the part; none after damage."""
        indices = set(indices)
        wanted = [stream for stream in self.streams if stream.index in indices]
        if not wanted:
            return
        if self._begin > self.info.origin:
            seek(self._container, self.video, self._begin - LONGEST_LINE)
        clock = SteadyClock(self.info)
        with suppress(av.FFmpegError):  # where the file breaks off; the Reader has said so
            for packet in self._container.demux(*([] if clock.jumps else wanted)):
                if not self._part:
                    clock.place(packet)
                if packet.stream.index not in indices:
                    continue
                stamp = packet.dts if packet.pts is None else packet.pts
                if None not in (self._end, stamp) and stamp * packet.time_base > self._end + INTERLEAVE_MARGIN:
                    return
                if packet.size and self._place(packet, stamp):
                    yield packet

    def _all(self) -> list[av.stream.Stream]:
        return [] if self._container is None else list(self._container.streams)

    def _place(self, packet: av.Packet, stamp: int | None) -> bool:
        """Move a copied packet to the result's own time; False where it lies outside the cut."""
        if stamp is None or is_cover(packet.stream):
            return True
        offset = zero(self.info, self._part, packet.stream)
        if not self._part:
            _move(packet, offset)
            return True
        begin, end = offset, ticks(self._end, packet.stream)
        if end is not None and stamp >= end:
            return False
        if packet.stream.type == "subtitle" and packet.duration and stamp < begin < stamp + packet.duration:
            # A line already on screen when the cut starts stays for the rest of its time.
            packet.duration = stamp + packet.duration - begin
            packet.pts = packet.dts = begin
        elif stamp < begin:
            return False
        _move(packet, begin)
        return True


def _move(packet: av.Packet, by: int) -> None:
    packet.pts = None if packet.pts is None else packet.pts - by
    packet.dts = None if packet.dts is None else packet.dts - by
