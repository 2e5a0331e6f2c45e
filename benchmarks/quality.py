"""What fast number types cost: Set5 in the one this processor is fast at, and in int8, against float32."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sa_upscale import checkpoints, images
from sa_upscale.engine import Engine, precisions
from sa_upscale.metrics.psnr import psnr_y
from sa_upscale.models import int8


def quality(shared: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """For each checkpoint at hand and fast type PSNR-Y in it and in float32, the difference and the worst pixel's.

    The aims are 0.02 dB at most for the first type and 0.1 dB for int8, which the engine chooses by itself only for
    checkpoints whose metadata, or entry in `weights.toml`, say that it costs them 0.02 dB at most.
    """
    able, set5 = precisions(torch.device("cpu")), shared / "data" / "bench" / "Set5"
    for row in checkpoints.listing():
        if row.where not in checkpoints.HERE or not (set5 / f"LRx{row.entry.scale}").is_dir():
            continue
        model = checkpoints.load(row.entry.name).model
        types = [able[0], *(["int8"] if "int8" in able and int8.suits(model) else [])]
        for fast in dict.fromkeys(types):
            yield f"{row.entry.name}, {fast}", _compared(model, row.entry.scale, fast, set5)


def _compared(model: nn.Module, scale: int, fast: str, folder: Path) -> dict[str, float]:
    engines = [Engine(model, device="cpu", precision=name) for name in (fast, "fp32")]
    scores, worst = [], 0
    for file in sorted((folder / f"HRx{scale}").iterdir()):
        lr = images.read(folder / f"LRx{scale}" / file.name).pixels
        hr = images.read(file).pixels
        results = [_upscaled(engine, lr) for engine in engines]
        scores.append([psnr_y(*map(_tensor, (sr, hr)), border=scale).item() for sr in results])
        worst = max(worst, int(np.abs(results[0].astype(int) - results[1]).max()))
    ours, exact = np.mean(scores, axis=0)
    return {"ours": float(ours), "fp32": float(exact), "difference": float(ours - exact), "worst pixel": worst}


def _upscaled(engine: Engine, lr: np.ndarray) -> np.ndarray:
    return engine.run_prepared([engine.prepare(lr)] * engine.window)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).movedim(-1, 0)[None].float() / 255


def report(figures: dict[str, dict[str, float]], line: Callable[[str], None]) -> None:
    """The table in Markdown."""
    line("| checkpoint | Set5 PSNR-Y, dB | in float32 | difference | worst pixel |\n|---|---:|---:|---:|---:|")
    for name, got in figures.items():
        line(
            f"| {name} | {got['ours']:.3f} | {got['fp32']:.3f} | {got['difference']:+.4f} | {got['worst pixel']}/255 |"
        )
