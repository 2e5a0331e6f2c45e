"""APNG: depth, disposal, blending, stills for other programs, and what is left of damaged ones."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sa_upscale import images
from sa_upscale.errors import UpscaleError
from sa_upscale.images import Picture, opened, write_frames
from tests.pictures import pillow_bytes, png_chunk, random_samples


def by_hand(width, height, depth, kind, frames, *, still=None, promised=None):
    """An APNG of `frames` (samples, left, top, disposal, blend), each shown for half a second."""
    number = iter(range(99))

    def packed(samples):
        rows = samples.astype(">u2" if depth == 16 else np.uint8).reshape(len(samples), -1)
        return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))

    promised = len(frames) if promised is None else promised
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    chunks.append((b"acTL", struct.pack(">II", promised, 3)))
    if still is not None:
        chunks.append((b"IDAT", packed(still)))
    for index, (samples, left, top, disposal, blend) in enumerate(frames):
        place = (samples.shape[1], samples.shape[0], left, top, 1, 2, disposal, blend)
        chunks.append((b"fcTL", struct.pack(">IIIIIHHBB", next(number), *place)))
        if index == 0 and still is None:
            chunks.append((b"IDAT", packed(samples)))
        else:
            chunks.append((b"fdAT", struct.pack(">I", next(number)) + packed(samples)))
    chunks.append((b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def test_deep_frames_are_read_and_written_deep():
    frames = [(Picture(random_samples("uint16", 5, 6, 3, seed=seed)), 100.0) for seed in range(2)]
    stream = io.BytesIO()
    assert write_frames(stream, frames, 2, 0, format="png") == []
    found = opened(stream.getvalue())
    for (picture, milliseconds), (source, _) in zip(found.play(), frames, strict=True):
        assert picture.pixels.dtype == np.uint16
        assert np.array_equal(picture.pixels, source.pixels)
        assert milliseconds == 100


@pytest.mark.parametrize(("disposal", "blend"), [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("kind", [4, 6])
def test_frames_look_as_pillow_shows_them(disposal, blend, kind):
    channels = {4: 2, 6: 4}[kind]
    whole = random_samples("uint8", 6, 8, channels)
    parts = [random_samples("uint8", 3, 4, channels, seed=seed) for seed in (1, 2)]
    for part in parts:
        # Pillow mixes half transparent samples in its own way; by the specification: the test after this.
        part[..., -1] = np.where(part[..., -1] < 128, 0, 255)
    frames = [(whole, 0, 0, 0, 0), (parts[0], 1, 2, disposal, blend), (parts[1], 3, 1, 0, blend)]
    data = by_hand(8, 6, 8, kind, frames)
    with Image.open(io.BytesIO(data)) as image:
        for index, (picture, milliseconds) in enumerate(opened(data).play()):
            image.seek(index)
            assert milliseconds == 500
            expected = np.asarray(image.convert("RGBA")).astype(int)
            ours = np.dstack((np.broadcast_to(picture.pixels, (6, 8, 3)), picture.alpha)).astype(int)
            assert np.array_equal(ours[..., 3], expected[..., 3])
            assert np.array_equal(ours[expected[..., 3] > 0], expected[expected[..., 3] > 0])


def test_half_transparent_frames_are_laid_over_as_specified():
    below, above = np.full((1, 1, 4), (200, 0, 0, 102), np.uint8), np.full((1, 1, 4), (0, 100, 0, 51), np.uint8)
    data = by_hand(1, 1, 8, 6, [(below, 0, 0, 0, 0), (above, 0, 0, 0, 1)])
    _, (picture, _) = opened(data).play()
    # Opacities 0.4 and 0.2 over it: 0.2 + 0.4 * 0.8 = 0.52, of which 0.2 / 0.52 is the upper colour.
    assert picture.alpha[0, 0] == round(0.52 * 255)
    assert picture.pixels[0, 0].tolist() == [round(200 * 0.32 / 0.52), round(100 * 0.2 / 0.52), 0]


def test_frames_that_leave_holes_have_alpha_and_others_not():
    full, part = random_samples("uint8", 6, 8, 3), random_samples("uint8", 3, 4, 3)
    covered = by_hand(8, 6, 8, 2, [(full, 0, 0, 0, 0), (part, 1, 1, 0, 0)])
    assert all(picture.alpha is None for picture, _ in opened(covered).play())
    holes = by_hand(8, 6, 8, 2, [(full, 0, 0, 1, 0), (part, 1, 1, 0, 0)])
    first, then = (picture for picture, _ in opened(holes).play())
    assert first.alpha.min() == 255
    assert (then.alpha[0, 0], then.alpha[1, 1]) == (0, 255)


def test_a_still_for_other_programs_stays_one():
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("white", "red", "blue")]
    data = pillow_bytes(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True, duration=50)
    found = opened(data)
    shown = list(found.play())
    assert [tuple(picture.pixels[0, 0]) for picture, _ in shown] == [(255, 255, 255), (255, 0, 0), (0, 0, 255)]
    assert [milliseconds for _, milliseconds in shown] == [None, 50, 50]
    stream = io.BytesIO()
    assert write_frames(stream, shown, 3, 0, format="png") == []
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        assert image.info["default_image"]
        assert image.n_frames == 3
        assert image.getpixel((0, 0)) == (255, 255, 255)
    lost = write_frames(io.BytesIO(), shown, 3, 0, format="webp")
    assert lost == ["WebP holds no still picture beside an animation"]


def test_what_comes_after_a_frame_out_of_order_is_left_out_and_said():
    frames = [(random_samples("uint8", 6, 8, 3, seed=seed), 0, 0, 0, 0) for seed in range(3)]
    data = by_hand(8, 6, 8, 2, frames)
    at = data.rindex(b"fcTL") - 4
    wrong = png_chunk(b"fcTL", struct.pack(">I", 9) + data[at + 12 : at + 34])
    found = opened(data[:at] + wrong + data[at + len(wrong) :])
    assert found.frames == 2
    shown = list(found.play())
    assert np.array_equal(shown[1][0].pixels, frames[1][0])
    assert found.notes == ["only 2 of its 3 frames could be read"]


def test_a_frame_that_does_not_unpack_ends_the_animation():
    frames = [(random_samples("uint8", 6, 8, 3, seed=seed), 0, 0, 0, 0) for seed in range(3)]
    data = by_hand(8, 6, 8, 2, frames)
    at = data.rindex(b"fdAT") - 4
    (length,) = struct.unpack_from(">I", data, at)
    found = opened(data[:at] + png_chunk(b"fdAT", data[at + 8 : at + 12] + b"junk") + data[at + 12 + length :])
    stream = io.BytesIO()
    write_frames(stream, found.play(), found.frames, found.loop, format="png")
    assert found.notes == ["only 2 of its 3 frames could be read"]
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        assert image.n_frames == 2
        image.seek(1)
        assert np.array_equal(np.asarray(image), frames[1][0])


def test_the_first_frame_must_be_whole():
    frames = [(random_samples("uint8", 6, 8, 3), 0, 0, 0, 0)] * 2
    data = by_hand(8, 6, 8, 2, frames)
    at = data.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", data, at)
    with pytest.raises(UpscaleError, match="damaged"):
        list(opened(data[:at] + png_chunk(b"IDAT", b"junk") + data[at + 12 + length :]).play())


@pytest.mark.parametrize("promised", [0, 2**31])
def test_an_impossible_number_of_frames_makes_a_still(promised):
    frames = [(random_samples("uint8", 6, 8, 3, seed=seed), 0, 0, 0, 0) for seed in range(2)]
    found = opened(by_hand(8, 6, 8, 2, frames, promised=promised))
    assert found.frames == 1
    assert np.array_equal(found.read().pixels, frames[0][0])


def test_frames_out_of_the_picture_are_left_out():
    frames = [(random_samples("uint8", 6, 8, 3), 0, 0, 0, 0), (random_samples("uint8", 3, 4, 3), 5, 1, 0, 0)]
    found = opened(by_hand(8, 6, 8, 2, frames))
    assert (found.frames, found.notes) == (1, ["only 1 of its 2 frames could be read"])
    assert images.read(by_hand(8, 6, 8, 2, frames)).width == 8
