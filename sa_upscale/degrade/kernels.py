"""Blur kernels of the second-order degradation: bell shapes, and the sinc filter that leaves ringing."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bell:
    """A bell of `size` × `size` pixels, `size` odd.

    `sigma` are its widths in pixels along and across the direction `angle` (radians from the x axis towards growing y).
    With d² the squared distance from the centre in those units, the profile is exp(-d^(2·beta) / 2), the normal
    distribution at `beta` = 1, or 1 / (1 + d^(2·beta)) for a `plateau`.
    """

    size: int
    sigma: tuple[float, float]
    angle: float = 0.0
    beta: float = 1.0
    plateau: bool = False

    def weights(self) -> np.ndarray:
        """The kernel as `(size, size)` float32 that sums to one."""
        x, y = _centred(self.size)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        along, across = (cos * x + sin * y) / self.sigma[0], (cos * y - sin * x) / self.sigma[1]
        power = (along**2 + across**2) ** self.beta
        return _normalised(1 / (1 + power) if self.plateau else np.exp(-power / 2))


@dataclass(frozen=True)
class Sinc:
    """The ideal low-pass filter that cuts a disc of frequencies, `cutoff` in radians per pixel up to π, within `size`.

    The square window truncates it, which is what rings and overshoots.
    """

    size: int
    cutoff: float

    def weights(self) -> np.ndarray:
        """The kernel as `(size, size)` float32 that sums to one; its lobes are negative in turn."""
        radius = np.hypot(*_centred(self.size))
        # At the centre J1(cutoff r) / r takes its limit, cutoff / 2.
        radius[self.size // 2, self.size // 2] = 1
        kernel = bessel_j1(self.cutoff * radius) / radius
        kernel[self.size // 2, self.size // 2] = self.cutoff / 2
        return _normalised(kernel)


def bessel_j1(x: np.ndarray) -> np.ndarray:
    """The Bessel function of the first kind of order one, exact to 1e-12 for |x| < 70.

    Bessel's integral, (1/π) ∫ cos(t - x sin t) dt over [0, π]: the midpoint rule with n points is off by about
    J_(2n)(x) only, which vanishes once 2n is well beyond x.
    """
    t = (np.arange(64) + 0.5) * (math.pi / 64)
    return np.cos(t - x[..., None] * np.sin(t)).mean(axis=-1)


def _centred(size: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:size, :size] - float(size // 2)
    return x, y


def _normalised(kernel: np.ndarray) -> np.ndarray:
    return (kernel / kernel.sum()).astype(np.float32)
