import pytest
import torch

from sa_upscale import losses
from sa_upscale.errors import UpscaleError
from sa_upscale.functional import filters
from sa_upscale.functional.vgg import VGG
from sa_upscale.metrics import vgg_percep
from tests.test_vgg import weights


def images(side=16):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, 2, 3, side, side, generator=generator)


def step(sr, hr, vgg, **given):
    return losses.Step(lr=hr, hr=hr, sr=sr, vgg=vgg, **given)


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("distance", ["l1", "mse", "charbonnier"])
def test_is_the_weighted_sum_of_the_distances_of_layers(distance, activated):
    vgg = VGG(weights(4))
    sr, hr = images()
    layers = {"conv1_2": 0.5, "conv2_2": 2.0}
    expected = 0.0
    for layer, weight in layers.items():
        pair = [vgg(image, [layer])[layer] for image in (sr, hr)]
        a, b = (value.relu() for value in pair) if activated else pair
        far = {"l1": (a - b).abs(), "mse": (a - b) ** 2, "charbonnier": ((a - b) ** 2 + 1e-4).sqrt()}[distance]
        expected += weight * far.mean().item()
    loss = losses.build("perceptual", layers=layers, distance=distance, activated=activated, epsilon=1e-2)
    assert loss(step(sr, hr, vgg)).item() == pytest.approx(expected, rel=1e-5)
    at_zero = 1e-2 * 2.5 if distance == "charbonnier" else 0.0
    assert loss(step(hr, hr, vgg)).item() == pytest.approx(at_zero)


def test_the_gradient_reaches_the_generator_alone():
    vgg = VGG(weights(4))
    sr, hr = (image.clone().requires_grad_() for image in images())
    losses.build("perceptual", layers=["conv2_2"])(step(sr, hr, vgg)).backward()
    assert hr.grad is None
    assert sr.grad.isfinite().all()
    assert (sr.grad != 0).float().mean() > 0.9
    assert all(parameter.grad is None for parameter in vgg.parameters())


def test_normalisation_and_sharpened_targets_can_be_chosen():
    vgg = VGG(weights(2))
    sr, hr = images(32)
    raw = [vgg(image, ["conv1_2"], normalised=False)["conv1_2"] for image in (sr, hr)]
    loss = losses.build("perceptual", layers=["conv1_2"], normalised=False)
    assert loss(step(sr, hr, vgg)).item() == pytest.approx((raw[0] - raw[1]).abs().mean().item(), rel=1e-5)
    sharp = [vgg(image, ["conv1_2"])["conv1_2"] for image in (sr, filters.unsharp(hr))]
    loss = losses.build("perceptual", layers=["conv1_2"], sharpened=True)
    assert loss(step(sr, hr, vgg)).item() == pytest.approx((sharp[0] - sharp[1]).abs().mean().item(), rel=1e-5)


def test_features_of_unit_length_ignore_how_strong_they_are():
    vgg = VGG(weights(4))
    sr, hr = images()
    pair = [vgg(image, ["conv2_2"])["conv2_2"].relu() for image in (sr, hr)]
    a, b = (x / x.square().sum(dim=1, keepdim=True).sqrt() for x in pair)
    settings = {"distance": "mse", "activated": True, "unit": True}
    loss = losses.build("perceptual", layers=["conv2_2"], **settings)
    assert loss(step(sr, hr, vgg)).item() == pytest.approx((a - b).square().sum(dim=1).mean().item(), rel=1e-4)
    # The same is measured by `vgg-percep`, over its three layers.
    ten = VGG(weights(8))
    three = losses.build("perceptual", layers=dict.fromkeys(vgg_percep.LAYERS, 1 / 3), **settings)
    assert three(step(sr, hr, ten)).item() == pytest.approx(vgg_percep.VGGDistance(ten)(sr, hr).mean().item(), rel=1e-4)
    flat = torch.zeros_like(sr, requires_grad=True)
    three(step(flat, hr, ten)).backward()
    assert flat.grad.isfinite().all()


def test_a_papers_layers_are_replaced_by_the_deepest_and_it_is_said():
    eight = VGG(weights(8))
    esrgan, ldl, video = (losses.build("perceptual", layers=layers) for layers in ("esrgan", "ldl", "video"))
    afm = losses.build("perceptual", layers="afm", distance="mse")
    notices = losses.resolve([losses.build("l1"), esrgan, ldl, video, afm], eight)
    assert esrgan.layers == ldl.layers == {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0}
    assert afm.layers == {"conv3_4": 1.0}
    assert video.layers == {"conv2_1": 1.0, "conv2_2": 1.0}
    assert len(notices) == 3
    assert "instead of the paper's conv5_4" in notices[0]
    assert losses.vgg_layers([esrgan, video, losses.build("l1")]) == {
        "conv1_2", "conv2_1", "conv2_2", "conv3_4",
    }  # fmt: skip


def test_with_all_layers_at_hand_nothing_is_replaced():
    ldl = losses.build("perceptual", layers="ldl")
    assert losses.resolve([ldl, losses.build("perceptual")], VGG(weights(16))) == []
    assert ldl.layers == {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


def test_an_absent_layer_named_outright_is_refused():
    with pytest.raises(UpscaleError, match="no conv5_4; they have conv1_1 to conv3_4"):
        losses.resolve([losses.build("perceptual", layers=["conv1_2", "conv5_4"])], VGG(weights(8)))


class Counting(VGG):
    def forward(self, x, layers, **options):
        self.passes = [*getattr(self, "passes", []), tuple(sorted(layers))]
        return super().forward(x, layers, **options)


def test_one_pass_for_each_image_serves_all_losses():
    vgg = Counting(weights(6))
    sr, hr = images()
    both = [losses.build("perceptual", layers=["conv3_2"]), losses.build("sa-feature", beta2=1.0)]
    shared = step(sr, hr, vgg, vgg_layers=losses.vgg_layers(both))
    values = [loss(shared).item() for loss in both]
    alone = [loss(step(sr, hr, VGG(weights(6)))).item() for loss in both]
    assert values == pytest.approx(alone, rel=1e-6)
    whole = ("conv2_1", "conv2_2", "conv3_2")
    assert vgg.passes == [whole, whole, ("conv2_1", "conv2_2")]


def test_half_precision_features_are_compared_in_float32():
    vgg = VGG(weights(4))
    sr, hr = images()
    loss = losses.build("perceptual", layers=["conv2_2"])
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(step(sr, hr, vgg))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(step(sr, hr, vgg)).item(), rel=0.02)
