"""A run that is killed, interrupted or stopped by a full disk goes on, to the same result as one that was not."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from sa_upscale import media, video
from sa_upscale.errors import UpscaleError
from sa_upscale.video import Interrupted

from .clips import Clip, Nearest, make, payload, times, upscale

ROOT = Path(__file__).resolve().parent.parent
FRAMES = 60
SEGMENT = 24  # frames; what clips of 24 frames per second would have 96 of


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(video, "length_for", lambda info: SEGMENT)


@pytest.fixture
def clip(tmp_path):
    colours = [((7 * i) % 200, (3 * i) % 90, 90) for i in range(FRAMES)]
    return make(tmp_path / "clip.mp4", Clip(colours, audio=1, options={"crf": "4", "g": "15", "bf": "2"}))


@pytest.fixture
def whole(clip, tmp_path):
    """What a run gives that nothing disturbs."""
    return upscale(clip, tmp_path / "whole.mp4", Nearest(window=5)).target


def decoded(path):
    with av.open(str(path)) as container:
        return [(frame.pts, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]


class Ending(Nearest):
    """Raises at the frame of this number."""

    def __init__(self, at, error):
        super().__init__(window=5)
        self.at, self.error = at, error

    def run_prepared(self, frames):
        if len(self.windows) == self.at:
            raise self.error
        return super().run_prepared(frames)


def work(target):
    return target.with_name(f".{target.name}.work")


@pytest.mark.parametrize(("at", "kept"), [(SEGMENT + 3, 0), (40, 1), (59, 2)])
def test_a_run_that_ended_goes_on_at_its_segment(clip, whole, tmp_path, at, kept):
    target, notices = tmp_path / "out.mp4", []
    with pytest.raises(RuntimeError, match="the end"):
        upscale(clip, target, Ending(at, RuntimeError("the end")))
    assert not target.exists()
    engine = Nearest(window=5)
    result = upscale(clip, target, engine, on_notice=notices.append)
    # What was given up is at most a segment, and what the encoder had not taken yet.
    assert result.frames_resumed >= SEGMENT * kept
    assert len(engine.windows) == FRAMES - result.frames_resumed
    assert engine.prepared <= len(engine.windows) + video.pipeline.CONTEXT
    assert decoded(target) == decoded(whole)
    assert payload(target, "audio") == payload(clip, "audio")
    assert (result.frames_in, result.frames_out) == (FRAMES, FRAMES)
    assert notices == (
        [f"going on after {result.frames_resumed} frames that are done"] if result.frames_resumed else []
    )
    assert not work(target).exists()


def test_windows_after_a_resumption_hold_the_same_frames(clip, tmp_path, monkeypatch):
    class Watched(Nearest):
        def prepare(self, frame):
            return int(frame[0, 0, 0]) * 1000 + int(frame[0, 0, 1]), frame

    whole, rest = Watched(window=5), Watched(window=5)
    upscale(clip, tmp_path / "whole.mp4", whole)
    with pytest.raises(RuntimeError):
        upscale(clip, tmp_path / "out.mp4", Ending(55, RuntimeError()))
    upscale(clip, tmp_path / "out.mp4", rest)
    assert 0 < len(rest.windows) < FRAMES
    assert rest.windows == whole.windows[-len(rest.windows) :]


def test_a_cut_just_before_the_resumption_is_seen_again(tmp_path):
    colours = [(20, 20, 20) if i < SEGMENT - 1 else (230, 230, 230) for i in range(2 * SEGMENT)]
    source, target = make(tmp_path / "clip.mkv", Clip(colours)), tmp_path / "out.mkv"
    engine = Nearest(window=5)
    upscale(source, tmp_path / "whole.mkv", engine)
    assert engine.windows[SEGMENT] == [SEGMENT - 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, SEGMENT + 2]
    with pytest.raises(RuntimeError):
        upscale(source, target, Ending(2 * SEGMENT - 1, RuntimeError()))
    rest = Nearest(window=5)
    first = SEGMENT - upscale(source, target, rest).frames_resumed
    assert first == 0
    assert [at - video.pipeline.CONTEXT for at in (3, 4, 5)] == [-2, -1, 0]
    assert rest.windows[0] == [4, 4, 5, 6, 7]


def test_a_killed_process_goes_on(clip, whole, tmp_path):
    target = tmp_path / "out.mp4"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sa_upscale import video\n"
        "from tests.clips import Nearest, upscale\n"
        f"video.length_for = lambda info: {SEGMENT}\n"
        "def tell(at): print(at.done, at.segment, flush=True)\n"
        "upscale(Path(sys.argv[1]), Path(sys.argv[2]), Nearest(window=5), on_progress=tell)\n"
    )
    for number in (20, 45):
        command = [sys.executable, "-c", script, str(clip), str(target)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        while int(process.stdout.readline().split()[0]) < number:
            pass
        process.kill()
        process.wait()
        process.stdout.close()
        assert not target.exists()
    result = upscale(clip, target, Nearest(window=5))
    assert decoded(target) == decoded(whole)
    assert result.frames_out == FRAMES


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"crf": 30}, "encoder options"),
        ({"threshold": None}, "scene threshold"),
        ({"start": 0.1}, "part"),
        ({"scale": 1}, "size"),
    ],
)
def test_another_option_starts_afresh_and_says_which(clip, tmp_path, change, word):
    target, notices = tmp_path / "out.mp4", []
    with pytest.raises(RuntimeError):
        upscale(clip, target, Ending(55, RuntimeError()))
    result = upscale(clip, target, Nearest(window=5), on_notice=notices.append, **change)
    assert notices == [f"the unfinished work on out.mp4 had another {word}; starting afresh"]
    assert result.frames_resumed == 0


def test_another_input_or_network_starts_afresh(clip, tmp_path):
    target, notices = tmp_path / "out.mp4", []
    other = Nearest(window=5)
    other.fingerprint = "other"
    with pytest.raises(RuntimeError):
        upscale(clip, target, Ending(55, RuntimeError()))
    with pytest.raises(RuntimeError):
        upscale(clip, target, _with_fingerprint(Ending(55, RuntimeError()), "other"), on_notice=notices.append)
    make(clip, Clip([(9, 9, 9)] * FRAMES, audio=1))
    assert upscale(clip, target, other, on_notice=notices.append).frames_resumed == 0
    assert [notice.split(" had another ")[1] for notice in notices] == [
        "network; starting afresh",
        "input; starting afresh",
    ]


def _with_fingerprint(engine, fingerprint):
    engine.fingerprint = fingerprint
    return engine


def test_no_resume_starts_afresh_without_a_word(clip, whole, tmp_path):
    target, notices = tmp_path / "out.mp4", []
    with pytest.raises(RuntimeError):
        upscale(clip, target, Ending(55, RuntimeError()))
    result = upscale(clip, target, Nearest(window=5), resume=False, on_notice=notices.append)
    assert (result.frames_resumed, notices) == (0, [])
    assert decoded(target) == decoded(whole)


def test_a_segment_that_was_damaged_is_made_again(clip, whole, tmp_path):
    target = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError):
        upscale(clip, target, Ending(59, RuntimeError()))
    segments = sorted(work(target).glob("*.segment"))
    data = bytearray(segments[1].read_bytes())
    data[100] ^= 255
    segments[1].write_bytes(data)
    assert upscale(clip, target, Nearest(window=5)).frames_resumed == SEGMENT
    assert decoded(target) == decoded(whole)


def test_a_full_disk_is_one_line_and_keeps_what_is_done(clip, whole, tmp_path, monkeypatch):
    target = tmp_path / "out.mp4"
    real = media.SegmentFile.write

    def fills(self, chunks):
        # By the file, not by a count: the encoder of a segment is emptied while the next one is begun.
        if chunks and self._file.name.endswith("000002.segment"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, chunks)

    monkeypatch.setattr(media.SegmentFile, "write", fills)
    with pytest.raises(UpscaleError, match="no space left on the disk; free some, and the same command goes on"):
        upscale(clip, target, Nearest(window=5))
    monkeypatch.setattr(media.SegmentFile, "write", real)
    assert upscale(clip, target, Nearest(window=5)).frames_resumed == 2 * SEGMENT
    assert decoded(target) == decoded(whole)


def test_a_disk_that_fills_up_at_the_end_costs_no_second_run(clip, whole, tmp_path, monkeypatch):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"an earlier result")
    real = media.Writer.write

    def fills(self, chunk, dts):
        with media.write_errors(self.name):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(media.Writer, "write", fills)
    with pytest.raises(UpscaleError, match="no space left"):
        upscale(clip, target, Nearest(window=5))
    assert target.read_bytes() == b"an earlier result"
    monkeypatch.setattr(media.Writer, "write", real)
    engine = Nearest(window=5)
    assert upscale(clip, target, engine).frames_resumed == FRAMES
    assert engine.windows == []
    assert decoded(target) == decoded(whole)


@pytest.mark.skipif(os.name == "nt", reason="SIGINT reaches a process differently on Windows")
def test_ctrl_c_finishes_the_frame_and_says_how_to_go_on(clip, whole, tmp_path):
    class Interrupting(Nearest):
        def run_prepared(self, frames):
            if len(self.windows) == 54:
                signal.raise_signal(signal.SIGINT)
                deadline = time.monotonic() + 10  # the interpreter may run the handler a moment later
                while signal.getsignal(signal.SIGINT) is not handler and time.monotonic() < deadline:
                    time.sleep(0.001)
            return super().run_prepared(frames)

    handler = signal.getsignal(signal.SIGINT)
    engine, target = Interrupting(window=5), tmp_path / "out.mp4"
    with pytest.raises(Interrupted, match="interrupted after frame 55; 48 frames are kept, and the same command"):
        upscale(clip, target, engine)
    assert len(engine.windows) == 55
    assert signal.getsignal(signal.SIGINT) is handler
    upscale(clip, target, Nearest(window=5))
    assert decoded(target) == decoded(whole)


def test_segments_join_without_a_seam_in_time(tmp_path):
    stamps = list(np.cumsum(np.random.default_rng(0).integers(1, 900, 3 * SEGMENT)))
    clip = Clip([((7 * i) % 200, 90, 90) for i in range(len(stamps))], pts=[int(stamp) for stamp in stamps])
    source = make(tmp_path / "vfr.mp4", clip)
    result = upscale(source, tmp_path / "out.mp4", codec="libx264", preset="medium")
    assert times(result.target) == times(source)
    with av.open(str(result.target)) as container:
        order = [packet.dts for packet in container.demux(video=0) if packet.size]
    assert order == sorted(set(order))


def test_the_journal_says_what_is_done(clip, tmp_path):
    target = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError):
        upscale(clip, target, Ending(59, RuntimeError()))
    about, *segments = [json.loads(line) for line in (work(target) / "journal.jsonl").read_text().splitlines()]
    assert [entry["frames"] for entry in segments] == [SEGMENT, SEGMENT]
    assert about["network"] == ["nearest"]
    assert about["size"] == [128, 96]
