"""What is to be done with a video, and what came of it."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import av

from sa_upscale import __version__, media
from sa_upscale.errors import UpscaleError
from sa_upscale.functional import scenes
from sa_upscale.journal import Journal
from sa_upscale.video import pipeline

if TYPE_CHECKING:
    from sa_upscale.engine import Engine


@dataclass(frozen=True)
class Options:
    """How a video is upscaled, beyond its size.

    `part` is what to take of it, `encode` how the result is encoded.  `threshold` is the difference at which a new shot
    begins (`scenes.cuts`), None for clips of one shot.  With `preview`, the left half of every picture shows the middle
    of the source, the right half the middle of the result.  `resume` goes on with an earlier run that was killed.
    `hardware` is a kind of device to decode on where it can, "cuda" or "videotoolbox"; `tag` is written into the file's
    metadata to say what made it.
    """

    part: media.Part = field(default_factory=media.Part)
    encode: media.Wishes = field(default_factory=media.Wishes)
    threshold: float | None = scenes.CUT
    deinterlace: bool = True
    audio: bool = True
    preview: bool = False
    resume: bool = True
    hardware: str | None = None
    tag: str | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run stands: frames done and to do (None: unknown), frames per second, seconds left, the segment."""

    done: int
    total: int | None
    rate: float
    left: float | None
    segment: int


@dataclass(frozen=True)
class VideoResult:
    """What came of a run: durations in seconds; `complete` is False where part of the source was lost.

    `frames_in` counts the frames decoded, `frames_out` those found in the finished file, `frames_resumed` those that an
    earlier run had made.  `seconds` is how long each kind of work took; the kinds overlap.  `warnings` holds one line
    for each thing that the result lacks; `audio_shift` is how many seconds a sound moved against the pictures at most.
    What is at an address has it as a str.
    """

    source: Path | str
    target: Path | str | None
    width: int
    height: int
    codec: str
    pixel_format: str
    frames_in: int
    frames_out: int
    frames_resumed: int
    duration_in: float
    duration_out: float
    streams_copied: int
    audio_shift: float
    seconds: dict[str, float]
    complete: bool
    warnings: tuple[str, ...]


class Store(Protocol):
    """What is there of a result: `segments.Segments`, or what stands in for them.  `frames` are on the disk."""

    frames: int

    def chunks(self) -> Iterator[media.Chunk]: ...

    def stamps(self) -> list[int]: ...

    def close(self) -> None: ...


class Elsewhere(Protocol):
    """Where the segments are made if not here, one after the other."""

    def store(self, journal: Journal) -> Store:
        """The segments of the journal, to which `render` adds."""

    def render(self, job: "Job", store: Store, length: int) -> tuple[media.Reader, pipeline.Stopwatch]:
        """Make the segments of `length` frames that are not there; a reader that has run through the whole source."""


class Interrupted(UpscaleError):
    """Ctrl-C ended the run; the message says how to go on."""

    exit_code = 130


@dataclass(frozen=True)
class Job:
    """One call of `upscale_file`, its arguments checked."""

    info: media.VideoInfo
    target: Path | None
    engines: Sequence["Engine"]
    encoding: media.Encoding
    options: Options
    on_progress: Callable[[Progress], None]
    on_notice: Callable[[str], None]
    elsewhere: Elsewhere | None

    @property
    def name(self) -> str:
        return "stdout" if self.target is None else str(self.target)


def deinterlaces(info: media.VideoInfo, options: Options) -> bool:
    """Whether frames are made whole before they are upscaled."""
    return info.interlaced and options.deinterlace


def about(job: Job, length: int) -> dict[str, object]:
    """What decides every pixel of the result, in words: a run goes on only with work that agrees in all of it."""
    encoding, options = job.encoding, job.options
    return {
        "version": [__version__, *av.library_versions["libavcodec"]],
        "input": _fingerprint(job.info.source),
        "network": [engine.fingerprint for engine in job.engines],
        "size": [encoding.width, encoding.height],
        "codec": [encoding.container, encoding.codec, encoding.pixel_format],
        "encoder options": encoding.options,
        "colour": dataclasses.astuple(encoding.colour),
        "part": dataclasses.astuple(options.part),
        "scene threshold": options.threshold,
        "deinterlacing": options.deinterlace,
        "preview": options.preview,
        "segment length": length,
    }


def _fingerprint(source: media.Source) -> str:
    """A hash of a file's bytes; of numbered pictures, of their names, sizes and times."""
    if not source.is_sequence:
        with open(source.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256(str(source.rate).encode())
    for file in sorted(source.path.parent.iterdir()):
        if file.suffix == source.path.suffix:
            about = file.stat()
            digest.update(f"{file.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()
