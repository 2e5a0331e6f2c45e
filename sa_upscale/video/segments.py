"""The result of a long run in segments, each of which is on the disk once it is done."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sa_upscale import media
from sa_upscale.journal import Journal

SECONDS = 4  # what is lost at most; a key frame at this distance costs an encoder nearly nothing
FEWEST, MOST = 24, 240  # frames


def length_for(info: media.VideoInfo) -> int:
    """How many frames a segment has."""
    return min(max(FEWEST, round(SECONDS / info.frame_time)), MOST)


class Segments:
    """Takes upscaled frames, encodes them in segments of `length`, and notes in the journal which are on the disk.

    `frames` are there already from an earlier run.  An encoder is emptied while the next one begins, so that the
    network does not wait for it.
    """

    def __init__(self, journal: Journal, info: media.VideoInfo, encoding: media.Encoding, length: int, name: str):
        self._journal = journal
        self._about = info, encoding, name
        self._name = name
        self._length = length
        self._whole = self._check()
        self._encoder: media.Encoder | None = None
        self._file: media.SegmentFile | None = None
        self._count = 0
        self._finishing: Future | None = None
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finish")

    @property
    def frames(self) -> int:
        """Frames that are on the disk."""
        return sum(entry["frames"] for entry in self._journal.entries)

    @property
    def number(self) -> int:
        """The segment being made, from 1."""
        return self._whole + 1

    def write(self, frame: media.Frame) -> None:
        """Take the next frame."""
        with media.write_errors(self._name):
            if self._encoder is None:
                self._encoder = media.Encoder(*self._about)
                self._file = media.SegmentFile(self._path(self._whole))
            self._file.write(self._encoder.encode(frame))
            self._count += 1
            if self._count == self._length:
                self._end()

    def finish(self) -> None:
        """End the last segment; on return all are on the disk."""
        with media.write_errors(self._name):
            if self._count:
                self._end()
            self._wait()

    def close(self) -> None:
        """Let go of a segment that is not whole, and wait for the one that is being finished."""
        self._finisher.shutdown()
        if self._file is not None:
            self._file.abandon()

    def chunks(self) -> Iterator[media.Chunk]:
        """Every encoded picture."""
        for number in range(len(self._journal.entries)):
            yield from media.chunks(self._path(number))

    def stamps(self) -> list[int]:
        """The times of all encoded pictures."""
        return [stamp for number in range(len(self._journal.entries)) for stamp in media.stamps(self._path(number))]

    def _end(self) -> None:
        self._wait()
        self._finishing = self._finisher.submit(self._finish, self._encoder, self._file, self._count)
        self._encoder = self._file = None
        self._count = 0
        self._whole += 1

    def _wait(self) -> None:
        if self._finishing is not None:
            self._finishing.result()
            self._finishing = None

    def _finish(self, encoder: media.Encoder, file: media.SegmentFile, count: int) -> None:
        file.write(encoder.finish())
        self._journal.add({"frames": count, "sha256": file.close()})

    def _check(self) -> int:
        """How many segments of the journal are as they were written; what comes after a damaged one is forgotten."""
        for number, entry in enumerate(self._journal.entries):
            if sha256_of(self._path(number)) != entry["sha256"]:
                self._journal.keep(number)
                break
        return len(self._journal.entries)

    def _path(self, number: int) -> Path:
        return path_of(self._journal.folder, number)


class Stream:
    """Takes upscaled frames and writes each as it comes, for a pipe; nothing is kept."""

    frames = 0
    number = 1

    def __init__(self, writer: media.Writer, encoder: media.Encoder):
        self._writer, self._encoder = writer, encoder

    def write(self, frame: media.Frame) -> None:
        self._put(self._encoder.encode(frame))

    def finish(self) -> None:
        self._put(self._encoder.finish())

    def _put(self, chunks: list[media.Chunk]) -> None:
        for chunk in chunks:
            self._writer.write(chunk, chunk.pts)  # raw pictures are decoded when they are shown


def path_of(folder: Path, number: int) -> Path:
    """Where a segment lies, the first one being number 0."""
    return folder / f"{number:06d}.segment"


def sha256_of(path: Path) -> str | None:
    """The hash of a file, None when it is not there."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
