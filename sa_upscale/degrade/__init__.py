"""How training and benchmark pictures lose their resolution."""

from sa_upscale.degrade.downscale import bicubic
from sa_upscale.degrade.options import PUBLISHED, SecondOrder, SecondStage, Stage
from sa_upscale.degrade.pixels import jpeg, second_order, usm_sharpen

__all__ = ["PUBLISHED", "SecondOrder", "SecondStage", "Stage", "bicubic", "jpeg", "second_order", "usm_sharpen"]
