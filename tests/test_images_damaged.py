"""Files that are broken, hostile or no pictures at all."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sa_upscale.errors import UpscaleError
from sa_upscale.images import Picture, opened, png, read
from sa_upscale.images.directories import directory, set_number
from tests.pictures import (
    SRGB,
    encoded,
    pillow_bytes,
    png_file,
    random_samples,
    smooth_samples,
    tiff_bytes,
)


def one_line(error):
    text = str(error.value)
    return "\n" not in text and len(text) < 400


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.png", b"", "empty"),
        ("notes.png", b"Dear diary, " * 20, "text file"),
        ("bm.bmp", b"BM is how this text begins, but no picture", "text file"),
        ("noise.jpg", bytes(range(128, 256)) * 4, "no picture of a known format"),
        ("loop.gif", b"GIF89a" + bytes(40), "damaged or incomplete GIF"),
        ("clip.mp4", b"\0\0\0\x20ftypisom" + bytes(40), "a video"),
        ("photo.heic", b"\0\0\0\x20ftypheic" + bytes(40), "a HEIC"),
        ("head.png", b"\x89PNG\r\n\x1a\n", "damaged or incomplete PNG"),
        ("head.jpg", b"\xff\xd8\xff\xe0", "damaged or incomplete JPEG"),
        ("head.tif", b"II*\0\x08\0\0\0", "damaged or incomplete TIFF"),
        ("head.webp", b"RIFF\xff\0\0\0WEBPVP8 ", "damaged or incomplete WebP"),
    ],
)
def test_files_that_are_no_pictures(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(UpscaleError, match=words) as error:
            read(source)
        assert one_line(error)
    with pytest.raises(UpscaleError, match=name):
        read(path)


def test_paths_that_cannot_be_read(tmp_path):
    for path, words in ((tmp_path / "none.png", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(UpscaleError, match=words) as error:
            read(path)
        assert one_line(error)
    with pytest.raises(UpscaleError, match="cannot be read"):
        read(Path("nul\0.png"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_file_without_permission(tmp_path):
    path = tmp_path / "mine.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(UpscaleError, match="may not be read"):
        read(path)


CUT_SOURCES = {
    "png8": lambda: encoded(Picture(random_samples("uint8", 40, 50, 3)), "png"),
    "png16": lambda: encoded(Picture(random_samples("uint16", 40, 50, 3)), "png"),
    "jpeg": lambda: encoded(Picture(smooth_samples(40, 50, 3)), "jpeg"),
    "progressive": lambda: pillow_bytes(Image.fromarray(smooth_samples(40, 50, 3)), "JPEG", progressive=True),
    "webp": lambda: encoded(Picture(smooth_samples(40, 50, 3)), "webp"),
    "webp-lossless": lambda: encoded(Picture(smooth_samples(40, 50, 3)), "webp", lossless=True),
    "tiff": lambda: tiff_bytes(random_samples("uint16", 40, 50, 3), photometric="rgb"),
    "tiff-deflate": lambda: tiff_bytes(random_samples("uint8", 40, 50, 3), photometric="rgb", compression="zlib"),
    "tiff-lzw": cv2.imencode(".tif", random_samples("uint16", 40, 50, 3))[1].tobytes,
    "bmp": lambda: encoded(Picture(random_samples("uint8", 40, 50, 3)), "bmp"),
}


@pytest.mark.parametrize("kind", list(CUT_SOURCES))
def test_a_cut_file_is_refused_or_whole(kind):
    data = CUT_SOURCES[kind]()
    whole = read(data).pixels
    refused = 0
    for kept in [len(data) * part // 23 for part in range(1, 23)] + [len(data) - missing for missing in range(1, 30)]:
        try:
            pixels = read(data[:kept]).pixels
        except UpscaleError:
            refused += 1
        else:
            assert np.array_equal(pixels, whole), f"{kept} of {len(data)} bytes gave a partial picture"
    assert refused >= 22


def test_a_changed_byte_in_png_pixels_is_noticed():
    data = bytearray(encoded(Picture(random_samples("uint16", 40, 50, 3)), "png"))
    data[len(data) // 2] ^= 1
    with pytest.raises(UpscaleError, match=r"data check|invalid"):
        read(bytes(data))


@pytest.mark.parametrize("kind", list(CUT_SOURCES))
def test_flipped_bytes_never_escape_as_another_error(kind):
    generator = np.random.default_rng(3)
    data = CUT_SOURCES[kind]()
    for _ in range(40):
        broken = bytearray(data)
        reach = len(data) if generator.random() < 0.5 else min(len(data), 200)
        for place in generator.integers(0, reach, 4):
            broken[place] = generator.integers(0, 256)
        try:
            picture = read(bytes(broken), max_pixels=1_000_000)
        except UpscaleError:
            continue
        assert picture.pixels.shape[2] in (1, 3)


def test_no_byte_of_a_file_breaks_the_line():
    data = bytearray(encoded(Picture(random_samples("uint8", 4, 5, 3)), "png"))
    data[37:41] = b"I\nAT"
    with pytest.raises(UpscaleError, match="wrong checksum") as caught:
        read(bytes(data))
    assert one_line(caught)


def test_a_tiff_that_lies_about_its_strips():
    for tag, value in ((278, 0), (278, 1), (279, 3)):
        data = bytearray(tiff_bytes(random_samples("uint8", 40, 50, 3), photometric="rgb", rowsperstrip=8))
        order, offset = "<", struct.unpack_from("<I", data, 4)[0]
        (field,) = [found for found in directory(bytes(data), offset, order)[0] if found.tag == tag]
        set_number(data, field, value, order)
        try:
            rows = sum(len(pixels) for pixels, _ in opened(bytes(data)).rows())
        except UpscaleError:
            continue
        assert rows == 40


def test_a_picture_may_be_read_after_its_rows():
    found = opened(encoded(Picture(smooth_samples(9, 8, 3)), "jpeg"))
    (rows,) = found.rows()
    assert np.array_equal(found.read().pixels, rows[0])


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    def broken(*_arguments):
        raise ValueError("a bug")

    data = encoded(Picture(random_samples("uint8", 4, 5, 3)), "png")
    monkeypatch.setattr(png, "_require_all_rows", broken)
    with pytest.raises(ValueError, match="a bug"):
        read(data)


@pytest.mark.parametrize("error", [KeyError, SyntaxError, RecursionError, struct.error])
def test_whatever_a_library_raises_is_the_files_fault(monkeypatch, error):
    def broken(*_arguments):
        raise error("first line\nsecond")

    data = encoded(Picture(random_samples("uint8", 4, 5, 3)), "png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", broken)
    with pytest.raises(UpscaleError, match=r"standard input is a damaged or incomplete PNG: .?first line") as caught:
        read(data)
    assert one_line(caught)


def test_a_decompression_bomb_is_refused_before_it_unpacks():
    bomb = png_file([], 60000, 60000, 8, 2)
    with pytest.raises(UpscaleError, match="60000x60000 pixels, above the limit of 400 million"):
        read(bomb)
    small = encoded(Picture(np.zeros((20, 30, 3), np.uint8)), "png")
    with pytest.raises(UpscaleError, match="above the limit"):
        read(small, max_pixels=599)
    assert read(small, max_pixels=600).width == 30


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused_not_flattened(kind):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    data = pillow_bytes(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(UpscaleError, match="3 frames"):
        read(data)


def test_a_webp_with_a_broken_chunk_of_metadata_is_read_and_said():
    picture = Picture(smooth_samples(30, 40, 3), icc=SRGB, lossless=True)
    data = encoded(picture, "webp")
    found = read(data.replace(b"ICCP", b"\x8dCCP"))
    assert np.array_equal(found.pixels, picture.pixels)
    assert found.icc is None
