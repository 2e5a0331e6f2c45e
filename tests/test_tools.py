"""The tools that draw training pictures and that show what checkpoints make of difficult crops."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from sa_upscale import degrade, images
from sa_upscale.upscale import inspector
from tests.conftest import ROOT
from tools import contact_sheet, draw_pictures, train_inspector


@pytest.fixture(scope="module")
def font_folder(tmp_path_factory):
    """One or two of the installed free fonts: looking at all of them takes seconds."""
    folder = tmp_path_factory.mktemp("fonts")
    for place in draw_pictures.FONT_FOLDERS:
        for name in ("DejaVuSans.ttf", "LiberationSerif-Regular.ttf"):
            for file in Path(place).expanduser().rglob(name):
                shutil.copy(file, folder)
    if not any(folder.iterdir()):
        pytest.skip("needs fonts-dejavu-core or fonts-liberation; neither is installed")
    return folder


@pytest.fixture(scope="module")
def fonts(font_folder):
    return draw_pictures.find_fonts([font_folder])


# ---- drawn pictures ----


@pytest.mark.parametrize("kind", draw_pictures.KINDS)
def test_every_kind_draws_a_picture_that_its_seed_repeats(kind, fonts):
    name, first = draw_pictures.picture(7, 0, fonts, kind=kind, side=64)
    _, again = draw_pictures.picture(7, 0, fonts, kind=kind, side=64)
    _, other = draw_pictures.picture(7, 1, fonts, kind=kind, side=64)
    assert (name, first.size, first.mode) == (kind, (64, 64), "RGB")
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert np.asarray(first).std() > 3


def test_edges_have_no_rings():
    """Between two colours only mixtures of them: nothing beyond either."""
    rng = np.random.default_rng(0)
    canvas = Image.new("L", (160, 160), 100)
    canvas.paste(200, (0, 0, 71, 160))
    for slanted in (False, True):
        pixels = np.asarray(draw_pictures.view(canvas, 128, rng, slanted=slanted).reduce(draw_pictures.OVER))
        assert pixels.shape == (32, 32)
        assert (pixels.min(), pixels.max()) == (100, 200)
        assert ((pixels > 100) & (pixels < 200)).any()


def test_the_straight_view_is_the_middle_on_whole_pixels():
    pixels = np.arange(60 * 60, dtype=np.uint32).reshape(60, 60).astype(np.uint8)
    seen = draw_pictures.view(Image.fromarray(pixels), 44, np.random.default_rng(0), slanted=False)
    assert np.array_equal(np.asarray(seen), pixels[8:52, 8:52])


def test_perspective_takes_the_targets_to_the_sources():
    targets = np.asarray([(0, 0), (10, 0), (10, 10), (0, 10)], dtype=float)
    sources = np.asarray([(1, 2), (9, 0), (12, 11), (-1, 8)], dtype=float)
    a, b, c, d, e, f, g, h = draw_pictures._perspective(targets, sources)
    for (x, y), expected in zip(targets, sources, strict=True):
        w = g * x + h * y + 1
        assert ((a * x + b * y + c) / w, (d * x + e * y + f) / w) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("closed", [False, True])
def test_a_curve_goes_through_its_points(closed):
    points = [(0.0, 0.0), (10.0, 5.0), (20.0, -5.0), (25.0, 8.0)]
    path = np.asarray(draw_pictures.curve(points, closed=closed, steps=8))
    for point in points:
        assert np.hypot(*(path - point).T).min() < 1e-9
    assert np.hypot(*(path[-1] - (points[0] if closed else points[-1]))) < 1e-9


def test_ink_can_be_told_from_paper():
    rng = np.random.default_rng(0)
    pairs = [draw_pictures.paper_and_ink(rng) for _ in range(200)]
    assert min(abs(draw_pictures.luma(paper) - draw_pictures.luma(ink)) for paper, ink in pairs) > 0.3


def test_only_free_fonts_are_used_and_only_for_scripts_they_have(fonts, tmp_path):
    file = fonts["latin"][0]
    shutil.copy(file, tmp_path / file.name)
    shutil.copy(file, tmp_path / f"Costly{file.suffix}")
    found = draw_pictures.find_fonts([tmp_path])
    assert found["latin"] == [tmp_path / file.name]
    assert "han" not in found


def test_the_command_fills_a_folder_and_says_what_with(fonts, font_folder, tmp_path):
    tool = [sys.executable, "tools/draw_pictures.py"]
    options = ["--count", "2", "--seed", "3", "--kind", "page", "--fonts", font_folder]
    subprocess.run([*tool, tmp_path / "out", *options], cwd=ROOT, check=True)
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["about.json", "drawn-3-0000-page.png", "drawn-3-0001-page.png"]
    _, expected = draw_pictures.picture(3, 1, fonts, kind="page")
    with Image.open(tmp_path / "out" / names[2]) as written:
        assert written.tobytes() == expected.tobytes()
    refused = subprocess.run(
        [*tool, tmp_path, "--fonts", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "no free font found" in refused.stderr


# ---- contact sheets ----


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (61, 82, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return pixels


def doubled(source):
    return source.repeat(2, axis=0).repeat(2, axis=1)


def test_a_reduced_crop_is_shown_beside_its_original(photo, tmp_path):
    crop = contact_sheet.Crop("brick", "photo.png", (10, 20, 36, 27), reduced=True)
    shown = contact_sheet.panels(crop, tmp_path, 2, {"ours": doubled})
    assert list(shown) == ["source", "ours", "original"]
    assert {panel.size for panel in shown.values()} == {contact_sheet.PANEL}
    # 36×27 fits the panel of 288×216 eight times.
    assert np.array_equal(np.asarray(shown["original"])[::8, ::8], photo[20:47, 10:46])
    small = degrade.bicubic(photo[:60], 2)
    assert np.array_equal(np.asarray(shown["source"])[::8, ::8], doubled(small)[20:47, 10:46])
    assert np.array_equal(np.asarray(shown["ours"]), np.asarray(shown["source"]))


def test_a_crop_of_a_damaged_picture_is_upscaled_as_it_is(photo, tmp_path):
    crop = contact_sheet.Crop("night", "photo.png", (5, 7, 72, 54))
    shown = contact_sheet.panels(crop, tmp_path, 2, {"ours": lambda source: 255 - doubled(source)})
    assert list(shown) == ["source", "ours"]
    assert np.array_equal(np.asarray(shown["ours"])[::4, ::4], 255 - photo[7:61, 5:77])


def test_the_sheet_holds_every_panel():
    reds = {name: Image.new("RGB", contact_sheet.PANEL, (255, 0, level)) for level, name in enumerate("abc")}
    page = np.asarray(contact_sheet.sheet("title", [(str(number), reds) for number in range(6)]))
    for level in range(3):
        assert (page == (255, 0, level)).all(axis=2).sum() == 6 * contact_sheet.PANEL[0] * contact_sheet.PANEL[1]


def test_the_crops_of_the_list_lie_in_their_pictures(shared):
    crops = contact_sheet.read_crops(ROOT / "tools" / "contact_sheet.toml")
    labels = {"face", "text", "foliage", "brick", "hair", "sky gradient", "line art", "night"}
    assert {crop.label for crop in crops} == labels
    for crop in crops:
        width, height = images.size(shared / "data" / "bench" / crop.picture)
        left, top, across, down = crop.box
        assert min(crop.box) >= 0
        assert (left + across <= width, top + down <= height) == (True, True), crop.label


# ---- the inspector ----


@pytest.fixture
def undamaged(tmp_path):
    """Files of a soft picture large enough to be reduced."""
    rng = np.random.default_rng(0)
    for i in range(2):
        small = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
        small.resize((480, 480), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.png")
    return sorted(tmp_path.glob("*.png"))


def test_examples_of_damage_are_marked_as_what_they_are(undamaged):
    examples = train_inspector.Examples(undamaged, undamaged)
    first, second = np.random.default_rng(0), np.random.default_rng(0)
    drawn = [examples.sample(first) for _ in range(200)]
    assert {(luma.shape, luma.dtype.name) for luma, _ in drawn} == {((train_inspector.SIDE,) * 2, "uint8")}
    targets = np.array([target for _, target in drawn])
    none, told = (targets[:, :2] == 0).all(1), targets[:, 2] > 0
    assert 0.25 < none.mean() < 0.75
    assert 0.7 < told.mean() < 1
    assert targets[:, 0].max() <= inspector.targets(train_inspector.MOST_NOISE, 0)[0]
    assert targets[:, 1].max() <= inspector.targets(0, 90)[1]
    again = [examples.sample(second) for _ in range(200)]
    assert all(np.array_equal(luma, other) for (luma, _), (other, _) in zip(drawn, again, strict=True))


def test_the_inspector_learns_and_its_file_says_of_what(undamaged, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_inspector, "HELD_OUT", 8)
    monkeypatch.setattr(train_inspector, "BATCH", 4)
    folder, target = str(undamaged[0].parent), tmp_path / "inspector.safetensors"
    told = ["--data", folder, "--drawings", folder, "--examples", "24", "--steps", "3"]
    licence = ["--licence", "CC0-1.0", "--trained-on", "two pictures"]
    monkeypatch.setattr(sys, "argv", ["train_inspector", str(target), *told, *licence])
    train_inspector.main()
    assert "mean error: noise" in capsys.readouterr().out
    with safe_open(target, "np") as file:
        assert file.metadata()["trained_on"] == "two pictures"
        assert file.metadata()["steps"] == "3"
        assert set(file.keys()) == set(inspector.Inspector().state_dict())
