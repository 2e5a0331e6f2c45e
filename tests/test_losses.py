import pytest
import torch

from sa_upscale import losses


def step(sr, hr):
    return losses.Step(lr=hr[..., ::2, ::2], hr=hr, sr=sr)


@pytest.mark.parametrize(
    ("name", "expected", "at_zero"),
    [("l1", (0.5 + 0.25) / 4, 0.0), ("charbonnier", ((0.25 + 1e-6) ** 0.5 + (0.0625 + 1e-6) ** 0.5 + 2e-3) / 4, 1e-3)],
)
def test_value_and_gradient(name, expected, at_zero):
    hr = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]], requires_grad=True)
    sr = torch.tensor([[[[0.5, 1.0], [0.25, 0.5]]]], requires_grad=True)
    loss = losses.build(name)
    assert loss(step(hr.detach(), hr.detach())).item() == pytest.approx(at_zero)
    value = loss(step(sr, hr.detach()))
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert hr.grad is None
    assert torch.isfinite(sr.grad).all()
    assert sr.grad[0, 0, 0, 0] == pytest.approx(0.25, rel=1e-4)
    assert sr.grad[0, 0, 1, 0] == pytest.approx(-0.25, rel=1e-4)
    assert sr.grad[0, 0, 1, 1] == 0


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="did you mean charbonnier"):
        losses.build("charbonier")
    with pytest.raises(ValueError, match="did you mean epsilon"):
        losses.build("charbonnier", epsilom=1)
