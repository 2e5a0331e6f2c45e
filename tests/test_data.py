import av
import numpy as np
import pytest
from PIL import Image

from sa_upscale import data
from sa_upscale.degrade import bicubic
from sa_upscale.errors import UpscaleError


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(4):
        noise = rng.integers(0, 256, (40 + 4 * index, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    return tmp_path


def source(folder, **options):
    return data.Photos(data.pictures([folder]), **({"scale": 4, "patch": 16} | options))


def test_lr_is_the_bicubic_of_the_whole_picture_cropped_alike(photos):
    photo = source(photos)
    wholes = [bicubic(data.read_rgb(file), 4) for file in photo.files]
    found = 0
    for index in range(20):
        lr, hr = photo.sample(np.random.default_rng(index))
        assert (lr.shape, hr.shape) == ((4, 4, 3), (16, 16, 3))
        turned = [data.augment(lr, hr, which)[0] for which in range(8)]
        found += any(contains(whole, lr) for whole in wholes for lr in turned)
    assert found == 20


def contains(whole, part):
    views = np.lib.stride_tricks.sliding_window_view(whole, part.shape)
    return (views == part).all(axis=(-1, -2, -3)).any()


@pytest.mark.parametrize("which", range(8))
def test_augmentation_turns_both_alike(which):
    hr = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    lr = hr[::3, ::3]
    turned_lr, turned_hr = data.augment(lr, hr, which)
    block = turned_hr.reshape(8, 3, 8, 3, 3)
    corner = block[
        :, 2 if which & (2 if not which & 4 else 1) else 0, :, 2 if which & (1 if not which & 4 else 2) else 0
    ]
    np.testing.assert_array_equal(corner, turned_lr)


def test_the_eight_augmentations_differ():
    hr = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert len({data.augment(hr, hr, which)[1].tobytes() for which in range(8)}) == 8


def test_batches_depend_on_seed_and_step_alone(photos):
    first = data.batches(source(photos), 3, seed=5)
    whole = [next(first) for _ in range(4)]
    resumed = data.batches(source(photos), 3, seed=5, start=2)
    other = data.batches(source(photos), 3, seed=6)
    for lr, hr in whole[2:]:
        again_lr, again_hr = next(resumed)
        assert lr.equal(again_lr)
        assert hr.equal(again_hr)
    assert not whole[0][1].equal(next(other)[1])
    assert whole[0][0].shape == (3, 3, 4, 4)


def test_without_room_in_the_cache_the_crops_are_the_same(photos):
    cached, plain = source(photos), source(photos, cache=0)
    for index in range(5):
        for a, b in zip(
            cached.sample(np.random.default_rng(index)), plain.sample(np.random.default_rng(index)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    assert not plain._pairs


def test_broken_and_small_files_are_reported_and_passed_over(photos):
    whole = (photos / "0.png").read_bytes()
    (photos / "text.png").write_text("not a picture")
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (8, 8)).save(photos / "small.png")
    notices = []
    photo = source(photos, on_notice=notices.append)
    for index in range(40):
        photo.sample(np.random.default_rng(index))
    assert len(notices) == 3
    assert {notice.split(":")[0] for notice in notices} == {"text.png", "cut.png", "small.png"}


def test_an_empty_set_is_an_error(tmp_path, photos):
    with pytest.raises(UpscaleError, match="no such folder"):
        data.pictures([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UpscaleError, match="holds no pictures"):
        data.pictures([tmp_path / "empty"])
    with pytest.raises(UpscaleError, match="no training picture is 64x64"):
        source(photos, patch=64)
    with pytest.raises(UpscaleError, match="too few"):
        data.hold_out(data.pictures([photos]), 4)


def test_held_out_pictures_are_never_trained_on(photos):
    files = data.pictures([photos, photos])
    training, kept = data.hold_out(files, 2)
    assert len(kept) == 2
    assert len(training) == 4
    assert not set(training) & set(kept)


def test_an_error_in_the_preparing_thread_reaches_the_caller():
    class Broken:
        def sample(self, rng):
            raise UpscaleError("none of the training pictures can be read")

    with pytest.raises(UpscaleError, match="none of the training"):
        next(data.batches(Broken(), 2, seed=0))


def write_clip(file, frames):
    with av.open(str(file), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def clip_folder(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for index in range(2):
        frames = np.random.default_rng(index).integers(0, 256, (6, 32, 40, 3), dtype=np.uint8)
        write_clip(folder / f"{index}.mkv", frames)
    return folder


def test_windows_of_clips_hold_neighbouring_frames(clip_folder):
    clips = data.Clips(data.clips([clip_folder])[:1], scale=4, patch=16, window=5)
    frames = np.random.default_rng(0).integers(0, 256, (6, 32, 40, 3), dtype=np.uint8)
    lows = np.stack([bicubic(frame, 4) for frame in frames])
    for index, (lr, hr) in enumerate(clips.validation(clips.files, frames=6)):
        np.testing.assert_array_equal(hr, frames[index])
        np.testing.assert_array_equal(lr, lows[[min(max(index + offset, 0), 5) for offset in range(-2, 3)]])
    seen = set()
    for index in range(60):
        lr, hr = clips.sample(np.random.default_rng(index))
        assert (lr.shape, hr.shape) == ((5, 4, 4, 3), (16, 16, 3))
        for which in range(8):
            order = [
                next((t for t in range(6) if contains(lows[t], data.augment(low, low, which)[0])), None) for low in lr
            ]
            if None not in order:
                seen.add(tuple(order))
                break
        else:
            pytest.fail("a window holds a crop that is in no frame")
    forwards = {tuple(data.around(middle, 6, 5)) for middle in range(6)}
    assert seen == forwards | {order[::-1] for order in forwards}


def test_clips_smaller_than_a_crop_are_refused(clip_folder):
    with pytest.raises(UpscaleError, match="40x32 is smaller than a crop"):
        data.Clips(data.clips([clip_folder]), scale=4, patch=64, window=5)
