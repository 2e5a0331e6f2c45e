import math

import pytest
import torch
from torch import nn

from sa_upscale import losses
from sa_upscale.errors import UpscaleError
from sa_upscale.functional import filters
from sa_upscale.functional.vgg import VGG
from tests.test_vgg import weights

EDGES = {"sa-lv": filters.local_variance, "sa-canny": filters.canny}


def batch(seed=0, **given):
    """A picture with flat and busy halves, and a reconstruction of it that is off everywhere."""
    generator = torch.Generator().manual_seed(seed)
    hr = torch.full((2, 3, 24, 24), 0.5)
    hr[..., 12:] = torch.rand(2, 3, 24, 12, generator=generator).round()
    sr = hr + 0.1 * torch.randn(hr.shape, generator=generator)
    return losses.Step(lr=hr[..., ::2, ::2], hr=hr.requires_grad_(), sr=sr.detach().requires_grad_(), **given)


@pytest.mark.parametrize("distance", ["charbonnier", "l1"])
@pytest.mark.parametrize("name", ["sa-lv", "sa-canny"])
def test_pixels_are_weighted_by_beta1_and_edges(name, distance):
    step = batch()
    w = EDGES[name](step.hr)
    difference = step.sr - step.hr
    far = (difference.square() + 1e-6).sqrt() if distance == "charbonnier" else difference.abs()
    loss = losses.build(name, beta1=0.25, beta2=4.0, distance=distance)
    assert loss(step).item() == pytest.approx(((0.25 + 4 * w) * far).mean().item(), rel=1e-5)
    factored = losses.build(name, beta1=0.25, beta2=0.4, distance=distance, factor=10.0)
    assert factored(step).item() == pytest.approx(loss(step).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["sa-lv", "sa-canny"])
def test_the_gradient_at_a_pixel_is_proportional_to_its_weight(name):
    step = batch()
    loss = losses.build(name, beta1=0.01, beta2=20.0)
    loss(step).backward()
    adaptive, step.sr.grad = step.sr.grad, None
    losses.build("charbonnier")(step).backward()
    torch.testing.assert_close(adaptive / step.sr.grad, (0.01 + 20 * EDGES[name](step.hr)).expand_as(adaptive))
    assert adaptive.isfinite().all()
    # Flat areas stay alive, by beta1 alone.
    torch.testing.assert_close(adaptive[..., :8], 0.01 * step.sr.grad[..., :8])


@pytest.mark.parametrize("name", ["sa-lv", "sa-canny"])
def test_is_epsilon_times_the_weight_where_nothing_is_wrong(name):
    step = batch()
    same = losses.Step(lr=step.lr, hr=step.hr, sr=step.hr)
    expected = 1e-3 * (0.5 + 2 * EDGES[name](step.hr).mean().item())
    assert losses.build(name, beta1=0.5, beta2=2.0)(same).item() == pytest.approx(expected, rel=1e-5)
    assert losses.build(name, beta1=0.5, beta2=2.0, distance="l1")(same).item() == 0


@pytest.mark.parametrize("name", ["sa-lv", "sa-canny", "sa-feature"])
def test_no_gradient_reaches_the_target(name):
    vgg = VGG(weights(4))
    leaf = torch.rand(1, 3, 16, 16, requires_grad=True)
    sr = torch.rand(1, 3, 16, 16, requires_grad=True)
    losses.build(name, beta2=1.0)(losses.Step(lr=leaf, hr=leaf, sr=sr, vgg=vgg)).backward()
    assert leaf.grad is None
    assert sr.grad.isfinite().all()
    assert sr.grad.abs().sum() > 0


def test_edges_of_a_batch_are_found_once(monkeypatch):
    calls = []
    monkeypatch.setattr("sa_upscale.losses.edges.canny", lambda x, *rest: calls.append(rest) or filters.canny(x, *rest))
    step = batch()
    for options in ({}, {"beta1": 3.0}, {"low": 50}):
        losses.build("sa-canny", beta2=1.0, **options)(step)
    losses.build("l1", spatial="canny")(step)
    assert calls == [(100, 200), (50, 200)]


@pytest.mark.parametrize("edges", ["lv", "canny"])
def test_features_are_weighted_by_the_response_to_the_edges(edges):
    vgg = VGG(weights(4))
    step = batch(vgg=vgg)
    layers = ["conv2_1", "conv2_2"]
    w = 10 * {"lv": filters.local_variance, "canny": filters.canny}[edges](step.hr)
    sr, hr = vgg(step.sr, layers), vgg(step.hr, layers)
    response = vgg(w.expand(-1, 3, -1, -1), layers, normalised=False)
    expected = 0.0
    for layer in layers:
        far = ((sr[layer].relu() - hr[layer].relu()).square() + 1e-6).sqrt()
        expected += ((0.5 + 2 * response[layer].relu()) * far).mean().item()
        assert response[layer].relu().max() > 0
    loss = losses.build("sa-feature", beta1=0.5, beta2=2.0, edges=edges)
    assert loss(step).item() == pytest.approx(expected, rel=1e-5)
    same = losses.Step(lr=step.lr, hr=step.hr, sr=step.hr, vgg=vgg)
    known = sum(1e-3 * (0.5 + 2 * response[layer].relu()).mean().item() for layer in layers)
    assert loss(same).item() == pytest.approx(known, rel=1e-5)


def test_a_layer_that_the_weights_lack_fails_before_training():
    with pytest.raises(UpscaleError, match="no conv2_2; they have conv1_1 to conv2_1"):
        losses.resolve([losses.build("l1"), losses.build("sa-feature")], VGG(weights(3)))


class Constant(nn.Module):
    """A loss of a known value that depends on the generator."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, step):
        return self.value + 0 * step.sr.sum()


@pytest.mark.parametrize(("name", "share"), [("sa-lv", 0.15), ("sa-canny", 0.4)])
def test_calibration_gives_the_adaptive_part_its_share_of_the_whole(name, share):
    loss = losses.build(name, beta1=0.01, share=share)
    step = batch()
    terms = [(2.0, Constant(0.3)), (0.5, loss), (1.0, Constant(-0.1))]
    with pytest.raises(ValueError, match="not calibrated"):
        loss(step)
    assert losses.calibrate(terms, step, batches=1)
    w, far = EDGES[name](step.hr), ((step.sr - step.hr).square() + 1e-6).sqrt()
    rest = 2 * 0.3 + 0.5 * 0.01 * far.mean().item() + 0.1
    adaptive = 0.5 * (w * far).mean().item()
    assert loss.beta2.item() == pytest.approx(share / (1 - share) * rest / adaptive, rel=1e-4)
    part = 0.5 * (loss(step).item() - 0.01 * far.mean().item())
    assert part / (part + rest) == pytest.approx(share, rel=1e-4)


def test_calibration_of_two_losses_gives_each_its_share():
    pixel, feature = losses.build("sa-lv", share=0.2), losses.build("sa-feature", share=0.3)
    step = batch(vgg=VGG(weights(4)))
    terms = [(1.0, pixel), (3.0, feature), (1.0, Constant(1.0))]
    losses.calibrate(terms, step, batches=1)
    total = sum(weight * loss(step) for weight, loss in terms)
    for weight, loss, share in ((1.0, pixel, 0.2), (3.0, feature, 0.3)):
        adaptive = weight * loss.beta2 * loss.parts(step)[1]
        assert (adaptive / total).item() == pytest.approx(share, rel=1e-4)


def test_calibration_averages_the_first_batches_then_stays_and_is_saved():
    loss = losses.build("sa-canny")
    terms = [(1.0, Constant(0.2)), (1.0, loss)]
    first, second, third = (batch(seed) for seed in range(3))
    assert not losses.calibrate(terms, first, batches=2)
    after_one = loss.beta2.item()
    resumed = losses.build("sa-canny")
    resumed.load_state_dict(loss.state_dict())
    assert resumed(second) == loss(second)
    assert losses.calibrate([(1.0, Constant(0.2)), (1.0, resumed)], second, batches=2)
    assert losses.calibrate(terms, second, batches=2)
    parts = [loss.parts(step) for step in (first, second)]
    rests, adaptives = (sum(part[index].item() for part in parts) for index in (0, 1))
    expected = 0.15 / 0.85 * (2 * 0.2 + rests) / adaptives
    assert loss.beta2.item() == pytest.approx(expected, rel=1e-5)
    assert loss.beta2.item() != after_one
    assert resumed.beta2 == loss.beta2
    assert losses.calibrate(terms, third, batches=2)
    assert loss.beta2.item() == pytest.approx(expected, rel=1e-5)


def test_calibration_leaves_the_gradient_of_what_the_step_keeps():
    loss, perceptual = losses.build("sa-feature"), losses.build("perceptual", layers=["conv2_2"])
    vgg = VGG(weights(4))
    looked_at, fresh = batch(vgg=vgg), batch(vgg=vgg)
    losses.calibrate([(1.0, perceptual), (1.0, loss)], looked_at)
    for step in (looked_at, fresh):
        (perceptual(step) + loss(step)).backward()
    torch.testing.assert_close(looked_at.sr.grad, fresh.sr.grad)
    assert fresh.sr.grad.abs().sum() > 0


def test_calibration_does_not_count_batches_without_edges():
    loss = losses.build("sa-canny")
    terms = [(1.0, Constant(0.2)), (1.0, loss)]
    flat = torch.full((1, 3, 16, 16), 0.5)
    assert not losses.calibrate(terms, losses.Step(lr=flat, hr=flat, sr=flat + 0.1), batches=1)
    assert loss.beta2 == 0
    assert losses.calibrate(terms, batch(), batches=1)
    assert 0 < loss.beta2 < math.inf


def test_calibration_leaves_a_given_beta2_and_counts_it_to_the_rest():
    given, shared = losses.build("sa-lv", beta2=5.0), losses.build("sa-canny", beta1=0.0)
    step = batch()
    assert losses.calibrate([(1.0, given)], step)
    assert losses.calibrate([(1.0, given), (1.0, shared)], step, batches=1)
    assert given.beta2 == 5
    rest = given(step).item()
    assert shared(step).item() / (shared(step).item() + rest) == pytest.approx(0.15, rel=1e-4)


def test_impossible_shares_are_refused():
    pair = [(1.0, losses.build(name, share=0.5)) for name in ("sa-lv", "sa-canny")]
    with pytest.raises(UpscaleError, match="add up to 1 or more"):
        losses.calibrate(pair, batch())
    with pytest.raises(UpscaleError, match="a share of nothing"):
        losses.calibrate([(1.0, losses.build("sa-lv", beta1=0.0))], batch())


@pytest.mark.parametrize("name", ["sa-lv", "sa-canny", "sa-feature"])
def test_it_shows_the_edge_map_it_weighs_by(name):
    hr = torch.zeros(1, 3, 32, 32)
    hr[..., 16:] = 1
    shown = losses.build(name, factor=10.0).pictures(losses.Step(hr, hr, hr))["W"]
    assert shown.max() <= 1
    assert shown[..., 8, 15:17].max() > 0.9
    assert shown[..., :8].max() == 0
