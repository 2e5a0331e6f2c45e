"""Upscale every file of a folder and hold the results against the sources: `python -m benchmarks.corpus FOLDER`.

Prints a table of how many files Pillow or OpenCV open and what became of them, then a line for each that is wrong:
a traceback, a refusal of what another library opens, a result of another size, depth, transparency or profile.
The network is a small untrained one: what is looked at is the way through the files.
"""

import argparse
import collections
import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from sa_upscale import images, upscale
from sa_upscale.engine import Engine
from sa_upscale.errors import UpscaleError
from sa_upscale.models.compact import Compact

SCALE = 2
SECONDS = 60  # that one file may take


def opened_by_others(file: Path) -> bool:
    try:
        with Image.open(file) as image:
            image.load()
    # Readers of other people's files raise anything.
    except Exception:
        pass
    else:
        return True
    try:
        return cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED) is not None
    except cv2.error:
        return False


def outcome(file: Path, folder: Path, engine: Engine) -> tuple[str, str]:
    """What became of one file, and the details of what is wrong."""
    signal.alarm(SECONDS)
    try:
        target = folder / f"out{images.FORMATS[images.opened(file).format].suffixes[0]}"
        upscale.image_file(file, target, [engine], scale=SCALE)
        return ("wrong", wrong) if (wrong := differences(file, target)) else ("upscaled", "")
    except UpscaleError as error:
        return "refused in one line", str(error)
    # Whatever else comes out is what is looked for here.
    except Exception as error:
        return "traceback", repr(error)
    finally:
        signal.alarm(0)


def differences(file: Path, target: Path) -> str:
    """What the result should have of the source and has not, the first of it."""
    source, result = images.opened(file), images.opened(target)
    before, after = source.read(), result.read()
    held = images.FORMATS[result.format]
    white = images.picture.top(before.pixels.dtype)
    transparent = before.alpha is not None and before.alpha.min() < white
    checks = {
        "size": (result.width, result.height) == (SCALE * source.width, SCALE * source.height),
        # Pillow joins frames that are alike.
        "frames": source.frames == result.frames or held.name in ("WebP", "GIF"),
        "depth": before.pixels.dtype == after.pixels.dtype,
        "transparency": after.alpha is not None or not (transparent and held.alpha),
        "profile": before.icc == after.icc or not held.metadata,
        "grey": is_grey(after) or not is_grey(before) or held.name in ("JPEG", "WebP", "AVIF"),
    }
    return next((f"another {what}" for what, holds in checks.items() if not holds), "")


def is_grey(picture: images.Picture) -> bool:
    return bool((picture.pixels == picture.pixels[..., :1]).all())


def too_long(_signal: int, _frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    signal.signal(signal.SIGALRM, too_long)
    torch.manual_seed(0)
    engine = Engine(Compact(features=4, convs=1, scale=SCALE), device="cpu", precision="fp32")
    table, lines = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted(path for path in arguments.folder.rglob("*") if path.is_file()):
            known = opened_by_others(file)
            what, details = outcome(file, Path(folder), engine)
            print(f"{sum(table.values())} {file.name}: {what}", file=sys.stderr)
            table[known, what] += 1
            if what in ("wrong", "traceback") or (known and what != "upscaled"):
                lines.append(f"{file.name}: {what}: {details}")
    print("| opened by Pillow or OpenCV | here | files |\n|---|---|---|")
    for (known, what), count in sorted(table.items(), reverse=True):
        print(f"| {'yes' if known else 'no'} | {what} | {count} |")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
