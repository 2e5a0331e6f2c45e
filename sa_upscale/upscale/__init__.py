"""Upscaling of picture files: one (`image_file`), or a folder full of them with one load of the networks.

size = Size(4)
upscaler = Upscaler("compact", size)
results = run_jobs(plan_jobs(["holiday"], "big/", size=size), upscaler)
"""

from sa_upscale.upscale import forecast, report
from sa_upscale.upscale.batch import run_jobs
from sa_upscale.upscale.jobs import Job, plan_jobs
from sa_upscale.upscale.networks import Networks, load_engines, plan
from sa_upscale.upscale.pictures import Runner, bled, cropped, cut, enlarge, resized
from sa_upscale.upscale.sizes import FITS, Size, Target
from sa_upscale.upscale.work import Output, Result, Upscaler, image_file

__all__ = [
    "FITS",
    "Job",
    "Networks",
    "Output",
    "Result",
    "Runner",
    "Size",
    "Target",
    "Upscaler",
    "bled",
    "cropped",
    "cut",
    "enlarge",
    "forecast",
    "image_file",
    "load_engines",
    "plan",
    "plan_jobs",
    "report",
    "resized",
    "run_jobs",
]
