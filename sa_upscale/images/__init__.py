"""Pictures in and out of files, with their depth, transparency, movement and metadata.

A file is known by its content, never by its name.  Reading is in two steps, so that nothing is decoded before its size
is known: a format's `opened` looks at the header and gives a `Source`, whose `decode` makes the pixels.  Writing takes
away what the format cannot hold, says so (`fitting`), and hands the rest to the format's `encode`.
A new format is a module with `begins`, `opened` and `encode`, and a line in `formats.FORMATS`.
"""

from sa_upscale.images.files import replacing
from sa_upscale.images.formats import (
    FORMATS,
    SUFFIXES,
    WRITTEN,
    check_target,
    content_format,
    format_for,
    result_format,
)
from sa_upscale.images.picture import Picture, blank
from sa_upscale.images.reading import MAX_PIXELS, Opened, opened, read, size
from sa_upscale.images.writing import streams, write, write_frames, write_rows

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "WRITTEN",
    "Opened",
    "Picture",
    "blank",
    "check_target",
    "content_format",
    "format_for",
    "opened",
    "read",
    "replacing",
    "result_format",
    "size",
    "streams",
    "write",
    "write_frames",
    "write_rows",
]
