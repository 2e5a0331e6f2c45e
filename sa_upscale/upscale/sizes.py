"""How large a result is to be: a scale, or exact pixels."""

from dataclasses import dataclass

from sa_upscale.errors import UpscaleError

SMALLEST_SCALE, LARGEST_SCALE = 1, 8
FITS = ("inside", "fill", "crop")


@dataclass(frozen=True)
class Target:
    """The size of one result.

    The picture is enlarged to `width` x `height`, and `box` (left, top, right, bottom) of that is kept, all of it where
    there is none.  `scale` is what the networks have to reach, below 1 for a picture that is to be reduced.
    """

    width: int
    height: int
    scale: float
    box: tuple[int, int, int, int] | None = None

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
    "crop" fills both and cuts off what stands out, the same on either side.

    Raises `UpscaleError` for sizes that cannot be.
    """

    scale: float = 4.0
    max_size: int | None = None
    width: int | None = None
    height: int | None = None
    fit: str = "inside"

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
        if self.exact:
            return f"_{self.width or ''}x{self.height or ''}"
        return f"_x{self.scale:g}" + (f"_max{self.max_size}" if self.max_size else "")

    def of(self, width: int, height: int) -> Target:
        """The size of the result for a source of `width` x `height`; `UpscaleError` above the largest scale."""
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


def _centred(whole: tuple[int, int], kept: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top = ((long - short) // 2 for long, short in zip(whole, kept, strict=True))
    return left, top, left + kept[0], top + kept[1]
