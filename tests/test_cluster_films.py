"""A film made by several workers is the film that one machine makes, whoever made which segment."""

import os
import signal
import threading

import av
import pytest

from sa_upscale import media, processors, video
from sa_upscale.cluster import films, processes, setup
from sa_upscale.cluster.pool import Done, Seat, Team
from sa_upscale.errors import UpscaleError
from tests.clips import Clip, Nearest, make, upscale
from tests.test_cluster import alive

FRAMES, SEGMENT = 130, 24
DIED = ": the worker died; another takes its place"


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(video, "length_for", lambda info: SEGMENT)


@pytest.fixture
def clip(tmp_path):
    """Changing colours, with a cut shortly after a segment has begun."""
    colours = [((3 * i) % 90, (2 * i) % 60, 40 if i < 2 * SEGMENT + 2 else 250) for i in range(FRAMES)]
    return make(tmp_path / "clip.mp4", Clip(colours, audio=1, options={"crf": "4", "g": "20", "bf": "2"}))


def decoded(path):
    with av.open(str(path)) as container:
        return [(frame.pts, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]


class NearestWorker(films.FilmWorker):
    """A film worker whose network repeats pixels."""

    def __init__(self, window=5):
        self._place = setup.Place(setup.Setup("nearest", {}), setup.Share("cpu", 1))
        self._engines = [Nearest(window=window)]
        self._stopping = threading.Event()


class Backwards:
    """Stands in for the team: one worker here, which does the last segments first; `failing` ones fail."""

    def __init__(self, window=5, failing=(), most=99):
        self.worker, self.failing, self.most, self.numbers = NearestWorker(window), failing, most, []

    def work(self, schedule):
        items = []
        surveyed = False
        while not surveyed:
            surveyed = not schedule._open
            while taken := schedule.take(1):
                items += taken
        for item in reversed(items):
            if len(self.numbers) == self.most:
                raise KeyboardInterrupt
            self.numbers.append(item.number)
            outcome = self.worker._outcome(item.task)
            error = "it is poisoned" if item.number in self.failing else outcome.error
            yield Done(item, "here", outcome.value, error)


def elsewhere(source, target, team, **wishes):
    options = video.Options(encode=media.Wishes(preset="ultrafast", **wishes))
    engine = Nearest(window=team.worker._engines[0].window)
    return video.upscale_file(source, target, engine, scale=2, options=options, elsewhere=films.Workers(team))


@pytest.mark.parametrize("window", [1, 5])
def test_in_any_order_it_is_the_same_film(clip, tmp_path, window):
    whole = upscale(clip, tmp_path / "whole.mp4", Nearest(window=window))
    team = Backwards(window)
    result = elsewhere(clip, tmp_path / "out.mp4", team)
    assert team.numbers == [5, 4, 3, 2, 1, 0]
    assert decoded(result.target) == decoded(whole.target)
    assert (result.frames_in, result.frames_out, result.duration_in) == (FRAMES, FRAMES, whole.duration_in)
    assert result.complete
    assert result.target.read_bytes() == whole.target.read_bytes()


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_machine_with_more_cores_encodes_the_same(clip, tmp_path, monkeypatch, codec):
    options = video.Options(encode=media.Wishes(codec=codec, preset="ultrafast"))
    whole = video.upscale_file(clip, tmp_path / "whole.mp4", Nearest(), scale=2, options=options)
    team, opened = Backwards(window=1), []
    outcome, init = team.worker._outcome, media.Encoder.__init__

    def there(task):
        with monkeypatch.context() as patch:
            patch.setattr(processors, "usable", lambda: frozenset(range(64)))
            patch.setattr(os, "cpu_count", lambda: 64)
            patch.setattr(media.Encoder, "__init__", noted)
            return outcome(task)

    def noted(self, info, encoding, name):
        opened.append(encoding.options["threads"])
        init(self, info, encoding, name)

    team.worker._outcome = there
    result = elsewhere(clip, tmp_path / "out.mp4", team, codec=codec)
    assert result.target.read_bytes() == whole.target.read_bytes()
    # What the encoder takes on this machine when it is told nothing.
    assert set(opened) == {str(films._threads(media.plan(media.probe(clip), whole.target, (128, 96), options.encode)))}


def test_each_segment_looks_at_few_frames_but_its_own(clip, tmp_path):
    team = Backwards()
    elsewhere(clip, tmp_path / "out.mp4", team)
    engine = team.worker._engines[0]
    assert len(engine.windows) == FRAMES
    assert engine.prepared <= FRAMES + 6 * (films.BEFORE + films.AFTER)


def test_what_was_done_is_kept_by_several_and_by_one(clip, tmp_path):
    whole = upscale(clip, tmp_path / "whole.mp4", Nearest(window=5))
    target = tmp_path / "out.mp4"
    with pytest.raises(video.Interrupted, match=r"\d+ frames are kept"):
        elsewhere(clip, target, Backwards(most=3))
    team = Backwards(most=2)
    with pytest.raises(video.Interrupted):
        elsewhere(clip, target, team)
    assert team.numbers == [2, 1]
    last = Backwards()
    result = elsewhere(clip, target, last)
    assert last.numbers == [0]
    assert result.frames_resumed == FRAMES - SEGMENT
    assert decoded(target) == decoded(whole.target)
    target.unlink()
    # The first segments, whoever made them, are kept by one machine too.
    with pytest.raises(UpscaleError, match="segment 4 cannot be made: it is poisoned"):
        elsewhere(clip, target, Backwards(failing=[3]))
    with pytest.raises(UpscaleError, match="segment 1 "):
        elsewhere(clip, target, Backwards(failing=[0]))
    alone = Nearest(window=5)
    result = upscale(clip, target, alone)
    assert decoded(target) == decoded(whole.target)


def test_where_a_jump_leads_astray_all_is_decoded(clip, tmp_path, monkeypatch):
    whole = upscale(clip, tmp_path / "whole.mp4", Nearest(window=5))
    jumps, checksum = [], media.stretches.checksum
    init = media.Stretch.__init__

    def watched(self, *arguments, jump=True, **options):
        jumps.append(jump)
        init(self, *arguments, jump=jump, **options)

    def spoilt(frame):
        return checksum(frame) + (bool(jumps) and jumps[-1])

    monkeypatch.setattr(media.Stretch, "__init__", watched)
    monkeypatch.setattr(media.stretches, "checksum", spoilt)
    result = elsewhere(clip, tmp_path / "out.mp4", Backwards())
    assert jumps == [True, False] * 6
    assert decoded(result.target) == decoded(whole.target)


def test_another_decoder_is_one_line(clip, tmp_path, monkeypatch):
    checksum, stretched = media.stretches.checksum, []
    monkeypatch.setattr(media.stretches, "checksum", lambda frame: checksum(frame) + bool(stretched))
    team = Backwards()
    outcome = team.worker._outcome

    def other(task):
        stretched.append(task)
        return outcome(task)

    team.worker._outcome = other
    with pytest.raises(UpscaleError, match="otherwise than the driver does"):
        elsewhere(clip, tmp_path / "out.mp4", team)


def test_marks_are_of_every_frame_and_a_stretch_finds_its_own(clip):
    info = media.probe(clip)
    with media.Reader(info) as reader:
        frames = list(reader.events())
    with media.Survey(info) as reader:
        marks = list(reader.marks())
        assert (reader.frames, reader.problems) == (FRAMES, [])
    assert [mark.pts for mark in marks] == [frame.pts for frame in frames]
    with media.Stretch(info, media.Part(), marks[100:110]) as reader:
        found = list(reader.events(2))
    assert [frame.pts for frame in found] == [frame.pts for frame in frames[100:110]]
    assert [frame.pixels is None for frame in found] == [True] * 2 + [False] * 8
    assert (found[-1].pixels == frames[109].pixels).all()
    spoilt = [*marks[100:102], media.Mark(marks[102].pts, 0)]
    with media.Stretch(info, media.Part(), spoilt) as reader, pytest.raises(media.Astray):
        list(reader.events())


def made_with_one_killed(crew, source, target):
    """The result of a `crew` whose first worker is killed once a segment is made, what was told, and all its pids."""
    pids, notices, killed = [], [], []

    def told(_):
        if not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    admit = lambda facts: pids.append(facts["pid"])  # noqa: E731
    with Team(crew, admit, lambda segment: str(segment.number), notices.append) as team:
        team.ready(everyone=True)
        options = video.Options(encode=media.Wishes(preset="ultrafast"))
        result = video.upscale_file(
            source,
            target,
            Nearest(window=5),
            scale=2,
            options=options,
            on_progress=told,
            elsewhere=films.Workers(team),
        )
    return result, [line for line in notices if "died" in line], pids


def test_two_processes_one_of_them_killed(clip, tmp_path):
    whole = upscale(clip, tmp_path / "whole.mp4", Nearest(window=5))
    seats = [Seat(number, f"worker {number + 1}") for number in range(2)]
    crew = processes.Processes(seats, NearestWorker, [()] * 2)
    result, deaths, pids = made_with_one_killed(crew, clip, tmp_path / "out.mp4")
    assert [line[len("worker 1") :] for line in deaths] == [DIED]
    assert decoded(result.target) == decoded(whole.target)
    assert not any(map(alive, pids))
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_surveys_do_not_outlive_a_failure(clip, tmp_path):
    before = threading.active_count()
    with pytest.raises(UpscaleError):
        elsewhere(clip, tmp_path / "out.mp4", Backwards(failing=[5]))
    assert threading.active_count() <= before


def test_streams_are_for_one_machine(clip):
    with pytest.raises(UpscaleError, match="leave --engine and --devices out"):
        films.upscale_file(
            setup.Where("processes"),
            media.probe(clip),
            None,
            "compact",
            size=(128, 96),
            options=video.Options(),
            running={},
            on_progress=print,
            on_notice=print,
        )
