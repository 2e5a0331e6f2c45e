"""The picture on a model card."""

import io
from pathlib import Path

import numpy as np

from sa_upscale import checkpoints, images
from sa_upscale.engine import Engine
from sa_upscale.functional.pixels import resized

BOX = (225, 295, 120, 90)  # left, top, width, height: the dragonfly's body and head
GAP = 8


def before_after(file: Path, photo: Path) -> bytes:
    """A JPEG of a crop of the photo: enlarged by bicubic on the left, by the checkpoint `file` on the right.

    A network that takes several frames is given the crop as each of them.
    """
    left, top, width, height = BOX
    crop = images.read(photo).pixels[top : top + height, left : left + width]
    engine = Engine(checkpoints.load(file).model, device="cpu", precision="fp32")
    ours = engine.run_prepared([engine.prepare(crop)] * engine.window)
    plain = resized(crop, ours.shape[:2])
    gap = np.full((ours.shape[0], GAP, 3), 255, np.uint8)
    written = io.BytesIO()
    images.write(written, images.Picture(np.concatenate([plain, gap, ours], axis=1)), format="jpeg", quality=92)
    return written.getvalue()
