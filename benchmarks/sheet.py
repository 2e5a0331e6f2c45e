"""A contact sheet of the hard cases: `python -m benchmarks.sheet photo.png sheet.png`.

Each row is a case made of the photo (alpha, grey, 16 bits, palette, animation), enlarged by the default network: the
source by nearest neighbour on the left, the result right, both on a checkerboard.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sa_upscale import images, upscale

SIDE, SCALE = 72, 4


def cases(photo: Path) -> dict[str, tuple[bytes, int]]:
    """Name → (file, frame to show)."""
    picture = images.read(photo)
    colour = np.asarray(Image.fromarray(picture.pixels[..., :3]).resize((SIDE, SIDE), Image.BICUBIC))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    soft = np.clip(28 - np.hypot(x, y) + 0.5, 0, 1)
    cut = np.where(soft[..., None] > 0, colour, 0)
    deep = (colour.astype(np.uint16) // 8 + 90) * 257  # a narrow range, which 8 bits would show as bands
    spin = [
        (images.Picture(np.rot90(cut, turn).copy(), (np.rot90(soft, turn) * 255).astype(np.uint8)), 80.0)
        for turn in range(3)
    ]

    def png(pixels: np.ndarray, alpha: np.ndarray | None = None) -> bytes:
        stream = io.BytesIO()
        images.write(stream, images.Picture(pixels, alpha), format="png")
        return stream.getvalue()

    def animated(key: str) -> bytes:
        stream = io.BytesIO()
        images.write_frames(stream, spin, 3, 0, format=key)
        return stream.getvalue()

    palette = io.BytesIO()
    Image.fromarray(colour).quantize(32).save(palette, "PNG", transparency=3)
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    return {
        "soft alpha over black": (png(cut, (soft * 255).astype(np.uint8)), 0),
        "hard alpha": (png(cut, np.where(soft > 0.5, 255, 0).astype(np.uint8)), 0),
        "grey": (png(grey[..., None]), 0),
        "16 bits": (png(deep), 0),
        "palette with a clear colour": (palette.getvalue(), 0),
        "GIF, frame 2": (animated("gif"), 1),
        "APNG, frame 3": (animated("png"), 2),
    }


def on_checkerboard(picture: images.Picture) -> Image.Image:
    pixels = images.picture.converted(np.ascontiguousarray(picture.pixels), "uint8")
    image = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())
    y, x = np.mgrid[: image.height, : image.width] // 16
    board = Image.fromarray(np.where((x + y) % 2, 215, 150).astype(np.uint8)).convert("RGB")
    if picture.alpha is not None:
        board.paste(image, mask=Image.fromarray(images.picture.converted(picture.alpha, "uint8")))
        return board
    return image


def frame(data: bytes, number: int) -> images.Picture:
    opened = images.opened(data)
    return [picture for picture, _ in opened.play()][number] if opened.frames > 1 else opened.read()


def main(photo: str, target: str) -> None:
    upscaler = upscale.Upscaler("compact-x4", SCALE)
    made, side = cases(Path(photo)), SIDE * SCALE
    sheet = Image.new("RGB", (2 * side + 12, len(made) * (side + 18)), "white")
    for row, (name, (data, number)) in enumerate(made.items()):
        stream = io.BytesIO()
        upscaler.image_file(data, stream)
        top = row * (side + 18)
        ImageDraw.Draw(sheet).text((4, top + 3), name, "black")
        before = on_checkerboard(frame(data, number)).resize((side, side), Image.NEAREST)
        sheet.paste(before, (0, top + 18))
        sheet.paste(on_checkerboard(frame(stream.getvalue(), number)), (side + 12, top + 18))
    sheet.save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
