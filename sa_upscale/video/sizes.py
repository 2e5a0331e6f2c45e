"""How large a result becomes, and where it goes."""

import math
from fractions import Fraction
from pathlib import Path

from sa_upscale import media
from sa_upscale.defaults import SCALES
from sa_upscale.errors import UpscaleError

LARGEST_SIDE = 4096  # pixels; what most players and their hardware decoders take
RELATIVES = (".3gp", ".3g2", ".f4v", ".qt")  # of MP4
ANIMATIONS = (".gif", ".webp", ".png", ".y4m")


def default_scale(info: media.VideoInfo) -> int:
    """4, or 2 where ×4 would pass 4096 pixels on the long side."""
    return 4 if 4 * max(info.width, info.height) <= LARGEST_SIDE else 2


def size_for(
    info: media.VideoInfo,
    *,
    scale: float | None = None,
    width: int | None = None,
    height: int | None = None,
    fit: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """(width, height) of the result, of which one way to say it may be given; the picture's shape stays.

    `width`, `height` and the box `fit` are in pixels as they are shown: of a clip that players turn, turned.
    Raises UpscaleError when the picture would have to be made smaller, or more than 8 times as large.
    """
    if sum(wish is not None for wish in (scale, width, height, fit)) > 1:
        raise UpscaleError("give one of --scale, --width, --height and --fit")
    shown = (info.height, info.width) if info.turned else (info.width, info.height)
    if width is not None or height is not None or fit is not None:
        box = fit or (width or math.inf, height or math.inf)
        scale = min(Fraction(wish, side) for wish, side in zip(box, shown, strict=True) if wish != math.inf)
    elif scale is None:
        scale = default_scale(info)
    lowest, highest = SCALES
    if not lowest <= scale <= highest:
        raise UpscaleError(
            f"scale {float(scale):g}: {shown[0]}x{shown[1]} can be made {lowest} to {highest} times as large"
        )
    return round(info.width * scale), round(info.height * scale)


def target_for(source: media.Source, output: Path | None, scale: float, *, preview: bool = False) -> Path:
    """Where the result goes: `output`, or `clip_x4.mp4` in the folder `output` or, by default, beside `clip.mp4`.

    A source whose kind of file cannot be written becomes an `.mkv`; an animation or pictures, an `.mp4`.
    """
    if output is not None and not output.is_dir():
        return output
    if source.pipe is not None:
        raise UpscaleError("what comes from stdin has no name; give --output a file, or - for stdout")
    path = source.path
    # Numbered pictures are called as their folder is, and the film goes beside that.
    stem, folder = (path.absolute().parent.name, path.parent.parent) if source.is_sequence else (path.stem, path.parent)
    suffix = path.suffix
    if suffix.lower() not in media.CONTAINERS:
        suffix = ".mp4" if source.is_sequence or suffix.lower() in (*ANIMATIONS, *RELATIVES) else ".mkv"
    ending = "preview" if preview else f"x{scale:.4g}"
    return (folder if output is None else output) / f"{stem}_{ending}{suffix}"


def preview_part(
    info: media.VideoInfo, start: float | None, seconds: float
) -> tuple[float | None, float | None, float | None]:
    """Start, end and duration of a preview: from `start` on, or around the middle of the video."""
    if start is None and info.duration is not None:
        start = max(0.0, float(info.duration) / 2 - seconds / 2)
    return start, None, seconds
