"""Windows of frames made of still pictures, which are set in motion: real clips are scarce."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sa_upscale.data.crops import Pair, Part, augment, random_part
from sa_upscale.data.files import LEAST_VALIDATED, Notice, large_enough, leaving_out
from sa_upscale.data.photos import shelve
from sa_upscale.data.reading import read_rgb
from sa_upscale.degrade import bicubic
from sa_upscale.errors import UpscaleError

FASTEST = 6.0
"""LR pixels per frame.  Speeds are this times the cube of a uniform draw: half are below 0.75, a sixth below 0.03."""

TURN, ZOOM = 0.008, 0.006
"""Standard deviations per frame of what turns (radians) and what comes nearer (natural logarithm of the size)."""

COVERED = 0.5
"""How often a part of another picture moves across."""

KERNEL = 2
"""LR pixels that the bicubic reduction reaches beyond a crop."""

VALIDATION_SIDE = 256


@dataclass(frozen=True)
class Course:
    """How a layer moves: HR pixels per frame, and the change of that; radians; natural logarithm of its size."""

    velocity: tuple[float, float]
    acceleration: tuple[float, float]
    turn: float
    zoom: float

    def matrix(self, time: int, pivot: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The 2x3 matrix that maps a layer's pixels to those of the frame at `time`, frames from the middle one.

        `pivot` (x, y) of the layer, about which it turns, is at `place` of the middle frame.
        """
        size, angle = math.exp(self.zoom * time), self.turn * time
        linear = size * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shift = np.array(self.velocity) * time + np.array(self.acceleration) * time**2 / 2
        return np.column_stack((linear, place + shift - linear @ pivot))


class Motion:
    """Windows of `window` frames made of still pictures by smooth pans, zooms and turns, in half of them with a part of
    another picture that goes its own way in front; see `Photos` for the rest.

    The middle frame is made of the pictures' own pixels; the others are interpolated between them.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        scale: int,
        patch: int,
        window: int,
        room: int | None = None,
        on_notice: Notice = lambda text: None,
    ):
        self.scale, self.patch, self.window = scale, patch, window
        self.shelf = shelve(files, lambda *_: None, scale=scale, patch=patch, room=room, on_notice=on_notice)

    def sample(self, rng: np.random.Generator) -> Pair:
        """One augmented crop: LR `(window, patch / scale, patch / scale, 3)` and HR `(patch, patch, 3)`, uint8."""
        ground, cover = (self.shelf.take(int(rng.integers(len(self.shelf.files))))[1] for _ in range(2))
        pair = moving(ground, cover, self.scale, self.patch, self.window, rng)
        return augment(*pair, int(rng.integers(8)))


def validation_of_stills(files: Sequence[Path], *, scale: int, window: int, on_notice: Notice) -> Iterator[Pair]:
    """A window made of each picture, always the same; what cannot be used is reported."""
    for index, file in enumerate(large_enough(files, LEAST_VALIDATED * scale, leaving_out(on_notice))):
        try:
            picture = read_rgb(file)
        except UpscaleError as error:
            on_notice(f"{error}; it is left out")
            continue
        side = min(*picture.shape[:2], VALIDATION_SIDE) // scale * scale
        yield moving(picture, picture, scale, side, window, np.random.default_rng((0, index)))


def moving(
    ground: np.ndarray, cover: np.ndarray, scale: int, patch: int, window: int, rng: np.random.Generator
) -> Pair:
    """A window that pans over `ground`, half of the time partly hidden by `cover`, with the middle frame's HR.

    Both are uint8 `(H, W, 3)` with sides of at least `patch`; the result is as of `Motion.sample`, not augmented.
    """
    side = patch + 2 * KERNEL * scale
    times = range(-(window // 2), window // 2 + 1)
    frames = _panned(ground, draw_course(rng, scale), patch, side, times, rng)
    if rng.random() < COVERED:
        course = draw_course(rng, scale)
        covers = _panned(cover, course, patch, side, times, rng)
        masks = _shifted(_blob(side, rng), course, side, times)
        frames = [_blend(*layers) for layers in zip(frames, covers, masks, strict=True)]
    inner = Part(KERNEL, KERNEL, patch // scale, patch // scale)
    lr = np.stack([inner.of(bicubic(frame, scale)) for frame in frames])
    return lr, inner.of(frames[window // 2], scale)


def draw_course(rng: np.random.Generator, scale: int) -> Course:
    """A course at random: any direction, mostly slow, its speed nearly constant, half of them turning, half zooming."""
    speed, angle = FASTEST * scale * rng.random() ** 3, rng.uniform(0, 2 * math.pi)
    return Course(
        velocity=(speed * math.cos(angle), speed * math.sin(angle)),
        acceleration=tuple(rng.normal(0, 0.05 * speed, 2)),
        turn=float(rng.normal(0, TURN)) if rng.random() < 0.5 else 0.0,
        zoom=float(rng.normal(0, ZOOM)) if rng.random() < 0.5 else 0.0,
    )


def _panned(
    picture: np.ndarray, course: Course, patch: int, side: int, times: range, rng: np.random.Generator
) -> list[np.ndarray]:
    """Frames of `side` pixels, in the middle of which `patch` pixels show a random part of `picture` at time 0."""
    part = random_part(picture.shape[:2], patch, patch, rng)
    # No more of the picture than can come into sight: warpAffine takes no sides of 32768 pixels.
    top, left = max(0, part.top - 2 * side), max(0, part.left - 2 * side)
    near = picture[top : part.top + 3 * side, left : part.left + 3 * side]
    pivot = np.array([part.left - left, part.top - top]) + (patch - 1) / 2
    place = np.full(2, (side - 1) / 2)
    return [
        cv2.warpAffine(
            near,
            course.matrix(time, pivot, place),
            (side, side),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        for time in times
    ]


def _shifted(mask: np.ndarray, course: Course, side: int, times: range) -> list[np.ndarray]:
    """The mask as its layer moves; a shape that reaches the border goes on beyond it."""
    middle = np.full(2, (side - 1) / 2)
    return [
        cv2.warpAffine(mask, course.matrix(time, middle, middle), (side, side), borderMode=cv2.BORDER_REPLICATE)
        for time in times
    ]


def _blob(side: int, rng: np.random.Generator) -> np.ndarray:
    """A mask `(side, side)`, uint8: a roundish shape somewhere, white, with a soft edge."""
    angles = np.linspace(0, 2 * math.pi, 32, endpoint=False)
    radius = np.full(32, rng.uniform(0.15, 0.45) * side)
    for lobes in (2, 3, 5):
        radius *= 1 + rng.uniform(0, 0.25) * np.cos(lobes * angles + rng.uniform(0, 2 * math.pi))
    outline = rng.uniform(0, side, 2) + radius[:, None] * np.column_stack((np.cos(angles), np.sin(angles)))
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 255, cv2.LINE_AA)
    return cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 3))


def _blend(ground: np.ndarray, cover: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`cover` where `mask` is white, `ground` where it is black; uint8."""
    share = mask[..., None].astype(np.float32) / 255
    return np.rint(ground + (cover.astype(np.float32) - ground) * share).astype(np.uint8)
