import math
from dataclasses import replace

import numpy as np
import pytest

from sa_upscale.degrade import PUBLISHED, SecondOrder, SecondStage, Stage
from sa_upscale.degrade.draws import draw
from sa_upscale.degrade.kernels import Bell, Sinc

DRAWS = 8000


class Constant:
    """A generator whose every draw from [0, 1) is the same."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(7)
    return [draw(PUBLISHED, rng) for _ in range(DRAWS)]


def assert_share(flags, probability):
    """The share of true `flags` is within four standard errors of `probability`."""
    flags = np.array(flags)
    error = math.sqrt(probability * (1 - probability) / len(flags))
    assert abs(flags.mean() - probability) <= 4 * error + 1e-12, (flags.mean(), probability)


def assert_uniform(values, low, high):
    """All `values` lie in [low, high] and their mean and spread are those of the uniform distribution."""
    values = np.array(values)
    assert values.min() >= low
    assert values.max() <= high
    spread = (high - low) / math.sqrt(12)
    assert abs(values.mean() - (low + high) / 2) <= 4 * spread / math.sqrt(len(values))
    assert values.std() == pytest.approx(spread, rel=0.1)


def shape(bell):
    kind = "plateau" if bell.plateau else "normal" if bell.beta == 1 else "generalised"
    return kind, bell.sigma[0] != bell.sigma[1]


STAGES = [("first", PUBLISHED.first), ("second", PUBLISHED.second)]


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_blurs_come_as_often_as_asked(drawn, name, stage):
    blurs = [getattr(one, name).blur for one in drawn]
    assert_share([blur is not None for blur in blurs], stage.blur)
    blurs = [blur for blur in blurs if blur]
    assert_share([isinstance(blur, Sinc) for blur in blurs], 0.1)
    shapes = [shape(blur) for blur in blurs if isinstance(blur, Bell)]
    for kind, elongated, share in [
        ("normal", False, 0.45),
        ("normal", True, 0.25),
        ("generalised", False, 0.12),
        ("generalised", True, 0.03),
        ("plateau", False, 0.12),
        ("plateau", True, 0.03),
    ]:
        assert_share([one == (kind, elongated) for one in shapes], share)
    for size in range(7, 22, 2):
        assert_share([blur.size == size for blur in blurs], 1 / 8)


@pytest.mark.parametrize(("name", "high"), [("first", 3.0), ("second", 1.5)])
def test_bells_have_the_asked_widths_angles_and_exponents(drawn, name, high):
    bells = [bell for one in drawn if isinstance(bell := getattr(one, name).blur, Bell)]
    assert_uniform([bell.sigma[0] for bell in bells], 0.2, high)
    elongated = [bell for bell in bells if shape(bell)[1]]
    assert_uniform([bell.sigma[1] for bell in elongated], 0.2, high)
    assert_uniform([bell.angle for bell in elongated], -math.pi, math.pi)
    assert all(bell.angle == 0 for bell in bells if not shape(bell)[1])
    betas = [bell.beta for bell in bells if shape(bell)[0] == "generalised"]
    assert_share([beta < 1 for beta in betas], 0.5)
    assert_uniform([beta for beta in betas if beta < 1], 0.5, 1)
    assert_uniform([beta for beta in betas if beta > 1], 1, 4)
    betas = [bell.beta for bell in bells if bell.plateau]
    assert_share([beta == 1 for beta in betas], 0.5)
    assert_uniform([beta for beta in betas if beta != 1], 1, 2)


def test_sinc_cutoffs_depend_on_the_kernel(drawn):
    sincs = [one.first.blur for one in drawn if isinstance(one.first.blur, Sinc)]
    assert_uniform([sinc.cutoff for sinc in sincs if sinc.size < 13], math.pi / 3, math.pi)
    assert_uniform([sinc.cutoff for sinc in sincs if sinc.size >= 13], math.pi / 5, math.pi)
    assert_uniform([sinc.cutoff for sinc in sincs if sinc.size == 13], math.pi / 5, math.pi)
    assert_uniform([one.sinc.cutoff for one in drawn if one.sinc], math.pi / 3, math.pi)


@pytest.mark.parametrize(
    ("name", "weights", "low", "high"), [("first", (0.2, 0.7, 0.1), 0.15, 1.5), ("second", (0.3, 0.4, 0.3), 0.3, 1.2)]
)
def test_resizes_go_up_down_or_keep(drawn, name, weights, low, high):
    factors = [getattr(one, name).factor for one in drawn]
    assert_share([factor > 1 for factor in factors], weights[0])
    assert_share([factor < 1 for factor in factors], weights[1])
    assert_share([factor == 1 for factor in factors], weights[2])
    assert_uniform([factor for factor in factors if factor > 1], 1, high)
    assert_uniform([factor for factor in factors if factor < 1], low, 1)


@pytest.mark.parametrize(("name", "sigma", "scale"), [("first", 30, 3.0), ("second", 25, 2.5)])
def test_noise_and_quality_follow_the_ranges(drawn, name, sigma, scale):
    passes = [getattr(one, name) for one in drawn]
    assert_share([one.noise.gaussian for one in passes], 0.5)
    assert_share([one.noise.grey for one in passes], 0.4)
    assert_uniform([one.noise.strength for one in passes if one.noise.gaussian], 1, sigma)
    assert_uniform([one.noise.strength for one in passes if not one.noise.gaussian], 0.05, scale)
    assert_uniform([one.quality for one in passes], 30, 95)
    assert all(isinstance(one.quality, int) for one in passes)


def test_the_end_is_drawn_as_published(drawn):
    assert_share([one.sinc is not None for one in drawn], 0.8)
    assert_share([one.jpeg_last for one in drawn], 0.5)
    for interpolation in ("area", "bilinear", "bicubic"):
        assert_share([one.interpolation == interpolation for one in drawn], 1 / 3)
        assert_share([one.first.interpolation == interpolation for one in drawn], 1 / 3)
        assert_share([one.second.interpolation == interpolation for one in drawn], 1 / 3)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_certain_options_are_certain(probability):
    stage = Stage(blur=probability, sinc=probability, gaussian=probability, grey=probability, resize=(0, 0, 1))
    options = SecondOrder(stage, stage, final_sinc=probability, jpeg_last=probability)
    rng = np.random.default_rng(1)
    for one in (draw(options, rng) for _ in range(200)):
        for drawn_pass in (one.first, one.second):
            assert isinstance(drawn_pass.blur, Sinc) == bool(probability)
            assert drawn_pass.noise.gaussian == drawn_pass.noise.grey == bool(probability)
            assert drawn_pass.factor == 1
        assert (one.sinc is not None) == one.jpeg_last == bool(probability)


@pytest.mark.parametrize("index", range(6))
def test_a_shape_alone_in_the_weights_is_always_drawn(index):
    shapes = tuple(float(other == index) for other in range(6))
    stage = Stage(sinc=0, shapes=shapes, generalised_beta=(0.5, 0.9))
    expected = (("normal", "generalised", "plateau")[index // 2], bool(index % 2))
    rng = np.random.default_rng(2)
    assert {shape(draw(SecondOrder(first=stage), rng).first.blur) for _ in range(100)} == {expected}


@pytest.mark.parametrize("value", [0.0, 1 - 2**-53])
def test_the_ends_of_the_generators_range_stay_within_the_options(value):
    one = draw(PUBLISHED, Constant(value))
    if value == 0:
        assert isinstance(one.first.blur, Sinc)
        assert one.first.blur.size == 7
        assert (one.first.factor, one.first.quality, one.first.interpolation) == (1, 30, "area")
        assert one.first.noise.strength == 1
        assert one.jpeg_last
    else:
        assert shape(one.first.blur)[0] == "plateau"
        assert one.first.blur.size == 21
        assert one.first.blur.sigma == pytest.approx((3, 3))
        assert one.first.blur.beta == pytest.approx(2)
        assert one.second.blur is None
        assert (one.first.factor, one.first.quality, one.first.interpolation) == (1, 95, "bicubic")
        assert one.first.noise.strength == pytest.approx(3)
        assert one.sinc is None
        assert not one.jpeg_last


def test_a_zero_weight_is_not_drawn_at_either_end():
    stage = Stage(resize=(0, 1, 0))
    for value in (0.0, 1 - 2**-53):
        assert draw(SecondOrder(first=stage), Constant(value)).first.factor <= 1
    assert draw(SecondOrder(first=stage), Constant(0.0)).first.factor == 0.15


def test_the_second_stage_has_its_own_defaults_beside_what_is_set():
    assert SecondStage(gaussian=0.2) == replace(PUBLISHED.second, gaussian=0.2)
    assert PUBLISHED.second.sigma == (0.2, 1.5)
    assert PUBLISHED.first.sigma == (0.2, 3.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur": 1.1}, "blur is a probability"),
        ({"sinc": -0.1}, "sinc is a probability"),
        ({"shapes": (0, 0, 0, 0, 0, 0)}, "shapes takes 6 weights"),
        ({"resize": (0.5, 0.5)}, "resize takes 3 weights"),
        ({"resize": (0.5, 0.5, -0.1)}, "resize takes 3 weights"),
        ({"sizes": (7, 20)}, "odd"),
        ({"sizes": (7, 33)}, "sizes takes two values"),
        ({"sigma": (0.0, 3.0)}, "sigma takes two values"),
        ({"sigma": (3.0, 0.2)}, "sigma takes two values"),
        ({"noise_sigma": (-1, 3)}, "noise_sigma takes two values"),
        ({"factor": (1.1, 1.5)}, "around 1"),
        ({"quality": (0, 95)}, "quality takes two values"),
        ({"generalised_beta": (0.5, math.nan)}, "generalised_beta takes two values"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Stage(**options)


@pytest.mark.parametrize("name", ["final_sinc", "jpeg_last"])
def test_impossible_ends_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is a probability"):
        SecondOrder(**{name: 2.0})
