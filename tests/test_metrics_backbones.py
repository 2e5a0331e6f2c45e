"""LPIPS, DISTS and FID with backbones of random weights, and, with the network, with the trained ones."""

import sys
from types import SimpleNamespace

import pytest
import torch

from sa_upscale.errors import UpscaleError
from sa_upscale.functional.resize import resize
from sa_upscale.metrics import Needs, build
from sa_upscale.metrics.dists import VGG16
from sa_upscale.metrics.fid import FID
from sa_upscale.metrics.lpips import ALEXNET
from sa_upscale.metrics.optional import hub_folder


@pytest.fixture(scope="module")
def torchvision():
    try:
        import torchmetrics.image.lpip
        import torchvision
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs torchmetrics and a torchvision that fits torch: {error}")
    return SimpleNamespace(models=torchvision.models, lpip=torchmetrics.image.lpip)


@pytest.fixture(scope="module")
def hub(torchvision, tmp_path_factory):
    """A hub folder with untrained backbones under the names of the trained ones."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "checkpoints").mkdir()
    torch.manual_seed(0)
    backbones = {ALEXNET: torchvision.models.alexnet(weights=None), VGG16: torchvision.models.vgg16(weights=None)}
    for url, network in backbones.items():
        torch.save(network.state_dict(), folder / "checkpoints" / url.rpartition("/")[2])
    return folder


def pictures():
    generator = torch.Generator().manual_seed(0)
    hr = resize(torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64), (64, 64)).clamp(0, 1)
    noise = torch.randn(hr.shape, generator=generator, dtype=torch.float64)
    return hr, (hr + 0.02 * noise).clamp(0, 1), (hr + 0.2 * noise).clamp(0, 1)


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_distance_through_a_local_backbone(hub, name):
    measure = build([name], Needs(backbones=hub))[name]
    hr, little, much = pictures()
    assert measure(hr, hr).tolist() == pytest.approx([0, 0], abs=1e-5)
    near, far = measure(little, hr), measure(much, hr)
    assert near.shape == (2,)
    assert ((near > 0) & (near < far)).all()
    torch.testing.assert_close(far[1:], measure(much[1:], hr[1:]), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="cannot compare"):
        measure(hr, hr[..., 1:])
    with pytest.raises(ValueError, match="needs"):
        measure(hr, hr, 28)


def test_lpips_is_torchmetrics_own(torchvision, hub):
    hr, _, much = pictures()
    with hub_folder(hub):
        measure = torchvision.lpip.LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    theirs = measure(much.float(), hr.float())
    ours = build(["lpips"], Needs(backbones=hub))["lpips"](much, hr).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


class Brightness(torch.nn.Module):
    num_features = 1

    def forward(self, x):
        return x.double().mean(dim=(1, 2, 3))[:, None]


def test_fid_is_the_distance_between_the_means_where_variances_are_equal():
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs torchmetrics: {error}")
    measure = FID(FrechetInceptionDistance(feature=Brightness()))
    levels = torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64).view(3, 1, 1, 1).expand(3, 3, 8, 8) / 255
    with pytest.raises(UpscaleError, match="two pictures at least"):
        measure.compute()
    measure.update(levels[1:], levels[:2])
    assert measure.compute() == pytest.approx((3 - 1) ** 2, abs=1e-4)
    measure.reset()
    measure.update(levels, levels)
    assert measure.compute() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "missing"), [("lpips", "torchvision"), ("dists", "torchvision"), ("fid", "torch_fidelity")]
)
def test_a_missing_library_is_one_line(monkeypatch, name, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UpscaleError, match=rf"{name} needs {missing}.*pip install 'sa-upscale\[perceptual\]'"):
        build([name])


@pytest.mark.network
@pytest.mark.parametrize(
    ("library", "name"), [("torchvision", "lpips"), ("torchvision", "dists"), ("torch_fidelity", "fid")]
)
def test_the_trained_backbones_are_where_they_are_fetched_from(torchvision, tmp_path, library, name):
    pytest.importorskip(library)
    measure = build([name], Needs(backbones=tmp_path))[name]
    hr, little, much = pictures()
    if name == "fid":
        measure.update(hr, hr)
        assert measure.compute() == pytest.approx(0, abs=1e-3)
    else:
        assert (measure(little, hr) < measure(much, hr)).all()
