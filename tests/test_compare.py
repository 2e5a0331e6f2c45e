"""Comparisons: what is measured where, the contact sheet, and the page in a browser."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sa_upscale.cli import app
from sa_upscale.compare import Region, compare, write_page, write_sheet
from sa_upscale.compare.comparing import titles
from sa_upscale.compare.regions import differing
from sa_upscale.errors import UpscaleError
from tests.browser import browsing


def save(file, pixels, **options):
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, **options)
    return file


@pytest.fixture
def grey(tmp_path):
    return save(tmp_path / "grey.png", np.full((80, 120, 3), 100))


@pytest.fixture
def spotted(tmp_path):
    """As `grey`, but for a square that is 20 brighter, at 60,40."""
    pixels = np.full((80, 120, 3), 100)
    pixels[40:56, 60:76] = 120
    return save(tmp_path / "spotted.png", pixels)


def test_pictures_are_measured_whole_and_in_their_regions(grey, spotted):
    found = compare([spotted, grey], reference=grey, regions=[Region(60, 40, 16, 16), Region(0, 0, 8, 8)])
    assert [side.title for side in found.sides] == ["spotted.png", "grey.png", "grey.png"]
    whole, inside, small = found.scores
    # Equal channels make a luma of 219/255 of them.
    square = (20 / 255 * 219 / 255) ** 2
    assert inside[0].psnr == pytest.approx(-10 * np.log10(square), abs=1e-3)
    assert whole[0].psnr == pytest.approx(-10 * np.log10(square * 256 / 9600), abs=1e-3)
    assert whole[0].ssim < 1
    assert whole[1].psnr == np.inf
    assert small[0].psnr == np.inf
    assert small[0].ssim is None  # smaller than its window


def test_regions_are_taken_where_pictures_differ(grey, spotted):
    found = compare([grey, spotted])
    assert found.scores == []
    whole, first, *_ = found.regions
    assert (whole.width, whole.height) == (120, 80)
    assert first.left <= 60
    assert first.top <= 40
    assert first.left + first.width >= 76
    assert first.top + first.height >= 56


def test_differing_regions_lie_apart_and_end_where_nothing_differs():
    one, other = np.zeros((40, 60, 3)), np.zeros((40, 60, 3))
    other[5, 5], other[30, 50] = 9, 200
    first, second = differing([one, other], 6, 8)
    assert (first.left <= 50 < first.left + 8, first.top <= 30 < first.top + 8) == (True, True)
    assert (second.left <= 5 < second.left + 8, second.top <= 5 < second.top + 8) == (True, True)
    assert differing([one, one], 6, 8) == []


def test_smaller_pictures_are_enlarged_and_grey_counts_as_rgb(tmp_path, grey):
    small = save(tmp_path / "small.png", np.full((20, 30), 100))
    found = compare([small], reference=grey)
    assert found.sides[0].picture.pixels.shape == (80, 120, 3)
    assert found.sides[0].note == "30×20, enlarged by bicubic"
    assert found.scores[0][0].psnr == np.inf


def test_sixteen_bits_are_measured_as_such(tmp_path):
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    for file, value in ((one, 25700), (other, 25701)):
        Image.fromarray(np.full((16, 16), value, np.uint16)).save(file)
    (score,) = compare([one], reference=other).scores[0]
    assert score.psnr == pytest.approx(-20 * np.log10(219 / 255 / 65535), abs=0.01)


def test_a_crop_is_taken_first(grey, spotted):
    found = compare([grey, spotted], crop=Region(60, 40, 16, 16), regions=[Region(1, 2, 3, 4)])
    assert found.sides[1].picture.pixels.shape == (16, 16, 3)
    assert (found.sides[1].picture.pixels == 120).all()
    assert found.regions[1] == Region(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give two or more"),
        ({"reference": "wide.png"}, "is 90x30, which is not the shape of 120x80"),
        ({"reference": "grey.png", "crop": Region(100, 0, 21, 5)}, "the crop 100,0,21,5 reaches out of the 120x80"),
        ({"reference": "grey.png", "regions": [Region(0, 70, 5, 11)]}, "the region 0,70,5,11 reaches out"),
        ({"reference": "none.png"}, "does not exist"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, grey, options, message):
    save(tmp_path / "wide.png", np.zeros((30, 90, 3)))
    if "reference" in options:
        options = options | {"reference": tmp_path / options["reference"]}
    with pytest.raises(UpscaleError, match=message):
        compare([grey], **options)


def test_titles_take_the_folders_they_need(tmp_path):
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]
    assert titles(paths) == ["a/x.png", "b/x.png"]
    assert titles([paths[0], tmp_path / "y.png"]) == ["x.png", "y.png"]
    assert titles([paths[0], paths[0]]) == ["x.png", "x.png"]


def test_the_page_holds_the_pictures_and_the_figures(tmp_path, spotted, grey):
    hostile = save(tmp_path / "<img onerror=alert(1)>.png", np.asarray(Image.open(spotted)))
    write_page(tmp_path / "page.html", compare([hostile, grey], reference=grey))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<img onerror" not in text
    assert not re.search(r"https?:|url\(", text)
    sources = re.findall(r'<img src="data:image/png;base64,([^"]+)"', text)
    assert len(sources) == 3
    (tmp_path / "first.png").write_bytes(base64.b64decode(sources[0]))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "first.png")), np.asarray(Image.open(spotted)))
    assert '<td class="best">equal  1.0000</td>' in text


def test_the_sheet_shows_every_picture_and_their_difference(tmp_path, grey, spotted):
    write_sheet(tmp_path / "sheet.png", compare([spotted], reference=grey, regions=[Region(60, 40, 16, 16)]))
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    colours = {tuple(map(int, colour)) for colour in np.unique(sheet.reshape(-1, 3), axis=0)}
    assert {(100, 100, 100), (120, 120, 120)} <= colours
    # The region: 256×256 pixels of each picture.
    assert (sheet == 120).all(axis=2).sum() >= 256 * 256


def test_the_command_writes_what_it_was_asked_for(tmp_path, grey, spotted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shell = CliRunner()
    done = shell.invoke(app, ["compare", "grey.png", "spotted.png", "--png", "sheet.png", "--region", "0,0,8,8"])
    assert (done.exit_code, done.output) == (0, "sheet.png\n")
    done = shell.invoke(app, ["compare", "grey.png", "--reference", "spotted.png", "--crop", "50,30,40,40"])
    assert (done.exit_code, done.output) == (0, "comparison.html\n")
    assert "Comparison · 40×40" in (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert shell.invoke(app, ["compare", "grey.png", "spotted.png", "--crop", "1,2,3"]).exit_code == 2
    assert shell.invoke(app, ["compare", "grey.png", "spotted.png", "--crop", "1,2,0,3"]).exit_code == 2


def test_transparency_is_kept_on_the_page_and_white_on_the_sheet(tmp_path, grey):
    pixels = np.full((80, 120, 4), 100)
    pixels[..., 3] = 0
    clear = save(tmp_path / "clear.png", pixels)
    found = compare([clear, grey], regions=[Region(0, 0, 16, 16)])
    write_page(tmp_path / "page.html", found)
    sources = re.findall(r'base64,([^"]+)"', (tmp_path / "page.html").read_text(encoding="utf-8"))
    (tmp_path / "first.png").write_bytes(base64.b64decode(sources[0]))
    assert Image.open(tmp_path / "first.png").getpixel((5, 5)) == (100, 100, 100, 0)
    write_sheet(tmp_path / "sheet.png", found)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (sheet == 255).all(axis=2).sum() >= 256 * 256


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(tmp_path, grey, spotted):
    third = save(tmp_path / "third.png", np.full((80, 120, 3), 30))
    write_page(tmp_path / "page.html", compare([grey, spotted, third]))
    return tmp_path / "page.html"


class Viewer:
    def __init__(self, browser, tmp_path):
        self.browser, self._file = browser, tmp_path / "screen.png"

    def attribute(self, selector, name):
        return self.browser.run(f"document.querySelector({json.dumps(selector)}).getAttribute({json.dumps(name)})")

    def split(self):
        return int(self.attribute(".stage", "aria-valuenow"))

    def zoom(self):
        return self.browser.run("document.querySelector('.zooms output').textContent")

    def transforms(self):
        return self.browser.run("[...document.querySelectorAll('.layer img')].map(image => image.style.transform)")

    def colour(self, across, down):
        """What is seen at that share of the stage's width and height."""
        left, top, width, height = self.browser.box(".stage")
        self.browser.picture(self._file)
        return Image.open(self._file).convert("RGB").getpixel((left + across * width, top + down * height))


@pytest.fixture
def viewer(browser, page, tmp_path):
    browser.open(page, 1000, 800)
    return Viewer(browser, tmp_path)


def test_the_divider_is_dragged_moved_by_keys_and_flipped(viewer):
    left, top, width, height = viewer.browser.box(".stage")
    assert viewer.split() == 50
    viewer.browser.drag((left + width / 2, top + height / 3), (left + width * 0.75, top + height / 3))
    assert viewer.split() == 75
    # The square stands at 50 to 63 % of the width: the divider has left it behind.
    assert viewer.colour(0.57, 0.6) == (100, 100, 100)
    viewer.browser.run("document.querySelector('.stage').focus()")
    viewer.browser.key("ArrowLeft")
    assert viewer.split() == 73
    viewer.browser.key("f")
    assert viewer.split() == 0
    assert viewer.colour(0.57, 0.6) == (120, 120, 120)
    viewer.browser.key("n")
    assert viewer.colour(0.57, 0.6) == (30, 30, 30)
    viewer.browser.key("f")
    assert viewer.colour(0.57, 0.6) == (100, 100, 100)


def test_zoom_is_to_the_pixel_and_both_move_together(viewer):
    viewer.browser.key("1")
    assert viewer.zoom() == "100 %"
    assert viewer.browser.run("document.querySelector('.layer img').getBoundingClientRect().width") == 120
    for _ in range(4):
        viewer.browser.key("+")
    assert viewer.zoom() == "1600 %"
    left, top, width, height = viewer.browser.box(".stage")
    before = viewer.transforms()
    viewer.browser.drag((left + 100, top + 200), (left + 60, top + 170))
    one, other = viewer.transforms()
    assert one == other != before[0]
    places = [[float(number) for number in re.findall(r"(-?[\d.]+)px", text)] for text in (before[0], one)]
    assert np.subtract(places[1], places[0]).tolist() == [-40, -30]
    viewer.browser.mouse("mouseWheel", left + width / 2, top + height / 2, deltaX=0, deltaY=500)
    assert viewer.zoom() == "589 %"
    viewer.browser.key("0")
    assert viewer.browser.run("document.querySelector('.layer img').getBoundingClientRect().height") == pytest.approx(
        height - 2, abs=1
    )


def test_side_by_side_difference_and_regions(viewer):
    viewer.browser.key("s")
    assert viewer.attribute(".stage", "data-mode") == "beside"
    assert len(set(viewer.transforms())) == 1
    viewer.browser.key("d")
    assert viewer.colour(0.57, 0.6) == (160, 160, 160)  # 20 apart, times 8
    assert viewer.colour(0.1, 0.1) == (0, 0, 0)
    viewer.browser.key("d")
    viewer.browser.run("document.querySelectorAll('[data-region]')[1].click()")
    assert float(viewer.zoom().split()[0]) > 1000


def test_a_phone_pinches_and_nothing_stands_out(viewer, page):
    viewer.browser.open(page, 390, 780, mobile=True)
    left, top, width, height = viewer.browser.box(".stage")
    assert viewer.browser.run("document.documentElement.scrollWidth") == 390
    before = float(viewer.zoom().split()[0])
    x, y = left + width / 4, top + height / 2
    viewer.browser.touch("touchStart", (x - 20, y), (x + 20, y))
    viewer.browser.touch("touchMove", (x - 40, y), (x + 40, y))
    viewer.browser.touch("touchEnd")
    assert float(viewer.zoom().split()[0]) == pytest.approx(2 * before, rel=0.02)
