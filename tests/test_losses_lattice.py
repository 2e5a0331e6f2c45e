import pytest
import torch
from torch.nn import functional as F

from sa_upscale import losses


def step(sr, hr, scale=4):
    return losses.Step(lr=hr[..., ::scale, ::scale], hr=hr, sr=sr)


def periodic(pattern, size=48):
    """A pattern of one LR pixel, repeated over a picture."""
    repeats = size // len(pattern)
    return torch.tensor(pattern).repeat(repeats, repeats).expand(1, 3, size, size)


def test_a_lattice_costs_the_mean_square_of_its_pattern():
    pattern = [[0.1, -0.1, 0.0, 0.0], [0.0] * 4, [0.0] * 4, [0.0] * 4]
    hr = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    lattice = losses.build("lattice")
    assert lattice(step(hr, hr)).item() == 0
    # Brighter as a whole is no lattice.
    assert lattice(step(hr + periodic(pattern) + 0.2, hr)).item() == pytest.approx(0.02 / 16, rel=1e-4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_what_does_not_keep_to_the_grid_averages_out(scale):
    generator = torch.Generator().manual_seed(scale)
    hr = torch.zeros(1, 3, 24 * scale, 24 * scale)
    grain = 0.1 * torch.randn(hr.shape, generator=generator)
    one = torch.zeros(1, 1, scale, scale)
    one[..., 0, 0] = 1
    grid = one.repeat(1, 3, 24, 24)
    grid = (grid - grid.mean()) * (grain.std() / grid.std())  # as strong as the grain
    of_grain, of_grid = (losses.build("lattice")(step(error, hr, scale)).item() for error in (grain, grid))
    assert of_grain < of_grid / 20  # 36 LR pixels a window: a 36th of the grain's variance is left
    edge = torch.zeros_like(hr)
    edge[..., 12 * scale + 1 :] = grain.std()
    assert losses.build("lattice")(step(edge, hr, scale)).item() < of_grid / 20


def test_its_gradient_takes_the_lattice_away():
    hr = F.interpolate(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1)), scale_factor=4.0)
    pattern = periodic([[0.1, 0.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4, [0.0] * 4])
    sr = (hr + pattern).requires_grad_()
    lattice = losses.build("lattice")
    (gradient,) = torch.autograd.grad(lattice(step(sr, hr)), sr)
    assert (gradient * pattern).sum() > 0
    assert lattice(step(sr - 300 * gradient, hr)).item() < 0.8 * lattice(step(sr, hr)).item()


def test_windows_fit_into_small_crops_and_are_no_single_pixels():
    hr = torch.zeros(1, 3, 8, 8)
    assert losses.build("lattice")(step(hr + 0.1, hr)).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="2 or more"):
        losses.build("lattice", window=1)
