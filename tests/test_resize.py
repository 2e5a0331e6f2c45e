import pytest
import torch

from sa_upscale.functional.resize import contributions, cubic, resize


def test_the_kernel_interpolates():
    x = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    torch.testing.assert_close(cubic(x), torch.tensor([1, 0.5625, 0, -0.0625, 0, 0]))
    torch.testing.assert_close(cubic(-x), cubic(x))


@pytest.mark.parametrize(("source", "target"), [(7, 28), (28, 7), (9, 13), (13, 9), (1, 5), (5, 1), (2, 8)])
def test_weights_sum_to_one_and_indices_are_inside(source, target):
    for border in ("symmetric", "replicate"):
        indices, weights = contributions(source, target, border=border)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(target, dtype=torch.float64))
        assert indices.min() >= 0
        assert indices.max() < source


def test_a_ramp_stays_a_ramp_away_from_the_border():
    ramp = torch.arange(20, dtype=torch.float64).expand(20, 20)
    up = resize(ramp, (20, 80))
    expected = (torch.arange(80, dtype=torch.float64) + 0.5) / 4 - 0.5
    torch.testing.assert_close(up[0, 12:-12], expected[12:-12])


def test_symmetric_border_mirrors_with_the_edge_pixel_twice():
    x = torch.rand(1, 6, dtype=torch.float64)
    mirrored = torch.cat([x.flip(1), x, x.flip(1)], dim=1)
    torch.testing.assert_close(resize(x, (1, 12)), resize(mirrored, (1, 36))[:, 12:24])


def test_reducing_is_antialiased_unless_told_otherwise():
    stripes = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(16).expand(64, 64)
    assert (resize(stripes, (16, 16))[:, 2:-2] - 0.5).abs().max() < 0.05
    assert resize(stripes, (16, 16), antialias=False).min() > 0.99


def test_the_same_size_is_the_same_picture():
    x = torch.rand(3, 5, 7)
    assert torch.equal(resize(x, (5, 7)), x)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="floating-point"):
        resize(torch.zeros(4, 4, dtype=torch.uint8), (8, 8))
    with pytest.raises(ValueError, match="empty"):
        resize(torch.zeros(4, 4), (0, 8))
