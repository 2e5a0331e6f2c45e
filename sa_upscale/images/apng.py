"""The frames of a PNG animation, each decoded as a PNG of its own and laid over what was there before.

Ours, because Pillow reads frames of 16 bits as 8 and gives up all frames when one is damaged.

Reference: Portable Network Graphics, third edition (W3C), 4.9 and 11.3.6.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sa_upscale.images.picture import top
from sa_upscale.images.source import Arrays, unpack

_CLEARED, _PREVIOUS = 1, 2  # what becomes of a frame's place after it was shown
_OVER = 1  # blended with what is there, instead of put in its place
_COLOUR, _ALPHA = 2, 4  # bits of the colour type

Chunk = tuple[bytes, memoryview]


@dataclass
class Frame:
    """One frame as it stands in the file: its place, its time and the pieces of its pixels."""

    width: int
    height: int
    left: int
    top: int
    milliseconds: float
    disposal: int
    blend: int
    pieces: list[memoryview] = field(default_factory=list)

    @property
    def place(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def frames(chunks: list[Chunk], promised: int) -> tuple[list[Frame], bool]:
    """The whole frames before the first fault, and whether the first picture of the file is none of them."""
    width, height = unpack(">II", chunks[0][1])
    found: list[Frame] = []
    numbers, still = 0, False
    for name, content in chunks:
        if name in (b"fcTL", b"fdAT"):
            if len(content) < (26 if name == b"fcTL" else 4) or unpack(">I", content)[0] != numbers:
                break
            numbers += 1
        if name == b"fcTL":
            if len(found) == promised or (found and not found[-1].pieces):
                break
            frame = _frame(content)
            if not _inside(frame, width, height):
                break
            found.append(frame)
        elif name == b"IDAT" and not found:
            still = True
        elif name == b"IDAT" and not still:
            found[-1].pieces.append(content)
        elif name == b"fdAT":
            if not found:
                break
            found[-1].pieces.append(content[4:])
    return [frame for frame in found if frame.pieces], still


def _frame(content: memoryview) -> Frame:
    _, width, height, left, above, over, under, disposal, blend = unpack(">IIIIIHHBB", content)
    return Frame(width, height, left, above, 1000 * over / (under or 100), disposal, blend)


def _inside(frame: Frame, width: int, height: int) -> bool:
    return 0 < frame.width <= width - frame.left and 0 < frame.height <= height - frame.top


def shown(
    chunks: list[Chunk], parts: list[Frame], still: bool, decoded: Callable[[list[Chunk]], Arrays]
) -> Iterator[tuple[Arrays, float | None]]:
    """Each of the frames as it is to be seen, with its milliseconds; `decoded` gives the pixels of a PNG's chunks.

    A `still` that is no part of the animation comes first, with None for its time.
    """
    width, height = unpack(">II", chunks[0][1])
    names = [name for name, _ in chunks]
    kind = chunks[0][1][9]
    opaque = b"tRNS" not in names and not kind & _ALPHA and _always_covered(parts, width, height)
    channels = 3 if kind & _COLOUR else 1
    if still:
        pixels, alpha = decoded(chunks)
        if alpha is None and not opaque:
            alpha = np.full((height, width), top(pixels.dtype), pixels.dtype)
        yield (np.broadcast_to(pixels, (height, width, channels)), alpha), None
    canvas = None
    for index, part in enumerate(parts):
        pixels, alpha = decoded(_alone(chunks, part))
        if canvas is None:
            canvas = np.zeros((height, width, channels), pixels.dtype), np.zeros((height, width), pixels.dtype)
        before = tuple(layer[part.place].copy() for layer in canvas) if part.disposal == _PREVIOUS and index else None
        _lay(canvas, part, pixels, alpha)
        yield (canvas[0].copy(), None if opaque else canvas[1].copy()), part.milliseconds
        if before:
            for layer, old in zip(canvas, before, strict=True):
                layer[part.place] = old
        elif part.disposal in (_CLEARED, _PREVIOUS):
            for layer in canvas:
                layer[part.place] = 0


def _alone(chunks: list[Chunk], part: Frame) -> list[Chunk]:
    header = struct.pack(">II", part.width, part.height) + bytes(chunks[0][1][8:])
    shared = [chunk for chunk in chunks if chunk[0] in (b"PLTE", b"tRNS")]
    return [(b"IHDR", memoryview(header)), *shared, *((b"IDAT", piece) for piece in part.pieces)]


def _always_covered(parts: list[Frame], width: int, height: int) -> bool:
    """Whether opaque frames leave no part of the picture without colour at any time."""
    whole = [(part.width, part.height) == (width, height) for part in parts]
    cleared = [
        part.disposal == _CLEARED or (part.disposal == _PREVIOUS and not index) for index, part in enumerate(parts)
    ]
    return whole[0] and all(now or not before for now, before in zip(whole[1:], cleared, strict=False))


def _lay(canvas: Arrays, part: Frame, pixels: np.ndarray, alpha: np.ndarray | None) -> None:
    """Draw a frame onto the canvas (colours, alpha) in place. Reference: PNG specification, 13.16 (alpha)."""
    colours, opacity = canvas[0][part.place], canvas[1][part.place]
    white = top(pixels.dtype)
    if part.blend != _OVER or alpha is None:
        colours[:] = pixels
        opacity[:] = white if alpha is None else alpha
        return
    over, under = alpha.astype(np.float64) / white, opacity.astype(np.float64) / white
    both = over + under * (1 - over)
    share = np.divide(over, both, out=np.zeros_like(both), where=both > 0)[..., None]
    mixed = np.rint(pixels * share + colours * (1 - share)).astype(pixels.dtype)
    # Where the frame is clear, what is there stays to the bit.
    np.copyto(colours, mixed, where=(alpha > 0)[..., None])
    opacity[:] = np.rint(both * white).astype(pixels.dtype)
