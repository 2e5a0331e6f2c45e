"""A blind opinion test of folders of results: the page that asks, and the sum of what was answered."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sa_upscale import images
from sa_upscale.compare.comparing import titles
from sa_upscale.compare.writing import png
from sa_upscale.errors import UpscaleError
from sa_upscale.report import blind

MOST_PIXELS = 100_000_000  # of all pictures together: the page holds them all


@dataclass(frozen=True)
class Opinion:
    """What was thought of one folder's pictures: mean score, 1 to 5, and half the width of its 95 % interval.

    `interval` is None where there is one score only.
    """

    model: str
    count: int
    mean: float
    interval: float | None


def write_test(target: Path, folders: Sequence[Path]) -> list[str]:
    """Write a page that shows the pictures of all folders one at a time and has them scored; returns their names.

    Pictures belong together by their names without ending, and those that not every folder has are left out.  Raises
    `UpscaleError` for fewer than two folders, and without pictures that all have.
    """
    if len(folders) < 2:
        raise UpscaleError("a blind test needs two folders of results or more")
    found = [_pictures(folder) for folder in folders]
    shared = sorted(set.intersection(*(set(files) for files in found)))
    if not shared:
        raise UpscaleError(f"no picture is in all of {', '.join(map(str, folders))}; equal names belong together")
    files = [(name, model, those[name]) for model, those in zip(titles(folders), found, strict=True) for name in shared]
    pixels = sum(math.prod(images.size(file)) for _, _, file in files)
    if pixels > MOST_PIXELS:
        raise UpscaleError(
            f"{pixels / 1e6:.0f} million pixels are too many for a page (above {MOST_PIXELS / 1e6:.0f}); take fewer "
            "pictures, or crops"
        )
    blind.write(target, [(name, model, png(images.read(file))) for name, model, file in files])
    return shared


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UpscaleError(f"{folder} is no folder; a blind test takes folders of results")
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in images.SUFFIXES}


def opinions(files: Sequence[Path]) -> list[Opinion]:
    """The mean opinion of each model over the files that raters sent back, the best first.

    Raises `UpscaleError` for a file that is none of ours.

    Reference: ITU-R BT.500, mean scores and their confidence intervals.
    """
    scores: dict[str, list[int]] = {}
    for file in files:
        for model, score in _answers(file):
            scores.setdefault(model, []).append(score)
    summed = [Opinion(model, len(each), statistics.mean(each), _interval(each)) for model, each in scores.items()]
    return sorted(summed, key=lambda opinion: -opinion.mean)


def _answers(file: Path) -> list[tuple[str, int]]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        answers = [(str(entry["model"]), entry["score"]) for entry in told["scores"]]
    except OSError as error:
        raise UpscaleError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError):
        raise UpscaleError(f"{file} does not hold the scores of a blind test") from None
    if any(score not in (1, 2, 3, 4, 5) for _, score in answers):
        raise UpscaleError(f"{file} holds scores that are not 1, 2, 3, 4 or 5")
    return answers


def _interval(scores: list[int]) -> float | None:
    return 1.96 * statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None
