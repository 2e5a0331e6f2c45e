import math
import sys
import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image

from sa_upscale.errors import UpscaleError
from sa_upscale.functional.color import luma
from sa_upscale.functional.resize import resize
from sa_upscale.functional.vgg import LAYERS, VGG
from sa_upscale.metrics import METRICS, Needs, build, psnr, psnr_y, ssim, ssim_y, vgg_percep
from sa_upscale.metrics.optional import find_backbone, hub_folder, load_library

WITHOUT_WEIGHTS = ["psnr", "psnr-y", "ssim", "ssim-y", "vif", "vif-y"]
BACKBONE = "https://example.invalid/models/net-7be5be79.pth"


@pytest.fixture(scope="module")
def network():
    """VGG19 as far as conv3_4 with random weights, an eighth as wide."""
    torch.manual_seed(0)
    weights, channels = {}, 3
    for layer, index in LAYERS.items():
        if layer > "conv3_4":
            break
        width = 8 * 2 ** (int(layer[4]) - 1)
        weights[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
        weights[f"features.{index}.bias"] = torch.rand(width)  # so that something is alive at every pixel
        channels = width
    return VGG(weights)


@pytest.fixture(params=[*WITHOUT_WEIGHTS, "vgg-percep"])
def metric(request, network):
    if request.param.startswith("vif"):
        pytest.importorskip("torchmetrics")
    measure = (
        vgg_percep.VGGDistance(network) if request.param == "vgg-percep" else build([request.param])[request.param]
    )
    return request.param, measure


def measure_of(name, network):
    return vgg_percep.VGGDistance(network) if name == "vgg-percep" else build([name])[name]


def pictures(seed=0, batch=2, side=56):
    """Smooth random pictures and the same with a little and with more noise."""
    generator = torch.Generator().manual_seed(seed)
    hr = resize(torch.rand(batch, 3, 14, 14, generator=generator, dtype=torch.float64), (side, side)).clamp(0, 1)
    noise = torch.randn(hr.shape, generator=generator, dtype=torch.float64)
    return hr, (hr + 0.02 * noise).clamp(0, 1), (hr + 0.2 * noise).clamp(0, 1)


def best(name):
    if not METRICS[name].higher_is_better:
        return 0
    return math.inf if name.startswith("psnr") else 1


# Every metric


def test_equal_pictures_are_as_good_as_can_be(metric):
    name, measure = metric
    hr, _, _ = pictures()
    assert measure(hr, hr).tolist() == pytest.approx([best(name)] * 2, abs=1e-6)


def test_more_noise_is_worse_and_never_beyond_the_best(metric):
    name, measure = metric
    hr, little, much = pictures()
    sign = 1 if METRICS[name].higher_is_better else -1
    assert (sign * measure(little, hr) > sign * measure(much, hr)).all()
    assert (sign * measure(little, hr) < sign * best(name)).all()


def test_a_picture_of_a_batch_has_the_value_it_has_alone(metric):
    _, measure = metric
    hr, _, much = pictures()
    alone = torch.cat([measure(sr[None], one[None]) for sr, one in zip(much, hr, strict=True)])
    torch.testing.assert_close(measure(much, hr), alone, rtol=1e-5, atol=1e-6)
    assert alone[0] != alone[1]


def test_the_type_of_the_numbers_does_not_matter(metric):
    _, measure = metric
    hr, _, much = pictures()
    torch.testing.assert_close(
        measure(much.float(), hr.float()).double(), measure(much, hr).double(), rtol=1e-4, atol=0
    )


def test_the_border_is_left_out(metric):
    _, measure = metric
    hr, _, much = pictures()
    inside = (..., slice(4, -4), slice(4, -4))
    spoilt = much.clone()
    spoilt[..., :4, :] = spoilt[..., -4:] = 1
    torch.testing.assert_close(measure(spoilt, hr, 4), measure(much[inside], hr[inside]), rtol=1e-5, atol=1e-6)


def test_misuse_is_refused(metric):
    _, measure = metric
    x = torch.rand(1, 3, 48, 48)
    with pytest.raises(ValueError, match="cannot compare"):
        measure(x, x[..., :-1])
    with pytest.raises(ValueError, match="leaves nothing"):
        measure(x, x, 24)
    with pytest.raises(ValueError, match="a border of -1"):
        measure(x, x, -1)


@pytest.mark.parametrize(("name", "smallest"), [("ssim", 11), ("vif", 41), ("vgg-percep", 4)])
def test_pictures_that_are_too_small_are_refused(name, smallest, network):
    if name == "vif":
        pytest.importorskip("torchmetrics")
    measure = measure_of(name, network)
    x = torch.rand(1, 3, smallest + 1, smallest + 2)
    assert math.isfinite(measure(x, x))
    with pytest.raises(ValueError, match=f"needs {smallest}"):
        measure(x, x, 1)


def test_integers_are_refused():
    x = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="floating-point"):
        psnr(x, x)


def test_unknown_names_suggest_near_ones():
    with pytest.raises(UpscaleError, match="unknown metric 'ssim_y'; did you mean ssim-y"):
        build(["psnr", "ssim_y"])


# PSNR


def test_psnr_of_a_known_error():
    hr = torch.full((2, 3, 8, 8), 0.5)
    sr = hr + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    torch.testing.assert_close(psnr(sr, hr), torch.tensor([20.0, 40.0], dtype=torch.float64), atol=1e-3, rtol=0)


def test_luma_weighs_the_channels_as_bt601_does():
    hr = torch.full((1, 3, 8, 8), 0.5)
    sr = hr.clone()
    sr[:, 1] += 0.1
    assert psnr_y(sr, hr).item() == pytest.approx(-20 * math.log10(0.1 * 128.553 / 255), abs=1e-4)


# SSIM


def test_ssim_of_flat_pictures_is_the_luminance_term():
    x = torch.ones(1, 3, 12, 12)
    c1 = 0.01**2
    assert ssim(0.5 * x, 0.4 * x).item() == pytest.approx((2 * 0.2 + c1) / (0.25 + 0.16 + c1), abs=1e-6)


def test_ssim_of_an_inverted_pattern_by_hand():
    # One window fits into 11x11 pixels, so that its sums can be written out.
    offsets = np.arange(11) - 5
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    hr = np.random.default_rng(0).random((11, 11))
    sr = 1 - hr
    mean_hr, mean_sr = (kernel * hr).sum(), (kernel * sr).sum()
    variance = (kernel * (hr - mean_hr) ** 2).sum()
    luminance = (2 * mean_hr * mean_sr + 1e-4) / (mean_hr**2 + mean_sr**2 + 1e-4)
    expected = luminance * (-2 * variance + 9e-4) / (2 * variance + 9e-4)
    assert ssim(torch.tensor(sr)[None, None], torch.tensor(hr)[None, None]).item() == pytest.approx(expected, abs=1e-9)


def test_ssim_agrees_with_torchmetrics_where_windows_lie_inside():
    functional = pytest.importorskip("torchmetrics.functional.image")
    hr, little, _ = pictures()
    _, full = functional.structural_similarity_index_measure(little, hr, data_range=1.0, return_full_image=True)
    theirs = full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    torch.testing.assert_close(ssim(little, hr), theirs, rtol=1e-6, atol=0)


# VIF


def test_vif_takes_0_to_255_and_float64_agrees():
    functional = pytest.importorskip("torchmetrics.functional.image")
    hr, little, _ = pictures()
    theirs = functional.visual_information_fidelity(luma(little) * 255, luma(hr) * 255, reduction="none")
    torch.testing.assert_close(build(["vif-y"])["vif-y"](little, hr).double(), theirs, rtol=1e-4, atol=0)


def test_a_missing_library_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(UpscaleError, match=r"vif needs torchmetrics.*pip install 'sa-upscale\[metrics\]'"):
        build(["vif-y"])


def test_a_torchvision_of_another_build_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "misfit.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "bug.py").write_text("raise RuntimeError('something else')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UpscaleError, match="torchvision was built for another torch"):
        load_library("lpips", "misfit")
    with pytest.raises(RuntimeError, match="something else"):
        load_library("lpips", "bug")


# vgg-percep


def test_vgg_percep_by_hand(network):
    hr, _, much = pictures(side=16)
    expected = torch.zeros(2)
    with torch.no_grad():
        of_sr, of_hr = (network(x.float(), vgg_percep.LAYERS) for x in (much, hr))
    for layer in ("conv1_2", "conv2_2", "conv3_4"):
        a, b = of_sr[layer].clamp(min=0), of_hr[layer].clamp(min=0)
        cosine = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
        expected += (2 - 2 * cosine).mean(dim=(1, 2)) / 3
    torch.testing.assert_close(vgg_percep.VGGDistance(network)(much, hr), expected, rtol=1e-4, atol=1e-5)


def test_vgg_percep_ignores_the_scale_of_whole_layers(network):
    weights = {}
    factor = 1.0
    for layer, conv in network.convs.items():
        index = LAYERS[layer]
        weights[f"features.{index}.weight"] = conv.weight * 2
        factor *= 2
        weights[f"features.{index}.bias"] = conv.bias * factor
    hr, _, much = pictures(side=16)
    one, other = (vgg_percep.VGGDistance(vgg)(much, hr) for vgg in (network, VGG(weights)))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_vgg_percep_says_what_it_lacks(network, tmp_path):
    with pytest.raises(UpscaleError, match="--vgg-weights FILE"):
        build(["vgg-percep"])
    with pytest.raises(UpscaleError, match=r"none\.pth"):
        build(["vgg-percep"], Needs(vgg_weights=tmp_path / "none.pth"))
    shallow = {
        f"features.{LAYERS[layer]}.{part}": getattr(network.convs[layer], part)
        for layer in ("conv1_1", "conv1_2")
        for part in ("weight", "bias")
    }
    with pytest.raises(UpscaleError, match="have no conv2_2, conv3_4"):
        vgg_percep.VGGDistance(VGG(shallow))


# Backbones of LPIPS, DISTS and FID


def test_a_backbone_is_found_in_the_hub_folder(tmp_path):
    file = tmp_path / "checkpoints" / "net-7be5be79.pth"
    file.parent.mkdir()
    torch.save({"weight": torch.zeros(1)}, file)
    assert find_backbone("lpips", BACKBONE, tmp_path) == file
    with hub_folder(tmp_path):
        assert torch.hub.get_dir() == str(tmp_path)
    assert torch.hub.get_dir() != str(tmp_path)


def test_a_backbone_that_cannot_be_downloaded_is_one_line(tmp_path, monkeypatch):
    def refused(url, *args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    with pytest.raises(
        UpscaleError, match=r"lpips needs https.*no route.*put the file at .*net-7be5be79\.pth"
    ) as error:
        find_backbone("lpips", BACKBONE, tmp_path)
    assert "\n" not in str(error.value)


def test_a_download_must_match_its_hash(tmp_path, monkeypatch):
    hashes = []

    def fetched(url, target, hash_prefix, progress):
        hashes.append(hash_prefix)
        torch.save({"weight": torch.zeros(1)}, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetched)
    assert find_backbone("fid", "https://example.invalid/a-2015-12-05-6726825d.pth", tmp_path).is_file()
    assert hashes == ["6726825d"]


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.parametrize("content", ["damaged", Malicious()], ids=["damaged", "malicious"])
def test_a_bad_backbone_is_refused_before_a_library_loads_it(tmp_path, content):
    file = tmp_path / "checkpoints" / "net-7be5be79.pth"
    file.parent.mkdir()
    if content == "damaged":
        file.write_bytes(b"PK\x03\x04 cut short")
    else:
        torch.save(content, file)
    with pytest.raises(UpscaleError, match="is damaged or holds no weights"):
        find_backbone("lpips", BACKBONE, tmp_path)


# Published figures


def read(file):
    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).movedim(-1, 0)[None].double() / 255


def bicubic(shared, name, scale, start=0, step=1):
    """(sr, hr) of a benchmark's pictures."""
    folder = shared / "data" / "bench" / name
    for hr_file in sorted((folder / f"HRx{scale}").iterdir())[start::step]:
        hr, lr = read(hr_file), read(folder / f"LRx{scale}" / hr_file.name)
        yield (resize(lr, hr.shape[-2:]).clamp(0, 1) * 255).round() / 255, hr


@pytest.mark.parametrize(("scale", "published"), [(2, 33.67), (3, 30.40), (4, 28.43)])
def test_psnr_y_of_bicubic_set5(shared, scale, published):
    values = [psnr_y(sr, hr, scale).item() for sr, hr in bicubic(shared, "Set5", scale)]
    assert np.mean(values) == pytest.approx(published, abs=0.01)


def test_ssim_y_of_bicubic_set5(shared):
    assert np.mean([ssim_y(*pair, 4).item() for pair in bicubic(shared, "Set5", 4)]) == pytest.approx(0.8113, abs=5e-5)


def test_vif_y_of_bicubic_set5(shared):
    pytest.importorskip("torchmetrics")
    vif = build(["vif-y"])["vif-y"]
    assert np.mean([vif(*pair, 4).item() for pair in bicubic(shared, "Set5", 4)]) == pytest.approx(0.41, abs=5e-3)


def test_psnr_y_and_ssim_y_of_bicubic_bsd100(shared):
    values = np.mean([[m(*pair, 4).item() for m in (psnr_y, ssim_y)] for pair in bicubic(shared, "BSD100", 4)], axis=0)
    assert values[0] == pytest.approx(25.96, abs=5e-3)
    assert values[1] == pytest.approx(0.6682, abs=5e-5)


def test_vgg_percep_of_two_pictures_of_bicubic_bsd100(shared):
    # With these the mean of all hundred was the published .4226; all would take minutes.
    weights = shared / "data" / "vgg" / "vgg19_conv1_1-conv3_4.safetensors"
    measure = build(["vgg-percep"], Needs(vgg_weights=weights))["vgg-percep"]
    values = [measure(*pair).item() for pair in bicubic(shared, "BSD100", 4, 12, 50)]
    assert values == pytest.approx([0.34088, 0.16039], abs=2e-4)
