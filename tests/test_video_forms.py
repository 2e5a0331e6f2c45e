"""Videos that are not files of the usual kind: numbered pictures, animations, pipes, interlaced and HDR films."""

import dataclasses
import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from sa_upscale import media, video
from sa_upscale.errors import UpscaleError
from sa_upscale.media import encoding

from .clips import Clip, Nearest, make, shown, times, upscale

RED = (200, 40, 30)
ROOT = Path(__file__).resolve().parent.parent


def picture(at, deep=False):
    pixels = np.full((24, 32, 3), (30 + 20 * at, 120, 90), np.uint16 if deep else np.uint8)
    return pixels * 257 if deep else pixels


def write_pictures(folder, numbers, deep=False):
    folder.mkdir()
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:04d}.png"), picture(number, deep)[..., ::-1])
    return folder / "%04d.png"


# --- numbered pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
def test_numbered_pictures_in_and_out_keep_their_numbers_depth_and_values(tmp_path, deep):
    pattern = write_pictures(tmp_path / "in", range(3, 8), deep)
    (tmp_path / "out").mkdir()
    result = upscale(pattern, tmp_path / "out" / "%04d.png", Nearest(window=5))
    assert (result.frames_in, result.frames_out) == (5, 5)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{number:04d}.png" for number in range(3, 8)]
    for number in range(3, 8):
        found = cv2.imread(str(tmp_path / "out" / f"{number:04d}.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
        expected = picture(number, deep).repeat(2, axis=0).repeat(2, axis=1)
        assert found.dtype == expected.dtype
        assert (found == expected).all()


def test_numbered_pictures_become_a_film_of_the_rate_given(tmp_path):
    pattern = write_pictures(tmp_path / "in", range(4))
    info = media.probe(media.Source(pattern, Fraction(10)))
    result = upscale(info, tmp_path / "out.mp4")
    assert times(result.target) == [Fraction(at, 10) for at in range(4)]
    assert np.abs(shown(result.target, 3) - (90, 120, 90)).max() <= 2


def test_a_film_becomes_numbered_pictures(tmp_path):
    source = make(tmp_path / "clip.mp4", Clip(audio=1))
    result = upscale(source, tmp_path / "f%03d.png")
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"f{number:03d}.png" for number in range(1, 9)]
    assert np.abs(cv2.imread(str(tmp_path / "f004.png"))[..., ::-1].mean(axis=(0, 1)) - (90, 120, 90)).max() <= 2
    assert result.warnings == ("1 other stream(s) left out: pictures alone are written",)


def test_a_missing_picture_is_named(tmp_path):
    pattern = write_pictures(tmp_path / "in", [1, 2, 4, 5])
    with pytest.raises(UpscaleError, match=r"0003\.png is missing"):
        media.probe(media.Source(pattern))
    with pytest.raises(UpscaleError, match="no such pictures"):
        media.probe(media.Source(tmp_path / "in" / "%02d.png"))
    with pytest.raises(UpscaleError, match="among the input"):
        upscale(write_pictures(tmp_path / "two", [1, 2]), tmp_path / "two" / "x%04d.png")
    with pytest.raises(UpscaleError, match="kind of picture"):
        upscale(make(tmp_path / "clip.mp4"), tmp_path / "%d.jpg")


# --- animations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_keep_their_frames_and_times(tmp_path, suffix):
    path = tmp_path / f"dance{suffix}"
    pictures = [Image.fromarray(picture(at)) for at in range(4)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 40, 200, 100], lossless=True)
    result = upscale(path, tmp_path / "out.mp4")
    assert times(result.target) == [Fraction(at, 100) for at in (0, 10, 14, 34)]
    assert result.duration_out == pytest.approx(0.44, abs=0.011)
    for at in range(4):
        assert np.abs(shown(result.target, at) - picture(at)[0, 0]).max() <= 3


def test_still_and_damaged_webp_are_named(tmp_path):
    still, damaged = tmp_path / "still.webp", tmp_path / "damaged.webp"
    Image.fromarray(picture(0)).save(still)
    damaged.write_bytes(still.read_bytes()[:40])
    with pytest.raises(UpscaleError, match="image command"):
        media.probe(still)
    with pytest.raises(UpscaleError, match="damaged"):
        media.probe(damaged)


# --- pipes ---------------------------------------------------------------------------------------------------------


def y4m(count):
    """A 4:2:0 film of grey frames, each of another brightness."""
    frames = (b"FRAME\n" + bytes([50 + 20 * at]) * (32 * 24) + bytes([128]) * (16 * 12 * 2) for at in range(count))
    return b"YUV4MPEG2 W32 H24 F10:1 Ip A1:1 C420mpeg2\n" + b"".join(frames)


def test_a_pipe_is_read_once_from_its_first_frame_on(tmp_path):
    class Once(io.BytesIO):
        def seek(self, *_):
            raise OSError("a pipe")

    info = media.probe(media.Source(Path("-"), pipe=media.Pipe(Once(y4m(9)))))
    with media.Reader(info) as reader:
        frames = list(reader.events())
    expected = [round((50 + 20 * at - 16) * 255 / 219) for at in range(9)]
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == expected


def test_y4m_goes_in_and_out_of_the_process(tmp_path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sa_upscale import media, video\n"
        "from tests.clips import Nearest\n"
        "info = media.probe(media.Source(Path('-'), pipe=media.Pipe(sys.stdin.buffer)))\n"
        "video.upscale_file(info, None, Nearest(), scale=2)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, input=y4m(3), capture_output=True, check=True)
    head, *frames = done.stdout.split(b"FRAME\n")
    assert b" W64 H48 F10:1 " in head
    assert len(frames) == 3
    for at, frame in enumerate(frames):
        assert len(frame) == 64 * 48 * 3 // 2
        assert set(frame[: 64 * 48]) == {50 + 20 * at}


# --- interlaced ----------------------------------------------------------------------------------------------------


@pytest.fixture
def interlaced(tmp_path):
    """A bar that moves 8 pixels between the two fields of every frame."""
    path = tmp_path / "fields.mkv"
    options = {"flags": "+ildct+ilme", "qscale": "1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, width=96, height=64, options=options)
        stream.pix_fmt = "yuv420p"
        for at in range(6):
            luma = np.full((96, 96), 40, np.uint8)
            luma[64:] = 128
            luma[0:64:2, 16 * at : 16 * at + 16] = 200
            luma[1:64:2, 16 * at + 8 : 16 * at + 24] = 200
            frame = av.VideoFrame.from_ndarray(luma, "yuv420p")
            frame.pts, frame.time_base = at, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def combing(path):
    """How much more neighbouring rows differ than rows of one field do, on average."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray").astype(float) for frame in container.decode(video=0)]
    return np.mean([np.abs(f[2:-1] - f[1:-2]).mean() - np.abs(f[3:] - f[1:-2]).mean() for f in frames[1:-1]])


def test_interlaced_frames_are_made_whole(interlaced, tmp_path):
    notices = []
    result = upscale(interlaced, tmp_path / "out.mkv", Nearest(1), scale=1, on_notice=notices.append)
    assert (result.frames_in, result.frames_out) == (6, 6)
    assert [float(at) for at in times(result.target)] == pytest.approx([at / 25 for at in range(6)], abs=0.001)
    assert notices == ["the video is interlaced and is deinterlaced first"]
    kept = upscale(interlaced, tmp_path / "kept.mkv", Nearest(1), scale=1, deinterlace=False)
    assert kept.warnings == ("the video is interlaced and is upscaled as it is",)
    assert combing(kept.target) > 10
    assert combing(result.target) < 0.1 * combing(kept.target)


def test_progressive_video_is_not_filtered(tmp_path):
    assert not media.probe(make(tmp_path / "clip.mp4")).interlaced


# --- HDR -----------------------------------------------------------------------------------------------------------

MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


@pytest.mark.parametrize("transfer", [16, 18], ids=["PQ", "HLG"])
@pytest.mark.parametrize("codec", [None, "libx264", "libsvtav1"])
def test_hdr_keeps_depth_tags_and_the_mastering_display(tmp_path, codec, transfer):
    path = tmp_path / "hdr.mp4"
    params = f"log-level=error:master-display={MASTERING}:max-cll=1000,400"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=24, width=128, height=96, options={"x265-params": params})
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, transfer, 1
        pixels = np.full((96, 128, 3), RED, np.uint16) * 257
        for at in range(3):
            frame = media.from_rgb(pixels, "yuv420p10le", media.Colour(9, 9, transfer, False))
            frame.pts, frame.time_base = at, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    options = {"preset": "12"} if codec == "libsvtav1" else {}
    result = upscale(path, tmp_path / "out.mp4", codec=codec, **options)
    before, after = media.probe(path), media.probe(result.target)
    assert (after.depth, after.colour) == (10, before.colour)
    assert after.colour.transfer == transfer
    assert before.mastering is not None
    assert after.mastering.light == before.mastering.light == (1000, 400)
    for ours, theirs in zip(after.mastering.primaries, before.mastering.primaries, strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=2e-5)
    assert [float(value) for value in after.mastering.luminance] == pytest.approx([0.005, 1000], rel=0.02)
    assert np.abs(shown(result.target) - RED).max() <= 2
    assert result.warnings == ()


def test_what_cannot_carry_the_mastering_display_says_so(tmp_path):
    info = media.probe(make(tmp_path / "clip.mp4"))
    light = media.Mastering(None, None, (1000, 400))
    hdr = media.plan(_with(info, mastering=light), tmp_path / "a.mkv", (128, 96), media.Wishes(codec="ffv1"))
    assert "mastering display's data is not" in hdr.notices[0]
    kept = media.plan(_with(info, mastering=light), tmp_path / "a.mkv", (128, 96), media.Wishes(codec="x265"))
    assert kept.options["x265-params"] == "log-level=error:max-cll=1000,400"


def _with(info, **changes):
    return dataclasses.replace(info, **changes)


# --- encoders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "wishes", "codec", "pixel_format"),
    [
        (".mov", {"codec": "prores"}, "prores_ks", "yuv422p10le"),
        (".mkv", {"codec": "ffv1", "pixel_format": "yuv444p"}, "ffv1", "yuv444p"),
        (".mkv", {"codec": "svtav1", "preset": "12"}, "libsvtav1", "yuv420p"),
        (".webm", {"codec": "vp9"}, "libvpx-vp9", "yuv420p"),
        (".mp4", {"codec": "x265", "depth": 10}, "libx265", "yuv420p10le"),
        (".mp4", {"pixel_format": "yuv422p"}, "libx264", "yuv422p"),
        (".mp4", {"options": {"tune": "animation", "x264-params": "keyint=2"}}, "libx264", "yuv420p"),
    ],
)
def test_every_encoder_keeps_frames_times_and_colour(tmp_path, suffix, wishes, codec, pixel_format):
    source = make(tmp_path / "clip.mp4", Clip([RED] * 4))
    result = upscale(source, tmp_path / f"out{suffix}", **wishes)
    assert (result.codec, result.pixel_format, result.frames_out) == (codec, pixel_format, 4)
    assert [float(at) for at in times(result.target)] == pytest.approx([at / 24 for at in range(4)], abs=0.001)
    assert np.abs(shown(result.target) - RED).max() <= 2
    with av.open(str(result.target)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    if "options" in wishes:
        assert keys[2], "the user's keyint should have made a second key frame"


def test_ten_bits_can_be_made_eight_on_request(tmp_path):
    deep = make(tmp_path / "deep.mp4", Clip([RED], pixel_format="yuv420p10le"))
    result = upscale(deep, tmp_path / "out.mp4", depth=8, codec="libx264")
    assert (result.pixel_format, result.warnings) == ("yuv420p", ())
    assert np.abs(shown(result.target) - RED).max() <= 2


def test_auto_takes_hardware_only_where_it_works(tmp_path, monkeypatch):
    info = media.probe(make(tmp_path / "clip.mp4"))
    monkeypatch.setattr(encoding, "_works", lambda name: False)
    auto = media.Wishes(codec="auto")
    assert media.plan(info, tmp_path / "a.mp4", (128, 96), auto).codec == "libx264"
    monkeypatch.setattr(encoding, "_works", lambda name: name == "h264_nvenc")
    planned = media.plan(info, tmp_path / "a.mp4", (128, 96), media.Wishes(codec="auto", crf=20))
    assert (planned.codec, planned.options["cq"]) == ("h264_nvenc", "20")


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"options": {"tunee": "film"}}, "tunee: libx264 has no such option; did you mean tune"),
        ({"pixel_format": "yuv410p"}, "libx264 does not take it"),
        ({"container": "avi"}, "--container avi"),
        ({"codec": "h266"}, "no such video encoder; did you mean h26"),
    ],
)
def test_wishes_that_cannot_be_are_one_line(tmp_path, wishes, words):
    info = media.probe(make(tmp_path / "clip.mp4"))
    with pytest.raises(UpscaleError, match=words):
        media.plan(info, tmp_path / "a.mp4", (128, 96), media.Wishes(**wishes))


def test_a_container_can_be_named_apart_from_the_file(tmp_path):
    result = upscale(make(tmp_path / "clip.mp4"), tmp_path / "out.video", container="mkv")
    with av.open(str(result.target)) as container:
        assert "matroska" in container.format.name


# --- sizes, parts and previews -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ({"scale": 2.5}, (160, 120)),
        ({"height": 96}, (128, 96)),
        ({"width": 96}, (96, 72)),
        ({"fit": (100, 500)}, (100, 75)),
        ({"fit": (500, 96)}, (128, 96)),
        ({}, (256, 192)),
    ],
)
def test_the_size_can_be_said_in_any_way(tmp_path, wish, size):
    info = media.probe(make(tmp_path / "clip.mp4"))
    assert video.size_for(info, **wish) == size


def test_sizes_are_those_of_the_picture_as_it_is_shown(tmp_path):
    info = media.probe(make(tmp_path / "clip.mp4", Clip(rotation=90)))
    assert video.size_for(info, height=128) == (128, 96)
    assert video.size_for(info, fit=(96, 999)) == (128, 96)


@pytest.mark.parametrize("wish", [{"height": 20}, {"width": 1000}, {"scale": 2, "height": 96}])
def test_impossible_sizes_are_refused(tmp_path, wish):
    info = media.probe(make(tmp_path / "clip.mp4"))
    with pytest.raises(UpscaleError):
        video.size_for(info, **wish)


def test_a_part_ends_before_its_end(tmp_path):
    source = make(tmp_path / "clip.mp4", Clip(audio=1))
    result = upscale(source, tmp_path / "out.mp4", start=2 / 24, end=5 / 24)
    assert times(result.target) == [Fraction(at, 24) for at in range(3)]
    assert abs(shown(result.target)[0] - 70) <= 2.5
    with pytest.raises(UpscaleError, match="after --start"):
        upscale(source, tmp_path / "none.mp4", start=0.2, end=0.1)
    with pytest.raises(UpscaleError, match="twice"):
        upscale(source, tmp_path / "none.mp4", end=0.1, duration=0.1)


def test_a_preview_shows_the_source_left_and_the_result_right(tmp_path):
    class Marked(Nearest):
        def run(self, frame):
            return np.full_like(super().run(frame), 250)

    result = upscale(make(tmp_path / "clip.mp4", Clip([RED] * 3)), tmp_path / "out.mp4", Marked(), preview=True)
    with av.open(str(result.target)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert frame.shape[:2] == (96, 128)
    assert np.abs(frame[:, :56].mean(axis=(0, 1)) - RED).max() <= 12  # converted here as BT.601
    assert frame[:, 72:].min() >= 245


def test_side_by_side_shows_the_same_part_twice():
    columns = np.arange(64, dtype=np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    both = video.side_by_side(columns[::2, ::2], columns)
    assert both.shape == columns.shape
    assert np.abs(both[24, 4:30, 0].astype(int) - columns[24, 20:46, 0]).max() <= 1
    assert (both[24, 34:60, 0] == columns[24, 18:44, 0]).all()
