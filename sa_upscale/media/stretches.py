"""A film read in pieces by several: marks of every frame, by which each piece is known to be the right one."""

import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import av
import numpy as np

from sa_upscale.media.clock import Part
from sa_upscale.media.info import VideoInfo
from sa_upscale.media.reader import SEEK_MARGIN, Frame, Reader
from sa_upscale.media.source import seek


class Mark(NamedTuple):
    """What a frame is known by: its time in time-base units, and a checksum of its samples as decoded."""

    pts: int
    checksum: int


class Astray(Exception):
    """The frames that were read are not those that were marked."""


class Survey(Reader):
    """Runs through a video and marks its frames; no picture is made of them."""

    def marks(self) -> Iterator[Mark]:
        """One for each frame that `events` would give."""
        for frame in self.events(skip=sys.maxsize):
            yield Mark(frame.pts, self._checksum)

    def _shown(self) -> Iterator[av.VideoFrame]:
        for decoded in super()._shown():
            self._checksum = checksum(decoded)
            yield decoded


class Stretch(Reader):
    """Reads the frames of a video that were marked so by a `Survey` of the same part.

    It begins at a key frame before the first of them.  What a decoder shows after a jump may differ from what it shows
    in the course of the film (intra refresh, damage, open groups of pictures): `events` raises `Astray` at the first
    frame that does.  Without `jump` everything before is decoded, too, which is always the same.
    """

    def __init__(
        self, info: VideoInfo, part: Part, marks: Sequence[Mark], *, deinterlace: bool = False, jump: bool = True
    ):
        super().__init__(info, part, deinterlace=deinterlace)
        self._marks, self._jump = marks, jump

    def events(self, skip: int = 0) -> Iterator[Frame]:
        """The marked frames in order of presentation; of the first `skip` only the times."""
        frames = super().events(skip)
        for mark in self._marks:
            frame = next(frames, None)
            if frame is None or (frame.pts, self._checksum) != mark:
                raise Astray
            yield frame

    def _shown(self) -> Iterator[av.VideoFrame]:
        first = self._marks[0].pts + self._zero
        if self._jump:
            seek(self.container, self.stream, first * self.info.time_base - SEEK_MARGIN)
        for decoded in super()._shown():
            if decoded.pts >= first:
                self._checksum = checksum(decoded)
                yield decoded


def checksum(frame: av.VideoFrame) -> int:
    """Of the samples, without what pads the rows to a round length."""
    total = 0
    for number, plane in enumerate(frame.planes):
        parts = [part for part in frame.format.components if part.plane == number]
        used = sum(part.width * -(-part.bits // 8) for part in parts)
        rows = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size].reshape(plane.height, -1)
        total = zlib.crc32(np.ascontiguousarray(rows[:, :used]), total)
    return total
