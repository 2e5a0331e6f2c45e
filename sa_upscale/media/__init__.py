"""Video files through PyAV: frames in as RGB arrays, frames out with the source's times, tags and other streams.

`probe` looks at a file, `Reader` decodes it, `windows` groups frames around each other, `plan` decides how the result
is encoded, `Encoder` and `SegmentFile` make its parts, `Writer` puts them together with everything else that was in
the source, `tally` counts what a finished file holds.

Times are carried as integers in the source's own time base, so that a variable frame rate survives.
"""

from sa_upscale.media.clock import Part
from sa_upscale.media.colour import Colour, from_rgb, to_rgb
from sa_upscale.media.encoding import CONTAINERS, PIPE, SEQUENCE, Encoding, Wishes, encoders, even_size, plan
from sa_upscale.media.info import Mastering, VideoInfo, probe
from sa_upscale.media.others import Others
from sa_upscale.media.reader import Frame, Reader
from sa_upscale.media.segments import Chunk, Encoder, SegmentFile, chunks, stamps, write_errors
from sa_upscale.media.source import Pipe, Source, is_pattern
from sa_upscale.media.stretches import Astray, Mark, Stretch, Survey
from sa_upscale.media.windows import windows
from sa_upscale.media.writer import Tally, Writer, decoding_times, tally

__all__ = [
    "CONTAINERS",
    "PIPE",
    "SEQUENCE",
    "Astray",
    "Chunk",
    "Colour",
    "Encoder",
    "Encoding",
    "Frame",
    "Mark",
    "Mastering",
    "Others",
    "Part",
    "Pipe",
    "Reader",
    "SegmentFile",
    "Source",
    "Stretch",
    "Survey",
    "Tally",
    "VideoInfo",
    "Wishes",
    "Writer",
    "chunks",
    "decoding_times",
    "encoders",
    "even_size",
    "from_rgb",
    "is_pattern",
    "plan",
    "probe",
    "stamps",
    "tally",
    "to_rgb",
    "windows",
    "write_errors",
]
