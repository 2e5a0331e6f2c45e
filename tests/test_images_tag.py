"""The provenance tag, and the texts and comments of the user's own beside it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sa_upscale.images import Picture, read, write, write_frames
from sa_upscale.images.exif import exif_fields, signed_exif
from tests.pictures import MAKER_NOTE, encoded, exif_block, parsed_exif, png_chunk, smooth_samples

TAG = "sa-upscale 1.2.3, compact-x4, x4"


def picture(**carried):
    return Picture(smooth_samples(30, 40, 3), software=TAG, **carried)


@pytest.mark.parametrize("key", ["jpeg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("exif", [None, exif_block()])
def test_exif_tells_what_made_a_picture(key, exif):
    back = parsed_exif(read(encoded(picture(exif=exif), key)).exif)
    assert back[305] == TAG
    if exif:
        assert back[271] == "Maker"
        assert back.get_ifd(0x8769)[0x927C] == MAKER_NOTE
        assert back.get_ifd(0x8825)[2] == (48.0, 51.0, 29.5)


@pytest.mark.parametrize("endian", ["<", ">"])
def test_the_users_own_software_stays(endian):
    exif = Image.Exif()
    exif.endian = endian
    exif[305], exif[306] = "Darkroom 7", "2020:01:02 03:04:05"
    block = exif.tobytes()[6:]
    once = signed_exif(block, TAG)
    assert {tag: parsed_exif(once)[tag] for tag in (11, 305, 306)} == {
        11: TAG,
        305: "Darkroom 7",
        306: "2020:01:02 03:04:05",
    }
    # Another run takes the place of the first.
    again = parsed_exif(signed_exif(once, "sa-upscale 2, x2"))
    assert (again[11], again[305]) == ("sa-upscale 2, x2", "Darkroom 7")
    assert [field.tag for field in exif_fields(once)] == sorted(field.tag for field in exif_fields(once))


def test_where_both_fields_are_taken_none_is_touched():
    exif = Image.Exif()
    exif[11], exif[305] = "Viewer 1", "Darkroom 7"
    block = exif.tobytes()[6:]
    assert signed_exif(block, TAG) == block


def test_a_tag_never_drives_out_exif_that_just_fits():
    exif = Image.Exif()
    exif[270] = "x" * 65400
    block = exif.tobytes()[6:]
    back = read(encoded(picture(exif=block), "jpeg"))
    assert len(parsed_exif(back.exif)[270]) == 65400


def test_png_keeps_its_texts_and_tells_the_tag_beside_them():
    texts = ((b"tEXt", b"Software\0Darkroom 7"), (b"zTXt", b"Comment\0\0" + zlib.compress(b"long")))
    texts += ((b"iTXt", "Author\0\0\0\0\0Zoë".encode()),)
    data = encoded(picture(texts=texts), "png")
    back = read(data)
    assert set(texts) <= set(back.texts)
    assert (b"tEXt", b"Software\0" + TAG.encode()) in back.texts
    with Image.open(io.BytesIO(data)) as image:
        assert image.text == {"Software": "Darkroom 7", "Comment": "long", "Author": "Zoë"}
    lost = write(io.BytesIO(), back, format="jpeg")
    assert lost == ["JPEG holds no texts by name (author, description …)"]


def test_comments_stay_and_a_gif_tells_the_tag_after_its_own():
    with Image.open(io.BytesIO(encoded(picture(comment=b"from the attic"), "jpeg"))) as image:
        assert image.info["comment"] == b"from the attic"
    with Image.open(io.BytesIO(encoded(picture(comment=b"from the attic"), "gif"))) as image:
        assert image.info["comment"] == b"from the attic\n" + TAG.encode()
    stream = io.BytesIO()
    write_frames(stream, [(picture(), 50.0), (Picture(np.zeros((30, 40, 3), np.uint8)), 50.0)], 2, 0, format="gif")
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        assert image.info["comment"] == TAG.encode()
    assert write(io.BytesIO(), Picture(np.zeros((3, 4, 3), np.uint8), comment=b"x"), format="bmp") == [
        "BMP holds no comment"
    ]


def test_exif_and_xmp_that_stand_in_texts_are_found():
    block = exif_block(orientation=6)
    hexed = (b"Exif\0\0" + block).hex().encode()
    raw = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n %d\n%s\n" % (len(hexed) // 2, hexed))
    header = struct.pack(">IIBBBBB", 4, 3, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0abcd" * 3)
    chunks = [(b"IHDR", header), (b"zTXt", raw), (b"IDAT", rows), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    found = read(data)
    assert (found.width, found.height) == (3, 4)
    assert parsed_exif(found.exif)[274] == 1
    assert found.texts == ()


def test_the_orientation_that_only_xmp_tells_is_applied_once():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    found = read(encoded(Picture(smooth_samples(30, 40, 3), xmp=xmp), "png"))
    assert (found.width, found.height) == (30, 40)
    assert b'tiff:Orientation="1"' in found.xmp


def test_an_exif_block_that_is_cut_keeps_what_is_there():
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Maker"
    exif[0x8769] = {0xA002: 9}
    whole = exif.tobytes()[6:]
    at = whole.index(b"Maker")
    cut = whole[: at + 6]
    data = encoded(Picture(smooth_samples(30, 40, 3)), "jpeg")
    segment = b"\xff\xe1" + struct.pack(">H", 8 + len(cut)) + b"Exif\0\0" + cut
    found = read(data[:2] + segment + data[2:])
    assert (found.width, found.height) == (30, 40)
    assert b"Maker" in found.exif
    assert found.notes == []
