import cv2
import numpy as np
import pytest
import torch

from sa_upscale.functional import filters


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def variance_of_windows(plane, window, ddof):
    """Directly: one window at a time, in double precision."""
    radius = window // 2
    padded = np.pad(plane.astype(np.float64), radius, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window, window))
    return windows.var(axis=(-1, -2), ddof=ddof)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("window", [3, 5, 7])
def test_box_variance_is_the_variance_of_each_window(window, unbiased):
    x = noise(2, 3, 9, 11)
    variance = filters.box_variance(x, window, unbiased=unbiased)
    expected = [[variance_of_windows(plane.numpy(), window, int(unbiased)) for plane in image] for image in x]
    np.testing.assert_allclose(variance.numpy(), expected, rtol=1e-4)


def test_local_variance_of_one_bright_pixel():
    # Within reach of it 1 of 25 pixels is 1: variance 1/25 - 1/625 = 0.0384, and W = 0.0384 / 0.0484.
    x = torch.zeros(1, 1, 11, 11)
    x[..., 5, 5] = 1
    w = filters.local_variance(x)
    expected = torch.zeros_like(x)
    expected[..., 3:8, 3:8] = 0.0384 / 0.0484
    torch.testing.assert_close(w, expected)
    torch.testing.assert_close(filters.local_variance(x, delta=0.0384)[..., 5, 5], torch.tensor([[0.5]]))
    assert filters.local_variance(x, window=3)[..., 3, 3] == 0


def test_local_variance_is_taken_of_each_channel_in_float32_without_gradient():
    x = noise(1, 3, 12, 12)
    x[:, 1] = 0.5
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        w = filters.local_variance(x)
    assert w.dtype == torch.float32
    assert not w.requires_grad
    assert torch.equal(w[:, 1], torch.zeros(1, 12, 12))
    assert (w[:, [0, 2]] > 0.5).all()
    assert (w < 1).all()
    torch.testing.assert_close(w, filters.local_variance(x.detach()))
    torch.testing.assert_close(filters.local_variance(x.bfloat16()), w, rtol=0.02, atol=0)


def test_flat_areas_have_no_variance_below_zero():
    flat = torch.linspace(0, 1, 101).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    variance = filters.box_variance(flat, 7)
    assert variance.min() >= 0
    assert variance.max() < 1e-6


@pytest.mark.parametrize(("window", "side", "message"), [(4, 9, "odd"), (1, 9, "at least 3"), (7, 3, "at least 4 pix")])
def test_box_refuses_windows_without_a_middle_and_images_too_small(window, side, message):
    with pytest.raises(ValueError, match=message):
        filters.box_mean(torch.zeros(1, 1, side, side), window)


def test_canny_is_opencvs_on_8_bit_luma():
    pixels = cv2.GaussianBlur((noise(24, 24, 3).numpy() * 255).astype(np.uint8), (0, 0), 1)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    expected = cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 100, 200, L2gradient=False) / 255
    w = filters.canny(torch.cat([x, torch.zeros_like(x)]).requires_grad_())
    assert w.shape == (2, 1, 24, 24)
    assert not w.requires_grad
    assert 0 < w[0].mean() < 1
    np.testing.assert_array_equal(w[0, 0].numpy(), expected)
    assert w[1].max() == 0


def test_canny_marks_a_step_and_obeys_its_thresholds():
    x = torch.zeros(1, 3, 16, 16)
    x[..., 8:] = 0.5
    edge = filters.canny(x)
    assert torch.equal(edge[0, 0].sum(dim=0) > 0, torch.isin(torch.arange(16), edge[0, 0, 8].nonzero()))
    assert edge.sum() == 16
    # Sobel's answer to a step of 128 is 4 · 128.
    assert filters.canny(x, high=513).sum() == 0
    assert torch.equal(filters.canny(x[:, :1]), edge)


def test_unsharp_overshoots_at_an_edge_and_leaves_the_rest():
    x = torch.full((1, 3, 60, 120), 0.3)
    x[..., 60:] = 0.7
    sharp = filters.unsharp(x)
    assert sharp[0, 0, 30, 59] < 0.25
    assert sharp[0, 0, 30, 60] > 0.75
    torch.testing.assert_close(sharp[..., :2], x[..., :2])
    torch.testing.assert_close(filters.unsharp(x, threshold=1.0), x)
    with pytest.raises(ValueError, match="at least 26 pixels"):
        filters.unsharp(x[..., :20])


def test_unsharp_agrees_with_opencv():
    image = cv2.GaussianBlur(noise(64, 64).numpy(), (0, 0), 2)
    image = (image - image.min()) / np.ptp(image)

    def blur(plane):
        return cv2.GaussianBlur(plane, (51, 51), 0, borderType=cv2.BORDER_REFLECT_101)

    detail = image - blur(image)
    mask = blur((np.abs(detail) * 255 > 10).astype(np.float32))
    expected = mask * np.clip(image + 0.5 * detail, 0, 1) + (1 - mask) * image
    with torch.autocast("cpu", torch.bfloat16):
        sharp = filters.unsharp(torch.from_numpy(image)[None, None])
    np.testing.assert_allclose(sharp[0, 0].numpy(), expected, atol=1e-5)
