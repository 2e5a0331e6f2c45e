"""Make the README's before/after pictures: `python -m benchmarks.pictures photo.jpg photo_x4.png out.png x,y,w,h ...`.

Each crop of the photo, `x,y,w,h` in its pixels, becomes a row: enlarged by bicubic on the left, the result right.
"""

import sys

from PIL import Image

GAP = 8


def before_after(photo: Image.Image, result: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """One row for the crop `box = (x, y, w, h)`, both sides at the result's size."""
    scale = result.width / photo.width
    x, y, width, height = box
    size = (round(width * scale), round(height * scale))
    row = Image.new("RGB", (2 * size[0] + GAP, size[1]), "white")
    row.paste(photo.crop((x, y, x + width, y + height)).resize(size, Image.BICUBIC), (0, 0))
    place = (round(x * scale), round(y * scale))
    row.paste(result.crop((*place, place[0] + size[0], place[1] + size[1])), (size[0] + GAP, 0))
    return row


def main(photo: str, result: str, target: str, *boxes: str) -> None:
    source, enlarged = (Image.open(file).convert("RGB") for file in (photo, result))
    rows = [before_after(source, enlarged, tuple(map(int, box.split(",")))) for box in boxes]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height + GAP for row in rows) - GAP), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + GAP
    sheet.save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
