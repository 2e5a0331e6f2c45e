"""JPEG through Pillow, with the quality of the source estimated so that it is not lowered."""

from typing import BinaryIO

from PIL import JpegImagePlugin

from sa_upscale.images import pillow
from sa_upscale.images.colour import cmyk_note, cmyk_to_rgb
from sa_upscale.images.exif import carry_exif
from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Source, plain_dpi

# Sums of the example tables for luminance and chrominance, of which quality 50 is exactly one time.
# Reference: ITU-T T.81, annex K.1; the scaling is that of the Independent JPEG Group.
_TABLE_SUMS = (3688, 5505)


def begins(head: bytes) -> bool:
    return head.startswith(b"\xff\xd8\xff")


def opened(data: bytes) -> Source:
    # Image.open takes a phone's JPEG with a second picture inside for another format.
    image = pillow.header(JpegImagePlugin.JpegImageFile, data)
    info = image.info
    source = Source(
        *image.size,
        lambda: pillow.arrays(image),
        icc=info.get("icc_profile"),
        xmp=info.get("xmp"),
        dpi=plain_dpi(info.get("dpi")),
        quality=_quality(image.quantization),
        comment=info.get("comment"),
    )
    carry_exif(source, info.get("exif"))
    if image.mode == "CMYK":
        profile, source.icc = source.icc, None
        source.notes.append(cmyk_note(profile))
        source.decode = lambda: pillow.arrays(cmyk_to_rgb(image, profile))
    if "photoshop" in info:
        source.notes.append("its IPTC block is not carried")
    if "mp" in info:
        source.notes.append("the second picture inside it (a gain map, depth or preview) is not carried")
    return source


def _quality(tables: dict[int, list[int]]) -> int | None:
    """The quality setting (1-100) of the Independent JPEG Group's encoder whose tables weigh as much as these."""
    estimates = []
    for table, reference in zip(tables.values(), _TABLE_SUMS, strict=False):
        percent = 100 * sum(table) / reference
        # The rounding of small entries makes every quality look a little worse than it was: round up.
        estimates.append(-(-(200 - percent) // 2) if percent <= 100 else 5000 / percent)
    return min(100, max(1, round(max(estimates)))) if estimates else None


def encode(file: BinaryIO, picture: Picture) -> None:
    pillow.save(
        file,
        picture,
        "JPEG",
        quality=picture.quality,
        subsampling="4:4:4",
        dpi=tuple(round(value) for value in picture.dpi) if picture.dpi else (0, 0),
        icc_profile=picture.icc,
        exif=b"Exif\0\0" + picture.exif if picture.exif else b"",
        xmp=picture.xmp or b"",
        comment=picture.comment or b"",
    )
