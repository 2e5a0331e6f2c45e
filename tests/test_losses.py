import pytest
import torch

from sa_upscale import losses
from sa_upscale.functional import color, filters
from sa_upscale.losses import pixel


def step(sr, hr):
    return losses.Step(lr=hr[..., ::2, ::2], hr=hr, sr=sr)


def quad(values):
    return torch.tensor(values).view(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("name", "expected", "at_zero", "gradients"),
    [
        ("l1", (0.5 + 0.25) / 4, 0.0, (0.25, -0.25)),
        ("mse", (0.25 + 0.0625) / 4, 0.0, (0.25, -0.125)),
        ("charbonnier", ((0.25 + 1e-6) ** 0.5 + (0.0625 + 1e-6) ** 0.5 + 2e-3) / 4, 1e-3, (0.25, -0.25)),
        ("huber", (0.25 + 0.0625) / 8, 0.0, (0.125, -0.0625)),
    ],
)
def test_value_and_gradient(name, expected, at_zero, gradients):
    hr = quad([0.0, 1.0, 0.5, 0.5]).requires_grad_()
    sr = quad([0.5, 1.0, 0.25, 0.5]).requires_grad_()
    loss = losses.build(name)
    assert loss(step(hr, hr)).item() == pytest.approx(at_zero)
    value = loss(step(sr, hr))
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert hr.grad is None
    torch.testing.assert_close(sr.grad, quad([gradients[0], 0.0, gradients[1], 0.0]), rtol=1e-4, atol=0)


def test_huber_is_linear_beyond_its_threshold():
    hr, sr = quad([0.0, 0.0, 0.0, 0.0]), quad([3.0, -1.5, 0.5, 1.0])
    assert pixel.huber(sr, hr).item() == pytest.approx((2.5 + 1.0 + 0.125 + 0.5) / 4)
    assert losses.build("huber", threshold=2.0)(step(sr, hr)).item() == pytest.approx((4.0 + 1.125 + 0.125 + 0.5) / 4)


@pytest.mark.parametrize("name", ["l1", "mse", "charbonnier", "huber"])
def test_a_weight_multiplies_each_pixel_and_broadcasts_over_channels(name):
    generator = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 2, 3, 4, 4, generator=generator)
    weight = torch.zeros(2, 1, 4, 4)
    weight[0, 0, 1, 2] = 5.0
    distance = pixel.DISTANCES[name]
    alone = distance(sr[0, :, 1, 2], hr[0, :, 1, 2])
    assert distance(sr, hr, weight).item() == pytest.approx(5 * alone.item() * 3 / sr.numel(), rel=1e-5)
    assert distance(sr, hr, torch.ones(1)).item() == pytest.approx(distance(sr, hr).item())


@pytest.mark.parametrize("kind", ["lv", "canny"])
@pytest.mark.parametrize("name", ["l1", "mse", "charbonnier", "huber"])
def test_losses_take_an_edge_map_as_weight(name, kind):
    hr = torch.zeros(1, 3, 12, 12)
    hr[..., 6:] = 1.0
    sr = (hr * 0.8 + 0.1).requires_grad_()
    w = {"lv": filters.local_variance, "canny": filters.canny}[kind](hr)
    value = losses.build(name, spatial=kind)(step(sr, hr))
    assert value.item() == pytest.approx(pixel.DISTANCES[name](sr, hr, w).item(), rel=1e-6)
    value.backward()
    assert torch.equal(sr.grad != 0, w.expand_as(sr) != 0)


def test_a_sharpened_target_is_made_once_and_only_on_demand(monkeypatch):
    hr = torch.zeros(1, 3, 40, 40)
    hr[..., 20:] = 0.5
    calls = []
    monkeypatch.setattr("sa_upscale.losses.step.unsharp", lambda x: calls.append(x) or filters.unsharp(x))
    batch = step(hr.clone(), hr)
    assert losses.build("l1")(batch) == 0
    assert not calls
    expected = (filters.unsharp(hr) - hr).abs().mean().item()
    assert expected > 0.01
    for _ in range(2):
        assert losses.build("l1", sharpened=True)(batch).item() == pytest.approx(expected)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["l1", "mse", "charbonnier", "huber"])
def test_a_part_of_the_distance_may_be_taken_between_lumas(name):
    torch.manual_seed(0)
    hr, sr = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 12, 12, requires_grad=True)
    distance, w = pixel.DISTANCES[name], filters.canny(hr)
    between = distance(color.luma(sr), color.luma(hr), w).item()
    colours = distance(sr, hr, w).item()
    for part in (0, 0.25, 1):
        value = losses.build(name, spatial="canny", luma=part)(step(sr, hr))
        assert value.item() == pytest.approx(part * between + (1 - part) * colours, rel=1e-5)
    value.backward()  # of lumas alone, whose weights BT.601 gives
    steepness = sr.grad.abs().sum(dim=(0, 2, 3))
    assert steepness / steepness.sum() == pytest.approx(torch.tensor([0.299, 0.587, 0.114]), abs=1e-3)


def test_unknown_names_and_options_are_refused():
    for part in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"luma must lie between 0 and 1, not {part}"):
            losses.build("mse", luma=part)
    with pytest.raises(ValueError, match="did you mean charbonnier"):
        losses.build("charbonier")
    with pytest.raises(ValueError, match="did you mean epsilon"):
        losses.build("charbonnier", epsilom=1)
    with pytest.raises(ValueError, match="unknown edge map 'cany'; did you mean canny"):
        losses.build("l1", spatial="cany")
    with pytest.raises(ValueError, match="unknown distance 'l2'"):
        losses.build("perceptual", distance="l2")
    with pytest.raises(ValueError, match="did you mean conv5_4"):
        losses.build("perceptual", layers=["conv5_44"])
    with pytest.raises(ValueError, match="unknown layers 'esrgn'; did you mean esrgan"):
        losses.build("perceptual", layers="esrgn")
    with pytest.raises(ValueError, match="at least one layer"):
        losses.build("perceptual", layers={})
    with pytest.raises(ValueError, match="did you mean relativistic"):
        losses.build("gan", kind="relativistc")
    with pytest.raises(ValueError, match="did you mean relativistic"):
        losses.discriminator_loss("relativistc", torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="did you mean refined"):
        losses.build("ldl", map="refind")
    with pytest.raises(ValueError, match="did you mean softmax"):
        losses.build("content", reweighing="soft-max")
    with pytest.raises(ValueError, match="between 0 and 1"):
        losses.build("sa-lv", share=1.5)


@pytest.mark.parametrize(
    ("name", "options", "needed"),
    [
        ("l1", {}, set()),
        ("sa-canny", {}, set()),
        ("sa-feature", {}, {"vgg"}),
        ("perceptual", {}, {"vgg"}),
        ("gan", {}, {"discriminator"}),
        ("content", {}, {"discriminator"}),
        ("ldl", {}, {"ema"}),
        ("ldl", {"map": "scaled"}, set()),
    ],
)
def test_what_a_loss_needs_is_said_before_and_missed_when_asked_for(name, options, needed):
    loss = losses.build(name, **options)
    assert losses.needs([losses.build("l1"), loss]) == needed
    if needed:
        image = torch.rand(1, 3, 16, 16)
        with pytest.raises(ValueError, match=f"give Step {needed.pop()}=…"):
            (loss.parts if name == "sa-feature" else loss)(step(image, image))


def test_vgg_and_the_discriminator_see_the_pictures_moved():
    image = torch.arange(20.0).view(1, 1, 4, 5)
    seen = losses.moved(image, (1, 2))
    # The first row and the first two columns are gone; the last ones are followed by what lies before them.
    assert seen[0, 0, 0].tolist() == [7, 8, 9, 8, 7]
    assert seen[0, 0, :, 0].tolist() == [7, 12, 17, 12]
    assert losses.moved(image, (0, 0)) is image

    shown = []

    def discriminator(x):
        shown.append(x)
        return x.mean(), []

    discriminator.parameters = list
    hr = torch.rand(1, 3, 4, 5)
    offered = losses.Step(lr=hr, hr=hr, sr=1 - hr, discriminator=discriminator, shift=(1, 2))
    assert offered.real_logits + offered.fake_logits == pytest.approx(1.0)
    assert torch.equal(shown[0], losses.moved(hr, (1, 2)))
    assert torch.equal(shown[1], losses.moved(1 - hr, (1, 2)))
