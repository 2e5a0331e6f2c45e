"""Training: stages of a recipe, exact resumption, several ranks, and what a run leaves behind."""

from sa_upscale.train.loop import fit
from sa_upscale.train.request import Plan, assemble, check_target, deliver, described, plan_finetuning, seconds_a_step
from sa_upscale.train.schedule import learning_rate
from sa_upscale.train.stage import Outcome, Progress

__all__ = [
    "Outcome",
    "Plan",
    "Progress",
    "assemble",
    "check_target",
    "deliver",
    "described",
    "fit",
    "learning_rate",
    "plan_finetuning",
    "seconds_a_step",
]
