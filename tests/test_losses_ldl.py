import numpy as np
import pytest
import torch

from sa_upscale import losses
from sa_upscale.losses.ldl import artifact_map


def images(seed=0):
    """Target, output and averaged output; a third of the pixels are equally far in the last two."""
    generator = torch.Generator().manual_seed(seed)
    hr = torch.rand(2, 3, 12, 14, generator=generator)
    sr = hr + 0.2 * torch.randn(hr.shape, generator=generator)
    ema = hr + 0.2 * torch.randn(hr.shape, generator=generator)
    ema[..., :4] = sr[..., :4]
    return hr, sr, ema


def step(hr, sr, ema):
    return losses.Step(lr=hr[..., ::2, ::2], hr=hr, sr=sr, ema=lambda lr: ema)


def expected_map(hr, sr, ema, kind):
    """The paper's equations pixel by pixel, in double precision."""
    hr, sr, ema = (image.double().numpy() for image in (hr, sr, ema))
    own, averaged = np.abs(hr - sr).sum(axis=1), np.abs(hr - ema).sum(axis=1)
    weight = np.zeros_like(own)
    for n, plane in enumerate(own):
        padded = np.pad(plane, 3, mode="reflect")
        sigma = plane.var(ddof=1) ** (1 / 5) if kind != "local" else 1.0
        for i, j in np.ndindex(plane.shape):
            weight[n, i, j] = sigma * padded[i : i + 7, j : j + 7].var(ddof=1)
    if kind == "refined":
        weight[own < averaged] = 0
    return weight[:, None]


@pytest.mark.parametrize("kind", ["local", "scaled", "refined"])
def test_map_and_value_follow_the_equations(kind):
    hr, sr, ema = images()
    loss = losses.build("ldl", map=kind)
    expected = expected_map(hr, sr, ema, kind)
    batch = step(hr, sr, ema)
    np.testing.assert_allclose(loss.artifact_map(batch).numpy(), expected, rtol=1e-4, atol=1e-8)
    value = np.abs(expected * (hr - sr).double().numpy()).mean()
    assert loss(batch).item() == pytest.approx(value, rel=1e-5)


def test_the_refined_map_is_zero_only_where_the_average_is_further_off():
    hr, sr, ema = images()
    refined = losses.build("ldl").artifact_map(step(hr, sr, ema))
    own, averaged = ((hr - image).abs().sum(dim=1, keepdim=True) for image in (sr, ema))
    assert torch.equal(refined == 0, own < averaged)
    assert (own == averaged)[..., :4].all()
    assert (refined[..., :4] > 0).all()
    assert (refined == 0).any()
    torch.testing.assert_close(refined[own >= averaged], artifact_map(hr, sr)[own >= averaged])


def test_the_map_is_a_weight_without_gradient():
    hr, sr, ema = images()
    hr.requires_grad_()
    sr.requires_grad_()
    weight = losses.build("ldl").artifact_map(step(hr, sr, ema))
    assert not weight.requires_grad
    losses.build("ldl")(step(hr, sr, ema)).backward()
    torch.testing.assert_close(sr.grad, (weight * (sr - hr).sign() / sr.numel()).detach())
    assert sr.grad.abs().sum() > 0
    assert hr.grad is None


def test_is_zero_for_a_perfect_output_and_for_an_even_error():
    hr, _, ema = images()
    for kind in ("local", "scaled", "refined"):
        assert losses.build("ldl", map=kind)(step(hr, hr, ema)) == 0
    assert losses.build("ldl")(step(hr * 0, hr * 0 + 0.25, hr * 0)) == 0


def test_the_average_runs_once_without_gradient_and_only_when_refining():
    hr, sr, _ = images()
    blend = torch.tensor(0.9, requires_grad=True)
    calls = []

    def ema(lr):
        calls.append(torch.is_grad_enabled())
        return hr * blend

    batch = losses.Step(lr=hr, hr=hr, sr=sr, ema=ema)
    losses.build("ldl", map="scaled")(batch)
    assert not calls
    for _ in range(2):
        losses.build("ldl")(batch)
    assert calls == [False]
    assert not batch.sr_ema.requires_grad


def test_window_and_power_can_be_chosen():
    hr, sr, ema = images()
    own = (hr - sr).abs().sum(dim=1, keepdim=True)
    local = losses.build("ldl", map="local", window=3).artifact_map(step(hr, sr, ema))
    assert local[0, 0, 5, 6].item() == pytest.approx(own[0, 0, 4:7, 5:8].var().item(), rel=1e-4)
    scaled = losses.build("ldl", map="scaled", window=3, power=2).artifact_map(step(hr, sr, ema))
    torch.testing.assert_close(scaled, local * own.std(dim=(1, 2, 3), keepdim=True))


def test_it_shows_its_artifact_map():
    torch.manual_seed(0)
    hr, sr = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    step = losses.Step(hr, hr, sr, ema=lambda lr: hr)
    loss = losses.build("ldl")
    assert torch.equal(loss.pictures(step)["M"], loss.artifact_map(step))
