"""The pictures that networks were measured on, gathered as they come and shown on one page."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from sa_upscale import images
from sa_upscale.compare.comparing import MOST_OF_ALL, MOST_PIXELS, Side, held
from sa_upscale.compare.writing import png, scene
from sa_upscale.metrics import METRICS
from sa_upscale.report import comparison

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
ABOUT = "The whole as in the table above; parts by PSNR in dB and SSIM of the luma, nothing left out at their border."


class Gallery:
    """Takes results one by one, in memory as PNG files, and writes the page.

    `methods` is how many results there will be of each picture.  What passes the limits of a page is `left_out`.
    """

    def __init__(self, methods: int):
        self.left_out: list[str] = []
        self._sides, self._room = methods + 1, MOST_OF_ALL
        self._originals: dict[str, bytes] = {}
        self._results: dict[str, dict[str, bytes]] = {}

    def add(self, picture: str, method: str, sr: np.ndarray, hr: np.ndarray) -> None:
        """Take the result of one method, which is `(H, W, 3)` uint8 as is the original."""
        if picture in self.left_out:
            return
        if picture not in self._originals:
            pixels = math.prod(hr.shape[:2])
            if pixels > MOST_PIXELS or pixels * self._sides > self._room:
                self.left_out.append(picture)
                return
            self._room -= pixels * self._sides
            self._originals[picture] = png(images.Picture(hr))
        self._results.setdefault(picture, {})[method] = png(images.Picture(sr))

    def write(self, target: Path, about: str, figures: Figures, columns: list[str], rows: list[list[str]]) -> None:
        """Write the page: a table of `columns` and `rows`, and the pictures below it.

        `figures[method][picture][metric]` is what was measured, `about` a line on how.  Raises `UpscaleError` when the
        page cannot be written.
        """
        scenes = [self._scene(picture, figures) for picture in self._originals]
        if self.left_out:
            about += f" · {len(scenes)} of {len(scenes) + len(self.left_out)} pictures shown"
        means = comparison.Means(columns, rows, _best(columns, rows))
        comparison.write_all(target, "Evaluation", about, means, scenes, ABOUT)

    def _scene(self, picture: str, figures: Figures) -> comparison.Scene:
        results = self._results[picture]
        files = [*results.items(), ("original", self._originals[picture])]
        shown = scene(picture, held([Side(title, images.read(file), "") for title, file in files], measured=True))
        measured = [figures[method][picture] for method in results]
        texts = tuple("  ".join(f"{name} {value:.4f}" for name, value in each.items()) for each in measured)
        whole = replace(shown.regions[0], figures=texts, best=_best_picture(measured))
        return replace(shown, regions=[whole, *shown.regions[1:]])


def _best_picture(measured: list[Mapping[str, float]]) -> int | None:
    """The index of the best by the first metric, where there are several."""
    name = next(iter(measured[0]), None)
    if name is None or len(measured) == 1:
        return None
    choose = max if METRICS[name].higher_is_better else min
    return choose(range(len(measured)), key=lambda index: measured[index][name])


def _best(columns: list[str], rows: list[list[str]]) -> frozenset[tuple[int, int]]:
    """The (row, column) of the best figure of each metric, among the rows of each folder where there are several."""
    folders: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        folders.setdefault(row[1] if "folder" in columns else "", []).append(index)
    found = set()
    for column, name in enumerate(columns):
        for members in folders.values():
            told = [index for index in members if rows[index][column]]
            if name in METRICS and len(told) > 1:
                choose = max if METRICS[name].higher_is_better else min
                found.add((choose(told, key=lambda index, column=column: float(rows[index][column])), column))
    return frozenset(found)
