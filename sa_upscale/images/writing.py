"""Pictures into files: what the format cannot hold is taken away and said, and files appear whole or not at all."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sa_upscale.images import files
from sa_upscale.images.fitting import fitted, held_depth
from sa_upscale.images.formats import FORMATS, check_target, format_for, is_path
from sa_upscale.images.picture import Picture, blank, converted

DEFAULT_QUALITY = 95


def write(
    target: Path | BinaryIO,
    picture: Picture,
    *,
    format: str | None = None,
    quality: int | None = None,
    lossless: bool | None = None,
    depth: str | None = None,
) -> list[str]:
    """Write `picture` and return what the format could not keep, a line each.

    The format is `format` (a key or ending of `FORMATS`), or that of the target's ending, or the picture's own.  A file
    appears whole or not at all: it is written beside its place, flushed to the disk and renamed.  `quality` (1-100)
    is for JPEG, AVIF and lossy WebP; by default 95, or what a JPEG source had if that is more.  JPEG keeps colour at
    full resolution (4:4:4).  WebP is lossless where the source was, or where `lossless` says so.  `depth` is "uint8",
    "uint16" or "float32"; by default the picture's own, as far as the format holds it.

    Raises `UpscaleError` for a target that cannot be written and a picture that the format cannot hold.
    """
    key = format_for(target, picture.format, format)
    check_target(target, key, picture.width, picture.height)
    kept, lost = fitted(picture, FORMATS[key], depth)
    _encoding(kept, picture, quality, lossless)
    with _place(target) as file:
        FORMATS[key].codec.encode(file, kept)
    return lost


def write_frames(
    target: Path | BinaryIO,
    shown: Iterable[tuple[Picture, float | None]],
    count: int,
    loop: int,
    *,
    format: str | None = None,
    quality: int | None = None,
    lossless: bool | None = None,
    depth: str | None = None,
) -> list[str]:
    """Write `count` pictures, each with its milliseconds, as one animation (or file of pages), as `write` does.

    A first one with None for its time is no part of the animation.

    `loop` is how often it plays, 0 for ever.  A format that holds one picture gets the first, which a line says.
    """
    shown = iter(shown)
    first = next(shown)
    key = format_for(target, first[0].format, format)
    check_target(target, key, first[0].width, first[0].height)
    known, lost = FORMATS[key], []
    if known.frame_depths:
        known = replace(known, depths=known.frame_depths)
    if not hasattr(known.codec, "encode_frames"):
        lost.append(f"{known.name} holds one picture: only the first of {count} was kept")
        return lost + write(target, first[0], format=key, quality=quality, lossless=lossless, depth=depth)

    def kept() -> Iterator[tuple[Picture, float]]:
        for picture, milliseconds in chain([first], shown):
            if milliseconds is None and known.codec is not FORMATS["png"].codec:
                lost.append(f"{known.name} holds no still picture beside an animation")
                continue
            frame, missing = fitted(picture, known, depth)
            _encoding(frame, picture, quality, lossless)
            lost.extend(line for line in missing if line not in lost)
            yield frame, milliseconds

    with _place(target) as file:
        known.codec.encode_frames(file, kept(), count, loop)
    return lost


def write_rows(
    target: Path | BinaryIO,
    picture: Picture,
    bands: Iterable[np.ndarray],
    *,
    format: str | None = None,
    depth: str | None = None,
) -> list[str]:
    """Write a picture that comes in bands of rows `(rows, W, samples)`, alpha last, so that it is never held whole.

    `picture` stands for it: its arrays have the size and type of the whole but take no memory (`blank`), and what else
    it carries is written.  Only for formats that `streams` says can.
    """
    key = format_for(target, picture.format, format)
    check_target(target, key, picture.width, picture.height)
    held, lost = held_depth(FORMATS[key], depth or picture.pixels.dtype.name)
    nothing = blank(picture.height, picture.width, picture.pixels.shape[2], held, picture.alpha is not None)
    kept, missing = fitted(replace(picture, pixels=nothing.pixels, alpha=nothing.alpha), FORMATS[key])
    with _place(target) as file:
        FORMATS[key].codec.encode(file, kept, (converted(band, held) for band in bands))
    return lost + missing


def streams(format: str) -> bool:
    """Whether `write_rows` can write the format."""
    return FORMATS[format].streams


def _encoding(kept: Picture, picture: Picture, quality: int | None, lossless: bool | None) -> None:
    kept.quality = quality or max(DEFAULT_QUALITY, picture.quality or 0)
    kept.lossless = picture.lossless if lossless is None else lossless


def _place(target: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return files.replacing(Path(target)) if is_path(target) else files.spooled(target, "standard output")
