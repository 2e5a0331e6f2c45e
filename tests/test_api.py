"""The Python interface: arrays, tensors and files through a small network."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import sa_upscale
from sa_upscale import checkpoints
from sa_upscale.models.compact import Compact
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Weights of zero: what is left is the bicubic base, whose flat areas stay as they are."""
    file = tmp_path_factory.mktemp("weights") / "x4.safetensors"
    model = Compact(features=4, convs=1)
    weights = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    checkpoints.save(file, weights, architecture="compact", parameters=model.parameters_dict, metadata={})
    return file


@pytest.fixture(scope="module")
def enlarge(network):
    return sa_upscale.load(network, device="cpu", precision="fp32")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3), (5, 6, 2), (5, 6, 4)])
def test_arrays_come_back_as_they_were_and_larger(enlarge, dtype, shape):
    white = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    result = enlarge(np.full(shape, 0.5 * white, dtype))
    assert result.shape == (20, 24, *shape[2:])
    assert result.dtype == (np.float32 if dtype == np.float64 else dtype)
    np.testing.assert_allclose(result.astype(float) / white, 0.5, atol=0.5 / 255)
    result[:] = 0  # and can be written to


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_tensors_keep_type_batch_and_channels_first(enlarge, dtype):
    batch = torch.rand(2, 3, 5, 6, generator=torch.manual_seed(0), requires_grad=True)
    batch = (batch * 255).to(dtype) if dtype == torch.uint8 else batch.to(dtype)
    result = enlarge(batch)
    assert (result.shape, result.dtype, result.requires_grad) == ((2, 3, 20, 24), dtype, False)
    plain = batch[1].detach()
    array = plain.permute(1, 2, 0) if dtype == torch.uint8 else plain.float().permute(1, 2, 0)
    expected = torch.from_numpy(enlarge(array.numpy())).permute(2, 0, 1).to(dtype)
    assert torch.equal(result[1], expected)
    assert torch.equal(enlarge(batch[1]), expected)


def test_files_become_arrays_or_files(enlarge, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    result = enlarge(tmp_path / "in.png")
    np.testing.assert_array_equal(result, enlarge(pixels))
    done = enlarge.file(str(tmp_path / "in.png"), tmp_path / "out.png")
    assert (done.width, done.height) == (24, 20)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), result)


def test_any_scale(network):
    assert sa_upscale.load(network, scale=2.5)(np.zeros((4, 6), np.uint8)).shape == (10, 15)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((2, 2, 5), np.uint8), "an array is"),
        (np.zeros((2,), np.uint8), "an array is"),
        (np.zeros((0, 2), np.uint8), "an array is"),
        (np.zeros((2, 2), np.int64), "uint8, uint16 or float, not int64"),
        (torch.zeros(4, 2, 2), "1 or 3 channels"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), "uint8 or float, not torch.int64"),
    ],
)
def test_misuse_is_said(enlarge, picture, message):
    with pytest.raises(ValueError, match=message):
        enlarge(picture)


def test_mistakes_are_one_line(enlarge, network):
    with pytest.raises(sa_upscale.UpscaleError, match="does not exist"):
        enlarge("none.png")
    with pytest.raises(sa_upscale.UpscaleError, match="did you mean compact"):
        sa_upscale.load("compct")
    with pytest.raises(sa_upscale.UpscaleError, match="from 1 to 8"):
        sa_upscale.load(network, scale=9)


def test_the_package_is_imported_without_torch():
    script = "import sys, sa_upscale; print('torch' in sys.modules, 'numpy' in sys.modules, hasattr(sa_upscale, 'x'))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3
