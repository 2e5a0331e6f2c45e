"""HEIC and HEIF, read with the optional package pillow-heif; results are PNG."""

import io

import numpy as np

from sa_upscale.images import pillow
from sa_upscale.images.exif import carry_exif
from sa_upscale.images.source import Arrays, Refused, Source, library

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def begins(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def opened(data: bytes) -> Source:
    try:
        import pillow_heif
    except ImportError:
        raise Refused('is a HEIC picture; reading it needs pip install "sa-upscale[heif]"') from None
    with library():
        container = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        image = container[container.primary_index]
    source = Source(*image.size, lambda: _pixels(image), icc=image.info.get("icc_profile"))
    carry_exif(source, image.info.get("exif"))
    # The library has turned it upright already.
    source.orientation, source.xmp = 1, image.info.get("xmp")
    if len(container) > 1:
        source.notes.append(f"{len(container) - 1} more pictures inside it are not carried")
    return source


def _pixels(image) -> Arrays:
    with library():
        if ";16" not in image.mode:
            return pillow.arrays(image.to_pillow())
        array = np.atleast_3d(np.asarray(image)).view(np.uint16)
    colours = 3 if array.shape[2] >= 3 else 1
    return array[..., :colours], array[..., -1] if array.shape[2] in (2, 4) else None
