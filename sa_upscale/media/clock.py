"""The clock of a file: which part of it is wanted, where its zero is, and how steadily it goes."""

import math
from dataclasses import dataclass
from fractions import Fraction

import av

from sa_upscale.errors import UpscaleError
from sa_upscale.media.info import VideoInfo

# Broadcasters' formats count from a moment that means nothing, such as when the station was switched on.
WITHOUT_ZERO = ("mpegts", "mpeg")
BACK, AHEAD = Fraction(1, 2), Fraction(60)  # s; a step further than these is a new clock, not a pause


@dataclass(frozen=True)
class Part:
    """What to take of a video, in seconds from its start: from `start` up to `end` or for `duration`."""

    start: float | None = None
    end: float | None = None
    duration: float | None = None

    def __bool__(self) -> bool:
        return (self.start, self.end, self.duration) != (None, None, None)


class SteadyClock:
    """Takes the jumps out of the times of a transport stream, whose pieces may have been joined without care.

    Where the next packet of a sound or a picture is said to come before the last one, or a minute after it, the clock
    was set anew: from there on all streams are moved so that it goes on where it was.  Other files pass unchanged.
    """

    def __init__(self, info: VideoInfo):
        self.jumps = info.container == "mpegts"
        self._shift = Fraction(0)  # s
        self._next: dict[int, Fraction] = {}

    def place(self, packet: av.Packet) -> av.Packet:
        """The packet, its times moved; to be called for every packet of the file in turn."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if not self.jumps or stamp is None:
            return packet
        stream, base = packet.stream, packet.time_base
        expected = self._next.get(stream.index)
        if expected is not None and not -BACK <= stamp * base + self._shift - expected <= AHEAD:
            self._shift = expected - stamp * base
        by = round(self._shift / base)
        packet.pts = None if packet.pts is None else packet.pts + by
        packet.dts = None if packet.dts is None else packet.dts + by
        if stream.type in ("audio", "video"):
            self._next[stream.index] = (stamp + by + (packet.duration or 0)) * base
        return packet


def zero(info: VideoInfo, part: Part, stream: av.stream.Stream) -> int:
    """What to take from every time of a stream of the file, in its own ticks."""
    if part:
        return ticks(bounds(info, part)[0], stream)
    return math.floor(info.origin / stream.time_base) if info.container in WITHOUT_ZERO else 0


def bounds(info: VideoInfo, part: Part) -> tuple[Fraction, Fraction | None]:
    """The part's first moment and the one after its last (None: to the end), in seconds of the file's own clock."""
    start = _seconds(part.start or 0, "--start", minimum=0)
    if part.start and info.duration is not None and start >= info.duration:
        raise UpscaleError(
            f"{info.source}: --start {part.start:g} is at or after the end; it lasts {float(info.duration):.2f} s"
        )
    if part.end is not None and part.duration is not None:
        raise UpscaleError("--end and --duration say the same thing twice; give one of them")
    end = None if part.end is None else _seconds(part.end, "--end")
    if part.duration is not None:
        end = start + _seconds(part.duration, "--duration")
    if end is not None and end <= start:
        raise UpscaleError(f"--end {part.end:g}: give a time after --start")
    return info.origin + start, None if end is None else info.origin + end


def ticks(seconds: Fraction | None, stream: av.stream.Stream) -> int | None:
    """The first moment of the stream's clock that is not before `seconds`."""
    return None if seconds is None else math.ceil(seconds / stream.time_base)


def _seconds(value: float, option: str, minimum: float | None = None) -> Fraction:
    """A number of seconds as an exact fraction; a decimal number means what it says, 0.1 is one tenth."""
    if not math.isfinite(value) or (value <= 0 if minimum is None else value < minimum):
        raise UpscaleError(f"{option} {value:g}: give a number of seconds above zero")
    return Fraction(value).limit_denominator(1_000_000)
