"""One picture from file to file, in three steps, so that many can overlap: `prepare`, `enlarge` and `finish`."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from sa_upscale import __version__, images
from sa_upscale.defaults import AUTO, CLEAN, DAMAGED
from sa_upscale.errors import UpscaleError
from sa_upscale.upscale import damage, large, pictures
from sa_upscale.upscale.choosing import Choice, look
from sa_upscale.upscale.networks import Networks
from sa_upscale.upscale.pictures import Progress, Runner
from sa_upscale.upscale.sizes import Size, Target

STREAM_PIXELS = 100_000_000
"""A result with more pixels than this is made strip by strip where its format allows that."""

Finish = Callable[[], list[str]]
"""Writes a result and tells what was lost."""

REDUCED = "larger than the size asked for: reduced, without the network"


@dataclass(frozen=True)
class Output:
    """How results are written; `images.write` tells of each.

    `strip` leaves all metadata out but the colour profile; without `tag` only that of the tool, version, checkpoint and
    scale which an `Upscaler` adds.
    """

    format: str | None = None
    quality: int | None = None
    lossless: bool | None = None
    depth: str | None = None
    strip: bool = False
    tag: bool = True


@dataclass
class Result:
    """What became of one picture.

    `width` and `height` are those of the result, None when there is none; `source` and `target` are None for standard
    input and output.  `error` is a line for the user, None when all went well; `skipped` says that the result was there
    already.  `seconds` is how long it took, others at work beside it or not.  `networks` names what it went through,
    and `damage` says what of it, found in the picture, they were chosen to take away.
    """

    source: Path | None
    target: Path | None
    width: int | None = None
    height: int | None = None
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    skipped: bool = False
    networks: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    def tell(self, ready: "Ready") -> None:
        """Of a picture that went through the networks."""
        self.width, self.height = ready.target.kept
        self.networks, self.damage = ready.networks, ready.found.kinds if ready.found else []


@dataclass
class Ready:
    """A picture that can go through the networks: its header, the size it is to have, and its pixels if it is small.

    `sink` is where its result goes, and `output` how it is written, with the format decided.  `found` is what is wrong
    with it, where that decides on the networks, and `networks` names them once it went through.
    """

    opened: images.Opened
    size: Size
    target: Target
    sink: Path | BinaryIO
    output: Output
    picture: images.Picture | None
    found: damage.Damage | None = None
    networks: list[str] = field(default_factory=list)


class Upscaler:
    """The networks for one size, loaded once, for as many pictures as there are.

    With the model "auto" each picture is looked at, and noise or compression decide on its networks, unless `strength`
    or `denoise` is given: the former is that of the networks for clean pictures, the latter of those for others.
    `options` and errors as for `Networks`.
    """

    def __init__(
        self,
        model: str | Path,
        size: Size | float,
        *,
        strength: float | None = None,
        denoise: float | None = None,
        **options,
    ):
        self.size = size if isinstance(size, Size) else Size(size)
        decided = DAMAGED if denoise is not None else CLEAN if strength is not None else None
        if model == AUTO and decided:
            model = decided
        self._choice = Choice(**options) if model == AUTO else None
        self.networks = (
            self._choice.clean if self._choice else Networks(model, strength=strength, denoise=denoise, **options)
        )
        """Those for pictures with nothing wrong."""
        # Whatever is wrong with the model is known before the first picture.
        self._engines = self.networks.for_scale(1 if self.size.exact else self.size.scale)

    def image_file(
        self,
        source: Path | bytes,
        target: Path | BinaryIO,
        output: Output = Output(),
        *,
        max_pixels: int = images.MAX_PIXELS,
        on_progress: Progress | None = None,
    ) -> Result:
        """Enlarge one picture; arguments and errors as for `image_file`."""
        started = time.perf_counter()
        ready = self.prepare(source, target, output, max_pixels=max_pixels)
        return _finished(ready, self.enlarge(ready, on_progress), source, started)

    def prepare(
        self, source: Path | bytes, target: Path | BinaryIO, output: Output, *, max_pixels: int = images.MAX_PIXELS
    ) -> Ready:
        """As `prepare`, and look at the picture if that decides on the networks."""
        ready = prepare(source, target, self.size, output, max_pixels=max_pixels)
        if self._choice and ready.target.scale >= 1:
            ready.found = look(ready.opened, ready.picture)
        return ready

    def engines_for(self, picture: images.Picture, scale: float) -> list[Runner]:
        """Those that suit it, to run one after the other."""
        found = damage.measure(picture.pixels, picture.quality) if self._choice else None
        return self._suited(found, scale).for_scale(scale)

    def lanes(self, size: int) -> int:
        """How many pictures, with results of at most `size` bytes, `enlarge` may be given from threads at once."""
        return min((engine.lanes(size) for engine in self._engines), default=1)

    def enlarge(self, ready: Ready, on_progress: Progress | None = None) -> Finish:
        """Run the networks, and return what writes the result and tells what was lost."""
        scale = ready.target.scale
        networks = self._suited(ready.found, scale)
        engines = networks.for_scale(scale)
        ready.networks = networks.names(scale)
        # What a result says of itself.
        told = ", ".join((f"sa-upscale {__version__}", *ready.networks, f"x{scale:.4g}"))
        return enlarge(ready, engines, on_progress, software=told if ready.output.tag else None)

    def _suited(self, found: damage.Damage | None, scale: float) -> Networks:
        return self._choice.of(found, scale) if self._choice and found else self.networks


def image_file(
    source: Path | bytes,
    target: Path | BinaryIO,
    engines: Sequence[Runner],
    *,
    scale: float,
    output: Output = Output(),
    max_pixels: int = images.MAX_PIXELS,
    on_progress: Progress | None = None,
) -> Result:
    """Read `source` (a file, or its bytes), enlarge it by `scale` and write it to `target` (a file or a stream).

    `engines` run one after the other; the product of their scales is at least `scale` (1-8).  The result has
    `round(width * scale)` x `round(height * scale)` pixels.  Animations are enlarged frame by frame, files of several
    pages page by page.  `on_progress(done, total)` counts thousandths of the networks' work.

    Raises `UpscaleError` when the source cannot be read or the result cannot be written, the latter before the work
    where that can be known.
    """
    started = time.perf_counter()
    ready = prepare(source, target, Size(scale), output, max_pixels=max_pixels)
    return _finished(ready, enlarge(ready, engines, on_progress), source, started)


def _finished(ready: Ready, finish: Finish, source: Path | bytes, started: float) -> Result:
    result = Result(_file(source), _file(ready.sink), warnings=finish())
    result.tell(ready)
    result.seconds = time.perf_counter() - started
    return result


def prepare(
    source: Path | bytes, target: Path | BinaryIO, size: Size, output: Output, *, max_pixels: int = images.MAX_PIXELS
) -> Ready:
    """Open the source, see that its result can be written, and decode it if it is no animation and not very large."""
    if _file(source) and _file(target) and _same(_file(source), _file(target)):
        raise UpscaleError(f"the output {target} is the input itself; choose another name")
    opened = images.opened(source, max_pixels=max_pixels)
    wanted = size.of(opened.width, opened.height)
    key = images.format_for(target, opened.format, output.format)
    images.check_target(target, key, *wanted.kept)
    if output.lossless and not images.FORMATS[key].lossless:
        raise UpscaleError(f"{images.FORMATS[key].name} cannot be lossless; choose png, webp, tiff or jp2")
    in_strips = wanted.width * wanted.height > STREAM_PIXELS and images.streams(key)
    whole = wanted.taken or (opened.frames == 1 and not in_strips)
    output = replace(output, format=key)
    return Ready(opened, size, wanted, target, output, opened.read() if whole else None)


def enlarge(
    ready: Ready, engines: Sequence[Runner], on_progress: Progress | None = None, *, software: str | None = None
) -> Finish:
    """Run the networks; what is returned writes the result and tells of losses.

    Animations and very large pictures are written while they are made, so that nothing is left to do.  `software` is
    told in the metadata to have made the result.
    """
    if ready.picture is None:
        write = _write_frames if ready.opened.frames > 1 else _write_rows
        lost = write(ready, engines, on_progress, software)
        return lambda: lost
    result = _told(_enlarged(ready.picture, ready.target, engines, on_progress), ready.output, software)
    notes = _notes(ready, ready.picture)
    # While the result is written, the next picture is at work.
    ready.picture = None
    return lambda: notes + images.write(ready.sink, result, **_encoding(ready.output))


def _enlarged(
    picture: images.Picture, target: Target, engines: Sequence[Runner], on_progress: Progress | None
) -> images.Picture:
    if target.taken:
        picture = pictures.cropped(picture, target.taken)
    result = pictures.enlarge(picture, engines, target.width, target.height, on_progress=on_progress)
    return pictures.cropped(result, target.box) if target.box else result


def _write_frames(
    ready: Ready, engines: Sequence[Runner], on_progress: Progress | None, software: str | None
) -> list[str]:
    opened = ready.opened

    def shown() -> Iterator[tuple[images.Picture, float | None]]:
        for index, (picture, milliseconds) in enumerate(opened.play()):
            progress = pictures.part(on_progress, index, 1, opened.frames)
            # Pages have sizes of their own.
            size = ready.target if opened.timed else ready.size.of(picture.width, picture.height)
            yield _told(_enlarged(picture, size, engines, progress), ready.output, software), milliseconds

    lost = images.write_frames(ready.sink, shown(), opened.frames, opened.loop, **_encoding(ready.output))
    return opened.notes + lost


def _write_rows(
    ready: Ready, engines: Sequence[Runner], on_progress: Progress | None, software: str | None
) -> list[str]:
    known = large.survey(ready.opened.rows())
    size = ready.target
    bands = large.enlarged_rows(ready.opened, known, engines, size.width, size.height, on_progress)
    if size.box:
        bands = large.cropped_rows(bands, size.box)
    width, height = size.kept
    nothing = images.blank(height, width, known.channels, known.dtype.name, known.has_alpha)
    picture = _told(ready.opened.described(nothing.pixels, nothing.alpha), ready.output, software)
    lost = images.write_rows(ready.sink, picture, bands, format=ready.output.format, depth=ready.output.depth)
    return _notes(ready, picture) + lost


def _notes(ready: Ready, picture: images.Picture) -> list[str]:
    notes = list(picture.notes)
    if ready.target.scale < 1:
        notes.append(REDUCED)
    if ready.target.taken and ready.opened.frames > 1:
        notes.append(f"the preview shows the first of {ready.opened.frames}")
    return notes


def _encoding(output: Output) -> dict:
    return {name: getattr(output, name) for name in ("format", "quality", "lossless", "depth")}


def _told(picture: images.Picture, output: Output, software: str | None) -> images.Picture:
    """The picture telling what made it; or stripped, its profile and the like stay, without which colours change."""
    if output.strip:
        return replace(picture, exif=None, xmp=None, dpi=None, texts=(), comment=None)
    return replace(picture, software=software)


def _file(end: Path | bytes | BinaryIO) -> Path | None:
    """A source or target as a path; None for bytes and streams."""
    return Path(end) if isinstance(end, str | os.PathLike) else None


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return place(one) == place(other)


def place(path: Path) -> str:
    """A text that is the same for every name of one file."""
    return os.path.normcase(os.path.realpath(path))
