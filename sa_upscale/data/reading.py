"""Picture files as 8-bit RGB."""

import io
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from sa_upscale import images
from sa_upscale.images.exif import ORIENTATION
from sa_upscale.images.picture import converted
from sa_upscale.images.source import Damaged, library

_BIT_DEPTH = 24  # where a PNG has it: behind the signature, the first chunk's head and the two sides

# `images.read` silences libraries that are the whole process's, which two threads cannot do at once.
_one_at_a_time = threading.Lock()


def read_rgb(file: Path) -> np.ndarray:
    """A picture of any format, depth and orientation that the tool reads, as uint8 `(H, W, 3)`; it may be read-only.

    Grey is repeated, transparency dropped.  It may be called from several threads.

    Raises `UpscaleError` for a file that `images.read` refuses.
    """
    plain = _plain(file)
    if plain is not None:
        return plain
    with _one_at_a_time:
        pixels = images.read(file).pixels
    return np.broadcast_to(converted(pixels, "uint8"), (*pixels.shape[:2], 3))


def size(file: Path) -> tuple[int, int]:
    """(width, height) of a picture file as it is to be seen, by its header; rarely is more of the file read.

    Raises `UpscaleError` for what is no picture.
    """
    try:
        with warnings.catch_warnings(), library(), Image.open(file) as image:
            warnings.simplefilter("ignore")  # pictures of more than 89 megapixels are welcome
            # Other formats would have to be decoded to know, and hardly ever stand otherwise.
            turned = image.format in ("JPEG", "MPO") and image.getexif().get(ORIENTATION, 1) >= 5
            return image.size[::-1] if turned else image.size
    except Damaged:
        return images.size(file)


def _plain(file: Path) -> np.ndarray | None:
    """The pixels of an upright 8-bit JPEG or PNG, which most files are, by the shortest way; None for any other."""
    try:
        with library():
            data = file.read_bytes()
            if data.startswith(b"\xff\xd8\xff"):
                image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
            elif data.startswith(b"\x89PNG\r\n\x1a\n") and data[_BIT_DEPTH] == 8:
                image = PngImagePlugin.PngImageFile(io.BytesIO(data))
            else:
                return None
            image.load()
            if image.mode not in ("L", "RGB") or image.getexif().get(ORIENTATION, 1) != 1:
                return None
            return np.asarray(image.convert("RGB"))
    except Damaged:
        return None  # `images.read` will say what is wrong
