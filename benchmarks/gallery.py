"""A contact sheet for each checkpoint: `python -m benchmarks.gallery --shared ../shared -o gallery [NAME …]`.

Eight subjects that networks fail at in different ways, at 100 %: the original, bicubic and the network, both from the
original's own bicubic reduction.  Text and line art are drawn here, the rest are crops of Kodak's and BSD100's
pictures, which no checkpoint of ours was trained on.  Networks for video see five frames of a slow pan.  The sheets are
for looking at; the pictures' licences do not let them be passed on.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sa_upscale import checkpoints
from sa_upscale.degrade import bicubic
from sa_upscale.engine import Engine

SIDE = 192  # of what is shown, in pixels of the original
MARGIN = 36  # around it, so that no border of the crop is seen; with SIDE a multiple of 2, 3 and 4
PAN = 3  # pixels of the original from frame to frame
SUBJECTS = {  # where in data/bench, and the left and top of what is shown
    "face": ("Kodak12/15.webp", 420, 90),
    "foliage": ("Kodak12/13.webp", 190, 160),
    "brick": ("Kodak12/01.webp", 300, 120),
    "hair": ("BSD100/HRx4/028.webp", 170, 60),
    "sky": ("Kodak12/19.webp", 60, 60),
    "night": ("BSD100/HRx4/017.webp", 60, 70),
}
TEXT = "Sphinx of black quartz, judge my vow. 0123456789"


def originals(shared: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Subject and picture `(SIDE + 2 MARGIN, SIDE + 2 MARGIN + 4 PAN, 3)`, uint8."""
    for subject, (file, left, top) in SUBJECTS.items():
        pixels = np.asarray(Image.open(shared / "data/bench" / file).convert("RGB"))
        pixels = np.pad(pixels, ((MARGIN, MARGIN), (MARGIN + 2 * PAN, MARGIN + 2 * PAN), (0, 0)), mode="reflect")
        yield subject, pixels[top : top + SIDE + 2 * MARGIN, left : left + SIDE + 2 * MARGIN + 4 * PAN]
    yield "text", _drawn(_text)
    yield "line art", _drawn(_lines)


def sheet(name: str, shared: Path) -> Image.Image:
    """Subjects from top to bottom; original, bicubic and the network from left to right."""
    engine = Engine(checkpoints.load(name).model, device="cpu", precision="fp32")
    rows = []
    for subject, original in originals(shared):
        steps = range(-(engine.window // 2) * PAN, engine.window // 2 * PAN + 1, PAN)
        frames = [original[:, 2 * PAN + step :][:, : SIDE + 2 * MARGIN] for step in steps]
        reduced = [bicubic(frame, engine.scale) for frame in frames]
        middle, low = (pictures[engine.window // 2] for pictures in (frames, reduced))
        smooth = cv2.resize(low, middle.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        ours = engine.run_prepared([engine.prepare(frame) for frame in reduced])
        cells = [picture[MARGIN:-MARGIN, MARGIN:-MARGIN] for picture in (middle, smooth, ours)]
        rows.append((subject, np.concatenate(cells, axis=1)))
    whole = Image.new("RGB", (2 * 3 * SIDE, (len(rows) + 1) // 2 * (SIDE + 16)), "white")
    for number, (subject, row) in enumerate(rows):
        left, top = number % 2 * 3 * SIDE, number // 2 * (SIDE + 16)
        ImageDraw.Draw(whole).text((left + 4, top + 3), f"{subject}: original, bicubic, {name}", "black")
        whole.paste(Image.fromarray(row), (left, top + 16))
    return whole


def _drawn(draw: Callable[[ImageDraw.ImageDraw, int, int, int], None]) -> np.ndarray:
    """What `draw` makes four times as large, reduced: smooth edges at any place of the pixels."""
    height, width = 4 * (SIDE + 2 * MARGIN), 4 * (SIDE + 2 * MARGIN + 4 * PAN)
    canvas = Image.new("RGB", (width, height), "white")
    draw(ImageDraw.Draw(canvas), 4 * MARGIN, width, height)
    return np.asarray(canvas.reduce(4))


def _text(draw: ImageDraw.ImageDraw, margin: int, width: int, height: int) -> None:
    draw.rectangle((0, height // 2, width, height), fill=(28, 32, 44))
    for number, size in enumerate((14, 20, 28, 40, 14, 20, 28, 40)):
        place = (margin, margin + number * 4 * SIDE // 8)
        draw.text(place, TEXT, (20, 20, 20) if number < 4 else (235, 225, 190), ImageFont.load_default(4 * size))


def _lines(draw: ImageDraw.ImageDraw, margin: int, width: int, height: int) -> None:
    for number in range(14):
        angle = number * np.pi / 26
        end = (margin + 900 * np.cos(angle), margin + 900 * np.sin(angle))
        draw.line((margin, margin, *end), fill=(10, 10, 30), width=2 + number)
    for number in range(9):
        reach = 30 + 24 * number
        centre = (width - margin - 260, height - margin - 230)
        box = (centre[0] - reach, centre[1] - reach, centre[0] + reach, centre[1] + reach)
        draw.ellipse(box, outline=(170, 20 * number, 40), width=5)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("names", nargs="*", help="checkpoints by name or file; all bundled ones by default")
    parser.add_argument("--shared", type=Path, required=True, help="the folder with data/bench")
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="where the sheets go")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    names = arguments.names or [row.entry.name for row in checkpoints.listing() if row.where in checkpoints.HERE]
    for name in names:
        target = arguments.output / f"{Path(name).stem}.png"
        sheet(name, arguments.shared).save(target)
        print(target)


if __name__ == "__main__":
    main()
