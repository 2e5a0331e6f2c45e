"""What lies in folders of training data: pictures, videos, frames of clips, pictures in pairs."""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sa_upscale import images, media
from sa_upscale.data.reading import size
from sa_upscale.errors import UpscaleError

PICTURES = frozenset(images.SUFFIXES)
VIDEOS = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v"})

LEAST_VALIDATED = 8
"""LR pixels a side: the metrics leave a border out and need something to be left."""

Notice = Callable[[str], None]
LeaveOut = Callable[[Path, str], None]
"""Is told a file and why it is left out, in words that go on from its name."""

# Behind the name that a pair shares, or before it: baby_LRx4, 0001x4, img_001_SRF_4_HR, LR-0001.
_BEHIND = re.compile(r"([ _.-]?x\d+|[ _.-](lr|hr|lq|hq|gt|bicubic))$")
_BEFORE = re.compile(r"^(lr|hr|lq|hq|gt)[ _.-]")


def pictures(folders: Sequence[str | os.PathLike]) -> list[Path]:
    """The picture files below `folders`, in order within each; a folder named twice is listed twice.

    Raises `UpscaleError` when a folder is missing or holds none.
    """
    found = []
    for folder in map(Path, folders):
        files = _below(folder, PICTURES)
        if not files:
            raise UpscaleError(f"{folder}: holds no pictures ({', '.join(sorted(PICTURES))})")
        found += files
    return found


def clips_and_stills(folders: Sequence[str | os.PathLike]) -> tuple[list[Path], list[Path]]:
    """The clips below `folders` and the pictures that are no frames of one; a folder named twice is listed twice.

    A clip is a video file, or a folder that holds at least two pictures of one size, whose names are the same but for
    the number at their end.

    Raises `UpscaleError` when a folder is missing or holds neither.
    """
    clips, stills = [], []
    for folder in map(Path, folders):
        files = _below(folder, PICTURES | VIDEOS)
        if not files:
            raise UpscaleError(f"{folder}: holds no videos ({', '.join(sorted(VIDEOS))}) and no pictures")
        clips += [file for file in files if file.suffix.lower() in VIDEOS]
        loose = [file for file in files if file.suffix.lower() in PICTURES]
        for parent, group in itertools.groupby(sorted(loose, key=_place), key=lambda file: file.parent):
            beside = list(group)
            if _are_numbered(beside) and len(_sizes(beside)) == 1:
                clips.append(parent)
            else:
                stills += beside
    return clips, stills


def frames(folder: Path) -> list[Path]:
    """The pictures in `folder` itself as they follow each other: 2 before 10."""
    return sorted((file for file in folder.iterdir() if _is_one_of(file, PICTURES)), key=_place)


def hold_out(files: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split into training and validation files; the latter are `count` distinct ones, evenly spaced by path.

    Raises `UpscaleError` when nothing is left to train on.
    """
    distinct = sorted(set(files))
    if len(distinct) <= count:
        raise UpscaleError(
            f"{len(distinct)} training files are too few to keep {count} back for validation; set data.validation or "
            "lower data.holdout"
        )
    kept = {distinct[index * len(distinct) // count] for index in range(count)}
    return [file for file in files if file not in kept], sorted(kept)


def large_enough(files: Iterable[Path], least: int, leave_out: LeaveOut) -> dict[Path, tuple[int, int]]:
    """(width, height) of those pictures whose sides are `least` pixels or more, by their headers."""
    sizes = {}
    for file in dict.fromkeys(files):
        try:
            width, height = size(file)
        except UpscaleError as error:
            leave_out(file, reason(file, error))
            continue
        if min(width, height) < least:
            leave_out(file, f"is {width}x{height}, smaller than {least}x{least}")
        else:
            sizes[file] = width, height
    return sizes


def none_large_enough(patch: int, what: str = "pictures") -> UpscaleError:
    """The error for data of which nothing is left."""
    return UpscaleError(
        f"none of the training {what} is of {patch}x{patch} pixels or more; lower data.patch or add some"
    )


def leaving_out(on_notice: Notice) -> LeaveOut:
    """Tells `on_notice` in a line."""
    return lambda file, why: on_notice(f"{file}: {why}; it is left out")


def reason(file: Path, error: UpscaleError) -> str:
    """What `error` says of `file`, without its name."""
    return str(error).removeprefix(str(file)).lstrip(": ")


def probed(files: Iterable[Path], least: int, leave_out: LeaveOut) -> dict[Path, tuple[int, int, int | None]]:
    """(width, height, number of frames) of those clips whose sides are `least` pixels or more.

    The number is the file's claim, None where it makes none.
    """
    facts = {}
    for clip in dict.fromkeys(files):
        try:
            width, height, count = _probe(clip)
        except UpscaleError as error:
            leave_out(clip, reason(clip, error))
            continue
        if min(width, height) < least:
            leave_out(clip, f"is {width}x{height}, smaller than {least}x{least}")
        else:
            facts[clip] = width, height, count
    return facts


def matched(hr_folder: Path, lr_folder: Path, scale: int, on_notice: Notice) -> dict[Path, Path]:
    """The LR picture of each HR picture: the one of its name, in the folder of the same name below `lr_folder`.

    Where no name is just the same, endings such as x4, _LR and _HR are ignored.  Files that cannot be read are reported
    and left out with their partner.

    Raises `UpscaleError` naming the first HR picture without LR, LR picture without HR, or pair that differs in size by
    other than `scale`; HR may have a rest that does not divide by it.
    """
    hr_files, lr_files = pictures([hr_folder]), pictures([lr_folder])
    exact, loose = _by_name(lr_files, lr_folder, _exact), _by_name(lr_files, lr_folder, _loose)
    pairs: dict[Path, Path] = {}
    for hr in hr_files:
        name = hr.relative_to(hr_folder)
        found = exact.get(_exact(name)) or loose.get(_loose(name), [])
        if len(found) != 1:
            problem = "has no LR picture" if not found else f"has {len(found)} LR pictures"
            raise UpscaleError(f"{hr}: {problem} of its name in {lr_folder}; each HR picture needs one")
        if found[0] in pairs.values():
            raise UpscaleError(f"{hr}: has the LR picture of another HR picture, {found[0].name}; give each its own")
        pairs[hr] = found[0]
    if unused := sorted(set(lr_files) - set(pairs.values())):
        raise UpscaleError(f"{unused[0]}: has no HR picture of its name in {hr_folder}; each LR picture needs one")
    return {hr: lr for hr, lr in pairs.items() if _fit(hr, lr, scale, on_notice)}


def _below(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    if not folder.is_dir():
        raise UpscaleError(f"{folder}: no such folder of training data")
    return sorted(file for file in folder.rglob("*") if _is_one_of(file, suffixes))


def _is_one_of(file: Path, suffixes: frozenset[str]) -> bool:
    # Names that begin with a dot are other programs' affairs: thumbnails, and what macOS leaves beside each file.
    return file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()


def _place(file: Path) -> tuple[Path, list[str | int], str]:
    """What puts files in order: by folder, then by name, the numbers in it by value."""
    parts = re.split(r"(\d+)", file.name)
    return file.parent, [int(part) if index % 2 else part for index, part in enumerate(parts)], file.name


def _are_numbered(files: Sequence[Path]) -> bool:
    names = [re.fullmatch(r"(.*?)(\d+)", file.stem) for file in files]
    return len(files) > 1 and all(names) and len({name[1] for name in names}) == 1


def _sizes(files: Iterable[Path]) -> set[tuple[int, int]]:
    """The sizes of the pictures; those that cannot be read have none, and are reported when they are to be used."""
    sizes = set()
    for file in files:
        with suppress(UpscaleError):
            sizes.add(size(file))
    return sizes


def _probe(clip: Path) -> tuple[int, int, int | None]:
    if clip.is_dir():
        files = frames(clip)
        sizes = _sizes(files)
        if len(sizes) != 1:
            raise UpscaleError(f"{clip}: holds pictures of {len(sizes)} sizes, so no frames of a clip")
        return *sizes.pop(), len(files)
    info = media.probe(clip)
    return info.width, info.height, info.frames


def _exact(name: Path) -> tuple[Path, str]:
    return name.parent, name.stem


def _loose(name: Path) -> tuple[Path, str]:
    stem = _BEFORE.sub("", name.stem.lower())
    while (shorter := _BEHIND.sub("", stem)) not in (stem, ""):
        stem = shorter
    return name.parent, stem


def _by_name(files: Iterable[Path], folder: Path, key: Callable) -> Mapping[tuple[Path, str], list[Path]]:
    found: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        found.setdefault(key(file.relative_to(folder)), []).append(file)
    return found


def _fit(hr: Path, lr: Path, scale: int, on_notice: Notice) -> bool:
    try:
        high, low = size(hr), size(lr)
    except UpscaleError as error:
        on_notice(f"{error}; it is left out with its partner")
        return False
    wanted = tuple(side // scale for side in high)
    if low != wanted:
        raise UpscaleError(
            f"{lr}: is {low[0]}x{low[1]}, but {hr.name} of {high[0]}x{high[1]} needs {wanted[0]}x{wanted[1]} at "
            f"x{scale}; name the folder of this scale"
        )
    return True
