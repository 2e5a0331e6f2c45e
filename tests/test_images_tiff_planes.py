"""TIFFs that one library alone reads wrong: separate planes, later pages, odd depths, broken lists of strips."""

import io

import cv2
import numpy as np
import pytest
import tifffile

from sa_upscale.errors import UpscaleError
from sa_upscale.images import opened, read
from sa_upscale.images.directories import Field, packed_directory
from tests.pictures import random_samples, tiff_bytes


def planar(array, compressed):
    """A TIFF of separate planes `(S, H, W)`, each the strip of a file that another library compressed."""
    samples, height, width = array.shape
    strips = []
    for plane in array:
        _, file = cv2.imencode(
            ".tif", plane, [cv2.IMWRITE_TIFF_COMPRESSION, compressed, cv2.IMWRITE_TIFF_ROWSPERSTRIP, height]
        )
        page = tifffile.TiffFile(io.BytesIO(file.tobytes())).pages[0]
        strips.append(file.tobytes()[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]])
    data, offsets = bytearray(b"II*\0\0\0\0\0"), []
    for strip in strips:
        offsets.append(len(data))
        data += strip + b"\0" * (len(strip) % 2)

    def numbers(tag, *values):
        return Field(tag, 4, len(values), np.array(values, "<u4").tobytes())

    fields = [numbers(256, width), numbers(257, height), numbers(258, *[8 * array.itemsize] * samples)]
    fields += [numbers(259, compressed), numbers(262, 2), numbers(273, *offsets), numbers(277, samples)]
    fields += [numbers(278, height), numbers(279, *map(len, strips)), numbers(284, 2), numbers(317, page.predictor)]
    data[4:8] = len(data).to_bytes(4, "little")
    return bytes(data + packed_directory(fields, len(data), "<"))


@pytest.mark.parametrize("samples", [3, 4])
def test_deep_planes_in_lzw_stay_deep(samples):
    array = random_samples("uint16", samples, 20, 30)
    found = read(planar(array, 5))
    assert np.array_equal(found.pixels, np.moveaxis(array[:3], 0, -1))
    if samples == 4:
        assert np.array_equal(found.alpha, array[3])


def test_later_pages_that_only_pillow_or_opencv_reads_are_not_the_first_again():
    for depth in ("uint8", "uint16"):
        pages = [random_samples(depth, 20, 30, seed=seed) for seed in range(3)]
        done, data = cv2.imencodemulti(".tif", pages, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
        assert done
        shown = [picture for picture, _ in opened(data.tobytes()).play()]
        assert [np.array_equal(picture.pixels[..., 0], page) for picture, page in zip(shown, pages, strict=True)] == [
            True
        ] * 3


def test_strips_that_are_said_to_be_too_long_are_read_and_said():
    array = random_samples("uint8", 20, 30, 3)
    data = bytearray(tiff_bytes(array, photometric="rgb"))
    tag = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0].tags[279]
    data[tag.offset + 8 : tag.offset + 12] = (10**8).to_bytes(4, "little")
    found = read(bytes(data))
    assert np.array_equal(found.pixels, array)
    assert found.notes == ["its structure is damaged; look whether all of it is there"]
    with pytest.raises(UpscaleError, match="damaged"):
        read(bytes(data[: len(data) // 2]))
