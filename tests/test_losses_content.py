import math

import pytest
import torch
from torch import nn

from sa_upscale import losses


class TwoMaps(nn.Module):
    """Feature maps `a * x` and `b * x` of one channel."""

    def __init__(self, a=1.0, b=3.0):
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([a, b]))

    def forward(self, x):
        x = x[:, :1]
        return x.mean(dim=(1, 2, 3)), [self.factors[0] * x, self.factors[1] * x.square()]


def step(sr, hr, discriminator):
    return losses.Step(lr=hr, hr=hr, sr=sr, discriminator=discriminator)


def image(value, **options):
    return torch.full((2, 3, 4, 4), value, **options)


@pytest.mark.parametrize("reweighing", ["softmax", "mean"])
def test_layers_are_scaled_by_their_first_values_and_weighted(reweighing):
    loss = losses.build("content", reweighing=reweighing)
    zero, network = image(0.0), TwoMaps()
    # On the first batch every scaled distance is 1, whatever it was.
    assert loss(step(image(0.5), zero, network)).item() == pytest.approx(1.0)
    assert loss.scales.tolist() == pytest.approx([0.25, 9 * 0.0625])
    # On the next one they are 0.2² / 0.25 and 0.2⁴ / 0.0625.
    first, second = 0.04 / 0.25, 0.0016 / 0.0625
    share = 1 / (1 + math.exp(second - first)) if reweighing == "softmax" else 0.5
    value = loss(step(image(0.2), zero, network))
    assert value.item() == pytest.approx(share * first + (1 - share) * second, rel=1e-5)
    assert loss.scales.tolist() == pytest.approx([0.25, 9 * 0.0625])


def test_no_gradient_flows_through_the_softmax_to_the_discriminator_or_to_the_target():
    loss, network = losses.build("content"), TwoMaps()
    loss(step(image(0.5), image(0.0), network))
    sr, hr = image(0.2, requires_grad=True), image(0.0, requires_grad=True)
    loss(step(sr, hr, network)).backward()
    assert network.factors.grad is None
    assert hr.grad is None
    weights = torch.tensor([0.04 / 0.25, 0.0016 / 0.0625]).softmax(dim=0)
    # d/dx of x² / 0.25 and x⁴ / 0.0625, each a mean over 2 · 4 · 4 values of the one channel that is looked at.
    slope = (weights[0] * 2 * 0.2 / 0.25 + weights[1] * 4 * 0.2**3 / 0.0625) / 32
    torch.testing.assert_close(sr.grad[:, 0], slope.expand(2, 4, 4))
    assert (sr.grad[:, 1:] == 0).all()


def test_is_zero_where_the_features_agree_even_on_the_first_batch():
    loss = losses.build("content")
    assert loss(step(image(0.3), image(0.3), TwoMaps())) == 0
    assert loss.scales.tolist() == [1, 1]


def test_the_first_values_are_part_of_the_state():
    loss, network = nn.ModuleList([losses.build("content")]), TwoMaps()
    loss[0](step(image(0.5), image(0.0), network))
    resumed = nn.ModuleList([losses.build("content")])
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(resumed[0].scales, loss[0].scales)
    batch = step(image(0.2), image(0.0), network)
    assert resumed[0](batch) == loss[0](batch)
    fresh = losses.build("content")
    fresh.load_state_dict(losses.build("content").state_dict())
    assert fresh(batch).item() == pytest.approx(1.0)
