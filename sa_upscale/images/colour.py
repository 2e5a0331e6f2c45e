"""CMYK, the one colour model that is converted on reading: the networks know grey and RGB."""

import io

from PIL import Image, ImageCms

from sa_upscale.images.source import library


def profile_space(profile: bytes | None) -> bytes:
    """The colour space an ICC profile is for, four letters. Reference: ICC.1:2022, 7.2.8."""
    return profile[16:20] if profile else b""


def cmyk_note(profile: bytes | None) -> str:
    way = "through its colour profile" if profile_space(profile) == b"CMYK" else "without a colour profile"
    return f"CMYK was converted to sRGB {way}"


def cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A CMYK picture as sRGB, by way of its profile if that is for CMYK."""
    with library():
        image.load()
        if profile_space(profile) != b"CMYK":
            return image.convert("RGB")
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
