"""The learning rate of every step."""

import dataclasses
import math

from sa_upscale import config


def learning_rate(train: config.Train, step: int, rate: float | None = None) -> float:
    """The rate of `step` (counted from 1): a linear rise over `warmup` steps, then the schedule.

    `rate` stands in for the recipe's own, for a discriminator that has one.
    """
    if rate is not None:
        train = dataclasses.replace(train, rate=rate)
    if step <= train.warmup:
        return train.rate * step / train.warmup
    if train.schedule == "steps":
        return train.rate * train.factor ** sum(step > milestone for milestone in train.milestones)
    if train.schedule == "cosine":
        done = (step - train.warmup) / max(train.steps - train.warmup, 1)
        return train.final_rate + (train.rate - train.final_rate) * (1 + math.cos(math.pi * done)) / 2
    return train.rate
