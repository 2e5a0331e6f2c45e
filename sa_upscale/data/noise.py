"""Noise in the LR, as cameras leave it."""

import numpy as np

from sa_upscale.data.crops import Pair
from sa_upscale.data.loading import Source


class Noisy:
    """Another source's samples, every other one with normal noise in its LR, another in each frame.

    The standard deviation is drawn for each sample between 0 and `most`, in codes of 255.
    """

    def __init__(self, source: Source, most: float):
        self.source, self.most = source, most

    def sample(self, rng: np.random.Generator) -> Pair:
        """A sample of the source, the noise added to its LR."""
        lr, hr = self.source.sample(rng)
        if rng.random() < 0.5:
            return lr, hr
        noisy = lr + rng.uniform(0, self.most) * rng.standard_normal(lr.shape, np.float32)
        return np.rint(noisy).clip(0, 255).astype(np.uint8), hr
