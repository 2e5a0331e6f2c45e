"""Train the network that `--model auto` asks how noisy and how compressed a picture is (`upscale/inspector.py`).

    python -m tools.train_inspector sa_upscale/upscale/inspector.safetensors --data photos --drawings drawings \\
        --licence Apache-2.0 --trained-on "…"

Examples are parts of photographs, reduced by 1.4 to 4, and of drawings (`tools/draw_pictures.py`): some enlarged again,
sharpened or toned, some with noise, compressed as JPEG or WebP, or both; and such as must not be taken for damage:
pixel art, chequers, text, dithered pictures, soft texture, and pictures reduced or enlarged since they were damaged.
"""

import argparse
import io
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from torch.nn import functional as F

from sa_upscale.data import pictures, read_rgb
from sa_upscale.data.noise import JPEG_BLOCK, compressed, resized
from sa_upscale.train.learner import Learner
from sa_upscale.train.ranks import Place
from sa_upscale.upscale import inspector
from sa_upscale.upscale.damage import luma_of

SIDE = 112  # pixels of an example
BATCH = 48
RATE = 2e-3
WARMUP = 100  # steps
HELD_OUT = 1000
FILTERS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
)
MOST_NOISE = 25.0  # σ, in codes of 255
JPEG_QUALITIES = (10, 97)
WEBP_QUALITIES = (20, 96)
WEBP_SHARE = 0.7  # of what its quality lacks of 100 a JPEG that looks as bad lacks, by eye
HIDDEN_BELOW = 90  # a JPEG of less quality leaves too little of the noise before it to tell how much there was
VISIBLE = 0.25  # RMS in codes of 255 that compression has to change for anybody to see it
LUMA_OF_COLOURS = 0.669  # of the noise in each of three channels is found in the luma

Example = tuple[np.ndarray, tuple[float, float, float]]
"""Luma `(SIDE, SIDE)`, uint8; the network's two targets, and 0 where the first cannot be told."""


class Examples:
    """Draws them from decoded pictures, which are kept in memory."""

    def __init__(self, photos: list[Path], drawings: list[Path]):
        self._photos, self._drawings = photos, drawings
        self._read = cache(read_rgb)

    def sample(self, rng: np.random.Generator) -> Example:
        clean = self._clean(rng)
        noise, quality, told = 0.0, 100.0, True
        chance = rng.random()
        if chance < 0.15:
            picture = _damaged_before(clean, rng)
        elif chance < 0.36:
            picture = clean
        elif chance < 0.42:
            picture, quality = _as_webp(clean, rng)
        else:
            picture, noise, quality = _damaged(clean.astype(np.float32), rng, JPEG_QUALITIES[0])
            told = noise == 0 or quality >= HIDDEN_BELOW
        seen = luma_of(_rounded(picture))
        if noise == 0 and np.sqrt(np.mean((seen - luma_of(clean)) ** 2)) < VISIBLE:
            quality = 100.0
        return _rounded(seen), (*inspector.targets(noise, 100 - quality), float(told))

    def _clean(self, rng: np.random.Generator) -> np.ndarray:
        """An undamaged picture, uint8 `(SIDE, SIDE, 3)`."""
        drawn = rng.random() < 0.12
        files = self._drawings if drawn else self._photos
        picture = self._reduced(self._read(files[rng.integers(len(files))]), rng, whole=drawn and rng.random() < 0.5)
        if drawn and rng.random() < 0.25:
            times = int(rng.choice([2, 3, 4, 8]))
            small = picture[: len(picture) // times + 1, : picture.shape[1] // times + 1]
            picture = small.repeat(times, 0).repeat(times, 1)
        elif not drawn and rng.random() < 0.15:
            picture = _enlarged(picture, rng)
        missing = [(0, max(0, SIDE - side)) for side in picture.shape[:2]]
        picture = np.pad(picture, (*missing, (0, 0)), "symmetric")[:SIDE, :SIDE]
        chance = rng.random()
        if chance < 0.03:
            picture = _dithered(picture, rng)
        elif chance < 0.11:
            picture = _pattern(rng)
        return _toned(picture.astype(np.float32), rng)

    def _reduced(self, picture: np.ndarray, rng: np.random.Generator, *, whole: bool) -> np.ndarray:
        """A part of it, reduced to at least `SIDE` pixels a side where it is large enough; as it is if `whole`."""
        factor = 1.0 if whole else 2 ** rng.uniform(math.log2(1.4), 2)
        taken = math.ceil(min(min(picture.shape[:2]) / factor, SIDE + 16) * factor)
        top, left = (int(rng.integers(0, max(1, side - taken + 1))) for side in picture.shape[:2])
        part = Image.fromarray(np.ascontiguousarray(picture[top : top + taken, left : left + taken]))
        if factor == 1:
            return np.asarray(part)
        side = round(min(part.size) / factor)
        return np.asarray(part.resize((side, side), FILTERS[rng.integers(len(FILTERS))]))


def _enlarged(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = min(picture.shape[:2])
    small = max(8, int(side / rng.uniform(1.15, 2.5)))
    part = Image.fromarray(np.ascontiguousarray(picture[:small, :small]))
    return np.asarray(part.resize((side, side), FILTERS[rng.integers(2)]))


def _dithered(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    few = Image.fromarray(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=int(rng.integers(3, 64)))
    return np.asarray(few.convert("RGB"))


def _pattern(rng: np.random.Generator) -> np.ndarray:
    """What photographs have little of."""
    ink, paper = rng.integers(0, 256, (2, 3))
    return _rounded(PATTERNS[rng.integers(len(PATTERNS))](ink, paper, rng))


def _grid(ink: np.ndarray, paper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chequers, pixel art or a table."""
    cell = int(rng.integers(1, 17))
    grid = np.indices((SIDE // cell + 1,) * 2)
    drawn = (grid.sum(0) % 2, rng.integers(0, 2, grid.shape[1:]))[rng.integers(2)]
    cells = drawn.repeat(cell, 0).repeat(cell, 1)[:SIDE, :SIDE]
    table = (np.indices((SIDE, SIDE)) % max(cell, 3) == 0).any(0)
    return np.where((table if rng.random() < 0.3 else cells > 0)[..., None], ink, paper)


def _text(ink: np.ndarray, paper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Letters in cells, as a terminal shows them."""
    size = int(rng.integers(8, 22))
    width, height = int(rng.integers(size // 2, size + 2)), int(rng.integers(size, 2 * size))
    page = Image.new("RGB", (SIDE, SIDE), tuple(map(int, paper)))
    draw, font, filled = ImageDraw.Draw(page), ImageFont.load_default(size), rng.uniform(0.2, 1)
    for top in range(int(rng.integers(-height, 1)), SIDE, height):
        for left in range(int(rng.integers(-width, 1)), SIDE, width):
            if rng.random() < filled:
                draw.text((left, top), chr(33 + int(rng.integers(94))), tuple(map(int, ink)), font)
    return np.asarray(page)


def _discs(ink: np.ndarray, paper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sharp discs on soft colours, or on one."""
    coarse = rng.uniform(20, 235, (*rng.integers(2, 6, 2), 3)).astype(np.float32)
    plain = np.full((SIDE, SIDE, 3), paper, np.float32)
    soft = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    picture = _rounded(plain if rng.random() < 0.3 else soft)
    for _ in range(int(rng.integers(0, 12))):
        centre, colour = map(int, rng.integers(0, SIDE, 2)), map(int, rng.integers(0, 256, 3))
        cv2.circle(picture, tuple(centre), int(rng.integers(2, 30)), tuple(colour), -1, cv2.LINE_AA)
    return picture


def _slope(ink: np.ndarray, paper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    slope = np.linspace(0, rng.uniform(0.1, 1), SIDE)[:, None, None]
    return paper + (ink - paper) * np.broadcast_to(slope, (SIDE, SIDE, 1))


def _texture(ink: np.ndarray, paper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise, made soft."""
    noise = rng.standard_normal((SIDE, SIDE, 3)).astype(np.float32)
    return 128 + rng.uniform(10, 120) * cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.8, 2.5))


PATTERNS = (_grid, _text, _discs, _discs, _slope, _texture)


def _toned(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sharpened, or lighter, darker, paler; most of them neither."""
    if rng.random() < 0.15:
        soft = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 2))
        picture = picture + rng.uniform(0.3, 1.2) * (picture - soft)
    if rng.random() < 0.4:
        curved = 255 * (picture.clip(0, 255) / 255) ** rng.uniform(0.6, 1.6)
        picture = curved * rng.uniform(0.4, 1.1) + rng.uniform(0, 30)
    return _rounded(picture)


def _damaged(picture: np.ndarray, rng: np.random.Generator, worst: int) -> tuple[np.ndarray, float, float]:
    """A float32 picture with noise, compressed, or both: with the σ in its luma and the JPEG's quality."""
    kind = rng.choice(["noise", "noise", "jpeg", "jpeg", "both"])
    noise, quality = 0.0, 100.0
    if kind != "jpeg":
        sigma, channels = MOST_NOISE * rng.random() ** 2, 3 if rng.random() < 0.6 else 1
        picture = picture + sigma * rng.standard_normal((*picture.shape[:2], channels), np.float32)
        noise = sigma * (LUMA_OF_COLOURS if channels == 3 else 1)
    if kind != "noise":
        for _ in range(2 if rng.random() < 0.15 else 1):
            this = int(rng.integers(worst, JPEG_QUALITIES[1]))
            picture, quality = _as_jpeg(picture, this, rng), min(quality, this)
    return picture, noise, quality


def _as_jpeg(picture: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    """Blocks lying anywhere, chroma halved in most."""
    return compressed(picture, quality, rng.integers(JPEG_BLOCK, size=2), halved=rng.random() < 0.6)


def _as_webp(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    quality = int(rng.integers(*WEBP_QUALITIES))
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=quality, method=int(rng.choice([0, 4])))
    return np.asarray(Image.open(file)), 100 - WEBP_SHARE * (100 - quality)


def _damaged_before(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With what is left of damage to a file of another size: softer than noise, and no reason to smooth all of it."""
    side = max(16, round(SIDE * rng.uniform(0.6, 2.0)))
    earlier = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    change = _damaged(earlier, rng, 60)[0] - earlier
    return picture + resized(change, SIDE, SIDE)


def _rounded(picture: np.ndarray) -> np.ndarray:
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def _draw(photos: list[Path], drawings: list[Path], count: int, seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """`count` examples: lumas, and targets `(count, 3)`."""
    cv2.setNumThreads(1)
    examples, rng = Examples(photos, drawings), np.random.default_rng(seed)
    lumas, wanted = np.empty((count, SIDE, SIDE), np.uint8), np.empty((count, 3), np.float32)
    for i in range(count):
        lumas[i], wanted[i] = examples.sample(rng)
    return lumas, wanted


def train(lumas: np.ndarray, wanted: torch.Tensor, steps: int, seed: int) -> inspector.Inspector:
    """A network that has learnt all but the last `HELD_OUT`, in bf16 where that is faster."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = inspector.Inspector()
    learner = Learner(network, Place(torch.device("cpu")), optimizer="muon", betas=(0.9, 0.99), weight_decay=0, clip=1)
    losses = []
    for step in range(steps):
        rate = RATE * min(1, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        chosen = np.sort(rng.integers(len(lumas) - HELD_OUT, size=BATCH))
        batch = torch.from_numpy(lumas[chosen]).float().unsqueeze(1)
        batch = batch.flip(3) if rng.random() < 0.5 else batch
        batch = batch.transpose(2, 3) if rng.random() < 0.5 else batch
        with torch.autocast("cpu", torch.bfloat16):
            found, _ = network(batch.contiguous())
        expected = wanted[chosen]
        each = F.smooth_l1_loss(found, expected[:, :2], reduction="none", beta=0.2)
        loss = (each * torch.stack([expected[:, 2], torch.ones(BATCH)], 1)).mean()
        learner.backward(loss)
        learner.update(rate)
        losses.append(loss.item())
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: loss {np.mean(losses[-500:]):.4f}", flush=True)
    return network.eval()


def report(network: inspector.Inspector, lumas: np.ndarray, wanted: torch.Tensor) -> None:
    """How far it is off on examples that it has not seen."""
    with torch.inference_mode():
        parts = torch.from_numpy(lumas).float().unsqueeze(1).split(100)
        error = (torch.cat([network(part)[0] for part in parts]) - wanted[:, :2]).abs()
    told = wanted[:, 2] > 0
    print(f"mean error: noise {error[told, 0].mean():.3f} (log2), compression {20 * error[:, 1].mean():.2f} of 100")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", action="append", required=True, help="a folder of undamaged photographs")
    parser.add_argument("--drawings", required=True, help="a folder of drawings")
    parser.add_argument("--examples", type=int, default=130_000)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--trained-on", required=True)
    arguments = parser.parse_args()
    sources = list(pictures(arguments.data)), list(pictures([arguments.drawings]))
    workers = os.cpu_count() or 1
    share = arguments.examples // workers
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        drawn = [pool.submit(_draw, *sources, share, (arguments.seed, worker)) for worker in range(workers)]
        parts = [each.result() for each in drawn]
    lumas, wanted = np.concatenate([part[0] for part in parts]), torch.from_numpy(np.concatenate([p[1] for p in parts]))
    network = train(lumas, wanted, arguments.steps, arguments.seed)
    report(network, lumas[-HELD_OUT:], wanted[-HELD_OUT:])
    metadata = {name: str(getattr(arguments, name)) for name in ("licence", "trained_on", "examples", "steps", "seed")}
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    partial = arguments.target.with_suffix(".partial")
    save_file(state, partial, metadata)
    partial.replace(arguments.target)


if __name__ == "__main__":
    main()
