import math

import pytest
import torch
from torch import nn

from sa_upscale import losses
from sa_upscale.losses.gan import KINDS

REAL, FAKE = [2.0, 0.0], [-1.0, 0.5]


def nll(x):
    """-log of the logistic function, and nll(-x) = -log(1 - sigmoid(x))."""
    return math.log(1 + math.exp(-x))


RELATIVISTIC = {
    # mean(real) = 1, mean(fake) = -0.25
    "generator": (nll(-1 - 1) + nll(0.5 - 1)) / 4 + (nll(-(2 + 0.25)) + nll(-(0 + 0.25))) / 4,
    "discriminator": (nll(2 + 0.25) + nll(0 + 0.25)) / 4 + (nll(-(-1 - 1)) + nll(-(0.5 - 1))) / 4,
}
GENERATOR = {
    "standard": (nll(-1) + nll(0.5)) / 2,
    "relativistic": RELATIVISTIC["generator"],
    "hinge": (1 - 0.5) / 2,
    "least-squares": (4 + 0.25) / 2 / 2,
}
DISCRIMINATOR = {
    "standard": (nll(2) + nll(0)) / 2 + (nll(1) + nll(-0.5)) / 2,
    "relativistic": RELATIVISTIC["discriminator"],
    "hinge": (0 + 1) / 2 + (0 + 1.5) / 2,
    "least-squares": (1 + 1) / 2 / 2 + (1 + 0.25) / 2 / 2,
}
AT_ZERO = {"standard": math.log(2), "relativistic": math.log(2), "hinge": 0.0, "least-squares": 0.5}


class FirstPixel(nn.Module):
    """Takes the first pixel, times one weight, for the logit."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.seen = 0

    def forward(self, x):
        self.seen += 1
        return self.weight * x[:, 0, 0, :1] + self.shift, []


def images(logits):
    return torch.tensor(logits).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def step(fake, real, discriminator):
    return losses.Step(lr=real, hr=real, sr=fake, discriminator=discriminator)


@pytest.mark.parametrize("kind", KINDS)
def test_values_by_hand(kind):
    batch = step(images(FAKE), images(REAL), FirstPixel())
    loss = losses.build("gan", kind=kind)
    assert loss(batch).item() == pytest.approx(GENERATOR[kind], rel=1e-5)
    logits = torch.tensor(REAL), torch.tensor(FAKE)
    assert losses.discriminator_loss(kind, *logits).item() == pytest.approx(DISCRIMINATOR[kind], rel=1e-5)
    assert loss.discriminator_loss(*logits) == losses.discriminator_loss(kind, *logits)


@pytest.mark.parametrize("kind", KINDS)
def test_an_undecided_discriminator_gives_the_known_value(kind):
    same = images([0.0, 0.0])
    assert losses.build("gan", kind=kind)(step(same, same, FirstPixel())).item() == pytest.approx(AT_ZERO[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_the_generator_and_not_the_discriminator_or_the_target(kind):
    discriminator = FirstPixel()
    fake, real = images(FAKE).requires_grad_(), images(REAL).requires_grad_()
    value = losses.build("gan", kind=kind)(step(fake, real, discriminator))
    value.backward()
    gradient = fake.grad[:, 0, 0, 0]
    assert gradient.isfinite().all()
    # To look more real is to have a larger logit.
    assert (gradient < 0).all()
    assert real.grad is None
    assert discriminator.weight.grad is None
    # Its own step afterwards trains what it did before, and nothing else.
    assert discriminator.weight.requires_grad
    assert not discriminator.shift.requires_grad
    logits = [discriminator(image.detach())[0] for image in (real, fake)]
    losses.discriminator_loss(kind, *logits).backward()
    assert discriminator.weight.grad.isfinite().all()
    assert discriminator.weight.grad != 0


def test_the_relativistic_gradient_passes_through_the_mean_too():
    fake = torch.tensor(FAKE, requires_grad=True)
    batch = step(fake.view(2, 1, 1, 1).expand(2, 3, 1, 1), images(REAL), FirstPixel())
    losses.build("gan", kind="relativistic")(batch).backward()

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    through_mean = -(sigmoid(2.25) + sigmoid(0.25)) / 2 / 2
    expected = [(-sigmoid(1 - x) / 2 + through_mean) / 2 for x in FAKE]
    assert fake.grad.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_discriminator_that_is_sure_stays_finite():
    for kind in KINDS:
        fake = torch.tensor([-300.0], requires_grad=True)
        losses.discriminator_loss(kind, torch.tensor([300.0]), fake).backward()
        assert fake.grad.isfinite().all()
        assert losses.build("gan", kind=kind)(step(images([-300.0]), images([300.0]), FirstPixel())).isfinite()


@pytest.mark.parametrize(("kind", "passes"), [("standard", 1), ("relativistic", 2)])
def test_the_discriminator_runs_once_for_each_kind_of_image_needed(kind, passes):
    discriminator = FirstPixel()
    batch = step(images(FAKE), images(REAL), discriminator)
    for _ in range(2):
        losses.build("gan", kind=kind)(batch)
    assert discriminator.seen == passes


def test_maps_of_logits_are_averaged_over_all_their_places():
    real, fake = torch.tensor(REAL).view(1, 1, 1, 2), torch.tensor(FAKE).view(1, 1, 1, 2)
    for kind in KINDS:
        assert losses.discriminator_loss(kind, real, fake).item() == pytest.approx(DISCRIMINATOR[kind], rel=1e-5)


def test_with_batch_norm_and_spectral_norm_the_generator_still_gets_its_gradient():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 1, 3, padding=1))
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), conv)

        def forward(self, x):
            return self.body(x), []

    torch.manual_seed(0)
    discriminator = Normed()
    fake, real = torch.rand(2, 3, 6, 6, requires_grad=True), torch.rand(2, 3, 6, 6)
    losses.build("gan", kind="relativistic")(step(fake, real, discriminator)).backward()
    assert fake.grad.isfinite().all()
    assert fake.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
