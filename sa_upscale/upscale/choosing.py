"""The default instead of one checkpoint: networks by what is wrong with each picture."""

from sa_upscale import images
from sa_upscale.defaults import CLEAN, DAMAGED
from sa_upscale.upscale import damage
from sa_upscale.upscale.networks import Networks


class Choice:
    """`Networks` for pictures as they were taken, and for those with noise or JPEG blocks; loaded when first needed.

    What is little damaged gets a mixture of both.  `options` are those of `Networks`.
    """

    def __init__(self, **options):
        self._by_share = {
            0.0: Networks(CLEAN, **options),
            0.5: Networks(DAMAGED, denoise=0.5, **options),
            1.0: Networks(DAMAGED, **options),
        }

    @property
    def clean(self) -> Networks:
        return self._by_share[0.0]

    def of(self, found: damage.Damage, scale: float) -> Networks:
        return self.of_share(found.share(scale))

    def of_share(self, share: float) -> Networks:
        """Those that take away 0, 0.5 or 1 of what is wrong."""
        return self._by_share[share]


def look(opened: images.Opened, picture: images.Picture | None = None) -> damage.Damage:
    """What is wrong with an opened picture, with the first where there are several; `picture` if it was read."""
    if picture is None and opened.frames > 1:
        picture = opened.read()
    if picture is not None:
        return damage.measure(picture.pixels, picture.quality)
    bands = (pixels for pixels, _ in opened.rows())
    return damage.measure_rows(bands, opened.height, opened.width, opened.quality)
