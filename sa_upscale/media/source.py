"""Where a video comes from: a file, numbered pictures or a pipe; how it is opened, and gone to a time in."""

import io
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available
from PIL import Image, ImageSequence, UnidentifiedImageError

from sa_upscale.errors import UpscaleError

SEQUENCE_RATE = Fraction(24)  # frames per second of numbered pictures, which do not say it themselves
NUMBER = re.compile(r"%(0?\d*)d")

LOOK_BACK, BEFORE_START = (0, 2, 8, 32, 128), 10  # s


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
