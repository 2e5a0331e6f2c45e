import io
import threading

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from sa_upscale import data, images
from sa_upscale.data.files import clips_and_stills, frames, matched
from sa_upscale.data.reading import read_rgb, size
from sa_upscale.degrade import bicubic
from sa_upscale.errors import UpscaleError
from tests.pictures import exif_block
from tests.test_data import Options, lies_in, samples, save_noise

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 9, 3)).astype(np.uint16)


def saved(tmp_path, kind, array, **options):
    file = tmp_path / f"a.{kind}"
    Image.fromarray(array).save(file, **options)
    return file


# --- reading -------------------------------------------------------------------------------------------------------


def test_plain_files_are_read_as_the_tool_reads_them(tmp_path, shared):
    photo = next((shared / "data" / "train" / "part-1").glob("*.jpg"))
    np.testing.assert_array_equal(read_rgb(photo), images.read(photo).pixels)
    np.testing.assert_array_equal(read_rgb(saved(tmp_path, "png", RGB)), RGB)


def test_every_kind_becomes_8_bit_rgb(tmp_path):
    grey = RGB[..., 0]
    np.testing.assert_array_equal(read_rgb(saved(tmp_path, "png", grey)), np.dstack([grey] * 3))
    np.testing.assert_array_equal(read_rgb(saved(tmp_path, "png", np.dstack((RGB, grey)))), RGB)
    np.testing.assert_array_equal(read_rgb(saved(tmp_path, "webp", RGB, lossless=True)), RGB)
    np.testing.assert_array_equal(read_rgb(saved(tmp_path, "bmp", RGB)), RGB)
    deep = np.rint(DEEP / 257).astype(np.uint8)
    picture = images.Picture(DEEP)
    images.write(tmp_path / "deep.png", picture)
    np.testing.assert_array_equal(read_rgb(tmp_path / "deep.png"), deep)
    images.write(tmp_path / "grey.png", images.Picture(DEEP[..., :1]))
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.repeat(deep[..., :1], 3, axis=2))
    tifffile.imwrite(tmp_path / "float.tif", RGB.astype(np.float32) / 255, photometric="rgb")
    np.testing.assert_array_equal(read_rgb(tmp_path / "float.tif"), RGB)
    palette = Image.fromarray(np.kron(RGB[:2, :2], np.ones((4, 4, 1), np.uint8))).quantize(4)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_pictures_stand_upright(tmp_path, kind):
    steep = np.kron(np.array([[0, 250], [60, 130], [200, 30]], np.uint8), np.ones((8, 8), np.uint8))
    file = saved(tmp_path, kind, np.dstack([steep] * 3), exif=b"Exif\0\0" + exif_block(orientation=6))
    upright = read_rgb(file)
    assert upright.shape == (16, 24, 3)
    assert np.abs(upright[..., 0].astype(int) - np.rot90(steep, -1)).max() < 12
    assert size(file) == ((24, 16) if kind == "jpg" else (16, 24))  # the header of a PNG does not say


def test_cmyk_is_read(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    assert read_rgb(tmp_path / "red.jpg")[4, 4].tolist() == pytest.approx([254, 0, 0], abs=4)


def test_threads_may_read_at_once(tmp_path):
    images.write(tmp_path / "deep.png", images.Picture(DEEP))
    found = []
    threads = [threading.Thread(target=lambda: found.append(read_rgb(tmp_path / "deep.png"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({array.tobytes() for array in found}) == 1
    assert len(found) == 8


def test_what_is_no_picture_is_one_line(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.tile(RGB, (20, 20, 1))).save(stream, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(stream.getvalue()[:-400])
    with pytest.raises(UpscaleError, match=r"cut\.jpg is a damaged or incomplete JPEG"):
        read_rgb(tmp_path / "cut.jpg")
    (tmp_path / "text.png").write_text("text")
    for look in (read_rgb, size):
        with pytest.raises(UpscaleError, match=r"text\.png"):
            look(tmp_path / "text.png")


# --- clips and stills ----------------------------------------------------------------------------------------------


def test_folders_of_numbered_pictures_of_one_size_are_clips(tmp_path):
    def fill(folder, names, height=8):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            save_noise(tmp_path / folder / f"{name}.png", height, 8)

    fill("city", ["frame 1", "frame 2", "frame 10"])
    fill("deep/er", ["000", "001"])
    fill("photos", ["lake", "hill-2"])
    fill("cameras", ["a1", "b2"])
    fill("one", ["7"])
    fill("sizes", ["1", "2"])
    fill("sizes", ["3"], height=9)
    (tmp_path / "film.MP4").write_bytes(b"")
    clips, stills = clips_and_stills([tmp_path])
    assert [clip.relative_to(tmp_path).as_posix() for clip in clips] == ["film.MP4", "city", "deep/er"]
    assert sorted({still.parent.name for still in stills}) == ["cameras", "one", "photos", "sizes"]
    assert len(stills) == 8
    assert [file.stem for file in frames(tmp_path / "city")] == ["frame 1", "frame 2", "frame 10"]
    assert clips_and_stills([tmp_path / "city"]) == ([tmp_path / "city"], [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UpscaleError, match=r"holds no videos .* and no pictures"):
        clips_and_stills([tmp_path / "empty"])


# --- pairs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair_folders(tmp_path):
    """Three HR pictures of which one does not divide by 4, and LR that no reduction gives."""
    hr_folder, lr_folder = tmp_path / "hr", tmp_path / "lr"
    for folder in (hr_folder, lr_folder):
        folder.mkdir()
    for index, stem in enumerate(("0001", "0002", "10")):
        hr = save_noise(hr_folder / f"{stem}.png", 32, 40 + index, index)
        Image.fromarray(255 - bicubic(hr, 4)).save(lr_folder / f"{stem}x4.png")
    return hr_folder, lr_folder


def silent(text):
    pytest.fail(f"a notice: {text}")


def test_pairs_are_cropped_alike(pair_folders):
    options = Options(folders=(str(pair_folders[0]),), lr_folders=(str(pair_folders[1]),))
    source, pairs = data.open_source(options, scale=4, window=1, on_notice=silent)
    lows = [read_rgb(file) for file in pair_folders[1].iterdir()]
    for lr, hr in samples(source, 20):
        assert (lr.shape, hr.shape) == ((4, 4, 3), (16, 16, 3))
        assert any(lies_in(low, lr) for low in lows)
        np.testing.assert_array_equal(255 - bicubic(hr, 4)[2:-2, 2:-2], lr[2:-2, 2:-2])
    assert len(pairs) == 1
    for lr, hr in pairs:
        np.testing.assert_array_equal(lr, 255 - bicubic(hr, 4))


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("baby.png", "baby.webp"),
        ("baby_HR.png", "baby_LRx4.png"),
        ("img_001_SRF_4_HR.png", "img_001_SRF_4_LR.png"),
        ("0801.png", "0801x4.png"),
        ("Baby.PNG", "baby_x4.png"),
        ("gt-3.png", "lq-3.png"),
        ("sub/a.png", "sub/a.png"),
    ],
)
def test_common_endings_are_tolerated(tmp_path, hr, lr):
    for side, name, length in (("hr", hr, 16), ("lr", lr, 4)):
        file = tmp_path / side / name
        file.parent.mkdir(parents=True)
        save_noise(file, length, length)
    assert matched(tmp_path / "hr", tmp_path / "lr", 4, silent) == {tmp_path / "hr" / hr: tmp_path / "lr" / lr}


def test_the_exact_name_comes_first(tmp_path):
    for side, names, length in (("hr", ("a", "a_x4"), 16), ("lr", ("a", "a_x4"), 4)):
        (tmp_path / side).mkdir()
        for name in names:
            save_noise(tmp_path / side / f"{name}.png", length, length)
    pairs = matched(tmp_path / "hr", tmp_path / "lr", 4, silent)
    assert [(hr.name, lr.name) for hr, lr in pairs.items()] == [("a.png", "a.png"), ("a_x4.png", "a_x4.png")]


def test_pairs_that_do_not_match_are_one_line(pair_folders):
    hr_folder, lr_folder = pair_folders

    def refused(match):
        with pytest.raises(UpscaleError, match=match):
            matched(hr_folder, lr_folder, 4, silent)

    save_noise(lr_folder / "0002x4.png", 8, 9)
    refused(r"0002x4\.png: is 9x8, but 0002\.png of 41x32 needs 10x8 at x4")
    save_noise(lr_folder / "0002x4.png", 8, 10)
    matched(hr_folder, lr_folder, 4, silent)
    save_noise(lr_folder / "0003x4.png", 8, 10)
    refused(r"0003x4\.png: has no HR picture of its name")
    save_noise(hr_folder / "0003.png", 32, 40)
    save_noise(hr_folder / "0004.png", 32, 40)
    refused(r"0004\.png: has no LR picture of its name")
    save_noise(lr_folder / "0004.png", 8, 10)
    save_noise(lr_folder / "0004.bmp", 8, 10)
    refused(r"0004\.png: has 2 LR pictures of its name")
    (lr_folder / "0004.bmp").unlink()
    save_noise(hr_folder / "0004_HR.png", 32, 40)
    refused(r"0004_HR\.png: has the LR picture of another HR picture, 0004\.png")


def test_a_broken_half_takes_its_partner_with_it(pair_folders):
    hr_folder, lr_folder = pair_folders
    (lr_folder / "0002x4.png").write_text("no picture")
    notices = []
    pairs = matched(hr_folder, lr_folder, 4, notices.append)
    assert [hr.name for hr in pairs] == ["0001.png", "10.png"]
    assert len(notices) == 1
    assert "0002x4.png" in notices[0]
    assert "left out with its partner" in notices[0]


# --- survey --------------------------------------------------------------------------------------------------------


def soft(file, sigma, height=64, width=80, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(cv2.GaussianBlur(noise, (0, 0), sigma) if sigma else noise).save(file)


def test_a_survey_counts_and_measures(tmp_path):
    soft(tmp_path / "a.png", 0, 64, 80)
    soft(tmp_path / "b.png", 0, 100, 100)
    soft(tmp_path / "c.png", 0, 70, 70)
    save_noise(tmp_path / "small.png", 8, 90)
    (tmp_path / "text.png").write_text("text")
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    found = data.survey([tmp_path, tmp_path], patch=64)
    assert (found.count, found.smallest, found.largest) == (3, (70, 70), (100, 100))
    assert found.megapixels == pytest.approx((64 * 80 + 100 * 100 + 70 * 70) / 1e6)
    assert dict(found.skipped).keys() == {"small.png", "text.png", "cut.png"}
    assert dict(found.skipped)["small.png"] == "is 90x8, smaller than 64x64"
    lines = found.lines()
    assert lines[0] == "3 pictures of 70x70 to 100x100, 0.0 megapixels in all"
    assert "left out: small.png: is 90x8, smaller than 64x64" in lines
    assert len(lines) == 5


@pytest.mark.parametrize(("sigma", "word"), [(0, "sharp"), (1.2, "soft"), (3, "blurry")])
def test_sharpness_is_said_in_a_word(tmp_path, sigma, word):
    for index in range(3):
        soft(tmp_path / f"{index}.png", sigma, seed=index)
    found = data.survey([tmp_path], patch=64)
    assert found.word == word
    assert found.lines()[1].startswith(f"sharpness {found.sharpness:.0f}: {word}")
    assert ("no sharper than these" in found.lines()[1]) == (word != "sharp")


def test_the_training_crops_are_sharp_and_their_blurred_copies_are_not(shared, tmp_path):
    files = sorted((shared / "data" / "train" / "part-5").glob("*.jpg"))[::10]
    for sigma, word in ((0, "sharp"), (0.7, "soft"), (1.5, "blurry")):
        folder = tmp_path / word
        folder.mkdir()
        for file in files:
            pixels = read_rgb(file)
            Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), sigma) if sigma else pixels).save(
                folder / f"{file.stem}.bmp"
            )
        assert data.survey([folder], patch=128).word == word


def test_nothing_to_survey_is_an_error(tmp_path):
    save_noise(tmp_path / "small.png", 8, 90)
    with pytest.raises(UpscaleError, match="none of the training pictures is of 64x64"):
        data.survey([tmp_path], patch=64)
