import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from sa_upscale import media, processors, video
from sa_upscale.engine import Engine
from sa_upscale.errors import UpscaleError
from sa_upscale.media import reader
from sa_upscale.models.compact import Compact
from sa_upscale.models.compact_video import CompactVideo
from sa_upscale.video.threads import Channel, Worker

from .clips import BT601, BT709, BT2020, Clip, Nearest, flat_frame, make, payload, shown, times, upscale

RED = (200, 40, 30)
VFR = [100, 400, 1300, 1301, 2000, 5000, 5512, 9000]
ROOT = Path(__file__).resolve().parent.parent


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if ".work" in path.name or "unchecked" in path.name)


# --- frames and times ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 5])
def test_every_frame_comes_out_once_at_its_own_time(tmp_path, window):
    source = make(tmp_path / "clip.mp4", Clip(pts=VFR))
    engine = Nearest(window=window)
    result = upscale(source, tmp_path / "out.mp4", engine, codec="libx264", preset="medium")
    assert (result.frames_in, result.frames_out, result.complete) == (8, 8, True)
    assert times(result.target) == [Fraction(pts, 12288) for pts in VFR] == times(source)
    assert engine.prepared == 8
    reds = [shown(result.target, index)[0] for index in range(8)]
    assert np.abs(np.array(reds) - [30 + 20 * index for index in range(8)]).max() <= 2.5
    with av.open(str(result.target)) as container:
        order = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert order != sorted(order), "the encoder should have used B-frames"


def test_each_window_holds_the_frames_around_its_own(tmp_path):
    engine = Nearest(window=5)
    upscale(make(tmp_path / "clip.mp4"), tmp_path / "out.mp4", engine)
    expected = [[min(max(at, 0), 7) for at in range(t - 2, t + 3)] for t in range(8)]
    assert engine.windows == expected


def test_frames_of_an_image_network_go_together_where_it_can_take_them(tmp_path):
    class Together(Nearest):
        def __init__(self):
            super().__init__()
            self.batches = []

        def frames_at_once(self, frame):
            return 3

        def run_batch(self, frames):
            self.batches.append(len(frames))
            return [self.run(frame) for frame in frames]

    engine = Together()
    result = upscale(make(tmp_path / "clip.mp4"), tmp_path / "out.mp4", engine)
    assert engine.batches == [3, 3, 2]
    reds = [shown(result.target, index)[0] for index in range(8)]
    assert np.abs(np.array(reds) - [30 + 20 * index for index in range(8)]).max() <= 2.5


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_shortest_clips(tmp_path, count, suffix):
    source = make(tmp_path / f"clip{suffix}", Clip([RED] * count))
    result = upscale(source, tmp_path / f"out{suffix}", Nearest(window=5))
    assert (result.frames_in, result.frames_out) == (count, count)
    assert times(result.target) == times(source)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_every_container_keeps_times_and_length(tmp_path, suffix):
    source = make(tmp_path / "clip.mp4", Clip(pts=VFR))
    result = upscale(source, tmp_path / f"out{suffix}")
    tick = 0 if suffix in (".mp4", ".mov") else 0.0005 + 1e-9  # Matroska counts milliseconds
    drift = [abs(float(b - a)) for a, b in zip(times(source), times(result.target), strict=True)]
    assert max(drift) <= tick
    assert abs(result.duration_out - result.duration_in) <= 1 / 24


def test_avi_is_read(tmp_path):
    clip = Clip(codec="mpeg4", options={"bf": "2", "qscale": "2"}, time_base=Fraction(1, 24))
    source = make(tmp_path / "clip.avi", clip)
    result = upscale(source, tmp_path / "out.mkv")
    assert (result.frames_out, result.complete) == (8, True)
    gaps = np.diff([float(at) for at in times(result.target)])
    assert gaps == pytest.approx(1 / 24, abs=0.001)


def test_a_first_time_below_zero_stays(tmp_path):
    clip = Clip(audio=1, pts=[-1024 + 512 * i for i in range(8)])
    source = make(tmp_path / "clip.mp4", clip)
    result = upscale(source, tmp_path / "out.mp4")
    assert times(result.target) == times(source)
    assert payload(result.target, "audio") == payload(source, "audio")


def test_only_the_part_asked_for(tmp_path):
    source = make(tmp_path / "clip.mp4", Clip(audio=1))
    result = upscale(source, tmp_path / "out.mp4", start=0.125, duration=0.125)
    assert (result.frames_in, result.frames_out) == (3, 3)
    assert times(result.target) == [Fraction(i, 24) for i in range(3)]
    assert abs(shown(result.target)[0] - 90) <= 2.5
    whole = payload(source, "audio")
    part = payload(result.target, "audio")
    assert part == [(at - Fraction(1, 8), data) for at, data in whole if Fraction(1, 8) <= at < Fraction(1, 4)]
    with pytest.raises(UpscaleError, match="after the end"):
        upscale(source, tmp_path / "none.mp4", start=3)


def test_progress_counts_to_the_total(tmp_path):
    seen = []
    upscale(make(tmp_path / "clip.mp4"), tmp_path / "out.mp4", on_progress=lambda at: seen.append((at.done, at.total)))
    assert seen == [(done, 8) for done in range(1, 9)]


# --- everything else in the container ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_sound_is_copied_bit_for_bit_and_in_time(tmp_path, suffix):
    clip = Clip(audio=2, audio_delay=Fraction(1, 50), pts=[500 + 512 * i for i in range(8)])
    source = make(tmp_path / f"clip{suffix}", clip)
    result = upscale(source, tmp_path / f"out{suffix}")
    assert result.streams_copied == 2
    for index in range(2):
        assert len(payload(source, "audio", index)) > 10
        assert payload(result.target, "audio", index) == payload(source, "audio", index)
    with av.open(str(result.target)) as container:
        assert [stream.language for stream in container.streams.audio] == ["eng", "fra"]
        # QuickTime files have no "forced"
        assert [int(stream.disposition) for stream in container.streams.audio] == [1, 0 if suffix == ".mov" else 64]


def test_sound_and_pictures_alternate_in_the_file(tmp_path):
    colours = [((7 * i) % 200, 90, 90) for i in range(72)]
    source = make(tmp_path / "clip.mkv", Clip(colours, audio=1, audio_seconds=3))
    result = upscale(source, tmp_path / "out.mkv")
    with av.open(str(result.target)) as container:
        stamps = [float(packet.dts * packet.time_base) for packet in container.demux() if packet.dts is not None]
    assert max(before - after for before, after in itertools.pairwise(stamps)) < 0.5


def test_subtitles_chapters_and_metadata_are_kept(tmp_path):
    chapters = [
        {"id": 1, "start": 0, "end": 150, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
        {"id": 2, "start": 150, "end": 333, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
    ]
    clip = Clip(subtitles=True, audio=1, chapters=chapters, metadata={"title": "A film", "artist": "Someone"})
    source = make(tmp_path / "clip.mkv", clip)
    result = upscale(source, tmp_path / "out.mkv")
    assert result.warnings == ()
    assert payload(result.target, "subtitle") == payload(source, "subtitle")
    with av.open(str(result.target)) as container:
        assert container.metadata["title"] == "A film"
        found = [(c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]) for c in container.chapters()]
    assert found == [
        (0, Fraction(150, 1000), {"title": "One"}),
        (Fraction(150, 1000), Fraction(333, 1000), {"title": "Two"}),
    ]


def test_chapters_are_cut_with_the_pictures(tmp_path):
    chapters = [
        {"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
        {"id": 2, "start": 100, "end": 333, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
    ]
    source = make(tmp_path / "clip.mkv", Clip(chapters=chapters))
    result = upscale(source, tmp_path / "out.mkv", start=0.125, duration=0.125)
    with av.open(str(result.target)) as container:
        found = [(c["start"] * c["time_base"], c["end"] * c["time_base"]) for c in container.chapters()]
    assert found == [(0, Fraction(125, 1000))]


def test_what_the_container_cannot_hold_is_said(tmp_path):
    source = make(tmp_path / "clip.mkv")
    with_font = tmp_path / "font.mkv"
    with av.open(str(source)) as container, av.open(str(with_font), "w") as target:
        copy = target.add_stream_from_template(container.streams.video[0], opaque=True)
        target.add_attachment("a.ttf", "application/x-truetype-font", b"not really a font")
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    notices = []
    result = upscale(with_font, tmp_path / "out.mp4", on_notice=notices.append)
    assert result.complete
    assert len(notices) == 1
    assert "attachment" in notices[0]
    assert result.warnings == tuple(notices)
    kept = upscale(with_font, tmp_path / "out.mkv")
    with av.open(str(kept.target)) as container:
        assert [stream.data for stream in container.streams if stream.type == "attachment"] == [b"not really a font"]


def test_sound_and_text_the_container_cannot_hold_are_put_into_another_form(tmp_path):
    source = make(tmp_path / "clip.mkv", Clip(audio=2, subtitles=True))
    notices = []
    result = upscale(source, tmp_path / "out.webm", on_notice=notices.append)
    assert [notice.split(":")[0] for notice in notices] == [
        "stream 1 (audio) made libopus",
        "stream 2 (audio) made libopus",
        "stream 3 (subtitle) made webvtt",
    ]
    with av.open(str(result.target)) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["opus", "opus"]
        assert [stream.language for stream in container.streams.audio] == ["eng", "fra"]
    for index, pitch in enumerate((330, 660)):
        wave = _wave(result.target, index)
        spectrum = np.abs(np.fft.rfft(wave[4800:14400]))
        assert np.argmax(spectrum) * 48000 / 9600 == pytest.approx(pitch, abs=5)
        assert len(wave) / 48000 == pytest.approx(0.4, abs=0.03)
    assert payload(result.target, "subtitle") == payload(source, "subtitle")


def _wave(path, index):
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=index)])


def test_subtitles_become_the_text_of_an_mp4(tmp_path):
    source = make(tmp_path / "clip.mkv", Clip(subtitles=True))
    result = upscale(source, tmp_path / "out.mp4")
    assert "made mov_text" in result.warnings[0]
    with av.open(str(result.target)) as container:
        stream = container.streams.subtitles[0]
        assert stream.language == "eng"
        found = [
            (packet.pts * packet.time_base, packet.duration * packet.time_base, bytes(packet)[2:])
            for packet in container.demux(stream)
            if packet.size > 2
        ]
    tenth = Fraction(1, 10)
    assert found == [(Fraction(50, 1000), tenth, b"first line"), (Fraction(180, 1000), tenth, b"second line")]


def test_no_audio_leaves_the_sound_and_keeps_the_rest(tmp_path):
    source = make(tmp_path / "clip.mkv", Clip(audio=1, subtitles=True))
    result = upscale(source, tmp_path / "out.mkv", audio=False)
    with av.open(str(result.target)) as container:
        assert [stream.type for stream in container.streams] == ["video", "subtitle"]
    assert result.warnings == ()


def test_opus_is_copied_into_webm(tmp_path):
    source = make(tmp_path / "clip.webm", Clip(audio=1, codec="libvpx-vp9", options={"crf": "10"}))
    result = upscale(source, tmp_path / "out.webm")
    assert result.codec == "libvpx-vp9"
    assert payload(result.target, "audio") == payload(source, "audio")


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_rotation_is_kept_not_applied(tmp_path, rotation, suffix):
    source = make(tmp_path / "clip.mp4", Clip(rotation=rotation))
    result = upscale(source, tmp_path / f"out{suffix}")
    assert (result.width, result.height) == (128, 96)
    turns = []
    for path in (source, result.target):
        with av.open(str(path)) as container:
            turns.append(next(container.decode(video=0)).rotation % 360)
    assert turns == [rotation, rotation]


def test_pixel_shape_is_kept(tmp_path):
    source = make(tmp_path / "clip.mp4", Clip(sample_aspect=Fraction(64, 45)))
    result = upscale(source, tmp_path / "out.mp4")
    assert media.probe(result.target).sample_aspect == Fraction(64, 45)


# --- colour and size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
def test_colour_survives_decode_encode_decode(tmp_path, matrix, full_range, pixel_format):
    clip = Clip([RED] * 3, matrix=matrix, full_range=full_range, pixel_format=pixel_format)
    result = upscale(make(tmp_path / "clip.mp4", clip), tmp_path / "out.mp4")
    after = media.probe(result.target)
    assert (after.colour.matrix, after.colour.full_range) == (matrix, full_range)
    assert after.depth == (10 if pixel_format.endswith("10le") else 8)
    assert np.abs(shown(result.target) - RED).max() <= 2


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
def test_untagged_colour_means_the_same_at_the_larger_size(tmp_path, pixel_format):
    """A small clip without tags is BT.601; its result would be taken for BT.709 if it did not say otherwise."""
    clip = Clip([RED] * 2, 320, 240, matrix=None, pixel_format=pixel_format)
    assert int(flat_frame(clip, RED).colorspace) == 2
    result = upscale(make(tmp_path / "clip.mp4", clip), tmp_path / "out.mp4", Nearest(4), scale=4)
    assert (result.width, result.height) == (1280, 960)
    assert media.probe(result.target).colour.matrix == BT601
    assert np.abs(shown(result.target) - RED).max() <= 2


@pytest.mark.parametrize("scale", [1, 1.5, 2, 2.7, 3, 4])
def test_any_scale_down_from_the_networks_own(tmp_path, scale):
    source = make(tmp_path / "clip.mp4", Clip([RED]))
    result = upscale(source, tmp_path / "out.mp4", Nearest(4), scale=scale)
    expected = [round(64 * scale) // 2 * 2, round(48 * scale) // 2 * 2]
    assert [result.width, result.height] == expected
    assert np.abs(shown(result.target) - RED).max() <= 2


def test_two_networks_one_after_the_other(tmp_path):
    first, second = Nearest(4, window=5), Nearest(2)
    result = upscale(make(tmp_path / "clip.mp4", Clip([RED])), tmp_path / "out.mp4", [first, second], scale=6)
    assert (result.width, result.height) == (384, 288)
    assert first.prepared == 1


def test_odd_sizes_lose_one_row_not_their_sharpness(tmp_path):
    source = make(tmp_path / "odd.mkv", Clip([RED], 31, 23, pixel_format="yuv444p"))
    notices = []
    result = upscale(source, tmp_path / "out.mp4", Nearest(3), scale=3, on_notice=notices.append)
    assert (result.width, result.height) == (92, 68)
    assert "93x69" in notices[0]


def test_fit_cuts_one_row_and_averages_more():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (video.fit(stripes, 7, 8) == stripes[:, :7]).all()
    assert (video.fit(stripes, 4, 4) == 100).all()
    deep = np.full((8, 8, 3), 51_400, np.uint16)
    assert (video.fit(deep, 5, 5) == 51_400).all()


@pytest.mark.parametrize(("size", "scale"), [((64, 48), 4), ((1024, 48), 4), ((1026, 48), 2), ((48, 1026), 2)])
def test_default_scale_stays_within_4096(tmp_path, size, scale):
    assert video.default_scale(media.probe(make(tmp_path / "clip.mkv", Clip([RED], *size)))) == scale


def test_where_the_result_goes(tmp_path):
    def where(source, output, scale, **options):
        return video.target_for(media.Source(Path(source)), output, scale, **options)

    assert where("a/clip.mp4", None, 4) == Path("a/clip_x4.mp4")
    assert where("clip.avi", None, 2.5) == Path("clip_x2.5.mkv")
    assert where("a/clip.mp4", tmp_path, 2.0) == tmp_path / "clip_x2.mp4"
    assert where("a/clip.mp4", tmp_path / "b.mkv", 2) == tmp_path / "b.mkv"
    assert where("a/dance.gif", None, 4) == Path("a/dance_x4.mp4")
    assert where(tmp_path / "frames" / "%04d.png", None, 4) == tmp_path / "frames_x4.mp4"
    assert where("a/clip.mp4", None, 4, preview=True) == Path("a/clip_preview.mp4")


# --- failures ------------------------------------------------------------------------------------------------------


class Broken(Nearest):
    """Fails at the third frame with what it is given."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def run_prepared(self, frames):
        if len(self.windows) == 2:
            raise self.error
        return super().run_prepared(frames)


@pytest.fixture
def clip(tmp_path):
    colours = [((7 * i) % 200, 90, 90) for i in range(60)]
    return make(tmp_path / "clip.mp4", Clip(colours, audio=1))


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name in ("decode", "encode")]


@pytest.mark.parametrize("error", [RuntimeError("network"), KeyboardInterrupt(), UpscaleError("memory")])
def test_a_failing_network_leaves_nothing_behind(clip, tmp_path, error):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"an earlier result")
    with pytest.raises(type(error)):
        upscale(clip, target, Broken(error))
    assert target.read_bytes() == b"an earlier result"
    assert leftovers(tmp_path) == []
    assert threads() == []


@pytest.mark.parametrize(("owner", "method"), [(reader, "to_rgb"), (media.Encoder, "encode")])
def test_a_failing_thread_is_heard_at_once(clip, tmp_path, monkeypatch, owner, method):
    real = getattr(owner, method)
    calls = []

    def fails(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("the thread broke")
        return real(*arguments)

    monkeypatch.setattr(owner, method, fails)
    target = tmp_path / "out.mp4"
    target.write_bytes(b"an earlier result")
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="the thread broke"):
        upscale(clip, target)
    assert time.monotonic() - began < 5
    assert target.read_bytes() == b"an earlier result"
    assert leftovers(tmp_path) == []
    assert threads() == []


def test_a_result_that_fails_its_check_does_not_take_the_name(clip, tmp_path, monkeypatch):
    real = media.tally
    monkeypatch.setattr(media, "tally", lambda path: dataclasses.replace(real(path), frames=59))
    target = tmp_path / "out.mp4"
    target.write_bytes(b"an earlier result")
    with pytest.raises(UpscaleError, match="60 frames in, 59 out"):
        upscale(clip, target)
    assert target.read_bytes() == b"an earlier result"
    assert leftovers(tmp_path) == ["out.unchecked.mp4"]
    assert len(times(tmp_path / "out.unchecked.mp4")) == 60


def test_a_source_that_breaks_off_is_upscaled_as_far_as_it_goes(tmp_path):
    source = make(tmp_path / "clip.mkv", Clip([((7 * i) % 200, 90, 90) for i in range(120)]))
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    result = upscale(source, tmp_path / "out.mkv", Nearest(window=5))
    assert not result.complete
    assert result.frames_in == result.frames_out == len(times(result.target))
    assert 10 < result.frames_out < 120
    assert any("cut off" in warning for warning in result.warnings)


def test_a_finished_file_takes_the_place_of_an_earlier_one(tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"an earlier result")
    upscale(make(tmp_path / "clip.mp4"), target)
    assert len(times(target)) == 8
    assert leftovers(tmp_path) == []


def test_targets_that_cannot_be_are_refused(clip, tmp_path):
    (tmp_path / "link.mp4").symlink_to(clip)
    for target, words in (
        (clip, "the output is the input"),
        (tmp_path / "link.mp4", "the output is the input"),
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "out.mp4", "no such folder"),
        (tmp_path / "out.avi", "cannot write this kind of file"),
    ):
        with pytest.raises(UpscaleError, match=words):
            upscale(clip, target)
    assert len(times(clip)) == 60


def test_a_folder_without_permission_is_refused(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, whom nothing stops
    with pytest.raises(UpscaleError, match="no permission"):
        upscale(clip, tmp_path / "out.mp4")


@pytest.mark.parametrize("scale", [0, 0.5, 9, float("nan"), 5])
def test_scales_out_of_reach_are_refused(clip, tmp_path, scale):
    with pytest.raises(UpscaleError, match="scale"):
        upscale(clip, tmp_path / "out.mp4", Nearest(4), scale=scale)


def test_an_encoder_that_refuses_is_one_line(tmp_path):
    source = make(tmp_path / "wide.mkv", Clip([RED], 4200, 16, codec="ffv1", options={}))
    with pytest.raises(UpscaleError, match="16800x64: no player"):
        upscale(source, tmp_path / "out.mp4", Nearest(4), scale=4)
    small = make(tmp_path / "small.mkv")
    with pytest.raises(UpscaleError, match=r"libx264 refuses 128x96 yuv444p with .*profile=baseline"):
        upscale(small, tmp_path / "out.mp4", options={"profile": "baseline"}, pixel_format="yuv444p")
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="SIGINT reaches a process differently on Windows")
def test_ctrl_c_ends_the_run_and_cleans_up(clip, tmp_path):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.clips import Nearest, upscale\n"
        "class Slow(Nearest):\n"
        "    def run_prepared(self, frames):\n"
        "        print('frame', flush=True)\n"
        "        time.sleep(0.2)\n"
        "        return super().run_prepared(frames)\n"
        "upscale(Path(sys.argv[1]), Path(sys.argv[2]), Slow())\n"
    )
    command = [sys.executable, "-c", script, str(clip), str(tmp_path / "out.mp4")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, report = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "interrupted after frame" in report
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "out.mp4").exists()


# --- channels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [Compact, CompactVideo])
def test_frames_worked_on_at_once_are_those_of_one_after_the_other(tmp_path, network, monkeypatch):
    monkeypatch.setattr(processors, "share_of_group", lambda: math.inf)
    clip, before = make(tmp_path / "clip.mp4"), torch.get_num_threads()
    torch.manual_seed(0)
    model, made, lanes = network(scale=2, features=8, convs=2), [], []

    class Kept(Engine):
        def lanes(self, size):
            number = super().lanes(size)
            lanes.append(number)
            return number

        def run_prepared(self, frames):
            assert torch.get_num_threads() == 1
            return super().run_prepared(frames)

    for number in (1, 3):
        target = tmp_path / f"out{number}.mkv"
        torch.set_num_threads(number)
        try:
            upscale(clip, target, Kept(model, device="cpu", precision="fp32"))
            assert torch.get_num_threads() == number
        finally:
            torch.set_num_threads(before)
        with av.open(str(target)) as container:
            made.append(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    assert lanes == [1, 3]
    assert np.abs(made[0].astype(int) - made[1]).max() <= 1


def test_a_channel_holds_no_more_frames_than_its_limit():
    channel = Channel(2)
    most = []

    def fill():
        for number in range(20):
            channel.put(number)
            most.append(number)
        channel.finish()

    worker = Worker("fill", fill, [channel])
    time.sleep(0.05)
    assert len(most) == 2
    channel_items = list(channel)
    worker.join()
    assert channel_items == list(range(20))


def test_a_stopped_channel_wakes_whoever_waits():
    full, empty = Channel(1), Channel(1)
    full.put("frame")
    waiting = [
        Worker("put", lambda: full.put("another"), []),
        Worker("get", lambda: list(empty), []),
    ]
    full.stop()
    empty.stop()
    began = time.monotonic()
    for worker in waiting:
        worker.join()
        assert worker.error is None
    assert time.monotonic() - began < 1
