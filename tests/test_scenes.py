import cv2
import numpy as np
import pytest

from sa_upscale.functional import scenes

SIZE = (96, 160)


def scene(seed, low=0, high=255):
    """A picture of blobs of many sizes, in the range of codes given."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    picture = sum(
        cv2.resize(rng.random((side, 2 * side, 3)), (width, height), interpolation=cv2.INTER_CUBIC) / (at + 1)
        for at, side in enumerate((3, 8, 20))
    )
    picture = (picture - picture.min()) / np.ptp(picture)
    return (low + picture * (high - low)).round().astype(np.uint8)


DAY, NIGHT = scene(1, 90, 250), scene(2, 0, 120)


def found(frames, **options):
    return [at for at, cut in enumerate(scenes.cuts(iter(frames), **options)) if cut]


def test_a_hard_cut_is_found_at_its_frame():
    assert found([DAY] * 5 + [NIGHT] * 4 + [DAY] * 3) == [5, 9]


@pytest.mark.parametrize("at", [1, 2, 5, 6])
def test_a_cut_next_to_an_end_is_found(at):
    assert found([DAY] * at + [NIGHT] * (7 - at)) == [at]


def test_shots_of_like_brightness_are_told_apart_by_what_is_where():
    one = np.zeros((*SIZE, 3), np.uint8)
    one[:, :80] = 220
    assert found([one] * 4 + [one[:, ::-1]] * 4) == [4]


def test_sixteen_bits_are_the_same_picture():
    deep = [frame.astype(np.uint16) * 257 for frame in [DAY] * 4 + [NIGHT] * 4]
    assert found(deep) == [4]
    assert scenes.distance(scenes.look(DAY), scenes.look(deep[0])) < 0.01  # reducing rounds to 8 bits or 16


def test_a_fade_is_no_cut():
    shares = np.linspace(0, 1, 13)[:, None, None, None]
    assert found(list((DAY * (1 - shares) + NIGHT * shares).astype(np.uint8))) == []
    assert found(list((DAY * (1 - shares)).astype(np.uint8))) == []


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(length):
    white = np.full_like(NIGHT, 255)
    assert found([NIGHT] * 5 + [white] * length + [NIGHT] * 5) == []


def test_a_cut_under_a_flash_is_found():
    white = np.full_like(NIGHT, 255)
    assert found([NIGHT] * 4 + [white] + [DAY // 2 + 60] * 4)[-1] == 5


@pytest.mark.parametrize("step", [4, 12])
def test_a_pan_is_no_cut(step):
    wide = cv2.resize(scene(3), (480, 96), interpolation=cv2.INTER_CUBIC)
    assert found([wide[:, x : x + 160] for x in range(0, 300, step)]) == []


def test_noise_is_no_cut():
    rng = np.random.default_rng(0)
    noisy = [np.clip(NIGHT + rng.normal(0, 25, NIGHT.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    assert found(noisy) == []
    assert found([*noisy, *([DAY] * 3)]) == [8]


def test_the_threshold_decides():
    frames = [DAY] * 4 + [NIGHT] * 4
    between = scenes.distance(scenes.look(DAY), scenes.look(NIGHT))
    assert found(frames, threshold=between - 0.01) == [4]
    assert found(frames, threshold=between + 0.01) == []


def test_distance_of_black_to_white_is_its_largest():
    black, white = np.zeros((*SIZE, 3), np.uint8), np.full((*SIZE, 3), 255, np.uint8)
    assert scenes.distance(scenes.look(black), scenes.look(white)) == pytest.approx(2, abs=1e-5)
    assert scenes.distance(scenes.look(DAY), scenes.look(DAY)) == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_shortest_clips(count):
    assert list(scenes.cuts([DAY] * count)) == [False] * count


def test_no_more_frames_are_taken_than_the_answer_needs():
    taken = []
    answers = scenes.cuts(taken.append(at) or DAY for at in range(9))
    next(answers)
    assert taken == [0, 1, 2]
    next(answers)
    assert taken == [0, 1, 2, 3]
