"""Upscale every file of some folders and hold the results against the sources: `python -m benchmarks.corpus FOLDER...`.

Prints a table of how many files Pillow or OpenCV open and what became of them, then a line for each that is wrong: a
traceback, a refusal of what another library opens, a result of another size, depth, colours, transparency, profile,
EXIF or resolution.  What Pillow sees in source and result decides, and our own reading where it opens one of them not.
The network only doubles every pixel: what is looked at is the way through the files, and colours can be compared.
"""

import argparse
import collections
import hashlib
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from sa_upscale import images, upscale
from sa_upscale.errors import UpscaleError

SCALE = 2
SECONDS = 60  # that one file may take
LARGEST = 30_000_000  # bytes of a file
EXIF_KEPT = (270, 271, 272, 306, 315, 33432, 34665, 34853)  # what no result may lack
LOSSLESS = ("png", "tiff", "bmp", "ppm", "jp2")


class TooLongError(BaseException):
    """Not an `Exception`, so that nothing on the way takes it for the file's fault."""


class Doubling:
    """A network that repeats each pixel."""

    scale, window = SCALE, 1

    def run(self, image: np.ndarray, *, on_progress=None) -> np.ndarray:
        return image.repeat(SCALE, 0).repeat(SCALE, 1)

    def run_rows(self, bands, height: int, *, on_progress=None) -> Iterator[np.ndarray]:
        return (self.run(band) for band in bands)


def seen(file: Path) -> Image.Image | None:
    """The file as Pillow opens it, upright; None when it does not."""
    try:
        image = Image.open(file)
        image.load()
        # Pillow turns TIFFs itself.
        return image if image.format == "TIFF" else ImageOps.exif_transpose(image)
    # Readers of other people's files raise anything.
    except Exception:
        return None


def opened_by_opencv(file: Path) -> bool:
    try:
        return cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED) is not None
    except cv2.error:
        return False


def outcome(file: Path, folder: Path) -> tuple[str, str]:
    """What became of one file, and the details of what is wrong."""
    try:
        target = folder / f"out{images.FORMATS[images.opened(file).format].suffixes[0]}"
        upscale.image_file(file, target, [Doubling()], scale=SCALE)
        wrong = ", ".join((*of_ours(file, target), *of_pillow(seen(file), seen(target), target)))
        return ("wrong", wrong) if wrong else ("upscaled", "")
    except UpscaleError as error:
        return "refused in one line" if "\n" not in str(error) else "several lines", str(error)
    except TooLongError:
        return "too long", ""
    # Whatever else comes out is what is looked for here.
    except Exception as error:
        return "traceback", repr(error)


def of_ours(file: Path, target: Path) -> Iterator[str]:
    """What the result should have of the source and has not, by our own reading."""
    source, result = images.opened(file), images.opened(target, max_pixels=2**40)
    before, after = source.read(), result.read()
    held = images.FORMATS[result.format]
    white = images.picture.top(before.pixels.dtype)
    transparent = before.alpha is not None and before.alpha.min() < white
    if (result.width, result.height) != (SCALE * source.width, SCALE * source.height):
        yield "size"
    # Pillow joins frames that are alike.
    if source.frames != result.frames and held.name not in ("WebP", "GIF") and not source.notes:
        yield "frames"
    if before.pixels.dtype != after.pixels.dtype:
        yield "depth"
    if transparent and held.alpha and after.alpha is None:
        yield "transparency"
    if before.icc != after.icc and held.metadata:
        yield "profile"


def of_pillow(before: Image.Image | None, after: Image.Image | None, target: Path) -> Iterator[str]:
    """What the result should have of the source and has not, as Pillow sees both."""
    if before is None or after is None:
        return
    key = images.content_format(target)
    held = images.FORMATS[key]
    if after.size != (SCALE * before.width, SCALE * before.height):
        yield f"size {after.size} of {before.size} in Pillow"
        return
    if before.mode in ("1", "L", "LA") and held.grey and after.mode not in ("1", "L", "LA", "P"):
        yield f"mode {before.mode} became {after.mode}"
    if held.metadata:
        had, has = exif_of(before), exif_of(after)
        yield from (f"EXIF field {tag}" for tag in EXIF_KEPT if had.get(tag) and not has.get(tag))
    had, has = before.info.get("dpi"), after.info.get("dpi")
    if held.dpi and had and had[0] > 1 and (not has or abs(float(had[0]) - float(has[0])) > 0.6):
        yield f"resolution {had} became {has}"
    if key in LOSSLESS and before.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        yield from of_colours(*(np.asarray(image.convert("RGBA")).astype(int) for image in (before, after)))


def exif_of(image: Image.Image) -> dict:
    try:
        return dict(image.getexif())
    # Of broken blocks it raises anything.
    except Exception:
        return {}


def of_colours(before: np.ndarray, after: np.ndarray) -> Iterator[str]:
    after = after[::SCALE, ::SCALE]
    # Masks of all or nothing are softened on their way.
    hard = np.isin(before[..., 3], (0, 255)).all()
    if not hard and np.abs(before[..., 3] - after[..., 3]).max() > 1:
        yield "alpha"
    if hard and (before[..., 3].min(), before[..., 3].max()) != (after[..., 3].min(), after[..., 3].max()):
        yield "alpha range"
    # Of faint colours 8 bits keep little.
    seen_by = np.minimum(before[..., 3], after[..., 3]) / 255
    if (np.abs(before - after)[..., :3].max(axis=2) * seen_by).max() > 2:
        yield "colours"


def too_long(_signal: int, _frame: object) -> None:
    raise TooLongError


def files_of(folders: list[Path]) -> list[Path]:
    """The files of all folders, each content once."""
    found = {}
    for folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < LARGEST):
            found.setdefault(hashlib.sha256(file.read_bytes()).digest(), file)
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    signal.signal(signal.SIGALRM, too_long)
    table, lines = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for file in files_of(arguments.folders):
            signal.alarm(SECONDS)
            what, details = outcome(file, Path(folder))
            signal.alarm(0)
            known = seen(file) is not None or opened_by_opencv(file)
            table[known, what] += 1
            if what not in ("upscaled", "refused in one line") or (known and what != "upscaled"):
                lines.append(f"{file}: {what}: {details}")
                print(lines[-1], file=sys.stderr, flush=True)
    print("| opened by Pillow or OpenCV | here | files |\n|---|---|---:|")
    for (known, what), count in sorted(table.items(), reverse=True):
        print(f"| {'yes' if known else 'no'} | {what} | {count} |")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
