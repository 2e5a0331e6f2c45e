import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from sa_upscale import media
from sa_upscale.errors import UpscaleError

from .clips import BT601, BT709, BT2020, Clip, make, ycbcr

RED = (200, 40, 30)


def frames_of(path, **part):
    with media.Reader(media.probe(path), media.Part(**part)) as reader:
        return list(reader.events()), reader


def plan(info, target, scale, **wishes):
    return media.plan(info, target, (round(info.width * scale), round(info.height * scale)), media.Wishes(**wishes))


def error(call, *arguments, **options):
    with pytest.raises(UpscaleError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- windows -------------------------------------------------------------------------------------------------------


def test_windows_repeat_the_outermost_frames():
    assert list(media.windows(range(6), 5)) == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5, 5],
        [3, 4, 5, 5, 5],
    ]


@pytest.mark.parametrize("count", range(12))
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_windows_of_any_length_hold_the_clamped_neighbours(count, size):
    reach = size // 2
    expected = [[min(max(at, 0), count - 1) for at in range(t - reach, t + reach + 1)] for t in range(count)]
    assert list(media.windows(range(count), size)) == expected


def test_windows_do_not_reach_across_a_cut():
    shots = ["a0", "a1", "a2", "b0", "c0", "c1", "c2", "c3"]
    found = list(media.windows(shots, 5, lambda before, after: before[0] != after[0]))
    assert [window[2] for window in found] == shots
    assert all(len({name[0] for name in window}) == 1 for window in found)
    assert found[2] == ["a0", "a1", "a2", "a2", "a2"]
    assert found[3] == ["b0"] * 5
    assert found[4] == ["c0", "c0", "c0", "c1", "c2"]


def test_windows_look_no_further_ahead_than_they_need():
    source = itertools.count()
    stream = media.windows(source, 5)
    next(stream)
    assert next(source) == 3


@pytest.mark.parametrize("size", [0, 2, -1])
def test_windows_need_a_middle(size):
    with pytest.raises(ValueError, match="odd"):
        next(media.windows([1], size))


# --- probing and reading -------------------------------------------------------------------------------------------


def test_probe_tells_what_is_in_the_file(tmp_path):
    info = media.probe(make(tmp_path / "clip.mp4", Clip(sample_aspect=Fraction(4, 3), audio=1)))
    assert (info.width, info.height, info.depth, info.pixel_format) == (64, 48, 8, "yuv420p")
    assert info.time_base == Fraction(1, 12288)
    assert (info.rate, info.frames) == (24, 8)
    assert float(info.duration) == pytest.approx(8 / 24, abs=0.001)
    assert info.sample_aspect == Fraction(4, 3)
    assert info.display_matrix is None
    assert (info.colour.matrix, info.colour.full_range) == (BT709, False)


def test_reader_gives_every_frame_once_in_order_of_presentation(tmp_path):
    clip = Clip(pts=[100, 400, 1300, 1301, 2000, 5000, 5512, 9000])
    path = make(tmp_path / "vfr.mp4", clip)
    with av.open(str(path)) as container:
        decoding = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert decoding != sorted(decoding), "the clip should have B-frames"
    frames, reader = frames_of(path)
    assert [frame.pts for frame in frames] == clip.pts
    assert reader.frames == 8
    assert reader.problems == []


def test_ten_bit_frames_come_as_sixteen_bits(tmp_path):
    path = make(tmp_path / "deep.mp4", Clip([RED], pixel_format="yuv420p10le"))
    frames, _ = frames_of(path)
    assert frames[0].pixels.dtype == np.uint16
    assert np.abs(frames[0].pixels / 257.0 - RED).max() < 1


@pytest.mark.parametrize(
    ("start", "duration", "expected"),
    [(0.125, None, [3, 4, 5, 6, 7]), (None, 0.125, [0, 1, 2]), (0.13, 0.08, [4, 5]), (0.125, 9, [3, 4, 5, 6, 7])],
)
def test_a_cut_starts_and_ends_on_the_frame(tmp_path, start, duration, expected):
    path = make(tmp_path / "clip.mp4", Clip(options={"crf": "4", "g": "4"}))
    frames, reader = frames_of(path, start=start, duration=duration)
    reds = [int(frame.pixels[24, 32, 0]) for frame in frames]
    assert np.abs(np.array(reds) - [30 + 20 * index for index in expected]).max() <= 3
    begin = Fraction(start or 0).limit_denominator(1000)
    assert frames[0].pts == pytest.approx(float((Fraction(expected[0], 24) - begin) * 12288), abs=1)
    assert reader.total == len(expected)


def test_a_cut_long_after_the_first_key_frame_seeks_and_loses_nothing(tmp_path):
    colours = [(20 + 3 * i, 100, 100) for i in range(72)]
    path = make(tmp_path / "long.mp4", Clip(colours, options={"crf": "4", "g": "6", "bf": "2"}))
    whole, _ = frames_of(path)
    for first in (36, 37, 40, 41):
        part, _ = frames_of(path, start=first / 24)
        assert len(part) == 72 - first
        assert all((a.pixels == b.pixels).all() for a, b in zip(part, whole[first:], strict=True))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_file_that_breaks_off_gives_what_it_has_and_says_so(tmp_path, suffix):
    colours = [(20 + i, 100, 100) for i in range(150)]
    options = {"bf": "0"} if suffix == ".avi" else {"bf": "2"}
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    source = make(tmp_path / f"whole{suffix}", Clip(colours, codec=codec, options=options, time_base=Fraction(1, 24)))
    if suffix == ".mp4":
        source = _with_index_in_front(source)
    data = source.read_bytes()
    short = tmp_path / f"short{suffix}"
    short.write_bytes(data[: len(data) * 2 // 3])
    frames, reader = frames_of(short)
    assert 10 < len(frames) < 150
    assert any("cut off" in problem or "to its end" in problem for problem in reader.problems)
    assert frames_of(source)[1].problems == []


def _with_index_in_front(path):
    moved = path.with_name("front.mp4")
    with av.open(str(path)) as source, av.open(str(moved), "w", container_options={"movflags": "+faststart"}) as target:
        copy = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    return moved


def test_an_empty_packet_in_the_middle_is_not_the_end(tmp_path):
    """AVI writes an empty chunk for a picture that stays; a decoder given one would stop there."""
    path = tmp_path / "repeats.avi"
    clip = Clip(codec="mpeg4", options={"qscale": "2"}, time_base=Fraction(1, 24))
    source = make(tmp_path / "clip.mkv", clip)
    with av.open(str(source)) as whole, av.open(str(path), "w") as container:
        copy = container.add_stream_from_template(whole.streams.video[0], opaque=True)
        copy.time_base = Fraction(1, 24)
        packets = [packet for packet in whole.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            packet.stream, packet.time_base, packet.duration = copy, Fraction(1, 24), 1
            packet.pts = packet.dts = number + 5 * (number > 3)  # the muxer fills the gap with empty chunks
            container.mux(packet)
    frames, reader = frames_of(path)
    assert len(frames) == 8
    assert reader.problems == []


def test_damage_in_the_middle_is_reported(tmp_path):
    colours = [((37 * i) % 200, (91 * i) % 200, (53 * i) % 200) for i in range(60)]
    path = make(tmp_path / "clip.mp4", Clip(colours, options={"crf": "1", "g": "10"}))
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 2000
    data[start : start + 400] = bytes(range(200)) * 2
    path.write_bytes(data)
    _, reader = frames_of(path)
    assert any("damaged" in problem for problem in reader.problems)


def test_bad_inputs_are_named_in_one_line(tmp_path):
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a film\n" * 50)
    (tmp_path / "text.txt").write_text("not a film\n" * 50)
    with av.open(str(tmp_path / "sound.m4a"), "w") as container:
        track = container.add_stream("aac", rate=48000)
        samples = np.zeros((2, 4096), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux([*track.encode(frame), *track.encode(None)])
    with av.open(str(tmp_path / "still.png"), "w", format="image2") as container:
        stream = container.add_stream("png", width=8, height=8)
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame(8, 8, "rgb24")))
    assert "no such file" in error(media.probe, tmp_path / "missing.mp4")
    assert "is a folder" in error(media.probe, tmp_path)
    assert "empty" in error(media.probe, tmp_path / "zero.mp4")
    assert "cannot be read as a video" in error(media.probe, tmp_path / "text.mp4")
    assert "cannot be read as a video" in error(media.probe, tmp_path / "text.txt")
    assert "no video stream" in error(media.probe, tmp_path / "sound.m4a")
    assert "image command" in error(media.probe, tmp_path / "still.png")


def test_a_file_without_a_single_frame_is_refused(tmp_path):
    path = make(tmp_path / "clip.mkv", Clip([RED]))
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packet = next(container.demux(video=0))
        position = data.find(bytes(packet))
    path.write_bytes(data[:position])
    assert "no frame" in error(media.probe, path)


def test_times_that_stand_still_are_moved_on(tmp_path):
    path = make(tmp_path / "clip.mkv", Clip(options={"bf": "0"}, time_base=Fraction(1, 1000)))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(bytes(p), p.pts) for p in container.demux(video=0) if p.size]
    payload, pts = packets[3]
    at = data.find(payload) - 3  # a block's relative time stands before its flags and its data
    assert int.from_bytes(data[at : at + 2], "big") == pts
    data[at : at + 2] = packets[2][1].to_bytes(2, "big")
    path.write_bytes(data)
    frames, reader = frames_of(path)
    stamps = [frame.pts for frame in frames]
    assert len(stamps) == 8
    assert stamps[3] == stamps[2] + 1
    assert any("1 frame(s)" in problem for problem in reader.problems)


@pytest.mark.parametrize("options", [{"start": -1}, {"start": float("nan")}, {"duration": 0}, {"start": 5}])
def test_impossible_cuts_are_refused(tmp_path, options):
    info = media.probe(make(tmp_path / "clip.mp4"))
    assert "--" in error(media.Reader, info, media.Part(**options))


# --- colour --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
def test_decoded_colours_are_the_standards(tmp_path, matrix, full_range, pixel_format):
    clip = Clip([RED], matrix=matrix, full_range=full_range, pixel_format=pixel_format)
    frames, _ = frames_of(make(tmp_path / "clip.mkv", clip))
    white = 255 if frames[0].pixels.dtype == np.uint8 else 65535
    assert np.abs(frames[0].pixels * (255 / white) - RED).max() <= 2


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv420p", "yuv422p", "yuv422p10le", "yuv420p10le", "nv12"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
def test_encoded_samples_are_the_standards(matrix, full_range, kind, pixel_format):
    bits = 10 if pixel_format.endswith("10le") else 8
    for colour in (RED, (0, 0, 255), (255, 255, 255), (0, 0, 0), (255, 255, 0)):
        pixels = np.full((16, 16, 3), colour, kind) * kind(1 if kind is np.uint8 else 257)
        frame = media.from_rgb(pixels, pixel_format, media.Colour(matrix, 1, 1, full_range))
        assert frame.format.name == pixel_format
        assert (int(frame.colorspace), int(frame.color_range)) == (matrix, 2 if full_range else 1)
        samples = [np.frombuffer(p, np.uint16 if bits > 8 else np.uint8) for p in frame.planes]
        if pixel_format == "nv12":
            samples = [samples[0], samples[1][::2], samples[1][1::2]]
        found = np.array([int(s[0]) for s in samples])
        expected = np.minimum(ycbcr(colour, matrix, full_range, bits), (1 << bits) - 1)
        assert np.abs(found - expected).max() < 0.7


def test_random_colours_survive_both_ways_without_drift():
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for matrix, full_range in itertools.product((BT601, BT709, BT2020), (False, True)):
        colour = media.Colour(matrix, 1, 1, full_range)
        for deep in (False, True):
            source = pixels.astype(np.uint16) * 257 if deep else pixels
            form = "yuv444p10le" if deep else "yuv444p"
            back = media.to_rgb(media.from_rgb(source, form, colour), 64, 64, 10 if deep else 8, colour)
            drift = back / (257 if deep else 1) - pixels
            assert np.abs(drift).max() <= (1 if deep else 2)
            assert np.abs(drift.mean(axis=(0, 1))).max() < 0.15


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_chroma_sits_where_decoders_look_for_it(tmp_path, pixel_format):
    """A slope of colour goes through an H.264 file and comes back at its place, not half a pixel beside it."""
    slope = np.linspace(0, 255, 64)
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = slope, 255 - slope
    path = tmp_path / "slope.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, width=64, height=48, options={"crf": "1"})
        stream.pix_fmt = pixel_format
        stream.codec_context.colorspace, stream.codec_context.color_range = BT709, 1
        frame = media.from_rgb(pixels, pixel_format, media.Colour(BT709, 1, 1, False))
        container.mux([*stream.encode(frame), *stream.encode(None)])
    frames, _ = frames_of(path)
    difference = frames[0].pixels / (1 if frames[0].pixels.dtype == np.uint8 else 257) - pixels
    assert abs(difference[:, 8:-8, 0].mean()) < 0.7  # half a pixel would be 2
    assert abs(difference[:, 8:-8, 2].mean()) < 0.7


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((640, 480), 6), ((720, 576), 5), ((1280, 544), 1), ((1280, 720), 1), ((720, 1280), 1), ((64, 48), 6)],
)
def test_untagged_colour_is_read_as_players_read_it(tmp_path, size, matrix):
    clip = Clip([RED], *size, matrix=None, options={"preset": "ultrafast"})
    assert media.probe(make(tmp_path / "clip.mkv", clip)).colour.matrix == matrix


def test_rgb_sources_keep_their_colour(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24, width=64, height=48)
        stream.pix_fmt = "bgr0"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), RED, np.uint8)).reformat(format="bgr0")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    frames, reader = frames_of(path)
    assert (frames[0].pixels == RED).all()
    colour = plan(reader.info, path, 2).colour
    assert (colour.matrix, colour.full_range) == (BT709, False)


# --- planning ------------------------------------------------------------------------------------------------------


@pytest.fixture
def info(tmp_path):
    return media.probe(make(tmp_path / "clip.mp4"))


def test_defaults_follow_the_container(info, tmp_path):
    for name, codec, container in (
        ("a.mp4", "libx264", "mp4"),
        ("a.M4V", "libx264", "mp4"),
        ("a.mov", "libx264", "mov"),
        ("a.mkv", "libx264", "matroska"),
        ("a.webm", "libvpx-vp9", "webm"),
    ):
        encoding = plan(info, tmp_path / name, 4)
        assert (encoding.codec, encoding.container, encoding.pixel_format) == (codec, container, "yuv420p")
        assert (encoding.width, encoding.height) == (256, 192)
    assert plan(info, tmp_path / "a.mp4", 4).options == {"crf": "16", "preset": "veryfast"}


def test_ten_bits_stay_ten_where_the_encoder_can(tmp_path):
    deep = media.probe(make(tmp_path / "deep.mp4", Clip([RED], pixel_format="yuv420p10le")))
    assert plan(deep, tmp_path / "a.mp4", 2).pixel_format == "yuv420p10le"
    eight = plan(deep, tmp_path / "a.mkv", 2, codec="mpeg4")
    assert eight.pixel_format == "yuv420p"
    assert "8 bits" in eight.notices[0]


def test_odd_sizes_are_made_even_only_where_the_format_demands_it(tmp_path):
    assert media.even_size(95, 71, "yuv420p") == (94, 70)
    assert media.even_size(95, 71, "yuv422p10le") == (94, 71)
    assert media.even_size(95, 71, "yuv444p") == (95, 71)
    odd = media.probe(make(tmp_path / "odd.mkv", Clip([RED], 31, 23, pixel_format="yuv444p")))
    encoding = plan(odd, tmp_path / "a.mkv", 3)
    assert (encoding.width, encoding.height) == (92, 68)
    assert encoding.notices == ("93x69 made 92x68: yuv420p needs even numbers of pixels",)
    assert plan(odd, tmp_path / "a.mkv", 4).notices == ()


def test_plans_that_cannot_be_are_refused(info, tmp_path):
    assert "libx264" in error(plan, info, tmp_path / "a.mp4", 2, codec="libx246")
    assert "no such video encoder" in error(plan, info, tmp_path / "a.mp4", 2, codec="aac")
    assert ".mkv" in error(plan, info, tmp_path / "a.avi", 2)
    assert ".mkv" in error(plan, info, tmp_path / "a.webm", 2, codec="libx264")
    assert "RGB" in error(plan, info, tmp_path / "a.mkv", 2, codec="libx264rgb")
    assert "0 (best) to 51" in error(plan, info, tmp_path / "a.mp4", 2, crf=52)
    assert "veryslow" in error(plan, info, tmp_path / "a.mp4", 2, preset="quick")
    assert "no such setting" in error(plan, info, tmp_path / "a.mkv", 2, codec="ffv1", crf=3)


@pytest.mark.parametrize(("alias", "codec"), [("h264", "libx264"), ("hevc", "libx265"), ("vp9", "libvpx-vp9")])
def test_common_codec_names_find_their_encoder(info, tmp_path, alias, codec):
    assert plan(info, tmp_path / "a.mkv", 2, codec=alias).codec == codec
