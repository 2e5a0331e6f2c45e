"""Where the tool keeps things of its own."""

import os
from pathlib import Path

VARIABLE = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"


def cache() -> Path:
    """What is remembered between runs and could be done without: below LOCALAPPDATA, XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get(VARIABLE)
    return (Path(named) if named else Path.home() / ".cache") / "sa-upscale"
