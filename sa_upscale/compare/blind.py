"""A blind opinion test of folders of results: the page that asks, and the sum of what was answered."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sa_upscale import images
from sa_upscale.compare.comparing import MOST_OF_ALL, titles
from sa_upscale.compare.writing import png
from sa_upscale.errors import UpscaleError
from sa_upscale.report import blind


@dataclass(frozen=True)
class Opinion:
    """What was thought of one folder's pictures: mean score, 1 to 5, and half the width of its 95 % interval.

    `interval` is None where there is one score only.
    """

    model: str
    count: int
    mean: float
    interval: float | None


@dataclass(frozen=True)
class Preference:
    """How often one of two models was preferred: the share of `count` choices, and its 95 % interval.

    Where no difference was seen counts half for each.
    """

    model: str
    other: str
    count: int
    share: float
    low: float
    high: float


def write_test(target: Path, folders: Sequence[Path], *, pairs: bool = False) -> list[str]:
    """Write a page that shows the pictures of all folders one at a time and has them scored; returns their names.

    With `pairs` it shows every two results of one picture, and asks for the better.

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
    if pixels > MOST_OF_ALL:
        raise UpscaleError(
            f"{pixels / 1e6:.0f} million pixels are too many for a page (above {MOST_OF_ALL / 1e6:.0f}); take fewer "
            "pictures, or crops"
        )
    blind.write(target, [(name, model, png(images.read(file))) for name, model, file in files], pairs=pairs)
    return shared


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UpscaleError(f"{folder} is no folder; a blind test takes folders of results")
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in images.SUFFIXES}


def opinions(files: Sequence[Path]) -> list[Opinion]:
    """The mean opinion of each model over the files with scores that raters sent back, the best first.

    Raises `UpscaleError` for a file that is none of ours.

    Reference: ITU-R BT.500, mean scores and their confidence intervals.
    """
    scores: dict[str, list[int]] = {}
    for file in files:
        for entry in _told(file).get("scores", []):
            if entry["score"] not in (1, 2, 3, 4, 5):
                raise UpscaleError(f"{file} holds scores that are not 1, 2, 3, 4 or 5")
            scores.setdefault(entry["model"], []).append(entry["score"])
    summed = [Opinion(model, len(each), statistics.mean(each), _interval(each)) for model, each in scores.items()]
    return sorted(summed, key=lambda opinion: -opinion.mean)


def preferences(files: Sequence[Path]) -> list[Preference]:
    """How often which model was preferred, over the files with choices that raters sent back; the clearest first.

    Of every two models the preferred one is named first.  Raises `UpscaleError` for a file that is none of ours.

    Reference: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    points: dict[tuple[str, str], list[float]] = {}
    for file in files:
        for entry in _told(file).get("choices", []):
            first, second = sorted(entry["models"])
            points.setdefault((first, second), []).append({first: 1, second: 0, None: 0.5}[entry["better"]])
    summed = []
    for (first, second), each in points.items():
        share = statistics.mean(each)
        order, share = ((first, second), share) if share >= 0.5 else ((second, first), 1 - share)
        summed.append(Preference(*order, len(each), share, *_wilson(share, len(each))))
    return sorted(summed, key=lambda preference: -preference.share)


def _told(file: Path) -> dict:
    """What a rater answered: entries with model and score, or with two models and the better of them, or None."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        whole = all(isinstance(entry["model"], str) and "score" in entry for entry in told.get("scores", []))
        for entry in told.get("choices", []):
            first, second = entry["models"]
            whole &= first != second and entry["better"] in (first, second, None)
    except OSError as error:
        raise UpscaleError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole or not {"scores", "choices"} & told.keys():
        raise UpscaleError(f"{file} does not hold the answers of a blind test") from None
    return told


def _wilson(share: float, count: int) -> tuple[float, float]:
    square = 1.96**2 / count
    middle, half = share + square / 2, math.sqrt(square * (share * (1 - share) + square / 4))
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def _interval(scores: list[int]) -> float | None:
    return 1.96 * statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None
