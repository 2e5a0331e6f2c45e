"""Super-resolution of photos and videos with trained, spatially adaptive networks."""

__version__ = "0.1.0"
