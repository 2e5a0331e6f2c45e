"""How large a result is to be: a scale, or exact pixels."""

from dataclasses import dataclass

from sa_upscale.defaults import SCALES
from sa_upscale.errors import UpscaleError

SMALLEST_SCALE, LARGEST_SCALE = SCALES
FITS = ("inside", "fill", "crop")
SURROUNDINGS = 64
"""Source pixels around a part that are enlarged with it."""


@dataclass(frozen=True)
class Target:
    """The size of one result.

    The picture, or the part `taken` of it, is enlarged to `width` x `height`, and `box` of that is kept, all of it
    where there is none; both are (left, top, right, bottom).  `scale` is what the networks have to reach, below 1 for
    a picture that is to be reduced.
    """

    width: int
    height: int
    scale: float
    box: tuple[int, int, int, int] | None = None
    taken: tuple[int, int, int, int] | None = None

    @property
    def kept(self) -> tuple[int, int]:
        """(width, height) of what is written."""
        if self.box is None:
            return self.width, self.height
        left, top, right, bottom = self.box
        return right - left, bottom - top


@dataclass(frozen=True)
class Size:
    """What size results are to have.

    `scale` (1-8) times the source, with the longest side at most `max_size`; or `width` and `height` in pixels.  One of
    these alone keeps the proportions; with both, `fit` "inside" keeps them within the two, "fill" gives them up, and
    "crop" fills both and cuts off what stands out, the same on either side.  With `part` (left, top, width, height, in
    pixels of the source) only that is enlarged, by what the whole would be, as a preview.

    Raises `UpscaleError` for sizes that cannot be.
    """

    scale: float = 4.0
    max_size: int | None = None
    width: int | None = None
    height: int | None = None
    fit: str = "inside"
    part: tuple[int, int, int, int] | None = None

    def __post_init__(self):
        check_scale(self.scale)
        for name, value in (("max-size", self.max_size), ("width", self.width), ("height", self.height)):
            if value is not None and value < 1:
                raise UpscaleError(f"the {name} is a number of pixels from 1, not {value}")
        if self.max_size and self.exact:
            raise UpscaleError("a largest size and a width or height contradict each other; leave one out")
        if self.fit not in FITS:
            raise UpscaleError(f"unknown fit {self.fit!r}; use one of {', '.join(FITS)}")

    @property
    def exact(self) -> bool:
        return self.width is not None or self.height is not None

    @property
    def suffix(self) -> str:
        """What stands in the names of results."""
        preview = "_preview" if self.part else ""
        if self.exact:
            return f"_{self.width or ''}x{self.height or ''}{preview}"
        return f"_x{self.scale:g}" + (f"_max{self.max_size}" if self.max_size else "") + preview

    def of(self, width: int, height: int) -> Target:
        """The size of the result for a source of `width` x `height`.

        Raises `UpscaleError` above the largest scale and for a part that lies outside.
        """
        whole = self._whole(width, height)
        return _partial(whole, self.part, width, height) if self.part else whole

    def _whole(self, width: int, height: int) -> Target:
        if not self.exact:
            scale = min(self.scale, self.max_size / max(width, height)) if self.max_size else self.scale
            return Target(max(1, round(width * scale)), max(1, round(height * scale)), scale)
        across = self.width / width if self.width else None
        down = self.height / height if self.height else None
        given = [ratio for ratio in (across, down) if ratio is not None]
        if self.fit == "fill" and len(given) == 2:
            return _reachable(Target(self.width, self.height, max(given)))
        scale = max(given) if self.fit == "crop" else min(given)
        # The side that decides is exact, whatever rounding would make of it.
        whole = (
            self.width if scale == across else max(1, round(width * scale)),
            self.height if scale == down else max(1, round(height * scale)),
        )
        box = _centred(whole, (self.width, self.height)) if self.fit == "crop" and len(given) == 2 else None
        return _reachable(Target(*whole, scale, box))


def check_scale(scale: float) -> float:
    """`scale` itself if it is a number from 1 to 8; `UpscaleError` otherwise."""
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise UpscaleError(f"the scale is a number from {SMALLEST_SCALE} to {LARGEST_SCALE}, not {scale:g}")
    return scale


def _reachable(target: Target) -> Target:
    if target.scale > LARGEST_SCALE:
        raise UpscaleError(
            f"{target.width}x{target.height} is {target.scale:.3g} times the source, and {LARGEST_SCALE} is the most; "
            "choose a smaller size"
        )
    return target


def _partial(whole: Target, part: tuple[int, int, int, int], width: int, height: int) -> Target:
    """The target for a part of a source of `width` x `height`, with what is around it so that networks see the same."""
    left, top, across, down = part
    if across < 1 or down < 1 or left < 0 or top < 0 or left + across > width or top + down > height:
        raise UpscaleError(f"the part {left},{top},{across},{down} reaches out of the {width}x{height} pixels")
    taken = (
        *(max(0, left - SURROUNDINGS), max(0, top - SURROUNDINGS)),
        *(min(width, left + across + SURROUNDINGS), min(height, top + down + SURROUNDINGS)),
    )
    wide, high = whole.width / width, whole.height / height
    first = round((left - taken[0]) * wide), round((top - taken[1]) * high)
    size = max(1, round(across * wide)), max(1, round(down * high))
    enlarged = round((taken[2] - taken[0]) * wide), round((taken[3] - taken[1]) * high)
    enlarged = tuple(max(all_, start + kept) for all_, start, kept in zip(enlarged, first, size, strict=True))
    return Target(*enlarged, whole.scale, (*first, first[0] + size[0], first[1] + size[1]), taken)


def _centred(whole: tuple[int, int], kept: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top = ((long - short) // 2 for long, short in zip(whole, kept, strict=True))
    return left, top, left + kept[0], top + kept[1]
