import math

import numpy as np
import pytest

from sa_upscale.degrade.kernels import Bell, Sinc, bessel_j1

BELLS = [
    Bell(size, sigma, angle, beta, plateau)
    for size in (7, 13, 21)
    for sigma in ((0.2, 0.2), (3.0, 3.0), (0.2, 3.0), (2.5, 0.7))
    for angle in (0.0, 0.6, -math.pi, math.pi)
    for beta, plateau in ((1.0, False), (0.5, False), (4.0, False), (1.0, True), (2.0, True))
]
SINCS = [Sinc(size, cutoff) for size in (7, 13, 21) for cutoff in (math.pi / 3, 2.0, math.pi)]


def offsets(size):
    y, x = np.mgrid[:size, :size] - size // 2
    return x, y


def covariance(kernel):
    """Second moments in x and y about the centre."""
    x, y = offsets(kernel.shape[0])
    return np.array(
        [[(kernel * x * x).sum(), (kernel * x * y).sum()], [(kernel * x * y).sum(), (kernel * y * y).sum()]]
    )


@pytest.mark.parametrize("drawn", BELLS + SINCS, ids=str)
def test_a_kernel_sums_to_one_and_looks_the_same_from_both_sides(drawn):
    kernel = drawn.weights()
    assert kernel.shape == (drawn.size, drawn.size)
    assert kernel.dtype == np.float32
    assert kernel.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], rtol=1e-5, atol=1e-9)
    assert kernel.argmax() == drawn.size**2 // 2 or drawn.plateau


@pytest.mark.parametrize("drawn", [bell for bell in BELLS if bell.sigma[0] == bell.sigma[1]], ids=str)
def test_equal_widths_are_round_whatever_the_angle(drawn):
    kernel = drawn.weights()
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(kernel, kernel[::-1], rtol=1e-4, atol=1e-9)
    round_one = Bell(drawn.size, drawn.sigma, 0.0, drawn.beta, drawn.plateau).weights()
    np.testing.assert_allclose(kernel, round_one, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 4, 2.0, -1.0])
def test_a_normal_bell_has_its_widths_along_and_across_its_angle(angle):
    moments = covariance(Bell(21, (2.5, 1.2), angle).weights())
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    # The window of 21 pixels cuts 2.5 pixels' tails at four sigma, which costs less than 1 %.
    assert along @ moments @ along == pytest.approx(2.5**2, rel=0.01)
    assert across @ moments @ across == pytest.approx(1.2**2, rel=0.01)
    assert along @ moments @ across == pytest.approx(0, abs=0.01)


def test_profiles_by_hand():
    def fall(bell):
        kernel = bell.weights()
        return kernel[10, 12] / kernel[10, 10]

    assert fall(Bell(21, (2.0, 2.0))) == pytest.approx(math.exp(-0.5), rel=1e-5)
    assert fall(Bell(21, (1.0, 1.0))) == pytest.approx(math.exp(-2), rel=1e-5)
    assert fall(Bell(21, (1.0, 1.0), beta=0.5)) == pytest.approx(math.exp(-1), rel=1e-5)
    assert fall(Bell(21, (1.0, 1.0), beta=2.0)) == pytest.approx(math.exp(-8), rel=1e-5)
    assert fall(Bell(21, (1.0, 1.0), plateau=True)) == pytest.approx(1 / 5, rel=1e-5)
    assert fall(Bell(21, (1.0, 1.0), beta=2.0, plateau=True)) == pytest.approx(1 / 17, rel=1e-5)


def test_the_narrowest_normal_bell_changes_nothing():
    kernel = Bell(7, (0.2, 0.2)).weights()
    assert kernel[3, 3] > 0.9999


@pytest.mark.parametrize("cutoff", [math.pi / 3, math.pi / 2, 2.2])
@pytest.mark.parametrize("direction", [0.0, math.pi / 4, 1.1])
def test_a_sinc_passes_frequencies_below_its_cutoff_and_stops_those_above(cutoff, direction):
    kernel = Sinc(21, cutoff).weights().astype(np.float64)
    x, y = offsets(21)

    def response(frequency):
        return (kernel * np.cos(frequency * (x * math.cos(direction) + y * math.sin(direction)))).sum()

    # The edge is as wide as a window of 21 pixels makes it, about 2π/21, and ripples beside it.
    assert response(cutoff - 0.35) > 0.85
    assert abs(response(cutoff + 0.35)) < 0.15
    assert 0.3 < response(cutoff) < 0.7


def test_a_sinc_rings():
    kernel = Sinc(21, math.pi / 2).weights()
    assert kernel[10, 10] == pytest.approx(kernel.max())
    assert kernel[10, 13] < 0 < kernel[10, 16]


def test_bessel_j1_has_its_tabled_values():
    x = np.array([0.0, 1.0, 3.8317059702075125, 10.0, 50.0, 69.0])
    table = [0.0, 0.4400505857449335, 0.0, 0.04347274616886144, -0.09751182812517514, -0.07494530013047318]
    np.testing.assert_allclose(bessel_j1(x), table, atol=1e-12)
