"""Super-resolution of photos and videos with trained, spatially adaptive networks.

enlarge = sa_upscale.load("compact")
large = enlarge(array_or_tensor_or_path)
"""

from typing import TYPE_CHECKING, Any

from sa_upscale.errors import UpscaleError

if TYPE_CHECKING:
    from sa_upscale.api import Model, load

__all__ = ["Model", "UpscaleError", "__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is first asked for: the command line's help must not wait for it."""
    if name not in ("Model", "load"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sa_upscale import api

    return getattr(api, name)
