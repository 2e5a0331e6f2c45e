"""The parameters of one degradation, drawn from the options; no pixel is touched here."""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sa_upscale.degrade.kernels import Bell, Sinc
from sa_upscale.degrade.options import SecondOrder, Stage

INTERPOLATIONS = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Noise:
    """`gaussian` noise with the standard deviation `strength` of 255, or Poisson noise scaled by it."""

    gaussian: bool
    strength: float
    grey: bool


@dataclass(frozen=True)
class Pass:
    """One pass: a blur or none, a resize by `factor`, noise, and a JPEG of `quality`."""

    blur: Bell | Sinc | None
    factor: float
    interpolation: str
    noise: Noise
    quality: int


@dataclass(frozen=True)
class Degradation:
    """All parameters of one second-order degradation but the noise's samples.

    `sinc` and `interpolation` belong to the last resize, to the LR's size.  With `jpeg_last`, the second pass's JPEG
    follows it; otherwise it comes before.
    """

    first: Pass
    second: Pass
    sinc: Sinc | None
    interpolation: str
    jpeg_last: bool


def draw(options: SecondOrder, rng: np.random.Generator) -> Degradation:
    """The parameters of one degradation."""
    return Degradation(
        first=_draw_pass(options.first, rng),
        second=_draw_pass(options.second, rng),
        sinc=_draw_final_sinc(options.second, rng) if _chance(options.final_sinc, rng) else None,
        interpolation=_pick(INTERPOLATIONS, (1, 1, 1), rng),
        jpeg_last=_chance(options.jpeg_last, rng),
    )


def _draw_pass(stage: Stage, rng: np.random.Generator) -> Pass:
    return Pass(
        blur=_draw_blur(stage, rng) if _chance(stage.blur, rng) else None,
        factor=_draw_factor(stage, rng),
        interpolation=_pick(INTERPOLATIONS, (1, 1, 1), rng),
        noise=_draw_noise(stage, rng),
        quality=round(_between(*stage.quality, rng)),
    )


def _draw_blur(stage: Stage, rng: np.random.Generator) -> Bell | Sinc:
    size = _draw_size(stage, rng)
    if _chance(stage.sinc, rng):
        # A lower cutoff needs more pixels than the small kernels have.
        return Sinc(size, _between(math.pi / (3 if size < 13 else 5), math.pi, rng))
    kind, elongated = _pick(
        tuple(itertools.product(("normal", "generalised", "plateau"), (False, True))), stage.shapes, rng
    )
    along = _between(*stage.sigma, rng)
    across = _between(*stage.sigma, rng) if elongated else along
    angle = _between(-math.pi, math.pi, rng) if elongated else 0.0
    if kind == "normal":
        return Bell(size, (along, across), angle)
    beta = _draw_beta(stage.plateau_beta if kind == "plateau" else stage.generalised_beta, rng)
    return Bell(size, (along, across), angle, beta, plateau=kind == "plateau")


def _draw_final_sinc(stage: Stage, rng: np.random.Generator) -> Sinc:
    return Sinc(_draw_size(stage, rng), _between(math.pi / 3, math.pi, rng))


def _draw_size(stage: Stage, rng: np.random.Generator) -> int:
    sizes = range(stage.sizes[0], stage.sizes[1] + 1, 2)
    return _pick(sizes, (1,) * len(sizes), rng)


def _draw_beta(limits: tuple[float, float], rng: np.random.Generator) -> float:
    # Half below 1 and half above, however lopsided the range: below 1 the tails are heavy, above 1 the top is flat.
    low, high = limits
    middle = min(max(low, 1.0), high)
    return _between(low, middle, rng) if _chance(0.5, rng) else _between(middle, high, rng)


def _draw_factor(stage: Stage, rng: np.random.Generator) -> float:
    low, high = _pick(((1.0, stage.factor[1]), (stage.factor[0], 1.0), (1.0, 1.0)), stage.resize, rng)
    return _between(low, high, rng)


def _draw_noise(stage: Stage, rng: np.random.Generator) -> Noise:
    gaussian = _chance(stage.gaussian, rng)
    strength = _between(*(stage.noise_sigma if gaussian else stage.poisson_scale), rng)
    return Noise(gaussian, strength, grey=_chance(stage.grey, rng))


def _chance(probability: float, rng: np.random.Generator) -> bool:
    return bool(rng.random() < probability)


def _between(low: float, high: float, rng: np.random.Generator) -> float:
    return low + (high - low) * float(rng.random())


def _pick(items: Sequence, weights: Sequence[float], rng: np.random.Generator):
    edges = list(itertools.accumulate(weights))
    return items[bisect.bisect(edges, rng.random() * edges[-1], hi=len(edges) - 1)]
