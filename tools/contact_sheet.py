"""Show what checkpoints make of difficult crops: source, bicubic and the checkpoint side by side, one sheet for each.

    python tools/contact_sheet.py compact-x4 compact-x2 -o sheets/
    python tools/contact_sheet.py compact-x4 --beside compact-x4-fidelity -o sheets/ --format jpg

The crops stand in contact_sheet.toml beside this file.  A video checkpoint is shown a still: the picture five times.
"""

import argparse
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sa_upscale import checkpoints, degrade, images
from sa_upscale.engine import Engine

HERE = Path(__file__).resolve().parent
PANEL = (288, 216)
GAP, CAPTION = 6, 20
BACKGROUND = (225, 225, 225)  # so that the border of a white crop can be seen
ROWS_OF_CROPS = 4

Method = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Crop:
    """One table of the TOML file; its head explains the keys."""

    label: str
    picture: str
    box: tuple[int, int, int, int]
    reduced: bool = False


def read_crops(file: Path) -> list[Crop]:
    tables = tomllib.loads(file.read_text(encoding="utf-8"))["crops"]
    return [Crop(**{**table, "box": tuple(table["box"])}) for table in tables]


def panels(crop: Crop, root: Path, scale: int, methods: dict[str, Method]) -> dict[str, Image.Image]:
    """The crop's panels by caption: the source's own pixels, each method's result and, where it is known, the original.

    `methods` take `(h, w, 3)` uint8 and return `(h * scale, w * scale, 3)`.
    """
    original = images.read(root / crop.picture).pixels
    original = np.repeat(original, 3 // original.shape[2], axis=2)
    left, top, width, height = crop.box
    if crop.reduced:
        rows, columns = (side // scale * scale for side in original.shape[:2])
        source, factor = degrade.bicubic(original[:rows, :columns], scale), 1
    else:
        source, factor = original, scale
    box = (left * factor, top * factor, (left + width) * factor, (top + height) * factor)
    whole = (source.shape[1] * scale, source.shape[0] * scale)
    large = {"source": Image.fromarray(source).resize(whole, Image.Resampling.NEAREST)}
    large |= {name: Image.fromarray(method(source)) for name, method in methods.items()}
    shown = {name: picture.crop(box) for name, picture in large.items()}
    if crop.reduced:
        shown["original"] = Image.fromarray(original).crop(box)
    return {name: _fitted(picture) for name, picture in shown.items()}


def sheet(title: str, crops: list[tuple[str, dict[str, Image.Image]]]) -> Image.Image:
    """All crops, each a captioned row of panels, in two columns of rows under the title."""
    columns = -(-len(crops) // ROWS_OF_CROPS)
    across = max(len(row) for _, row in crops)
    block = (across * (PANEL[0] + GAP) + 2 * GAP, PANEL[1] + CAPTION + GAP)
    page = Image.new("RGB", (columns * block[0], min(len(crops), ROWS_OF_CROPS) * block[1] + CAPTION + GAP), BACKGROUND)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    draw.text((GAP, GAP // 2), title, font=font, fill="black")
    for number, (label, row) in enumerate(crops):
        left = number // ROWS_OF_CROPS * block[0] + GAP
        top = number % ROWS_OF_CROPS * block[1] + CAPTION + GAP
        for place, (caption, picture) in enumerate(row.items()):
            x = left + place * (PANEL[0] + GAP)
            draw.text((x, top), f"{label}: {caption}" if place == 0 else caption, font=font, fill="black")
            page.paste(picture, (x, top + CAPTION))
    return page


def _fitted(picture: Image.Image) -> Image.Image:
    """Enlarged by a whole number, its pixels as squares, as far as the panel allows; a larger one loses its margin."""
    times = max(1, min(PANEL[0] // picture.width, PANEL[1] // picture.height))
    picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    left, top = ((have - want) // 2 for have, want in zip(picture.size, PANEL, strict=True))
    return picture.crop((left, top, left + PANEL[0], top + PANEL[1]))


def _bicubic(scale: int) -> Method:
    def run(source: np.ndarray) -> np.ndarray:
        size = (source.shape[1] * scale, source.shape[0] * scale)
        return np.asarray(Image.fromarray(source).resize(size, Image.Resampling.BICUBIC))

    return run


def _network(engine: Engine) -> Method:
    return lambda source: engine.run_prepared([engine.prepare(source)] * engine.window)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="checkpoints by name or file")
    parser.add_argument("--beside", action="append", default=[], help="a checkpoint of the same scale, on every sheet")
    parser.add_argument("--crops", type=Path, default=HERE / "contact_sheet.toml")
    parser.add_argument("--root", type=Path, default=HERE.parents[1] / "shared" / "data" / "bench")
    parser.add_argument("--format", choices=("png", "jpg"), default="png")
    parser.add_argument("-o", "--out", type=Path, default=Path("."), help="the folder for sheet-NAME.png")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for model in arguments.models:
        loaded = [checkpoints.load(name) for name in (*arguments.beside, model)]
        scale, name = loaded[-1].model.scale, loaded[-1].name
        methods = {"bicubic": _bicubic(scale)}
        methods |= {checkpoint.name: _network(Engine(checkpoint.model, device="cpu")) for checkpoint in loaded}
        rows = [(crop.label, panels(crop, arguments.root, scale, methods)) for crop in read_crops(arguments.crops)]
        page = sheet(f"{name} x{scale}, sha256 {loaded[-1].sha256[:12]}", rows)
        page.save(arguments.out / f"sheet-{name}.{arguments.format}", quality=92)


if __name__ == "__main__":
    main()
