import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from sa_upscale.degrade import PUBLISHED, SecondOrder, Stage, second_order, usm_sharpen
from sa_upscale.degrade.draws import Degradation, Noise, Pass
from sa_upscale.degrade.kernels import Bell, Sinc
from sa_upscale.degrade.pixels import add_noise, apply, jpeg

SILENT = Noise(gaussian=True, strength=0.0, grey=False)
PLAIN = Pass(blur=None, factor=1.0, interpolation="bilinear", noise=SILENT, quality=95)
NOTHING_BUT_JPEG = Degradation(PLAIN, PLAIN, sinc=None, interpolation="bilinear", jpeg_last=True)


@pytest.fixture(scope="module")
def hr():
    """Soft shapes in light and broad ones in colour, 96x80; with fine colours halved chroma would be all one sees."""
    rng = np.random.default_rng(3)
    light = cv2.resize(rng.uniform(60, 200, (12, 10, 1)), (80, 96), interpolation=cv2.INTER_CUBIC)[..., None]
    colour = cv2.resize(rng.uniform(-40, 40, (3, 3, 3)), (80, 96), interpolation=cv2.INTER_CUBIC)
    return np.clip(light + colour + (30, 0, -30), 0, 255).astype(np.uint8)


def rms(a, b):
    return float(np.sqrt(((a.astype(float) - b.astype(float)) ** 2).mean()))


def test_the_same_generator_state_gives_the_same_pixels(hr):
    first = [second_order(hr, 4, np.random.default_rng((5, index))) for index in range(12)]
    again = [second_order(hr, 4, np.random.default_rng((5, index))) for index in range(12)]
    np.testing.assert_array_equal(first, again)
    assert len({result.tobytes() for result in first}) == 12


def test_threads_change_nothing_and_nothing_global_is_touched(hr):
    expected = [second_order(hr, 2, np.random.default_rng(index)) for index in range(8)]
    before, threads = np.random.get_state()[1].copy(), cv2.getNumThreads()
    results = {}

    def work(index):
        results[index] = second_order(hr, 2, np.random.default_rng(index))

    workers = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    np.testing.assert_array_equal([results[index] for index in range(8)], expected)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert cv2.getNumThreads() == threads


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_result_has_the_lr_size_and_the_hr_stays_as_it_was(hr, scale):
    original = hr.copy()
    for seed in range(6):
        lr = second_order(hr[:91, :77], scale, np.random.default_rng(seed))
        assert (lr.shape, lr.dtype) == ((91 // scale, 77 // scale, 3), np.uint8)
        assert lr.flags.c_contiguous
    np.testing.assert_array_equal(hr, original)


def test_turned_views_give_what_their_copies_give(hr):
    for view in (hr[::-1], hr[:, ::-1], hr.swapaxes(0, 1)):
        a = second_order(view, 4, np.random.default_rng(1))
        b = second_order(np.ascontiguousarray(view), 4, np.random.default_rng(1))
        np.testing.assert_array_equal(a, b)


def test_what_does_not_divide_is_cropped(hr):
    a = second_order(hr[:95, :79], 4, np.random.default_rng(1))
    b = second_order(hr[:92, :76], 4, np.random.default_rng(1))
    np.testing.assert_array_equal(a, b)


def test_without_noise_flat_stays_flat():
    quiet = {"noise_sigma": (0, 0), "gaussian": 1}
    options = SecondOrder(replace(PUBLISHED.first, **quiet), replace(PUBLISHED.second, **quiet))
    hr = np.full((64, 64, 3), (200, 90, 30), np.uint8)
    for seed in range(20):
        lr = second_order(hr, 4, np.random.default_rng(seed), options)
        assert np.abs(lr.astype(int) - (200, 90, 30)).max() <= 6
        assert np.ptp(lr.reshape(-1, 3), axis=0).max() <= 1


def test_a_picture_keeps_its_place_and_its_channels(hr):
    """No shift, no flip, no swap of red and blue: the least degraded result is close to the area average."""
    average = cv2.resize(hr, (20, 24), interpolation=cv2.INTER_AREA)
    drawn = Degradation(PLAIN, PLAIN, sinc=None, interpolation="area", jpeg_last=False)
    area = replace(drawn, second=replace(PLAIN, interpolation="area"))
    lr = apply(hr, 4, area, np.random.default_rng(0))
    # What is left is two JPEGs of quality 95 with halved chroma.
    assert rms(lr, average) < 4
    assert rms(lr[..., ::-1], average) > 25
    assert rms(np.roll(lr, 1, axis=0), average) > 15


def test_the_jpegs_are_the_codecs_own(hr):
    drawn = replace(NOTHING_BUT_JPEG, first=replace(PLAIN, quality=40), second=replace(PLAIN, quality=60))
    result = apply(hr, 1, drawn, np.random.default_rng(0))
    expected = hr[..., ::-1]
    for quality in (40, 60):
        encoded = cv2.imencode(".jpg", expected, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(result, expected[..., ::-1])


def test_lower_quality_is_further_from_the_picture(hr):
    errors = [rms(jpeg(hr, quality), hr) for quality in (95, 75, 50, 30)]
    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0]


def test_the_last_jpeg_leaves_blocks_only_when_it_is_last():
    rng = np.random.default_rng(0)
    hr = np.clip(rng.normal(128, 25, (256, 256, 1)).repeat(3, axis=2), 0, 255).astype(np.uint8)
    coarse = replace(PLAIN, quality=30)

    def blockiness(lr):
        steps = np.abs(np.diff(lr.astype(float), axis=1)).mean(axis=(0, 2))
        edges = steps[7::8].mean()
        return edges / np.delete(steps, np.s_[7::8]).mean()

    def result(jpeg_last):
        # The second pass works at 1.37 of the LR's size, so that its own blocks fall elsewhere.
        drawn = Degradation(PLAIN, replace(coarse, factor=1.37), None, "area", jpeg_last)
        return apply(hr, 2, drawn, np.random.default_rng(0))

    assert blockiness(result(True)) > 1.15
    assert blockiness(result(False)) == pytest.approx(1, abs=0.1)


def test_a_blur_is_the_convolution_with_its_kernel():
    point = np.zeros((33, 33, 3), np.uint8)
    point[16, 16] = 255
    bell = Bell(9, (2.0, 1.0), 0.4)
    drawn = replace(NOTHING_BUT_JPEG, first=replace(PLAIN, blur=bell, quality=100), second=replace(PLAIN, quality=100))
    result = apply(point, 1, drawn, np.random.default_rng(0))
    np.testing.assert_allclose(result[12:21, 12:21, 1], 255 * bell.weights(), atol=3)


def test_the_sinc_filters_of_the_first_and_last_place_ring():
    edge = np.full((48, 48, 3), 60, np.uint8)
    edge[:, 24:] = 190
    sinc = Sinc(21, np.pi / 3)
    for drawn in (
        replace(NOTHING_BUT_JPEG, first=replace(PLAIN, blur=sinc)),
        replace(NOTHING_BUT_JPEG, sinc=sinc),
        replace(NOTHING_BUT_JPEG, sinc=sinc, jpeg_last=False),
    ):
        result = apply(edge, 1, drawn, np.random.default_rng(0))
        assert result.max() > 197
        assert result.min() < 53
    assert apply(edge, 1, NOTHING_BUT_JPEG, np.random.default_rng(0)).max() < 195


@pytest.mark.parametrize("strength", [1.0, 12.0, 30.0])
@pytest.mark.parametrize("grey", [False, True])
def test_gaussian_noise_has_its_sigma(strength, grey):
    x = np.full((200, 200, 3), 100, np.float32)
    added = add_noise(x, Noise(True, strength, grey), np.random.default_rng(0)) - x
    assert added.std() == pytest.approx(strength, rel=0.02)
    assert added.mean() == pytest.approx(0, abs=0.02 * strength)
    correlation = np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]
    assert correlation == pytest.approx(float(grey), abs=0.02)
    assert np.corrcoef(added[:, :-1].ravel(), added[:, 1:].ravel())[0, 1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("level", [4.0, 60.0, 255.0])
@pytest.mark.parametrize("grey", [False, True])
def test_poisson_noise_follows_the_root_of_the_light(level, grey):
    x = np.full((200, 200, 3), level, np.float32)
    added = add_noise(x, Noise(False, 1.5, grey), np.random.default_rng(0)) - x
    assert added.std() == pytest.approx(1.5 * level**0.5, rel=0.03)
    assert added.mean() == pytest.approx(0, abs=0.04 * level**0.5)
    assert (np.ptp(added, axis=2) < 1e-3).all() == grey


def test_poisson_noise_leaves_black_alone_and_takes_overshoots():
    x = np.stack([np.full((8, 8), level, np.float32) for level in (-5, 0, 300)], axis=-1)
    noisy = add_noise(x, Noise(False, 3.0, False), np.random.default_rng(0))
    np.testing.assert_array_equal(noisy[..., :2], x[..., :2])
    assert noisy[..., 2].std() > 10


def test_more_noise_in_the_options_is_more_noise_in_the_picture(hr):
    def spread(sigma):
        stage = Stage(blur=0, resize=(0, 0, 1), gaussian=1, noise_sigma=(sigma, sigma), quality=(95, 95))
        options = SecondOrder(stage, stage, final_sinc=0)
        return rms(second_order(hr, 1, np.random.default_rng(0), options), hr)

    # Two stages, each with sigma 20, less what the JPEGs remove, which is chiefly chroma.
    assert spread(0) < 2
    assert 15 < spread(20) < 28


@pytest.mark.parametrize("factor", [0.15, 1.5])
@pytest.mark.parametrize("interpolation", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(4, 4), (5, 31), (96, 80)])
@pytest.mark.parametrize("value", [0, 255, None])
def test_extreme_parameters_on_extreme_pictures(factor, interpolation, size, value):
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, (*size, 3), dtype=np.uint8) if value is None else np.full((*size, 3), value, np.uint8)
    for blur, noise, quality in [
        (Bell(21, (3.0, 0.2), 3.14, 4.0), Noise(True, 30.0, False), 30),
        (Sinc(21, np.pi / 5), Noise(False, 3.0, True), 95),
    ]:
        one = Pass(blur, factor, interpolation, noise, quality)
        lr = apply(hr, 4, Degradation(one, one, Sinc(21, np.pi), interpolation, quality == 30), rng)
        assert lr.shape == (size[0] // 4, size[1] // 4, 3)
        if value == 0 and not noise.gaussian:
            assert lr.max() == 0
        if value == 255:
            assert lr.mean() > 190


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((8, 8, 3), np.float32), ((8, 8), np.uint8), ((8, 8, 4), np.uint8), ((3, 9, 3), np.uint8), ((0, 9, 3), np.uint8)],
)
def test_misuse_is_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"second_order takes|cannot be reduced"):
        second_order(np.zeros(shape, dtype), 4, np.random.default_rng(0))


def test_sharpening_leaves_flat_parts_and_faint_texture():
    rng = np.random.default_rng(0)
    flat = np.full((64, 64, 3), 77, np.uint8)
    np.testing.assert_array_equal(usm_sharpen(flat), flat)
    faint = (128 + rng.integers(-4, 5, (64, 64, 3))).astype(np.uint8)
    np.testing.assert_array_equal(usm_sharpen(faint), faint)


def test_sharpening_steepens_an_edge_by_half_its_difference_from_the_blur():
    edge = np.full((120, 120, 3), 80, np.uint8)
    edge[:, 60:] = 160
    sharp = usm_sharpen(edge)
    # Half a pixel from a step of 80 the picture is 80 (1 - Φ(0.5 / 8)) = 38 from its blur.  The mask is true where that
    # is over 10, within 9.5 pixels of the step, and blurred to Φ(9.5 / 8) - Φ(-9.5 / 8) = 0.76 there: 38 / 2 · 0.76.
    assert sharp[60, 60, 0] - 160.0 == pytest.approx(14.5, abs=0.6)
    assert 80.0 - sharp[60, 59, 0] == pytest.approx(14.5, abs=0.6)
    assert (sharp[:, :20] == 80).all()
    assert (sharp[:, -20:] == 160).all()
    assert sharp.dtype == np.uint8


def test_sharpening_is_exact_where_the_mask_is_full():
    rng = np.random.default_rng(0)
    # Black and white pixels at random: everywhere far from their blur, so the mask is one throughout.
    noise = np.where(rng.random((80, 80, 1)) < 0.5, 60, 190).astype(np.uint8)
    blurred = cv2.GaussianBlur(noise.astype(np.float32), (51, 51), 8)
    expected = np.clip(noise[..., 0] + 0.5 * (noise[..., 0] - blurred), 0, 255)
    np.testing.assert_allclose(usm_sharpen(noise)[..., 0], expected, atol=0.51)
    assert usm_sharpen(noise).shape == (80, 80, 1)


def test_a_training_crop_is_degraded_but_recognisable(shared):
    file = min((shared / "data" / "train" / "part-1").iterdir())
    hr = np.asarray(Image.open(file).convert("RGB"))[:256, :256]
    clean = cv2.resize(hr, (64, 64), interpolation=cv2.INTER_AREA)
    errors = [rms(second_order(hr, 4, np.random.default_rng(seed)), clean) for seed in range(12)]
    assert min(errors) > 2
    assert max(errors) < 60
