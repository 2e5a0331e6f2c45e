"""Writing a result: the encoded pictures, and beside them everything else that was in the source's file."""

import io
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from sa_upscale.media.encoding import PIPE, SEQUENCE, Encoding
from sa_upscale.media.info import VideoInfo
from sa_upscale.media.mastering import add_stream
from sa_upscale.media.others import Others
from sa_upscale.media.recode import Attached, Copy, audio_recoder, subtitle_recoder
from sa_upscale.media.segments import Chunk, write_errors
from sa_upscale.media.source import Source, address, is_cover, video_stream

# Written afresh by the muxer, or wrong once the pictures have another size.
STALE_METADATA = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")
STALE_STATISTICS = ("bps", "number_of_frames", "number_of_bytes", "_statistics_")

FINEST_CLOCK = 10_000_000  # ticks per second; beyond it, players' 32-bit arithmetic is not to be trusted


@dataclass(frozen=True)
class Tally:
    """Shown frames of a finished file, and the seconds at which the first starts and the last one starts and ends.

    `sounds` is how long after the first frame the first packet of every sound starts, in seconds.
    """

    frames: int
    first: Fraction
    last: Fraction
    end: Fraction
    sounds: tuple[Fraction, ...] = ()


class Writer:
    """Writes encoded pictures and copied streams into one new file; every stream that fits the container is in it.

    A stream that the container cannot hold is put into another form if it is sound or text, and left out otherwise;
    `notices` says which.  `tag` says in the file's metadata what made it.  Raises UpscaleError when the encoder refuses
    the settings.  `close` finishes the file; `abandon` lets go of it as it is.
    """

    def __init__(
        self,
        file: Path | BinaryIO,
        info: VideoInfo,
        others: Others,
        encoding: Encoding,
        *,
        name: str,
        audio: bool = True,
        tag: str | None = None,
    ):
        self.name = name  # what messages call the file
        self.notices: list[str] = []
        self.damaged = 0  # packets of other streams
        self._info, self._encoding = info, encoding
        self._copies: dict[int, Copy] = {}
        self._first = Fraction(0)
        with write_errors(name):
            self._container = av.open(
                address(file) if isinstance(file, Path) else file,
                "w",
                format=encoding.container,
                container_options=_container_options(encoding, others, info),
                metadata_errors="surrogateescape",
            )
            self._stream = self._add_video(others)
            self._add_others(others, audio)
            self._container.metadata.update(_metadata(encoding, others, tag))
            self._container.set_chapters(others.chapters())
        with write_errors(name):
            self._container.start_encoding()

    @property
    def copied(self) -> set[int]:
        """Indices of the source's streams that are in the file, as they were or in another form."""
        return set(self._copies)

    @property
    def sounds(self) -> tuple[Fraction, ...]:
        """As in `Tally`, by the times that were handed in; of sounds that have a packet."""
        begun = [copy for copy in self._copies.values() if copy.stream.type == "audio" and copy.start is not None]
        return tuple(copy.start - self._first for copy in begun)

    def write(self, chunk: Chunk, dts: int) -> None:
        """Write one encoded picture that is to be decoded at `dts`, in time-base units."""
        packet = av.Packet(chunk.data)
        packet.stream, packet.time_base = self._stream, self._info.time_base
        packet.pts, packet.dts, packet.duration = chunk.pts, dts, chunk.duration
        packet.is_keyframe = chunk.key
        with write_errors(self.name):
            self._container.mux(packet)

    def copy(self, packet: av.Packet) -> None:
        """Write a packet of another stream; one so damaged that the container refuses it is only counted."""
        with write_errors(self.name):
            try:
                self._container.mux(self._copies[packet.stream.index].take(packet))
            except av.InvalidDataError:
                self.damaged += 1

    def assemble(self, chunks: Iterable[Chunk], stamps: list[int], packets: Iterable[av.Packet]) -> None:
        """Write everything, by the time at which it is decoded; `stamps` are the times of all of `chunks`."""
        self._first = min(stamps) * self._info.time_base
        waiting = zip(chunks, decoding_times(stamps), strict=True)
        picture = next(waiting, None)
        for packet in packets:
            stamp = packet.dts if packet.pts is None else packet.pts
            while picture and stamp is not None and picture[1] * self._info.time_base <= stamp * packet.time_base:
                self.write(*picture)
                picture = next(waiting, None)
            self.copy(packet)
        while picture:
            self.write(*picture)
            picture = next(waiting, None)

    def close(self) -> None:
        """Write what recoders still hold, and the index."""
        with write_errors(self.name):
            for copy in self._copies.values():
                self._container.mux(copy.finish())
            self._container.close()

    def abandon(self) -> None:
        """Close the file without caring what is in it, so that it can be removed."""
        with suppress(av.FFmpegError, OSError):
            self._container.close()

    def _add_video(self, others: Others) -> av.video.stream.VideoStream:
        info = self._info
        stream = add_stream(self._container, info, self._encoding, self.name)
        if info.display_matrix is not None:
            stream.set_display_matrix(info.display_matrix)
        if others.video is not None:
            stream.disposition = others.video.disposition
            stream.metadata.update(_lasting(others.video.metadata))
        return stream

    def _add_others(self, others: Others, audio: bool) -> None:
        if self._encoding.container in (SEQUENCE, PIPE):
            if others.streams:
                self.notices.append(f"{len(others.streams)} other stream(s) left out: pictures alone are written")
            return
        for stream in others.streams:
            if (stream.type == "audio" and not audio) or _made_by_muxer(stream, others, self._encoding.container):
                continue
            if is_cover(stream) and self._encoding.container == "matroska":
                self._copies[stream.index] = Attached(self._container, stream, others.cover(stream))
                continue
            copy = self._copy_of(stream)
            if copy is not None:
                copy.stream.disposition = stream.disposition
                copy.stream.metadata.update(_lasting(stream.metadata))
                self._copies[stream.index] = copy
            else:
                self.notices.append(
                    f"stream {stream.index} ({stream.type}, {_codec_name(stream)}) left out:"
                    f" {self._encoding.container} cannot hold it"
                )

    def _copy_of(self, stream: av.stream.Stream) -> Copy | None:
        container = self._encoding.container
        if can_hold(container, stream):
            return Copy(self._container.add_stream_from_template(stream, opaque=True))
        recoder = {"audio": audio_recoder, "subtitle": subtitle_recoder}.get(stream.type, lambda *_: None)
        copy = recoder(self._container, stream)
        if copy is not None:
            self.notices.append(
                f"stream {stream.index} ({stream.type}) made {copy.form}: {container} cannot hold {_codec_name(stream)}"
            )
        return copy


def decoding_times(stamps: list[int]) -> list[int]:
    """A decoding time for each picture, in the order of decoding: rising, and never after the picture's own time.

    As early as the deepest reordering demands and no earlier; by the encoders' own times those of two segments could
    overlap where the frame rate varies.
    """
    order = sorted(stamps)
    rank = {stamp: at for at, stamp in enumerate(order)}
    depth = max((at - rank[stamp] for at, stamp in enumerate(stamps)), default=0)
    step = order[1] - order[0] if len(order) > 1 else 1
    return [order[at - depth] if at >= depth else order[0] - (depth - at) * step for at in range(len(stamps))]


def can_hold(container: str, stream: av.stream.Stream) -> bool:
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


def tally(path: Path) -> Tally:
    """Count the pictures of a finished file and find when they start and end, without decoding them."""
    frames = 0
    first = last = end = None
    sounds: dict[int, Fraction] = {}
    source = Source(path)
    with source.open() as container:
        stream = video_stream(container, source)
        for packet in container.demux(stream, *container.streams.audio):
            if packet.stream.type == "audio" and packet.pts is not None:
                sounds.setdefault(packet.stream.index, packet.pts * packet.time_base)
            if packet.stream.index != stream.index or not packet.size or packet.is_discard or packet.pts is None:
                continue
            frames += 1
            first = packet.pts if first is None else min(first, packet.pts)
            last = packet.pts if last is None else max(last, packet.pts)
            stop = packet.pts + (packet.duration or 0)
            end = stop if end is None else max(end, stop)
        base = stream.time_base
    times = [Fraction(0) if at is None else at * base for at in (first, last, end)]
    return Tally(frames, *times, tuple(sounds[index] - times[0] for index in sorted(sounds)))


def _container_options(encoding: Encoding, others: Others, info: VideoInfo) -> dict[str, str]:
    """MP4 and QuickTime with the index in front, so that a browser can play before it has everything.

    Their edit lists hold the streams' starts in a clock of their own, by default milliseconds; it is made fine enough
    that every stream starts exactly when it did.
    """
    if encoding.container == PIPE:
        return {"strict": "-1"}  # more than 8 bits are an unofficial part of y4m
    if encoding.container == SEQUENCE:
        return {"start_number": str(info.source.first_number)}
    if encoding.container not in ("mp4", "mov"):
        return {}
    clock = math.lcm(info.time_base.denominator, *others.clocks)
    if clock > FINEST_CLOCK:
        clock = info.time_base.denominator
    flags = "+faststart+use_metadata_tags" if _has_own_keys(others.metadata) else "+faststart"
    return {"movflags": flags, "movie_timescale": str(max(1000, clock))}


def _metadata(encoding: Encoding, others: Others, tag: str | None) -> dict[str, str]:
    """The source's, and what made the file, where the container has a place for it that was the user's in no case."""
    metadata = _lasting(others.metadata)
    if tag is None:
        return metadata
    if encoding.container in ("matroska", "webm") or _has_own_keys(metadata):
        return {**metadata, "upscaled_with": tag}
    if encoding.container == "mp4":
        return {**metadata, "encoding_tool": tag}
    return {"comment": tag, **metadata}


def _has_own_keys(metadata: dict[str, str]) -> bool:
    """Whether a phone's maker gave the file keys beyond the common ones, such as com.apple.quicktime.model."""
    return any(key.startswith("com.") for key in metadata)


def _made_by_muxer(stream: av.stream.Stream, others: Others, container: str) -> bool:
    """Whether this is a QuickTime track that the muxer writes by itself, of chapters or of a time code."""
    if stream.type != "data" or "mov" not in others.info.container:
        return False
    chapters = others.chapters()
    is_timecode = "timecode" in stream.metadata and container in ("mp4", "mov")
    return is_timecode or (bool(chapters) and stream.frames == len(chapters))


def _codec_name(stream: av.stream.Stream) -> str:
    return stream.codec_context.name if stream.codec_context is not None else stream.name or "unknown"


def _lasting(metadata: dict[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in STALE_METADATA and not key.lower().startswith(STALE_STATISTICS)
    }
