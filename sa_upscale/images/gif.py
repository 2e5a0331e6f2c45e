"""GIF through Pillow: frames are read as they are to be seen, and get a palette of their own when written."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import GifImagePlugin, Image

from sa_upscale.images import pillow
from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Arrays, Damaged, Source, library

_CLEAR = 255  # the palette's entry that is transparent
# Pillow drops frames that look like the ground they are drawn on, transparent or not: no frame is all of this.
_CLEAR_COLOUR = bytes((1, 254, 3))
_RESTORE_BACKGROUND = 2


def begins(head: bytes) -> bool:
    return head[:6] in (b"GIF87a", b"GIF89a")


def opened(data: bytes) -> Source:
    image = pillow.header(GifImagePlugin.GifImageFile, data)
    # Later frames may reach out of the picture, and Pillow then makes it larger.
    (width, height), notes = image.size, []
    try:
        with library():
            count = image.n_frames
    except Damaged:
        count = 1
        notes.append("its frames after the first are damaged and were left out")
        image = pillow.header(GifImagePlugin.GifImageFile, data)
    loop = image.info.get("loop")
    return Source(
        width,
        height,
        lambda: _whole(pillow.arrays(image)),
        frames=count,
        # GIF counts the times it plays again, and without a count it plays once.
        loop=1 if loop is None else loop and loop + 1,
        play=lambda: _frames(image, count, width, height),
        xmp=image.info.get("xmp"),
        comment=image.info.get("comment"),
        notes=notes,
    )


def _frames(image: GifImagePlugin.GifImageFile, count: int, width: int, height: int) -> Iterator[tuple[Arrays, float]]:
    # Which frames have transparency is known at the end only, and all must be alike.
    for (pixels, alpha), milliseconds in pillow.frames(image, count):
        clear = np.full(pixels.shape[:2], 255, np.uint8) if alpha is None else alpha
        colours = np.broadcast_to(pixels, (*clear.shape, 3))
        yield (colours[:height, :width], clear[:height, :width]), milliseconds


def _whole(arrays: Arrays) -> Arrays:
    """A single picture, with the grey palettes that most programs write for grey pictures told from colour."""
    pixels, alpha = arrays
    grey = np.array_equal(pixels, np.broadcast_to(pixels[..., :1], pixels.shape))
    return pixels[..., :1] if grey else pixels, alpha


def encode(file: BinaryIO, picture: Picture) -> None:
    clear = picture.alpha is not None and bool((picture.alpha < 128).any())
    image = _indexed(picture, clear)
    image.save(pillow.Unnumbered(file), "GIF", comment=_comment(picture), **image.info)


def _comment(picture: Picture) -> bytes:
    """The picture's own comment, and on the line after it what made it."""
    return b"\n".join(filter(None, (picture.comment, (picture.software or "").encode())))


def encode_frames(file: BinaryIO, shown: Iterator[tuple[Picture, float]], count: int, loop: int) -> None:
    # Whole frames over a cleared ground: no player goes wrong, and nothing shines through.
    options = {"disposal": _RESTORE_BACKGROUND, "optimize": False}
    if loop != 1:
        options["loop"] = loop and loop - 1
    first = next(shown)
    options["comment"] = _comment(first[0])
    # All frames name a clear colour if one does: some programs clear to black after one that names none.
    frames = ((_indexed(picture, picture.alpha is not None), milliseconds) for picture, milliseconds in (first, *shown))
    pillow.save_frames(file, frames, "GIF", **options)


def _indexed(picture: Picture, clear: bool) -> Image.Image:
    """The picture in at most 256 colours of its own, one of them `clear` where it is more transparent than not."""
    pixels = np.ascontiguousarray(np.broadcast_to(picture.pixels, (picture.height, picture.width, 3)))
    indexed = _with_palette(pixels, _CLEAR if clear else 256)
    if clear:
        indexed.paste(_CLEAR, mask=Image.fromarray(picture.alpha < 128))
        indexed.info["transparency"] = _CLEAR
    return indexed


def _with_palette(pixels: np.ndarray, most: int) -> Image.Image:
    """`(H, W, 3)` in `most` colours: its own where it has no more, else the best of them, dithered."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, numbers = np.unique(packed, return_inverse=True)
    if len(colours) > most:
        image = Image.fromarray(pixels)
        palette = image.quantize(most, Image.Quantize.MEDIANCUT)
        return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    indexed = Image.fromarray(numbers.reshape(packed.shape).astype(np.uint8), "P")
    palette = colours.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    indexed.putpalette(palette.ljust(3 * _CLEAR, b"\0") + _CLEAR_COLOUR if most == _CLEAR else palette)
    return indexed
