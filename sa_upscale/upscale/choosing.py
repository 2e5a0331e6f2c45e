"""The default instead of one checkpoint: networks by what is wrong with each picture."""

from sa_upscale import images
from sa_upscale.defaults import CLEAN, DAMAGED, SAVED
from sa_upscale.upscale import damage
from sa_upscale.upscale.networks import Networks


class Choice:
    """`Networks` for pictures by how bad they are; loaded when first needed.  `options` are those of `Networks`."""

    def __init__(self, **options):
        self._by_level = [Networks(family, **options) for family in (CLEAN, SAVED, DAMAGED)]

    @property
    def clean(self) -> Networks:
        return self._by_level[0]

    def of(self, found: damage.Damage, scale: float) -> Networks:
        return self.of_level(found.level(scale))

    def of_level(self, level: int) -> Networks:
        """Those for nothing to speak of (0), slight (1) or strong (2) damage."""
        return self._by_level[level]


def look(opened: images.Opened, picture: images.Picture | None = None) -> damage.Damage:
    """What is wrong with an opened picture, with the first where there are several; `picture` if it was read."""
    if picture is None and opened.frames > 1:
        picture = opened.read()
    if picture is not None:
        return damage.measure(picture.pixels, picture.quality)
    bands = (pixels for pixels, _ in opened.rows())
    return damage.measure_rows(bands, opened.height, opened.width, opened.quality)
