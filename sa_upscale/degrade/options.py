"""What a second-order degradation may draw from; the defaults are the published ones."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    """Ranges and probabilities of one pass of blur, resize, noise and JPEG; the defaults are the first pass's.

    - `blur`: probability that there is any blur; `sinc`: probability that it is a sinc filter rather than a bell.
    - `shapes`: weights of the bells: normal, generalised and plateau, each round, then elongated.
    - `sizes`: smallest and largest kernel in pixels, odd.  `sigma`: its width in pixels.
    - `generalised_beta`, `plateau_beta`: exponents of those bells; half of the draws lie below 1, half above.
    - `resize`: weights of enlarging, reducing and keeping; `factor`: the least and greatest factor, around 1.
    - `gaussian`: probability of Gaussian noise, else it is Poisson noise.  `grey`: probability that all channels get
      the same noise.  `noise_sigma`: of Gaussian noise, in levels of 255.  `poisson_scale`: strength of Poisson noise;
      at 1 the standard deviation at level v is √v.
    - `quality`: of the JPEG, 1 to 100.

    Raises `ValueError` for what no draw could come from.

    Reference: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", 2021,
    section 3 and the options of its published models.
    """

    blur: float = 1.0
    sinc: float = 0.1
    shapes: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sizes: tuple[int, int] = (7, 21)
    sigma: tuple[float, float] = (0.2, 3.0)
    generalised_beta: tuple[float, float] = (0.5, 4.0)
    plateau_beta: tuple[float, float] = (1.0, 2.0)
    resize: tuple[float, float, float] = (0.2, 0.7, 0.1)
    factor: tuple[float, float] = (0.15, 1.5)
    gaussian: float = 0.5
    grey: float = 0.4
    noise_sigma: tuple[float, float] = (1.0, 30.0)
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    quality: tuple[int, int] = (30, 95)

    def __post_init__(self):
        for name in ("blur", "sinc", "gaussian", "grey"):
            _check_probability(name, getattr(self, name))
        for name in ("shapes", "resize"):
            weights = getattr(self, name)
            if len(weights) != len(getattr(Stage, name)) or min(weights) < 0 or sum(weights) <= 0:
                raise ValueError(f"{name} takes {len(getattr(Stage, name))} weights from 0 up, not {weights}")
        for name, least, greatest in (
            ("sizes", 3, 31),
            ("sigma", 0.05, 50),
            ("generalised_beta", 0.1, 20),
            ("plateau_beta", 0.1, 20),
            ("factor", 0.01, 16),
            ("noise_sigma", 0, 255),
            ("poisson_scale", 0, 100),
            ("quality", 1, 100),
        ):
            low, high = getattr(self, name)
            if not least <= low <= high <= greatest:
                raise ValueError(f"{name} takes two values, rising, within {least} and {greatest}, not {(low, high)}")
        if self.sizes[0] % 2 == 0 or self.sizes[1] % 2 == 0:
            raise ValueError(f"sizes of kernels are odd, not {self.sizes}")
        if not self.factor[0] <= 1 <= self.factor[1]:
            raise ValueError(f"factor takes a range around 1, not {self.factor}")


@dataclass(frozen=True)
class SecondStage(Stage):
    """A `Stage` whose defaults are the second pass's, which blurs less, resizes less and adds a little less noise."""

    blur: float = 0.8
    sigma: tuple[float, float] = (0.2, 1.5)
    resize: tuple[float, float, float] = (0.3, 0.4, 0.3)
    factor: tuple[float, float] = (0.3, 1.2)
    noise_sigma: tuple[float, float] = (1.0, 25.0)
    poisson_scale: tuple[float, float] = (0.05, 2.5)


@dataclass(frozen=True)
class SecondOrder:
    """Two stages, and how the second one ends: at the LR's size, sinc-filtered, and compressed.

    `final_sinc` is the probability of that filter, `jpeg_last` that of compressing after the last resize and not
    before it.

    Reference: Wang et al. 2021, section 3, as `Stage`.
    """

    first: Stage = field(default_factory=Stage)
    second: SecondStage = field(default_factory=SecondStage)
    final_sinc: float = 0.8
    jpeg_last: float = 0.5

    def __post_init__(self):
        _check_probability("final_sinc", self.final_sinc)
        _check_probability("jpeg_last", self.jpeg_last)


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a probability within 0 and 1, not {value}")


PUBLISHED = SecondOrder()
