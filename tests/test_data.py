import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from sa_upscale import data
from sa_upscale.data import loading, noise
from sa_upscale.data.photos import Photos, _with_margin
from sa_upscale.data.shelf import Shelf, default_room, fair_share
from sa_upscale.degrade import PUBLISHED, SecondOrder, bicubic
from sa_upscale.errors import UpscaleError
from sa_upscale.upscale import damage


@dataclass(frozen=True)
class Options:
    folders: tuple = ()
    lr_folders: tuple = ()
    validation: str | None = None
    holdout: int = 1
    patch: int = 16
    degradation: str = "bicubic"
    second_order: SecondOrder = PUBLISHED
    motion: bool = False
    shrink: float = 1.0
    noise: float = 0.0
    traces: float = 0.0
    damage: float = 0.0


def save_noise(file, height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    return noise


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(4):
        save_noise(folder / f"{index}.png", 40 + 4 * index, 48, index)
    return folder


def source(folder, **options):
    return Photos(data.pictures([folder]), **({"scale": 4, "patch": 16} | options))


def samples(source, count):
    return [source.sample(np.random.default_rng(index)) for index in range(count)]


def contains(whole, part):
    height, width = part.shape[:2]
    corners = (whole[: len(whole) - height + 1, : whole.shape[1] - width + 1] == part[0, 0]).all(axis=-1)
    places = zip(*np.nonzero(corners), strict=True)
    return any(np.array_equal(whole[top : top + height, left : left + width], part) for top, left in places)


def lies_in(whole, part):
    """Whether `part`, turned in some way, is a part of `whole`."""
    return any(contains(whole, data.augment(part, part, which)[0]) for which in range(8))


def test_lr_is_the_bicubic_of_the_whole_picture_cropped_alike(photos):
    wholes = {file: data.read_rgb(file) for file in data.pictures([photos])}
    for lr, hr in samples(source(photos), 20):
        assert (lr.shape, hr.shape) == ((4, 4, 3), (16, 16, 3))
        [whole] = [whole for whole in wholes.values() if lies_in(whole, hr)]
        assert lies_in(bicubic(whole, 4), lr)
        # Alike: where the kernel does not reach beyond the crop, its own reduction is the same.
        np.testing.assert_array_equal(bicubic(hr, 4)[2:-2, 2:-2], lr[2:-2, 2:-2])


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


# --- shrunk pictures -----------------------------------------------------------------------------------------------


def stripes(folder, period):
    """A picture of 320x300 whose columns go up and down with a `period` in pixels."""
    folder.mkdir()
    columns = 128 + 100 * np.sin(2 * np.pi * np.arange(320) / period)
    Image.fromarray(np.tile(columns[None, :, None], (300, 1, 3)).astype(np.uint8)).save(folder / "0.png")
    return folder


def periods(pairs):
    """The period of the stripes of each HR crop, by the peak of its spectrum."""
    found = []
    for _, hr in pairs:
        along = max((hr[..., 0].mean(axis=axis) for axis in (0, 1)), key=np.ptp)
        spectrum = np.abs(np.fft.rfft(along - along.mean(), 4096))
        found.append(4096 / spectrum.argmax())
    return np.array(found)


def test_every_other_crop_is_of_a_shrunk_picture_with_its_own_lr(tmp_path):
    folder = stripes(tmp_path / "stripes", period=24)
    pairs = samples(source(folder, patch=96, shrink=0.5), 60)
    found = periods(pairs)
    assert found.min() > 24 * 0.5 - 1
    assert found.max() < 24 + 1
    shrunk = found < 23
    assert 0.2 < shrunk.mean() < 0.7
    assert len(np.unique(found[shrunk].round(1))) > 5  # not one size alone
    for lr, hr in pairs:
        assert (lr.shape, hr.shape) == ((24, 24, 3), (96, 96, 3))
        np.testing.assert_array_equal(bicubic(hr, 4)[2:-2, 2:-2], lr[2:-2, 2:-2])
    assert np.ptp(periods(samples(source(folder, patch=96), 20))) < 0.5


def test_a_picture_without_room_for_a_margin_is_not_shrunk(tmp_path):
    whole = save_noise(tmp_path / "a.png", 47, 60)  # 16 and twice 16 are needed
    assert all(lies_in(whole, hr) for _, hr in samples(source(tmp_path, shrink=0.5), 20))
    whole = save_noise(tmp_path / "a.png", 60, 60)
    assert not all(lies_in(whole, hr) for _, hr in samples(source(tmp_path, shrink=0.5), 20))


def test_shrunk_pictures_are_degraded_with_their_margin(tmp_path):
    folder = stripes(tmp_path / "stripes", period=24)
    pairs = samples(source(folder, patch=64, shrink=0.5, degradation=PUBLISHED), 30)
    assert {(lr.shape, hr.shape) for lr, hr in pairs} == {((16, 16, 3), (64, 64, 3))}
    assert 0.2 < (periods(pairs) < 23.2).mean() < 0.7


# --- second order --------------------------------------------------------------------------------------------------


@pytest.fixture
def landscape(tmp_path):
    """Soft shapes of 300x280, in which a shift of a fraction of a pixel can be measured."""
    coarse = np.random.default_rng(2).integers(30, 226, (20, 22, 3), dtype=np.uint8)
    folder = tmp_path / "landscape"
    folder.mkdir()
    Image.fromarray(coarse).resize((300, 280), Image.BICUBIC).save(folder / "0.png")
    return folder


@pytest.mark.parametrize("scale", [2, 4])
def test_second_order_lr_lies_over_its_hr(landscape, scale, monkeypatch):
    # Turned at random, shifts would cancel each other.
    monkeypatch.setattr("sa_upscale.data.photos.augment", lambda lr, hr, which: (lr, hr))
    shifts = []
    for lr, hr in samples(source(landscape, scale=scale, patch=64, degradation=PUBLISHED), 40):
        assert (lr.shape, hr.shape) == ((64 // scale, 64 // scale, 3), (64, 64, 3))
        shifts.append(shift_between(bicubic(hr, scale), lr))
    assert np.abs(np.median(shifts, axis=0)).max() < 0.1
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.25


def shift_between(one, other):
    """How many pixels (y, x) `other` is shifted against `one`, by least squares on the gradient."""
    one, other = (x.astype(float).mean(axis=2) for x in (one, other))
    gradient = np.stack([axis[2:-2, 2:-2].ravel() for axis in np.gradient(one)], axis=1)
    light = np.column_stack((gradient, one[2:-2, 2:-2].ravel(), np.ones(len(gradient))))
    solution, *_ = np.linalg.lstsq(light, other[2:-2, 2:-2].ravel(), rcond=None)
    return -solution[:2] / max(solution[2], 0.2)


def test_the_measure_of_shifts_sees_one():
    big = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).resize((99, 99)))
    np.testing.assert_allclose(shift_between(big[8:-8, 8:-8], big[7:-9, 9:-7]), (1, -1), atol=0.1)


def test_second_order_leaves_the_hr_as_it_is_and_degrades_anew(photos):
    wholes = [data.read_rgb(file) for file in data.pictures([photos])]
    pairs = samples(source(photos, degradation=PUBLISHED), 8)
    assert all(any(lies_in(whole, hr) for whole in wholes) for _, hr in pairs)
    assert len({lr.tobytes() for lr, _ in pairs}) == 8
    for one, other in zip(pairs, samples(source(photos, degradation=PUBLISHED), 8), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_margins_stay_in_the_picture_and_move_the_grid_of_jpeg_blocks():
    rng = np.random.default_rng(0)
    grid = set()
    for _ in range(400):
        start, first, stop = _with_margin(480, 4, 128, rng)
        assert 0 <= start <= first <= 480 - 128
        assert first + 128 <= stop <= 480
        assert {start % 4, first % 4, stop % 4} == {0}
        assert first - start >= min(first, 72)
        assert stop - first - 128 == min(480 - first - 128, 72)
        if start:
            grid.add((first - start) // 4 % 8)
    assert grid == set(range(8))


def test_second_order_validation_is_always_the_same(photos):
    options = Options(folders=(str(photos),), validation=str(photos), degradation="second-order")
    first, again = (data.open_source(options, scale=2, window=1)[1] for _ in range(2))
    assert len(first) == 4
    for (lr, hr), (other_lr, other_hr) in zip(first, again, strict=True):
        np.testing.assert_array_equal(lr, other_lr)
        np.testing.assert_array_equal(hr, other_hr)
        assert (lr.shape[0] * 2, lr.shape[1] * 2) == hr.shape[:2]
        assert not np.array_equal(lr, bicubic(hr, 2))


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "room", "share"),
    [([10, 10], 20, 20), ([10, 10], 100, 100), ([10, 30], 20, 10), ([2, 30, 30], 22, 10), ([1, 2, 50, 60], 30, 13)],
)
def test_small_items_leave_their_room_to_the_large_ones(sizes, room, share):
    assert fair_share(sizes, room) == share
    assert sum(min(size, share) for size in sizes) <= room


def test_without_room_the_crops_are_the_same(photos):
    cached, plain = source(photos), source(photos, room=1)
    for one, other in zip(samples(cached, 5), samples(plain, 5), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert cached.shelf._kept
    assert not plain.shelf._kept


def test_of_pictures_too_large_for_memory_a_part_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("sa_upscale.data.photos.LEAST_PART", 1)
    for index in range(2):
        save_noise(tmp_path / f"{index}.png", 64, 96, index)
    save_noise(tmp_path / "small.png", 16, 16)
    wholes = [data.read_rgb(file) for file in data.pictures([tmp_path])]
    notices = []
    photos = source(tmp_path, room=10_000, on_notice=notices.append)
    assert len(notices) == 1
    assert "of the 2 largest a part is used" in notices[0]
    seen = samples(photos, 60)
    assert sum(lr.nbytes + hr.nbytes for lr, hr in photos.shelf._kept.values()) <= 10_000
    assert len(photos.shelf._kept) == 3
    for lr, hr in seen:
        assert any(lies_in(whole, hr) for whole in wholes)
        np.testing.assert_array_equal(bicubic(hr, 4)[2:-2, 2:-2], lr[2:-2, 2:-2])
    for one, other in zip(seen, samples(source(tmp_path, room=10_000), 60), strict=True):
        np.testing.assert_array_equal(one[1], other[1])


def test_a_shelf_loads_once_and_reports_once(tmp_path):
    files = [tmp_path / name for name in "abc"]
    loads, notices = [], []

    def load(file):
        loads.append(file.name)
        if file.name == "b":
            raise UpscaleError("b is broken")
        return file.name, 10

    shelf = Shelf(files, load, room=10, on_notice=notices.append)
    assert [shelf.take(index) for index in (0, 1, 2, 0, 1, 2)] == ["a", "c", "c", "a", "c", "c"]
    assert "".join(loads) == "abcccc"  # only a has room
    assert notices == ["b is broken; it is left out"]


def test_threads_load_a_file_once(tmp_path):
    loads = []

    def load(file):
        loads.append(file)
        time.sleep(0.05)
        return file, 1

    shelf = Shelf([tmp_path], load, room=1, on_notice=print)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shelf.take, range(8))) == [tmp_path] * 8
    assert len(loads) == 1


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    alone = default_room()
    assert 0 < alone <= 6 << 30
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_room() == alone // 4


# --- files ---------------------------------------------------------------------------------------------------------


def test_broken_and_small_files_are_reported_once_and_left_out(photos):
    whole = (photos / "0.png").read_bytes()
    (photos / "text.png").write_text("not a picture")
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "._0.png").write_text("left by another system")
    Image.new("RGB", (8, 40)).save(photos / "small.png")
    notices = []
    photo = source(photos, on_notice=notices.append)
    samples(photo, 40)
    assert {notice.split("photos/")[1].split()[0].strip(":") for notice in notices} == {
        "text.png",
        "cut.png",
        "small.png",
    }
    assert len(notices) == 3
    assert any("8x40, smaller than 16x16" in notice for notice in notices)


def test_an_empty_set_is_an_error(tmp_path, photos):
    with pytest.raises(UpscaleError, match="no such folder"):
        data.pictures([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UpscaleError, match="holds no pictures"):
        data.pictures([tmp_path / "empty"])
    with pytest.raises(UpscaleError, match=r"none of the training pictures is of 64x64 .* lower data\.patch"):
        source(photos, patch=64)
    for file in photos.iterdir():
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UpscaleError, match="none of the training files can be read"):
        source(photos).sample(np.random.default_rng(0))


def test_held_out_pictures_are_never_trained_on(photos):
    trained, pairs = data.open_source(Options(folders=(str(photos), str(photos)), holdout=2), scale=4, window=1)
    assert len(pairs) == 2
    assert len(trained.shelf.files) == 4
    for lr, hr in pairs:
        np.testing.assert_array_equal(lr, bicubic(hr, 4))
    for _, crop in samples(trained, 20):
        assert not any(lies_in(hr, crop) for _, hr in pairs)
    with pytest.raises(UpscaleError, match=r"4 training files are too few to keep 4 back .* lower data\.holdout"):
        data.open_source(Options(folders=(str(photos),), holdout=4), scale=4, window=1)


def test_small_pictures_are_not_held_out(photos):
    for index in range(10, 30):
        save_noise(photos / f"{index}.png", 8, 8)
    _, pairs = data.open_source(Options(folders=(str(photos),), holdout=3), scale=4, window=1)
    assert [hr.shape[1] for _, hr in pairs] == [48, 48, 48]


def test_validation_files_that_are_of_no_use_are_reported(photos, tmp_path):
    folder = tmp_path / "validation"
    folder.mkdir()
    (folder / "text.png").write_text("nothing")
    save_noise(folder / "small.png", 12, 40)
    options = Options(folders=(str(photos),), validation=str(folder))
    with pytest.raises(UpscaleError, match=r"none of the validation files can be used; set data\.validation"):
        data.open_source(options, scale=4, window=1)
    save_noise(folder / "large.png", 1200, 34)
    save_noise(folder / "cut.png", 60, 60)
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:3000])
    notices = []
    _, pairs = data.open_source(options, scale=4, window=1, on_notice=notices.append)
    assert [hr.shape for _, hr in pairs] == [(1024, 32, 3)]
    np.testing.assert_array_equal(pairs[0][1], data.read_rgb(folder / "large.png")[88:-88, :32])
    assert len(notices) == 3


@pytest.mark.parametrize(
    ("changes", "window", "message"),
    [
        ({"folders": ()}, 1, "no training data; name one or more folders with --data"),
        ({"lr_folders": ("a", "b")}, 1, "1 folders of HR and 2 of LR do not make pairs"),
        ({"lr_folders": ("a",), "degradation": "second-order"}, 1, 'leave data.degradation = "second-order" out'),
        ({"noise": 4, "degradation": "second-order"}, 1, "has noise of its own; leave data.noise out"),
        ({"traces": 0.5, "degradation": "second-order"}, 1, "data.traces is for .* has damage of its own, so leave it"),
        ({"traces": 0.5, "motion": True}, 5, "data.traces is for networks that take single pictures.*takes frames"),
        ({"damage": 0.5, "degradation": "second-order"}, 1, "data.damage is for .* has damage of its own, so leave it"),
        ({"damage": 0.5, "motion": True}, 5, "data.damage is for networks that take single pictures.*takes frames"),
        ({"motion": True}, 1, "data.motion makes windows of frames, and this network takes single pictures"),
        ({"degradation": "second-order"}, 5, "for networks that take single pictures, and this one takes 5 frames"),
        (
            {"shrink": 0.5, "lr_folders": ("a",)},
            1,
            "data.shrink reduces .*; this one learns from data.lr_folders",
        ),
        ({"shrink": 0.5}, 5, "data.shrink reduces pictures, .*; this one takes several frames"),
        ({"lr_folders": ("a",)}, 5, "data.lr_folders is for networks that take single pictures"),
        ({}, 5, "no videos and no folders of numbered frames, but 1 pictures; data.motion = true makes windows"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, changes, window, message):
    save_noise(tmp_path / "a.png", 32, 32)
    with pytest.raises(UpscaleError, match=message):
        data.open_source(Options(**{"folders": (str(tmp_path),)} | changes), scale=4, window=window)


def test_every_other_lr_gets_noise_another_in_each_frame(tmp_path):
    Image.new("RGB", (160, 160), (100, 100, 100)).save(tmp_path / "grey.png")
    options = Options((str(tmp_path),), patch=128, motion=True, noise=8.0, validation=str(tmp_path))
    noisy, _ = data.open_source(options, scale=4, window=5)
    drawn = samples(noisy, 60)
    assert all(lr.dtype == np.uint8 and lr.shape == (5, 32, 32, 3) and (hr == 100).all() for lr, hr in drawn)
    sigmas = np.array([lr.std() for lr, _ in drawn])
    assert 20 <= (sigmas == 0).sum() <= 40
    assert sigmas.max() == pytest.approx(8, abs=0.8)
    assert sigmas[sigmas > 0].mean() == pytest.approx(4, abs=1)
    frames = next(lr for lr, _ in drawn if lr.std() > 4).reshape(5, -1)
    assert np.abs(np.corrcoef(frames) - np.eye(5)).max() < 0.1
    again, _ = noisy.sample(np.random.default_rng(7))
    np.testing.assert_array_equal(again, drawn[7][0])


def photo_like(file, side):
    """A picture with edges and smooth parts, for a codec to leave traces in."""
    y, x = np.mgrid[:side, :side]
    disc = np.where(np.hypot(y - side / 2, x - side / 2) < side / 3, 200, 60)
    Image.fromarray(np.stack([disc, 40 + x * 150 // side, 255 - disc], axis=-1).astype(np.uint8)).save(file)


def changes(touched, untouched):
    """What was changed in the LR of samples, of those in which anything was."""
    differences = []
    for (lr, hr), (before, same_hr) in zip(touched, untouched, strict=True):
        assert lr.dtype == np.uint8
        assert lr.shape == before.shape
        np.testing.assert_array_equal(hr, same_hr)
        differences.append(lr.astype(float) - before)
    return [difference for difference in differences if difference.any()]


def test_a_share_of_pictures_has_traces_of_an_earlier_file(tmp_path):
    photo_like(tmp_path / "photo.png", 160)
    options = Options((str(tmp_path),), patch=128, validation=str(tmp_path))
    clean, _ = data.open_source(options, scale=4, window=1)
    traced, _ = data.open_source(replace(options, traces=0.3), scale=4, window=1)
    touched = changes(samples(traced, 80), samples(clean, 80))
    assert 14 <= len(touched) <= 34
    assert all(0.1 < difference.std() < 16 and abs(difference.mean()) < 2 for difference in touched)
    again, _ = traced.sample(np.random.default_rng(7))
    np.testing.assert_array_equal(again, samples(traced, 8)[7][0])


def test_traces_are_softer_the_smaller_the_earlier_file_and_leave_the_pictures_sharpness(monkeypatch):
    hr = np.full((256, 256, 3), 120, np.uint8)
    hr[:, 128:] = 160

    class Step:
        def sample(self, rng):
            return np.ascontiguousarray(hr[::4, ::4]), hr

    def likeness(factor):
        """How far the traces of pixels side by side are alike."""
        monkeypatch.setattr(noise, "TRACE_SCALES", (factor, factor))
        found = []
        for seed in range(30):
            lr, _ = noise.Traced(Step(), 1).sample(np.random.default_rng(seed))
            assert 25 < lr[:, 32].mean() - lr[:, 31].mean() < 50  # 40 but for what the damage changes
            left = (lr.astype(float) - hr[::4, ::4])[:, :28, 1]  # off the edge
            if left.std() > 1:
                found.append(np.corrcoef(left[:, 1:].ravel(), left[:, :-1].ravel())[0, 1])
        assert len(found) > 8
        return np.mean(found)

    small, same, large = likeness(0.6), likeness(1.0), likeness(2.0)
    assert small > 0.45
    assert abs(same) < 0.2
    assert small > large + 0.25


def test_a_share_of_pictures_is_damaged_at_their_own_size(tmp_path):
    photo_like(tmp_path / "photo.png", 160)
    options = Options((str(tmp_path),), patch=128, validation=str(tmp_path))
    clean, _ = data.open_source(options, scale=4, window=1)
    damaged, _ = data.open_source(replace(options, damage=0.6), scale=4, window=1)
    touched = changes(samples(damaged, 80), samples(clean, 80))
    assert 36 <= len(touched) <= 60
    # Halved chroma is far off at the edge of a disc of another colour.
    assert all(0.1 < difference.std() < 24 and abs(difference.mean()) < 2 for difference in touched)
    again, _ = damaged.sample(np.random.default_rng(7))
    np.testing.assert_array_equal(again, samples(damaged, 8)[7][0])


@pytest.mark.parametrize(("kind", "amount"), [("noise", 8.0), ("traces", 0.5), ("damage", 0.5)])
def test_weights_are_chosen_by_pictures_that_are_damaged_as_those_of_training_are(tmp_path, kind, amount):
    for index in range(24):
        photo_like(tmp_path / f"{index:02}.png", 96 + index)
    options = Options((str(tmp_path),), patch=64, validation=str(tmp_path))
    _, clean = data.open_source(options, scale=4, window=1)
    _, pairs = data.open_source(replace(options, **{kind: amount}), scale=4, window=1)
    _, again = data.open_source(replace(options, **{kind: amount}), scale=4, window=1)
    touched = changes(pairs, clean)
    assert 6 <= len(touched) <= 18
    assert changes(again, pairs) == []
    assert len({difference.std() for difference in touched}) == len(touched)
    _, both = data.open_source(replace(options, **{"traces": 0.5, "damage": 0.5, kind: amount}), scale=4, window=1)
    assert len(changes(both, clean)) > len(touched)  # one says nothing of the other


def test_damage_is_noise_or_blocks_that_lie_anywhere_or_both():
    ramp = np.linspace(20, 230, 64).astype(np.uint8)
    grey = np.broadcast_to((ramp[:, None] // 2 + ramp // 2)[..., None], (64, 64, 3)).copy()

    class Ramp:
        def sample(self, rng):
            return grey, grey

    phases, noises = set(), []
    for seed in range(120):
        lr, hr = noise.Damaged(Ramp(), 1).sample(np.random.default_rng(seed))
        np.testing.assert_array_equal(hr, grey)
        steps = np.abs(np.diff(lr[..., 1].astype(int), axis=1)).mean(0)
        by_phase = np.array([steps[phase::8].mean() for phase in range(8)])
        if by_phase.max() > np.median(by_phase) + 1:
            phases.add(int(by_phase.argmax()))
        noises.append(damage.measure(lr).noise)
    assert len(phases) > 4
    assert 15 < sum(found > 2 for found in noises) < 80
    assert max(noises) < 10


# --- batches -------------------------------------------------------------------------------------------------------


def taken(batches, count):
    found = [next(batches) for _ in range(count)]
    batches.close()
    return found


def test_batches_depend_on_seed_and_step_alone(photos):
    whole = taken(data.batches(source(photos), 3, seed=5), 4)
    for (lr, hr), (again_lr, again_hr) in zip(
        whole[2:], taken(data.batches(source(photos), 3, seed=5, start=2), 2), strict=True
    ):
        assert lr.equal(again_lr)
        assert hr.equal(again_hr)
    assert not whole[0][1].equal(taken(data.batches(source(photos), 3, seed=6), 1)[0][1])
    assert whole[0][0].shape == (3, 3, 4, 4)
    assert len({hr[index].numpy().tobytes() for _, hr in whole for index in range(3)}) == 12


@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_together_see_one_batch(photos, ranks):
    whole = taken(data.batches(source(photos), 6, seed=1), 2)
    parts = [taken(data.batches(source(photos), 6, seed=1, rank=rank, ranks=ranks), 2) for rank in range(ranks)]
    for step, (lr, hr) in enumerate(whole):
        for rank, part in enumerate(parts):
            own = slice(rank * 6 // ranks, (rank + 1) * 6 // ranks)
            assert lr[own].equal(part[step][0])
            assert hr[own].equal(part[step][1])


def test_a_batch_that_does_not_split_is_refused(photos):
    with pytest.raises(UpscaleError, match=r"batch of 6 cannot be split over 4 processes; make data\.batch a multiple"):
        data.batches(source(photos), 6, seed=1, ranks=4)


def test_threads_change_nothing(photos, monkeypatch):
    monkeypatch.setattr(loading, "MOST_WORKERS", 1)
    one = taken(data.batches(source(photos, degradation=PUBLISHED), 4, seed=2), 3)
    monkeypatch.setattr(loading, "MOST_WORKERS", 8)
    monkeypatch.setattr(loading.processors, "count", lambda: 8)
    many = taken(data.batches(source(photos, degradation=PUBLISHED), 4, seed=2), 3)
    assert all(a.equal(b) for first, second in zip(one, many, strict=True) for a, b in zip(first, second, strict=True))


def test_no_more_is_prepared_than_asked_and_closing_ends_the_threads():
    drawn, before = [], threading.active_count()

    class Counting:
        def sample(self, rng):
            drawn.append(1)
            return np.zeros((1, 1, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)

    batches = data.batches(Counting(), 5, seed=0)
    next(batches)
    batches.close()
    assert len(drawn) <= 5 * (loading.AHEAD + 1)
    assert threading.active_count() == before


def test_an_error_in_a_preparing_thread_reaches_the_caller():
    class Broken:
        def sample(self, rng):
            raise UpscaleError("none of the training pictures can be read")

    with pytest.raises(UpscaleError, match="none of the training"):
        next(data.batches(Broken(), 2, seed=0))
