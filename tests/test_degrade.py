import numpy as np
import pytest
import torch
from PIL import Image

from sa_upscale.degrade import bicubic
from sa_upscale.functional.resize import resize_axis


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_set5_is_reproduced_bit_for_bit(shared, scale):
    folder = shared / "data" / "bench" / "Set5"
    pairs = list(
        zip(
            sorted((folder / f"HRx{scale}").iterdir()),
            sorted((folder / f"LRx{scale}").iterdir()),
            strict=True,
        )
    )
    assert len(pairs) == 5
    for hr, lr in pairs:
        np.testing.assert_array_equal(bicubic(pixels(hr), scale), pixels(lr), err_msg=hr.name)


def test_bsd100_is_reproduced_bit_for_bit(shared):
    folder = shared / "data" / "bench" / "BSD100"
    pairs = list(zip(sorted((folder / "HRx4").iterdir()), sorted((folder / "LRx4").iterdir()), strict=True))
    assert len(pairs) == 100
    for hr, lr in pairs:
        np.testing.assert_array_equal(bicubic(pixels(hr), 4), pixels(lr), err_msg=hr.name)


@pytest.mark.parametrize("scale", range(1, 9))
def test_it_is_the_reference_filter_rounded_after_each_pass(scale):
    hr = np.random.default_rng(scale).integers(0, 256, (5 * scale, 7 * scale, 3), dtype=np.uint8)
    x = torch.tensor(hr, dtype=torch.float64)
    for axis, length in ((0, 5), (1, 7)):
        x = (resize_axis(x, length, axis=axis, border="replicate") + 0.5).floor().clamp(0, 255)
    np.testing.assert_array_equal(bicubic(hr, scale), x.numpy())


def test_what_does_not_divide_is_cropped():
    hr = np.random.default_rng(0).integers(0, 256, (23, 18, 3), dtype=np.uint8)
    np.testing.assert_array_equal(bicubic(hr, 4), bicubic(hr[:20, :16], 4))


def test_flat_stays_flat():
    assert (bicubic(np.full((12, 12, 3), 77, np.uint8), 3) == 77).all()


@pytest.mark.parametrize(
    "hr", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((3, 9, 3), np.uint8)]
)
def test_misuse_is_refused(hr):
    with pytest.raises(ValueError, match=r"bicubic takes|cannot be reduced"):
        bicubic(hr, 4)
