"""The colours that a map is drawn in, from 0 to its largest value."""

# Dark to bright, so that it reads as strength for the colour-blind and in print, too.
COLOURS = ((0, 0, 4), (74, 12, 107), (165, 44, 96), (237, 105, 37), (251, 180, 26), (252, 255, 164))


def heat(value: float) -> tuple[int, int, int]:
    """The colour for a value in [0, 1]."""
    place = value * (len(COLOURS) - 1)
    index = min(int(place), len(COLOURS) - 2)
    return tuple(round(a + (b - a) * (place - index)) for a, b in zip(COLOURS[index], COLOURS[index + 1], strict=True))


PALETTE = [level for step in range(256) for level in heat(step / 255)]
"""Red, green and blue of 256 steps, as Pillow takes a palette."""
