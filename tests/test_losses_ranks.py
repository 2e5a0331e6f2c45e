"""Two ranks with half a batch each get what one rank with the whole batch gets."""

from datetime import timedelta

import pytest
import torch
from torch import distributed, multiprocessing, nn

from sa_upscale import losses
from sa_upscale.losses.reduce import mean_over_ranks


class Discriminator(nn.Module):
    def forward(self, x):
        return 3 * x.mean(dim=(1, 2, 3)) ** 2, [x, 5 * x.square()]


def outcome(sr, hr):
    """Values and the gradient on `sr`, of which every loss here takes a statistic over the batch."""
    terms = [
        (1.0, losses.build("gan", kind="relativistic")),
        (1.0, losses.build("content")),
        (1.0, losses.build("sa-lv")),
    ]
    discriminator = Discriminator()
    # The first batch only sets the scales of the content loss, to something else than the second's.
    first = losses.Step(lr=hr, hr=hr, sr=sr.detach().square(), discriminator=discriminator)
    losses.calibrate(terms, first, batches=1)
    step = losses.Step(lr=hr, hr=hr, sr=sr, discriminator=discriminator)
    total = sum(weight * loss(step) for weight, loss in terms)
    real, fake = discriminator(hr)[0], discriminator(sr)[0]
    (total + losses.discriminator_loss("relativistic", real, fake)).backward()
    return {"total": total.detach(), "gradient": sr.grad, "beta2": terms[2][1].beta2, "scales": terms[1][1].scales}


def batch():
    generator = torch.Generator().manual_seed(4)
    return torch.rand(2, 4, 3, 8, 8, generator=generator)


def half(rank, folder):
    meeting = (folder / "meeting").as_uri()
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    try:
        sr, hr = (images.chunk(2)[rank].clone() for images in batch())
        return outcome(sr.requires_grad_(), hr)
    finally:
        distributed.destroy_process_group()


def second(_, folder):
    torch.set_num_threads(1)
    torch.save(half(1, folder), folder / "second.pt")


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="this torch is built without gloo")
def test_two_ranks_agree_with_one(tmp_path):
    other = multiprocessing.spawn(second, (tmp_path,), join=False)
    halves = [half(0, tmp_path)]
    while not other.join():
        pass
    halves.append(torch.load(tmp_path / "second.pt"))
    sr, hr = batch()
    whole = outcome(sr.requires_grad_(), hr)
    for part in halves:
        torch.testing.assert_close(part["beta2"], whole["beta2"])
        torch.testing.assert_close(part["scales"], whole["scales"])
    torch.testing.assert_close((halves[0]["total"] + halves[1]["total"]) / 2, whole["total"])
    # Each half's gradient is of its rank's loss and stands for half the batch; DistributedDataParallel averages them.
    gradient = torch.cat([part["gradient"] for part in halves]) / 2
    torch.testing.assert_close(gradient, whole["gradient"])


def test_without_ranks_nothing_is_reduced():
    x = torch.rand(3)
    assert mean_over_ranks(x) is x
