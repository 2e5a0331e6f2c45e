"""Training and validation data: pairs of LR and HR from folders of pictures, pairs, videos and frames.

`open_source` makes of a recipe's options a source, from which `batches` draws, and validation pairs.  What a batch
holds follows from the seed, the step and the files alone, so a resumed run sees what an uninterrupted one would have.
`survey` looks at a folder beforehand.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sa_upscale.data.crops import Pair, augment
from sa_upscale.data.files import (
    LEAST_VALIDATED,
    PICTURES,
    Notice,
    clips_and_stills,
    frames,
    large_enough,
    leaving_out,
    matched,
    pictures,
)
from sa_upscale.data.inspection import Survey, survey
from sa_upscale.data.loading import Source, batches
from sa_upscale.data.motion import Motion, validation_of_stills
from sa_upscale.data.noise import Damaged, Noisy, Traced
from sa_upscale.data.photos import Photos
from sa_upscale.data.reading import read_rgb
from sa_upscale.data.shelf import default_room
from sa_upscale.data.windows import Clips, holds_photographs, validation_of_clips
from sa_upscale.degrade import SecondOrder
from sa_upscale.errors import UpscaleError

__all__ = [
    "PICTURES",
    "Clips",
    "Motion",
    "Options",
    "Photos",
    "Source",
    "Survey",
    "augment",
    "batches",
    "open_source",
    "pictures",
    "read_rgb",
    "survey",
]


class Options(Protocol):
    """What `open_source` is told, such as `config.Data`.

    - `folders` of HR files; one named twice is drawn from twice as often.  `lr_folders`: their LR, in the same order.
    - `validation`: a folder of HR files; without one, `holdout` of the training files are kept back.
    - `patch`: HR pixels a side of a crop, a multiple of the scale.
    - `degradation`: "bicubic" or "second-order", which follows `second_order`.
    - `motion`: for networks that take several frames, make windows of still pictures as well.
    - `shrink`: every other crop of a picture is of the picture reduced, at the most to this share of its sides.
    - `noise`: the most noise of every other LR, a standard deviation in codes of 255.
    - `traces`: the share of LR pictures with traces of an earlier file's noise and compression.
    - `damage`: the share of LR pictures with noise, JPEG compression or both as they are, which may come to traces.

    Validation pictures get noise, traces and damage as training does, each always the same.
    """

    folders: Sequence[str]
    lr_folders: Sequence[str]
    validation: str | None
    holdout: int
    patch: int
    degradation: str
    second_order: SecondOrder
    motion: bool
    shrink: float
    noise: float
    traces: float
    damage: float


class Mixed:
    """Draws from each of its `sources` equally often."""

    def __init__(self, sources: Sequence[Source]):
        self.sources = sources

    def sample(self, rng: np.random.Generator) -> Pair:
        """One sample of one of the sources."""
        return self.sources[int(rng.integers(len(self.sources)))].sample(rng)


def open_source(
    options: Options, *, scale: int, window: int, on_notice: Notice = lambda text: None, room: int | None = None
) -> tuple[Source, list[Pair]]:
    """What a network with this `scale` and `window` (1 for pictures) is trained on, and what it is validated on.

    The source's `sample(rng)` gives uint8 LR `(patch / scale, patch / scale, 3)`, or `(window, …)`, and HR
    `(patch, patch, 3)`; `batches` draws from it.  A validation pair holds the middle 1024 pixels of a held-out picture
    or frame, or all of it.  `room` is how many bytes of decoded data may be kept, by default a third of the memory and
    no more than 6 GiB; of data that take more, some is not used, which a notice says.

    Files that are broken or smaller than a crop are reported through `on_notice`, each once, and left out.

    Raises `UpscaleError` for options that contradict each other, a folder that is missing or empty, pairs that do not
    match, and data of which nothing is left.
    """
    _check(options, window)
    on_notice = _once(on_notice)
    if window == 1:
        source, pairs = _open_pictures(options, scale, room, on_notice)
    else:
        source, pairs = _open_clips(options, scale, window, room, on_notice)
    pairs = list(pairs)
    if not pairs:
        raise UpscaleError("none of the validation files can be used; set data.validation to a folder of others")
    touches = ((Noisy, options.noise), (Traced, options.traces), (Damaged, options.damage))
    for order, (touch, amount) in enumerate(touches):
        if amount:
            source = touch(source, amount)
            pairs = [source.touched(*pair, np.random.default_rng((order, at))) for at, pair in enumerate(pairs)]
    return source, pairs


def _check(options: Options, window: int) -> None:
    if not options.folders:
        raise UpscaleError("no training data; name one or more folders with --data")
    if options.lr_folders and len(options.lr_folders) != len(options.folders):
        raise UpscaleError(
            f"{len(options.folders)} folders of HR and {len(options.lr_folders)} of LR do not make pairs; name one "
            "in data.lr_folders for each in data.folders"
        )
    second_order = options.degradation == "second-order"
    if options.lr_folders and second_order:
        raise UpscaleError('data.lr_folders has the LR, so leave data.degradation = "second-order" out')
    if options.shrink < 1 and (options.lr_folders or window > 1):
        whose = "takes several frames" if window > 1 else "learns from data.lr_folders"
        raise UpscaleError(f"data.shrink reduces pictures, for a network that makes its LR of them; this one {whose}")
    if options.noise and second_order:
        raise UpscaleError('data.degradation = "second-order" has noise of its own; leave data.noise out')
    damaging = "data.traces" if options.traces else "data.damage" if options.damage else None
    if damaging and (second_order or window > 1):
        wrong = 'data.degradation = "second-order" has damage of its own' if second_order else "this one takes frames"
        raise UpscaleError(f"{damaging} is for networks that take single pictures, reduced; {wrong}, so leave it out")
    if window == 1 and options.motion:
        raise UpscaleError("data.motion makes windows of frames, and this network takes single pictures; leave it out")
    if window > 1 and (options.lr_folders or second_order):
        wrong = "data.lr_folders" if options.lr_folders else 'data.degradation = "second-order"'
        raise UpscaleError(f"{wrong} is for networks that take single pictures, and this one takes {window} frames")


def _open_pictures(options: Options, scale: int, room: int | None, on_notice: Notice) -> tuple[Source, Iterable[Pair]]:
    files = pictures(options.folders)
    lr_files: dict[Path, Path] = {}
    for hr_folder, lr_folder in zip(options.folders, options.lr_folders, strict=False):
        lr_files |= matched(Path(hr_folder), Path(lr_folder), scale, on_notice)
    photos = Photos(
        [file for file in files if file in lr_files] if options.lr_folders else files,
        scale=scale,
        patch=options.patch,
        degradation=options.second_order if options.degradation == "second-order" else None,
        lr_files=lr_files,
        shrink=options.shrink,
        room=room,
        on_notice=on_notice,
    )
    if options.validation is None:
        return photos, photos.validation(photos.shelf.hold_out(options.holdout))
    held = large_enough(pictures([options.validation]), LEAST_VALIDATED * scale, leaving_out(on_notice))
    return photos, photos.validation(list(held))


def _open_clips(
    options: Options, scale: int, window: int, room: int | None, on_notice: Notice
) -> tuple[Source, Iterable[Pair]]:
    clips, stills = _sorted_out(options.folders, options.motion, on_notice)
    room = (room or default_room()) // (2 if clips and stills else 1)
    common = {"scale": scale, "patch": options.patch, "window": window, "room": room, "on_notice": on_notice}
    real = Clips(clips, **common) if clips else None
    made = Motion(stills, **common) if stills else None
    if options.validation is not None:
        held_clips, held_stills = _sorted_out([options.validation], options.motion, on_notice)
    elif made is None or (real and len(set(real.shelf.files)) > options.holdout):
        held_clips, held_stills = real.shelf.hold_out(options.holdout), []
    else:
        held_clips, held_stills = [], made.shelf.hold_out(options.holdout)
    # Where there is real motion, the best weights are chosen by that alone.
    validation = validation_of_clips if held_clips else validation_of_stills
    pairs = validation(held_clips or held_stills, scale=scale, window=window, on_notice=on_notice)
    return (Mixed([real, made]) if real and made else real or made), pairs


def _sorted_out(folders: Sequence[str], motion: bool, on_notice: Notice) -> tuple[list[Path], list[Path]]:
    """The clips below `folders`, and the pictures to make `motion` of."""
    clips, stills = clips_and_stills(folders)
    if motion:
        numbered = [clip for clip in clips if clip.is_dir() and holds_photographs(clip)]
        stills += [file for folder in numbered for file in frames(folder)]
        return [clip for clip in clips if clip not in numbered], stills
    if not clips:
        raise UpscaleError(
            f"{', '.join(map(str, folders))}: no videos and no folders of numbered frames, but {len(stills)} pictures; "
            "data.motion = true makes windows of frames from pictures"
        )
    if stills:
        on_notice(
            f"{len(stills)} pictures, such as {stills[0]}, are no frames of a clip and are left out; "
            "data.motion = true makes windows of frames from them"
        )
    return clips, []


def _once(on_notice: Notice) -> Notice:
    """`on_notice` for what it has not been told before."""
    told = set()

    def notice(text: str) -> None:
        if text not in told:
            told.add(text)
            on_notice(text)

    return notice
