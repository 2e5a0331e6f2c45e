import math

import numpy as np
import pytest
import torch
from PIL import Image

from sa_upscale.functional.resize import resize
from sa_upscale.metrics import psnr, psnr_y


def test_psnr_of_a_known_error():
    hr = torch.full((1, 3, 8, 8), 0.5)
    assert psnr(hr + 0.1, hr).item() == pytest.approx(20, abs=1e-4)


def test_luma_weighs_the_channels_as_bt601_does():
    hr = torch.full((1, 3, 8, 8), 0.5)
    sr = hr.clone()
    sr[:, 1] += 0.1
    assert psnr_y(sr, hr).item() == pytest.approx(-20 * math.log10(0.1 * 128.553 / 255), abs=1e-4)


def test_equal_pictures_are_infinitely_close():
    hr = torch.rand(2, 3, 8, 8)
    assert torch.isinf(psnr(hr, hr)).all()


def test_each_picture_has_its_own_value():
    hr = torch.full((2, 3, 8, 8), 0.5)
    sr = hr + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    torch.testing.assert_close(psnr(sr, hr), torch.tensor([20.0, 40.0], dtype=torch.float64), atol=1e-3, rtol=0)


def test_the_border_is_left_out():
    hr = torch.full((1, 3, 10, 10), 0.5)
    sr = hr + 0.1
    sr[..., 0, :] = sr[..., :, -1] = 1.0
    assert psnr(sr, hr, border=1).item() == pytest.approx(20, abs=1e-4)
    assert psnr(sr, hr).item() < 19


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="cannot compare"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
    with pytest.raises(ValueError, match="leaves nothing"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), border=4)


@pytest.mark.parametrize(("scale", "published"), [(2, 33.67), (3, 30.40), (4, 28.43)])
def test_bicubic_set5_is_as_published(shared, scale, published):
    folder = shared / "data" / "bench" / "Set5"
    values = []
    for hr_file in sorted((folder / f"HRx{scale}").iterdir()):
        hr, lr = (
            torch.from_numpy(np.array(Image.open(file).convert("RGB"))).movedim(-1, 0)[None].double() / 255
            for file in (hr_file, folder / f"LRx{scale}" / hr_file.name)
        )
        sr = (resize(lr, hr.shape[-2:]).clamp(0, 1) * 255).round() / 255
        values.append(psnr_y(sr, hr, border=scale).item())
    assert sum(values) / len(values) == pytest.approx(published, abs=0.01)
