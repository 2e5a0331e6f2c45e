"""Pictures and files for the tests of `sa_upscale.images`, most of them made by other libraries than ours."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image, ImageCms

from sa_upscale.images import write

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" exif:PixelXDimension="9">'
    b"<exif:PixelYDimension>7</exif:PixelYDimension></rdf:Description></x:xmpmeta>"
)
MAKER_NOTE = b"MAKER\0\0\x01 offsets in here count from outside"


def random_samples(depth, *shape, seed=0):
    generator = np.random.default_rng(seed)
    if depth == "float32":
        return generator.random(shape, dtype=np.float32)
    return generator.integers(0, np.iinfo(depth).max + 1, shape).astype(depth)


def smooth_samples(height, width, channels):
    """Values a lossy format keeps nearly: soft waves, each channel its own."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 80 * np.sin(x / (9 + c)) * np.cos(y / (11 - c)) for c in range(channels)]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def exif_block(orientation=1):
    exif = Image.Exif()
    exif[274] = orientation
    exif[271] = "Maker"
    exif[0x8769] = {0xA002: 9, 0xA003: 7, 0x927C: MAKER_NOTE, 0x829A: 0.004}
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 29.5)}
    return exif.tobytes()[len(b"Exif\0\0") :]


def parsed_exif(block):
    exif = Image.Exif()
    exif.load(block)
    return exif


def encoded(picture, key, **options):
    stream = io.BytesIO()
    write(stream, picture, format=key, **options)
    return stream.getvalue()


def pillow_bytes(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff_bytes(array, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_file(rows, width, height, depth, kind, *extra, interlace=0):
    """A PNG by hand, for what no library here writes; `rows` are packed bytes with filter type 0 each."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    packed = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
