"""Pages for people: one file each, with its pictures inside and nothing fetched from anywhere."""

from sa_upscale.report.training import write

__all__ = ["write"]
