"""Animations and pages: every frame, its time, the loop and the transparency come back."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from sa_upscale import images
from sa_upscale.images import Picture, opened, write_frames
from tests.pictures import pillow_bytes, png_chunk, random_samples, tiff_bytes

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
MILLISECONDS = [100.0, 250.0, 40.0]


def animation(key, *, loop=0, alpha=True, times=MILLISECONDS):
    """Three frames written by us: a square of another colour in each, clear around it."""
    frames = []
    for colour in COLOURS:
        pixels = np.full((20, 24, 3), colour, np.uint8)
        clear = np.zeros((20, 24), np.uint8)
        clear[4:12, 6:18] = 255
        frames.append((Picture(pixels, clear if alpha else None, lossless=True), 0.0))
    shown = [(picture, time) for (picture, _), time in zip(frames, times, strict=True)]
    stream = io.BytesIO()
    assert write_frames(stream, shown, 3, loop, format=key, quality=100) == []
    return stream.getvalue()


@pytest.mark.parametrize("key", ["png", "gif", "webp", "avif"])
@pytest.mark.parametrize("loop", [0, 1, 5])
def test_frames_times_loop_and_transparency_come_back(key, loop):
    data = animation(key, loop=loop)
    found = opened(data)
    assert (found.format, found.frames, found.timed) == (key, 3, True)
    if key != "avif":  # which has no count
        assert found.loop == loop
    shown = list(found.play())
    assert [milliseconds for _, milliseconds in shown] == MILLISECONDS
    for (picture, _), colour in zip(shown, COLOURS, strict=True):
        assert picture.alpha[8, 8] == 255
        assert picture.alpha[0, 0] == 0
        assert np.abs(picture.pixels[8, 8].astype(int) - colour).max() <= (6 if key == "avif" else 0)


@pytest.mark.parametrize("key", ["png", "gif", "webp"])
def test_pillow_sees_the_same(key):
    image = Image.open(io.BytesIO(animation(key, loop=5)))
    assert image.n_frames == 3
    for index, colour in enumerate(COLOURS):
        image.seek(index)
        frame = image.convert("RGBA")
        assert frame.getpixel((8, 8)) == (*colour, 255)
        assert frame.getpixel((0, 0))[3] == 0
        assert image.info["duration"] == MILLISECONDS[index]


@pytest.mark.parametrize("key", ["png", "gif", "webp"])
def test_clear_frames_and_black_ones_are_told_apart(key):
    looks = [
        ((255, 0, 0), 255),
        ((0, 0, 255), 255),
        ((0, 0, 255), 0),
        ((0, 0, 0), 255),
        ((0, 0, 0), 0),
        ((1, 1, 1), 255),
    ]
    frames = [
        (
            Picture(np.full((8, 10, 3), colour, np.uint8), np.full((8, 10), alpha, np.uint8), lossless=True),
            20.0 + 10 * index,
        )
        for index, (colour, alpha) in enumerate(looks)
    ]
    stream = io.BytesIO()
    write_frames(stream, frames, 6, 0, format=key)
    shown = list(opened(stream.getvalue()).play())
    assert [milliseconds for _, milliseconds in shown] == [20, 30, 40, 50, 60, 70]
    for (picture, _), (colour, alpha) in zip(shown, looks, strict=True):
        assert np.all(picture.alpha == alpha)
        assert not alpha or np.all(picture.pixels == colour)


def test_delta_frames_are_read_whole():
    base = Image.new("RGB", (20, 20), "red")
    second = base.copy()
    second.paste("blue", (5, 5, 8, 8))
    data = pillow_bytes(base, "GIF", save_all=True, append_images=[second], duration=70)
    (first, _), (then, time) = opened(data).play()
    assert first.pixels[6, 6].tolist() == [255, 0, 0]
    assert then.pixels[6, 6].tolist() == [0, 0, 255]
    assert then.pixels[0, 0].tolist() == [255, 0, 0]
    assert time == 70


def test_an_apng_that_promises_more_frames_than_it_has():
    data = animation("png")
    at = data.index(b"acTL") - 4
    lying = data[:at] + png_chunk(b"acTL", (2**31 + 1).to_bytes(4, "big") + bytes(4)) + data[at + 20 :]
    found = opened(lying)
    assert found.frames == 1
    assert found.read().width == 24


def test_deep_frames_are_reduced_where_animations_hold_less():
    frames = [(Picture(random_samples("uint16", 20, 24, 3, seed=seed)), 100.0) for seed in range(2)]
    for key in ("avif", "webp", "gif"):
        (line,) = write_frames(io.BytesIO(), frames, 2, 0, format=key)
        assert line.endswith("holds at most 8 bits a channel: depth reduced")


def test_pages_keep_their_sizes_and_types():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(random_samples("uint8", 5, 7, 3), photometric="rgb")
        writer.write(random_samples("uint16", 9, 4), photometric="minisblack")
        writer.write(np.zeros((3, 3), np.uint8), subfiletype=1)  # a thumbnail
    found = opened(stream.getvalue())
    assert (found.frames, found.timed) == (2, False)
    pages = [picture for picture, _ in found.play()]
    assert [(page.pixels.shape, page.pixels.dtype.name) for page in pages] == [
        ((5, 7, 3), "uint8"),
        ((9, 4, 1), "uint16"),
    ]
    written = io.BytesIO()
    assert write_frames(written, ((page, 0.0) for page in pages), 2, 0, format="tiff") == []
    again = [picture for picture, _ in opened(written.getvalue()).play()]
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(pages, again, strict=True))
    assert [page.shape for page in tifffile.TiffFile(io.BytesIO(written.getvalue())).pages] == [(5, 7, 3), (9, 4)]


def test_a_format_of_single_pictures_gets_the_first_with_a_line():
    frames = [(Picture(random_samples("uint8", 5, 6, 3, seed=seed)), 100.0) for seed in range(3)]
    stream = io.BytesIO()
    assert write_frames(stream, frames, 3, 0, format="bmp") == ["BMP holds one picture: only the first of 3 was kept"]
    assert np.array_equal(images.read(stream.getvalue()).pixels, frames[0][0].pixels)


@pytest.mark.parametrize("key", ["png", "gif", "tiff"])
def test_of_a_cut_animation_the_whole_frames_are_kept_and_said(key):
    if key == "tiff":
        data = tiff_bytes(np.zeros((3, 40, 50), np.uint8), photometric="minisblack", metadata=None)
        pages = tifffile.TiffFile(io.BytesIO(data)).pages
        cut = bytearray(data)
        # The last page's strip is said to lie past the end.
        at = pages[2].tags[273].offset + 8
        cut[at : at + 4] = (len(data)).to_bytes(4, "little")
    else:
        data = animation(key, alpha=False)
        cut = data[: data.rindex({"png": b"fdAT", "gif": b","}[key]) + 20]
    found = opened(bytes(cut))
    frames = [picture for picture, _ in found.play()]
    assert 1 <= len(frames) < 3
    assert any("could be read" in note or "left out" in note for note in found.notes)


def test_a_frame_larger_than_the_picture_is_cut_to_it():
    data = bytearray(animation("gif", alpha=False))
    at = data.rindex(b"," + bytes(4) + bytes((24, 0, 20, 0)))
    data[at + 1] = 10  # its left side
    shown = [picture for picture, _ in opened(bytes(data)).play()]
    assert [picture.pixels.shape for picture in shown] == [(20, 24, 3)] * 3
    assert tuple(shown[2].pixels[0, 12]) == COLOURS[2]
