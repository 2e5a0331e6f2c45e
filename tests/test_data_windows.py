import math
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from sa_upscale import data
from sa_upscale.data import motion
from sa_upscale.data.motion import Course, Motion, draw_course, moving
from sa_upscale.data.windows import Clips, read_clip, stretches
from sa_upscale.degrade import bicubic
from sa_upscale.errors import UpscaleError
from tests.test_data import Options, contains, samples


def shot(count, seed, light=128, height=32, width=40):
    """Frames of one scene that are alike as a whole, and different in every part."""
    noise = np.random.default_rng(seed).integers(-25, 26, (count, height, width, 3))
    return (light + noise).astype(np.uint8)


def write_clip(file, frames):
    with av.open(str(file), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_frames(folder, frames):
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame {index}.png")


def silent(text):
    pytest.fail(f"a notice: {text}")


def lows(frames):
    return np.stack([bicubic(frame, 4) for frame in frames])


@pytest.fixture
def clip(tmp_path):
    """One shot of 12 frames as a video, and its frames."""
    frames = shot(12, seed=0)
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "0.mkv", frames)
    return tmp_path / "clips" / "0.mkv", frames


def windows_of(file, **options):
    """The clip's windows, one for each frame."""
    read = read_clip(file, 4, 1000, 30, silent, **options)
    return [read.window(index, 5) for index in range(len(read.hr))]


def expected(frames, first, last):
    low = lows(frames)
    return [low[np.arange(index - 2, index + 3).clip(first, last)] for index in range(first, last + 1)]


@pytest.mark.parametrize("kind", ["video", "frames"])
def test_windows_hold_neighbouring_frames(clip, tmp_path, kind):
    file, frames = clip
    if kind == "frames":
        file = tmp_path / "folder"
        write_frames(file, frames)
    found = windows_of(file)
    for (lr, hr), frame, wanted in zip(found, frames, expected(frames, 0, 11), strict=True):
        np.testing.assert_array_equal(hr, frame)
        np.testing.assert_array_equal(lr, wanted)


def test_windows_do_not_reach_across_a_cut(tmp_path):
    frames = np.concatenate((shot(7, seed=1, light=60), shot(6, seed=2, light=200)))
    write_clip(tmp_path / "cut.mkv", frames)
    wanted = expected(frames, 0, 6) + expected(frames, 7, 12)
    for (lr, _), own in zip(windows_of(tmp_path / "cut.mkv"), wanted, strict=True):
        np.testing.assert_array_equal(lr, own)


def test_a_frame_that_cannot_be_read_parts_its_clip(clip, tmp_path):
    folder = tmp_path / "folder"
    write_frames(folder, clip[1])
    (folder / "frame 5.png").write_text("broken")
    notices = []
    read = read_clip(folder, 4, 1000, 30, notices.append)
    assert len(read.hr) == 11
    assert [read.first.tolist(), read.last.tolist()] == [[0] * 5 + [5] * 6, [4] * 5 + [10] * 6]
    assert len(notices) == 1
    assert "frame 5.png" in notices[0]
    assert notices[0].endswith("the frame is left out")


def test_samples_are_crops_of_windows_forwards_and_backwards(clip):
    clips = Clips([clip[0]], scale=4, patch=16, window=5)
    low = lows(clip[1])
    orders = set()
    for index in range(60):
        lr, hr = clips.sample(np.random.default_rng(index))
        assert (lr.shape, hr.shape) == ((5, 4, 4, 3), (16, 16, 3))
        order = next(filter(None, (order_in(low, lr, which) for which in range(8))))
        middle = order[2]
        assert any(contains(clip[1][middle], data.augment(hr, hr, which)[1]) for which in range(8))
        orders.add(order)
    rising = {tuple(np.arange(middle - 2, middle + 3).clip(0, 11).tolist()) for middle in range(12)}
    assert orders <= rising | {order[::-1] for order in rising}
    assert orders & rising
    assert orders - rising


def order_in(low, lr, which):
    """Which frames of `low` the turned crops `lr` are parts of, or None."""
    order = [next((t for t in range(len(low)) if contains(low[t], data.augment(x, x, which)[0])), None) for x in lr]
    return None if None in order else tuple(order)


@pytest.mark.parametrize(
    ("total", "most", "length", "wanted"),
    [
        (50, 60, 30, [(0, 50)]),
        (200, 60, 30, [(0, 30), (100, 130)]),
        (200, 70, 30, [(0, 30), (100, 130)]),
        (90, 20, 30, [(0, 20)]),
        (31, 30, 10, [(0, 10), (10, 20), (20, 30)]),
    ],
)
def test_of_long_clips_stretches_are_used(total, most, length, wanted):
    assert [(one.start, one.stop) for one in stretches(total, most, length)] == wanted


@pytest.mark.parametrize("kind", ["video", "frames"])
def test_stretches_are_read_and_no_window_reaches_across_them(tmp_path, kind):
    frames = shot(60, seed=4)
    file = tmp_path / "long"
    if kind == "frames":
        write_frames(file, frames)
    else:
        file = tmp_path / "long.mkv"
        write_clip(file, frames)
    read = read_clip(file, 4, 21, 7, silent)
    for hr, index in zip(read.hr, [*range(7), *range(20, 27), *range(40, 47)], strict=True):
        np.testing.assert_array_equal(hr, frames[index])
    assert read.first.tolist() == [0] * 7 + [7] * 7 + [14] * 7
    assert read.last.tolist() == [6] * 7 + [13] * 7 + [20] * 7


def test_clips_that_do_not_fit_are_used_in_part_and_kept(tmp_path):
    for index in range(2):
        write_clip(tmp_path / f"{index}.mkv", shot(100, seed=index))
    room = 70 * round(32 * 40 * 3 * 17 / 16)
    notices = []
    clips = Clips(sorted(tmp_path.iterdir()), scale=4, patch=16, window=5, room=room, on_notice=notices.append)
    assert len(notices) == 1
    assert "stretches of 30 frames are used" in notices[0]
    samples(clips, 20)
    assert [len(clip.hr) for clip in clips.shelf._kept.values()] == [30, 30]


def test_broken_and_small_clips_are_reported_and_left_out(clip):
    folder = clip[0].parent
    (folder / "text.mp4").write_text("no video")
    write_clip(folder / "small.mkv", shot(3, seed=0, height=8))
    notices = []
    source, pairs = data.open_source(
        Options(folders=(str(folder),), validation=str(folder)), scale=4, window=5, on_notice=notices.append
    )
    assert source.shelf.files == [clip[0]]
    assert [lr.shape for lr, _ in pairs] == [(5, 8, 10, 3)] * 3
    assert sorted(notice.split("clips/")[1].split()[0].strip(":") for notice in notices) == [
        "small.mkv",
        "small.mkv",
        "text.mp4",
    ]
    clip[0].unlink()
    with pytest.raises(UpscaleError, match=r"none of the training clips is of 16x16 .* lower data\.patch"):
        data.open_source(Options(folders=(str(folder),)), scale=4, window=5)


def test_validation_windows_are_spread_over_a_clip(clip):
    _, pairs = data.open_source(
        Options(folders=(str(clip[0].parent),), validation=str(clip[0].parent)), scale=4, window=5
    )
    wanted = expected(clip[1], 0, 11)
    assert len(pairs) == 3
    for (lr, hr), index in zip(pairs, (2, 6, 10), strict=True):
        np.testing.assert_array_equal(hr, clip[1][index])
        np.testing.assert_array_equal(lr, wanted[index])


# --- still pictures in motion --------------------------------------------------------------------------------------


def texture(side=160, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (side // 3, side // 3, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


STILL = Course((0.0, 0.0), (0.0, 0.0), 0.0, 0.0)


def moved(monkeypatch, course, covered=0.0, **options):
    monkeypatch.setattr(motion, "draw_course", lambda rng, scale: course)
    monkeypatch.setattr(motion, "COVERED", covered)
    return moving(texture(), texture(seed=1), 4, 64, 5, np.random.default_rng(3))


@pytest.mark.parametrize("seed", range(12))
def test_the_middle_frame_is_the_reduction_of_the_hr(seed):
    lr, hr = moving(texture(), texture(seed=1), 4, 64, 5, np.random.default_rng(seed))
    assert (lr.shape, hr.shape) == ((5, 16, 16, 3), (64, 64, 3))
    np.testing.assert_array_equal(lr[2][2:-2, 2:-2], bicubic(hr, 4)[2:-2, 2:-2])


def test_the_middle_frame_has_the_pictures_own_pixels_and_its_surroundings(monkeypatch):
    lr, hr = moved(monkeypatch, Course((3.3, -1.7), (0.2, 0.1), 0.01, 0.01))
    whole = texture()
    [(top, left)] = [(y, x) for y in range(97) for x in range(97) if np.array_equal(whole[y : y + 64, x : x + 64], hr)]
    assert min(top, left) >= 8
    around = whole[top - 8 : top + 72, left - 8 : left + 72]
    np.testing.assert_array_equal(lr[2], bicubic(around, 4)[2:-2, 2:-2])


@pytest.mark.parametrize("velocity", [(4.0, 0.0), (0.0, -8.0)])
def test_a_pan_moves_the_picture_by_its_velocity(monkeypatch, velocity):
    lr, _ = moved(monkeypatch, replace(STILL, velocity=velocity))
    across, down = (round(part / 4) for part in velocity)
    for time in range(-2, 2):
        on = np.roll(lr[time + 2], (down, across), (0, 1))
        np.testing.assert_array_equal(on[4:-4, 4:-4], lr[time + 3][4:-4, 4:-4])


def test_speed_grows_with_the_acceleration(monkeypatch):
    lr, _ = moved(monkeypatch, replace(STILL, velocity=(4.0, 0.0), acceleration=(8.0, 0.0)))
    for time, across in ((-2, 2), (-1, 0), (1, 2), (2, 6)):  # (v t + a t² / 2) / 4
        on = np.roll(lr[2], across, 1)
        np.testing.assert_array_equal(on[:, 6:-6], lr[time + 2][:, 6:-6])


def test_turns_and_zooms_leave_the_middle_in_its_place():
    course = replace(STILL, turn=math.pi / 2, zoom=math.log(2))
    pivot, place = np.array([10.0, 20.0]), np.array([5.0, 5.0])
    for time in (-1, 0, 1):
        matrix = course.matrix(time, pivot, place)
        np.testing.assert_allclose(matrix @ (*pivot, 1), place)
    # A step to the right becomes one of twice the length towards growing y.
    np.testing.assert_allclose(course.matrix(1, pivot, place) @ (11, 20, 1), (5, 7), atol=1e-12)


def test_a_layer_in_front_goes_its_own_way(monkeypatch):
    plain = moved(monkeypatch, STILL)
    covered = moved(monkeypatch, STILL, covered=1.0)
    differs = (plain[1] != covered[1]).any(axis=-1)
    assert 0.02 < differs.mean() < 0.9
    for frame in covered[0]:  # nothing moves
        np.testing.assert_array_equal(frame, covered[0][2])


def test_a_layer_that_reaches_the_border_has_no_edge_there():
    course = Course((20.0, 7.0), (1.0, 0.0), 0.02, -0.02)
    for mask in motion._shifted(np.full((64, 64), 255, np.uint8), course, 64, range(-2, 3)):
        assert (mask == 255).all()


def test_speeds_are_mostly_small_and_never_too_large():
    rng = np.random.default_rng(0)
    courses = [draw_course(rng, 4) for _ in range(4000)]
    speeds = np.array([math.hypot(*course.velocity) for course in courses]) / 4
    assert speeds.max() < 6
    assert np.median(speeds) == pytest.approx(0.75, rel=0.1)
    assert (speeds > 3).mean() == pytest.approx(1 - 0.5 ** (1 / 3), abs=0.03)
    assert np.abs(np.mean([course.velocity for course in courses], axis=0)).max() < 0.5
    assert all(math.hypot(*course.acceleration) <= 0.3 * math.hypot(*course.velocity) for course in courses)
    for part, deviation in (("turn", motion.TURN), ("zoom", motion.ZOOM)):
        values = np.array([getattr(course, part) for course in courses])
        assert (values == 0).mean() == pytest.approx(0.5, abs=0.04)
        assert values[values != 0].std() == pytest.approx(deviation, rel=0.1)


@pytest.fixture
def stills(tmp_path):
    folder = tmp_path / "stills"
    folder.mkdir()
    for name in ("lake", "hill", "wood"):
        Image.fromarray(texture(seed=len(name))).save(folder / f"{name}.png")
    Image.fromarray(texture(64)).save(folder / "small.png")
    return folder


def test_motion_draws_from_pictures(stills):
    notices = []
    source, pairs = data.open_source(
        Options(folders=(str(stills),), patch=80, motion=True), scale=2, window=5, on_notice=notices.append
    )
    assert isinstance(source, Motion)
    drawn = samples(source, 6)
    assert {(lr.shape, hr.shape) for lr, hr in drawn} == {((5, 40, 40, 3), (80, 80, 3))}
    assert len({hr.tobytes() for _, hr in drawn}) == 6
    for one, other in zip(drawn, samples(source, 6), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    assert [(lr.shape, hr.shape) for lr, hr in pairs] == [((5, 80, 80, 3), (160, 160, 3))]
    assert [notice.split("stills/")[1] for notice in notices] == [
        "small.png: is 64x64, smaller than 80x80; it is left out"
    ]


def test_clips_and_pictures_are_drawn_from_equally_often(stills, clip):
    options = Options(folders=(str(stills), str(clip[0].parent)), motion=True)
    source, pairs = data.open_source(options, scale=4, window=5)
    counts = [0, 0]
    for index, part in enumerate(source.sources):
        part.sample = lambda rng, index=index: counts.__setitem__(index, counts[index] + 1)
    for index in range(200):
        source.sample(np.random.default_rng(index))
    assert 70 < counts[0] < 130
    assert sum(counts) == 200
    # One clip is too little to hold one back of, so a picture is.
    assert [hr.shape for _, hr in pairs] == [(160, 160, 3)]


def test_numbered_photographs_are_no_clip(tmp_path):
    folder = tmp_path / "camera"
    folder.mkdir()
    for index in range(4):
        light = 40 if index % 2 else 210
        Image.fromarray(shot(1, seed=index, light=light)[0]).save(folder / f"IMG_{index:04}.png")
    options = Options(folders=(str(tmp_path),), validation=str(tmp_path))
    source, _ = data.open_source(replace(options, motion=True), scale=4, window=5)
    assert isinstance(source, Motion)
    assert len(source.shelf.files) == 4
    notices = []
    with pytest.raises(UpscaleError, match="none of the validation files"):
        data.open_source(options, scale=4, window=5, on_notice=notices.append)
    assert "neighbours have nothing in common" in notices[0]


def test_pictures_beside_clips_are_mentioned_when_nothing_moves_them(stills, clip):
    notices = []
    options = Options(folders=(str(stills), str(clip[0].parent)), validation=str(clip[0].parent))
    source, _ = data.open_source(options, scale=4, window=5, on_notice=notices.append)
    assert isinstance(source, Clips)
    assert notices[0].startswith("4 pictures, such as ")
    assert notices[0].endswith("data.motion = true makes windows of frames from them")
