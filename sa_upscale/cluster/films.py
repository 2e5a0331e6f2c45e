"""A film over several workers: each makes segments, from the frames of its own and those around that they depend on.

The driver runs through the film once without making pictures of it, and marks every frame (`media.Survey`).  A worker
jumps to near its segment, finds the marked frames and encodes what becomes of them exactly as one machine would; the
segments are noted in the same journal and put together by the same code.
"""

import contextlib
import dataclasses
import functools
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sa_upscale import media, processors, upscale, video
from sa_upscale.cluster import claims
from sa_upscale.cluster.pool import Outcome, Report, Seat, Team
from sa_upscale.cluster.schedule import Item, Schedule
from sa_upscale.cluster.setup import Admission, Place, Setup, Share, Weights, Where, crew_for
from sa_upscale.errors import UpscaleError
from sa_upscale.functional import scenes
from sa_upscale.journal import Journal
from sa_upscale.video import pipeline, segments

BEFORE = pipeline.CONTEXT
AFTER = 2 + scenes.FLASH
"""Frames after a segment that its last ones depend on: two in their windows, and what tells a cut from a flash."""


@dataclass(frozen=True)
class Network:
    """What the driver is told of an engine far away."""

    scale: int
    window: int
    fingerprint: str


@dataclass(frozen=True)
class Film:
    """What all segments of a film have in common; `threads` are those that its encoder takes on the driver."""

    info: media.VideoInfo
    encoding: media.Encoding
    options: video.Options
    name: str
    folder: Path
    threads: int
    token: str


@dataclass(frozen=True)
class Segment:
    """`count` frames of a film after the first `skip` of those that are marked."""

    film: Film
    number: int
    skip: int
    count: int
    marks: tuple[media.Mark, ...]


class FilmWorker:
    """Makes segments with networks that are loaded once."""

    def __init__(self, setup: Setup, share: Share, scale: float):
        self._place = Place(setup, share)
        options = self._place.networks(kind="video")
        self._engines = upscale.load_engines(self._place.model, scale, **options)
        self._stopping = threading.Event()

    def facts(self) -> dict:
        engines = [[engine.scale, engine.window, engine.fingerprint] for engine in self._engines]
        return self._place.facts() | {"engines": engines}

    def do(self, tasks: list[Segment]) -> Report:
        return Report([self._outcome(task) for task in tasks], self._place.told())

    def stop(self) -> None:
        self._stopping.set()

    def _outcome(self, segment: Segment) -> Outcome:
        try:
            claims.check(segment.film.folder / claims.TOKEN, segment.film.token)
            return Outcome(self._made(segment))
        # What a tile or a full disk raises is bad for this segment here, not elsewhere or later.
        except (UpscaleError, OSError, MemoryError, RuntimeError) as error:
            return Outcome(error=" ".join(str(error).split()) or type(error).__name__)

    def _made(self, segment: Segment) -> dict:
        for jump in (True, False):
            with contextlib.suppress(media.Astray):
                return self._rendered(segment, jump)
        raise UpscaleError(f"{socket.gethostname()} decodes {segment.film.info.source} otherwise than the driver does")

    def _rendered(self, segment: Segment, jump: bool) -> dict:
        film, options = segment.film, segment.film.options
        deinterlace = video.deinterlaces(film.info, options)
        # Encoders divide pictures by the cores they see.
        with self._place.whole_machine():
            sink = _Sink(film, segments.path_of(film.folder, segment.number))
        try:
            with media.Stretch(film.info, options.part, segment.marks, deinterlace=deinterlace, jump=jump) as reader:
                watch = pipeline.run(
                    reader,
                    sink,
                    self._engines,
                    video.finisher(film.encoding, options),
                    skip=segment.skip,
                    count=segment.count,
                    threshold=options.threshold,
                    on_frame=lambda done: None,
                    stop=self._stopping.is_set,
                )
        finally:
            sink.abandon()
        return {"frames": sink.frames, "sha256": sink.sha256, "seconds": watch.seconds}


class _Sink:
    """Encodes the frames of one segment into a file, which has its name once it is whole and on the disk."""

    def __init__(self, film: Film, path: Path):
        encoding = film.encoding
        if film.threads != _threads(encoding):
            encoding = dataclasses.replace(encoding, options={"threads": str(film.threads), **encoding.options})
        self.frames, self.sha256 = 0, ""
        self._path, self._partial = path, path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        self._name = film.name
        with media.write_errors(self._name):
            self._encoder = media.Encoder(film.info, encoding, film.name)
            self._file = media.SegmentFile(self._partial)

    def write(self, frame: media.Frame) -> None:
        with media.write_errors(self._name):
            self._file.write(self._encoder.encode(frame))
        self.frames += 1

    def finish(self) -> None:
        with media.write_errors(self._name):
            self._file.write(self._encoder.finish())
            self.sha256 = self._file.close()
            os.replace(self._partial, self._path)

    def abandon(self) -> None:
        """Leave no trace of what is not whole."""
        self._file.abandon()
        self._partial.unlink(missing_ok=True)


def _threads(encoding: media.Encoding) -> int:
    """How many threads this encoder takes on this machine; with another number the same pictures are other bytes.

    x264 cuts pictures into as many slices as there are cores.  x265 works on several pictures at once, by the
    machine's cores, whichever of them it may use.

    Reference: x265, `ThreadPool::getFrameThreadsCount`.
    """
    if encoding.codec != "libx265":
        return processors.count()
    there = os.cpu_count() or 1
    return 1 + sum(there >= least for least in (4, 8, 16, 32)) + (there >= 32 and encoding.height > 2000)


class Scattered:
    """The segments of a film, which come in any order; `video.Store` of a film made by several.

    Entries of the journal say which segment they are of; those of one machine are so in turn.
    """

    def __init__(self, journal: Journal):
        self._journal = journal
        self.folder = journal.folder
        self._made: dict[int, dict] = {}
        for place, entry in enumerate(list(journal.entries)):
            number = entry.get("segment", place)
            if segments.sha256_of(segments.path_of(self.folder, number)) == entry["sha256"]:
                self._made[number] = {**entry, "segment": number}
        self._rewrite()

    @property
    def frames(self) -> int:
        return sum(entry["frames"] for entry in self._made.values())

    def __contains__(self, number: int) -> bool:
        return number in self._made

    def __len__(self) -> int:
        return len(self._made)

    def add(self, number: int, made: dict) -> None:
        """Note a segment that is on the disk."""
        self._made[number] = {"segment": number, "frames": made["frames"], "sha256": made["sha256"]}
        self._journal.add(self._made[number])

    def chunks(self) -> Iterator[media.Chunk]:
        for number in sorted(self._made):
            yield from media.chunks(segments.path_of(self.folder, number))

    def stamps(self) -> list[int]:
        return [stamp for number in sorted(self._made) for stamp in media.stamps(segments.path_of(self.folder, number))]

    def close(self) -> None:
        """In the order of the film, so that one machine can go on with the first ones."""
        if self.folder.exists():
            self._rewrite()

    def _rewrite(self) -> None:
        self._journal.entries[:] = [self._made[number] for number in sorted(self._made)]
        self._journal.keep(len(self._made))


class Workers:
    """Where the segments are made: `video.Elsewhere` with the workers of a `team`."""

    def __init__(self, team: Team):
        self._team = team

    def store(self, journal: Journal) -> Scattered:
        return Scattered(journal)

    def render(self, job: video.Job, store: Scattered, length: int) -> tuple[media.Reader, pipeline.Stopwatch]:
        token = uuid.uuid4().hex
        claims.leave_token(store.folder / claims.TOKEN, token)
        source = dataclasses.replace(job.info.source, path=job.info.path.absolute())
        info = dataclasses.replace(job.info, source=source)
        film = Film(info, job.encoding, job.options, job.name, store.folder.absolute(), _threads(job.encoding), token)
        schedule, watch, told = Schedule(), pipeline.Stopwatch(), _Told(job, store.frames)
        stop = threading.Event()
        deinterlace = video.deinterlaces(info, job.options)
        with media.Survey(info, job.options.part, deinterlace=deinterlace) as reader:
            planner = _Planner(film, store, length, job.engines[0].window, schedule)
            with ThreadPoolExecutor(1, "survey") as pool:
                surveying = pool.submit(planner.survey, reader, stop)
                try:
                    for done in self._team.work(schedule):
                        if done.error:
                            raise UpscaleError(f"segment {done.item.number + 1} cannot be made: {done.error}")
                        store.add(done.item.number, done.value)
                        for kind, seconds in done.value["seconds"].items():
                            watch.seconds[kind] += seconds
                        told(store, reader)
                except KeyboardInterrupt:
                    raise pipeline.Interrupted(store.frames) from None
                finally:
                    stop.set()
            surveying.result()
        return reader, watch


class _Planner:
    """Marks the frames of a film, and puts each segment on the schedule once what it depends on is marked."""

    def __init__(self, film: Film, store: Scattered, length: int, window: int, schedule: Schedule):
        self._film, self._store, self._length, self._schedule = film, store, length, schedule
        self._around = (BEFORE, AFTER) if window > 1 else (0, 0)
        self._marks: list[media.Mark] = []

    def survey(self, reader: media.Survey, stop: threading.Event) -> None:
        """Run through the film, and close the schedule at its end, or when that fails."""
        planned = 0
        try:
            for mark in reader.marks():
                if stop.is_set():
                    return
                self._marks.append(mark)
                if len(self._marks) == (planned + 1) * self._length + self._around[1]:
                    self._plan(planned)
                    planned += 1
            while planned * self._length < len(self._marks):
                self._plan(planned)
                planned += 1
        finally:
            self._schedule.close()

    def _plan(self, number: int) -> None:
        if number in self._store:
            return
        before, after = self._around
        begin = number * self._length
        end = min(begin + self._length, len(self._marks))
        first = max(0, begin - before)
        segment = Segment(self._film, number, begin - first, end - begin, tuple(self._marks[first : end + after]))
        self._schedule.add([Item(number, segment.count, segment)])


class _Told:
    """Tells the caller of `video.upscale_file` how far the film is."""

    def __init__(self, job: video.Job, resumed: int):
        self._job, self._resumed, self._began = job, resumed, time.monotonic()

    def __call__(self, store: Scattered, reader: media.Reader) -> None:
        done, total = store.frames, reader.total
        total = None if total is None else max(total, done)
        rate = (done - self._resumed) / max(1e-9, time.monotonic() - self._began)
        left = None if total is None else (total - done) / rate
        self._job.on_progress(video.Progress(done, total, rate, left, len(store)))


def upscale_file(
    where: Where,
    info: media.VideoInfo,
    target: Path | None,
    model: str,
    *,
    size: tuple[int, int],
    options: video.Options,
    running: dict[str, object],
    on_progress: Callable[[video.Progress, Sequence[Seat]], None],
    on_notice: Callable[[str], None],
) -> video.VideoResult:
    """As `video.upscale_file`, there.  `running` are options of `upscale.Networks`.

    The result has the same frames as one machine with that kind of device would give it, whoever made which segment
    and whoever died meanwhile.  Raises `UpscaleError` also for workers that would not make the same frames.
    """
    if info.source.pipe is not None or target is None:
        raise UpscaleError("standard input and output are for one machine; leave --engine and --devices out")
    setup = Setup(model, running, Weights.of(model, travel=where.engine == "ray"))
    crew = crew_for(where, functools.partial(FilmWorker, scale=size[0] / info.width), setup)
    admission = Admission(engines="network or kind of device", libraries="FFmpeg")
    with Team(crew, admission, lambda segment: f"segment {segment.number + 1}", on_notice) as team:
        team.ready()
        return video.upscale_file(
            info,
            target,
            [Network(*told) for told in admission.first["engines"]],
            size=size,
            options=dataclasses.replace(options, hardware=None),
            on_progress=lambda at: on_progress(at, crew.seats),
            on_notice=on_notice,
            elsewhere=Workers(team),
        )
