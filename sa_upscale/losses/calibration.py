"""Setting the weight of the spatially adaptive losses by the share they take of the whole."""

from collections.abc import Sequence

import torch
from torch import nn

from sa_upscale.errors import UpscaleError
from sa_upscale.losses.adaptive import SpatiallyAdaptive
from sa_upscale.losses.reduce import mean_over_ranks
from sa_upscale.losses.step import Step


def calibrate(terms: Sequence[tuple[float, nn.Module]], step: Step, batches: int = 10) -> bool:
    """Measure one batch and set `beta2` of every loss with a share; whether they are now fixed.

    `terms` are all losses of the generator with their weights.  To be called before the losses on each step until it
    returns True, which it does after `batches` steps: `beta2` follows the mean of what was measured so far, and a state
    dict carries it on.  A batch without edges counts for nothing.  With shares `s` of several losses,
    `beta2 = s / (1 - Σs) * rest / adaptive`, where `rest` is the magnitude of all that is not adaptive by a share.

    Raises `UpscaleError` when the shares leave nothing for the rest, or there is no rest.

    Reference: SA paper, where the adaptive part is about 15 % of the total generator loss.
    """
    shared = [(weight, loss) for weight, loss in terms if getattr(loss, "share", None) is not None]
    open_ones = [(weight, loss) for weight, loss in shared if loss.measured[0] < batches]
    if not open_ones:
        return True
    left = 1 - sum(loss.share for _, loss in shared)
    if left <= 0:
        raise UpscaleError("the shares of the spatially adaptive losses add up to 1 or more; lower `share`")
    rest, adaptive = _measured(terms, step)
    for weight, loss in open_ones:
        _update(loss, rest, weight * adaptive[loss], left)
    return all(bool(loss.measured[0] >= batches) for _, loss in open_ones)


def _measured(
    terms: Sequence[tuple[float, nn.Module]], step: Step
) -> tuple[torch.Tensor, dict[SpatiallyAdaptive, torch.Tensor]]:
    """The magnitude of all but the adaptive parts, and the adaptive part of each loss with a share."""
    weights, plain, adaptive = [], [], {}
    for weight, loss in terms:
        # Not under no_grad: the step keeps what is computed here, and the losses need its gradient afterwards.
        if getattr(loss, "share", None) is None:
            value = loss(step)
        else:
            value, part = loss.parts(step)
            adaptive[loss] = part.detach()
        weights.append(weight)
        plain.append(value.detach())
    values = mean_over_ranks(torch.stack([*plain, *adaptive.values()]))
    # A hinge or least-squares term may be negative: its size is what the share is held against.
    rest = sum(abs(weight * value) for weight, value in zip(weights, values, strict=False))
    return rest, dict(zip(adaptive, values[len(plain) :], strict=True))


def _update(loss: SpatiallyAdaptive, rest: torch.Tensor, adaptive: torch.Tensor, left: float) -> None:
    if not rest > 0:
        raise UpscaleError("a share of nothing: the other losses are zero; give the spatially adaptive one its beta2")
    if adaptive > 0:
        loss.measured += torch.stack([torch.ones_like(rest), rest, adaptive])
    _, rests, adaptives = loss.measured
    loss.beta2.copy_(loss.share / left * rests / adaptives if adaptives > 0 else torch.zeros_like(rests))
