"""Windows of neighbouring frames of clips, which are videos or folders of frames."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from sa_upscale import media
from sa_upscale.data.crops import Pair, around, augment, crop, divisible, middle_part
from sa_upscale.data.files import LEAST_VALIDATED, Notice, frames, leaving_out, none_large_enough, probed
from sa_upscale.data.reading import read_rgb
from sa_upscale.data.shelf import Shelf, default_room, fair_share
from sa_upscale.degrade import bicubic
from sa_upscale.errors import UpscaleError
from sa_upscale.functional import scenes
from sa_upscale.images.picture import converted

STRETCH = 30
"""Frames decoded in a row, where a clip is too long to be kept whole."""


@dataclass(frozen=True)
class Clip:
    """Frames `lr` and `hr`, and for each the `first` and the `last` of its shot."""

    lr: list[np.ndarray]
    hr: list[np.ndarray]
    first: np.ndarray
    last: np.ndarray

    def window(self, middle: int, length: int) -> Pair:
        """The LR frames around `middle` as `(length, h, w, 3)`, none from another shot, and its HR."""
        indices = around(middle, self.first[middle], self.last[middle], length)
        return np.stack([self.lr[index] for index in indices]), self.hr[middle]


class Clips:
    """Windows of `window` neighbouring frames of clips, their LR by bicubic reduction, and the middle frame's HR.

    A window does not reach across a cut: there, as at the ends, the outermost frame is repeated.

    Decoded clips are kept in memory up to `room` bytes (`default_room` when None).  Where they do not all fit,
    stretches of `STRETCH` frames from all over the long ones are used alone.  Files that cannot be used are reported
    through `on_notice` and left out.

    Raises `UpscaleError` when there is no clip whose frames are as large as a crop.
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
        self._on_notice = on_notice
        facts = probed(files, patch, leaving_out(on_notice))
        files = [file for file in files if file in facts]
        if not files:
            raise none_large_enough(patch, "clips")
        room = room or default_room()
        frame = {file: round(width * height * 3 * (1 + 1 / scale**2)) for file, (width, height, _) in facts.items()}
        weights = [room if count is None else frame[file] * count for file, (_, _, count) in facts.items()]
        share = fair_share(weights, room)
        self._most = {file: max(share // weight, window) for file, weight in frame.items()}
        if large := sum(weight > share for weight in weights):
            on_notice(
                f"{len(facts)} clips do not fit into the {room / 1e9:.1f} GB of memory that are theirs: of the {large} "
                f"longest, stretches of {STRETCH} frames are used"
            )
        self.shelf = Shelf(files, self._load, room=room, on_notice=on_notice)

    def sample(self, rng: np.random.Generator) -> Pair:
        """One augmented crop: LR `(window, patch / scale, patch / scale, 3)` and HR `(patch, patch, 3)`, uint8.

        Half of the windows run backwards in time.
        """
        clip = self.shelf.take(int(rng.integers(len(self.shelf.files))))
        lr, hr = clip.window(int(rng.integers(len(clip.hr))), self.window)
        if rng.integers(2):
            lr = lr[::-1]
        return augment(*crop(lr, hr, self.patch, rng), int(rng.integers(8)))

    def _load(self, file: Path) -> tuple[Clip, int]:
        clip = read_clip(file, self.scale, self._most[file], STRETCH, self._on_notice)
        return clip, sum(frame.nbytes for frame in (*clip.lr, *clip.hr))


def validation_of_clips(
    files: Sequence[Path], *, scale: int, window: int, on_notice: Notice, count: int = 3
) -> Iterator[Pair]:
    """Windows around the middle of `count` frames of each clip, evenly spaced; what cannot be used is reported."""
    for file in probed(files, LEAST_VALIDATED * scale, leaving_out(on_notice)):
        try:
            clip = read_clip(file, scale, count * window, window, on_notice)
        except UpscaleError as error:
            on_notice(f"{error}; it is left out")
            continue
        for index in range(count):
            lr, hr = clip.window((2 * index + 1) * len(clip.hr) // (2 * count), window)
            part = middle_part(lr.shape[1:3], scale)
            yield part.of(lr), part.of(hr, scale)


def read_clip(file: Path, scale: int, most: int, stretch: int, on_notice: Notice) -> Clip:
    """Decode a clip, or of one of more than `most` frames evenly spaced stretches of `stretch` frames.

    Raises `UpscaleError` when it cannot be read, or its frames have nothing to do with each other.
    """
    decode = _frames_of_folder if file.is_dir() else _frames_of_video
    hr, begins = [], []
    for pixels, begins_stretch in decode(file, most, stretch, on_notice):
        hr.append(np.ascontiguousarray(divisible(pixels, scale)))
        begins.append(begins_stretch)
    if not hr:
        raise UpscaleError(f"{file}: none of its frames can be read")
    if len({frame.shape for frame in hr}) > 1:
        raise UpscaleError(f"{file}: its frames differ in size")
    if file.is_dir() and unrelated(hr):
        raise UpscaleError(
            f"{file}: its pictures are numbered, but no frames of a clip: neighbours have nothing in common"
        )
    shots = np.array(begins) | np.fromiter(scenes.cuts(hr), bool, len(hr))
    starts, which = np.flatnonzero(shots), np.cumsum(shots) - 1
    ends = np.append(starts[1:], len(hr)) - 1
    return Clip([bicubic(frame, scale) for frame in hr], hr, starts[which], ends[which])


def unrelated(pictures: Sequence[np.ndarray]) -> bool:
    """Whether most neighbours are as unlike as different shots: then they are numbered photographs, and no clip."""
    looks = [scenes.look(picture) for picture in pictures]
    distances = [scenes.distance(one, other) for one, other in itertools.pairwise(looks)]
    return 2 * sum(distance > scenes.CUT for distance in distances) > len(distances)


def holds_photographs(folder: Path) -> bool:
    """Whether the two pictures in the middle of a folder of numbered ones are `unrelated`."""
    files = frames(folder)
    try:
        return unrelated([read_rgb(file) for file in files[len(files) // 2 - 1 : len(files) // 2 + 1]])
    except UpscaleError:
        return False  # reported when it is read


def stretches(total: int, most: int, length: int) -> list[range]:
    """Which of `total` frames are used: all, or if they are more than `most`, evenly spaced stretches of `length`."""
    if total <= most:
        return [range(total)]
    length = min(length, most)
    count = most // length
    starts = [index * total // count for index in range(count)]
    return [range(start, start + length) for start in starts]


def _frames_of_folder(folder: Path, most: int, length: int, on_notice: Notice) -> Iterator[tuple[np.ndarray, bool]]:
    """Frames, and whether each follows none of those before it."""
    files = frames(folder)
    for stretch in stretches(len(files), most, length):
        begins = True
        for file in files[stretch.start : stretch.stop]:
            try:
                pixels = read_rgb(file)
            except UpscaleError as error:
                on_notice(f"{error}; the frame is left out")
                begins = True
                continue
            yield pixels, begins
            begins = False


def _frames_of_video(file: Path, most: int, length: int, on_notice: Notice) -> Iterator[tuple[np.ndarray, bool]]:
    """Frames, and whether each follows none of those before it."""
    info = media.probe(file)
    if info.frames is None or info.frames <= most:
        yield from _decode(info, media.Part(), most, on_notice)
        return
    for stretch in stretches(info.frames, most, length):
        # From half a frame before the first: times are rounded.
        start = max(0.0, float((stretch.start - Fraction(1, 2)) * info.frame_time))
        part = media.Part(start=start, duration=float(len(stretch) * info.frame_time))
        try:
            yield from _decode(info, part, most, on_notice)
        except UpscaleError as error:
            on_notice(f"{error}; that part is left out")


def _decode(info: media.VideoInfo, part: media.Part, most: int, on_notice: Notice) -> Iterator[tuple[np.ndarray, bool]]:
    with media.Reader(info, part, deinterlace=info.interlaced) as reader:
        for index, frame in enumerate(itertools.islice(reader.events(), most)):
            yield converted(frame.pixels, "uint8"), index == 0
    for problem in reader.problems:
        on_notice(f"{info.source}: {problem}; the frames that are there are used")
