import base64
import io
import json
import os
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from sa_upscale import report
from sa_upscale.errors import UpscaleError
from sa_upscale.record import Record
from sa_upscale.report import page, training
from sa_upscale.report.run import evenly, thinned

HOSTILE = """</script><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;"""
RECIPE = {
    "description": "SA with Canny's edges",
    "model": {"name": "compact", "scale": 4, "parameters": {"features": 64}, "start": "compact-x4", "transfer": False},
    "stages": [
        {
            "name": "fidelity",
            "data": {"folders": ["photos"], "batch": 16, "patch": 192, "degradation": "bicubic"},
            "train": {
                "steps": 2000,
                "rate": 6e-4,
                "final_rate": 1e-6,
                "schedule": "cosine",
                "best": "psnr-y",
                "seed": 3,
            },
            "losses": [{"name": "l1", "weight": 1.0}],
            "discriminator": None,
        },
        {
            "name": "adversarial",
            "data": {"folders": ["photos"], "batch": 16, "patch": 128, "degradation": "bicubic"},
            "train": {"steps": 500, "rate": 1e-4, "schedule": "constant", "best": "vgg-percep", "seed": 3},
            "losses": [
                {"name": "sa-canny", "weight": 1.0, "share": 0.15},
                {"name": "l1", "weight": 0.25},
                {"name": "l1", "weight": 0.5},
            ],
            "discriminator": {"name": "unet", "rate": None, "lead": 20},
        },
    ],
}


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._inside = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._inside):
            self.text += f"{data} "

    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img" and "src" in attributes]


def written(run):
    return report.write(run).read_text(encoding="utf-8")


def curves(text):
    block = text.split('id="curve-data">')[1].split("</script>")[0]
    return {(curve["stage"], curve["key"]): curve["points"] for curve in json.loads(block)}


def decoded(image):
    return base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))


def noise(seed, side=6):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def grey(seed):
    return np.repeat(noise(seed)[:, :, :1], 3, axis=2)


@pytest.fixture
def run(tmp_path, left):
    return shutil.copytree(left, tmp_path / "my run")


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A run of two stages with everything that a trainer leaves, killed in the second."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    record = Record(folder, tensorboard=False)
    (folder / "recipe.json").write_text(json.dumps(RECIPE), encoding="utf-8")
    for stage in ("fidelity", "adversarial"):
        record.pictures(
            stage,
            0,
            {f"{crop}-{kind}": noise(crop + shift) for crop in (1, 2) for kind, shift in (("bicubic", 10), ("hr", 20))},
        )
    for step in range(100, 2001, 100):
        record.scalars("fidelity", step, {"rate": 6e-4, "seconds": step / 10, "l1": 1 / step})
        if step % 200 == 0:
            record.scalars("fidelity", step, {"psnr_y": 20 + step / 1000, "best": 20 + step / 1000})
            record.pictures("fidelity", step, {f"{crop}-sr": noise(step + crop) for crop in (1, 2)})
    for step in (100, 200):
        record.scalars(
            "adversarial",
            step,
            {
                "rate": 1e-4,
                "seconds": step / 2,
                "sa-canny": 0.02,
                "l1-1": 0.03,
                "l1-2": 0.04,
                "discriminator": 0.6,
                "novel_key": -step,
            },
        )
        record.pictures("adversarial", step, {"1-sr": noise(step), "1-W sa-canny": grey(5), "1-M ldl": grey(step)})
    save_file(
        {"a": np.zeros(1)},
        folder / "last.safetensors",
        metadata={"found": json.dumps({"sa-canny": {"beta2": 2.13724}})},
    )
    save_file({"a": np.zeros(1)}, folder / "best.safetensors")
    return folder


def test_every_key_of_the_log_is_a_curve_with_its_values(run):
    found = curves(written(run))
    assert set(found) == {
        *(("fidelity", key) for key in ("rate", "seconds", "l1", "psnr_y", "best")),
        *(
            ("adversarial", key)
            for key in ("rate", "seconds", "sa-canny", "l1-1", "l1-2", "discriminator", "novel_key")
        ),
    }
    assert found["adversarial", "novel_key"] == [[100, -100], [200, -200]]
    assert found["fidelity", "psnr_y"][:2] == [[200, 20.2], [400, 20.4]]
    assert len(found["fidelity", "l1"]) == 20


def test_every_curve_has_a_place_on_the_page(run):
    text = written(run)
    places = [attributes["data-chart"] for tag, attributes in Elements(text).tags if "data-chart" in attributes]
    assert places == [str(index) for index in range(len(curves(text)))]


def test_numbers_that_are_not_finite_are_gaps(run):
    with (run / "log.jsonl").open("a") as log:
        log.write(
            '{"stage": "adversarial", "step": 300, "gan": NaN}\n{"stage": "adversarial", "step": 400, "gan": 2}\n'
        )
        log.write('{"stage": "adversarial", "step": 500, "gan": null}\n')
        log.write('{"stage": "adversarial", "step": 600, "gan": -Infinity}\n')
    assert curves(written(run))["adversarial", "gan"] == [[300, None], [400, 2], [500, None], [600, None]]


def test_what_cannot_be_read_is_left_out_and_a_repeated_step_counts_last(run):
    with (run / "log.jsonl").open("a") as log:
        log.write('{"stage": "fidelity", "step": 100, "l1": 7.5, "note": "text", "flag": true}\nnonsense\n[1]\n')
        log.write('{"stage": "fidelity", "step": 9999, "l1": 0.')
    found = curves(written(run))
    assert found["fidelity", "l1"][0] == [100, 7.5]
    assert found["fidelity", "l1"][-1] == [2000, 0.0005]
    assert not {("fidelity", "note"), ("fidelity", "flag")} & set(found)


def test_the_chosen_pictures_are_in_the_page_as_they_are(run):
    images = Elements(written(run)).images()
    shown = {decoded(image) for image in images}
    files = run / "pictures"
    kept = [files / "fidelity" / str(step) / f"{crop}-sr.png" for step in (200, 800, 1400, 2000) for crop in (1, 2)]
    kept += [files / "adversarial" / str(step) / "1-sr.png" for step in (100, 200)]
    kept += [files / "fidelity" / "0" / f"{crop}-{kind}.png" for crop in (1, 2) for kind in ("bicubic", "hr")]
    assert {file.read_bytes() for file in kept} <= shown
    assert sum(image["data-what"] == "sr" for image in images) == 10
    assert [image["data-what"] for image in images].count("hr") == 2  # the stages share their crops


def test_maps_take_the_palette_and_keep_their_values(run):
    images = Elements(written(run)).images()
    (edges,) = [image for image in images if image["data-what"] == "W sa-canny"]  # the same at both steps
    artifacts = [image for image in images if image["data-what"] == "M ldl"]
    assert (edges["data-shot"], edges["data-shots"], len(artifacts)) == ("4", "2", 2)
    with Image.open(io.BytesIO(decoded(edges))) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), grey(5)[:, :, 0])
        palette = np.reshape(picture.getpalette(), (-1, 3))
    luma = palette @ (0.299, 0.587, 0.114)
    assert (np.diff(luma) > 0).all()


def test_the_page_says_what_the_maps_are(run):
    text = Elements(written(run)).text
    assert "W, the edge map" in text
    assert "M, LDL's artifact map" in text
    shutil.rmtree(run / "pictures" / "adversarial")
    assert "W, the edge map" not in Elements(written(run)).text


def test_a_damaged_picture_is_left_out(run):
    broken = run / "pictures" / "fidelity" / "2000" / "1-sr.png"
    broken.write_bytes(broken.read_bytes()[:-6])
    shown = {decoded(image) for image in Elements(written(run)).images()}
    assert broken.read_bytes() not in shown
    assert (broken.parent / "2-sr.png").read_bytes() in shown


def test_stages_with_other_validation_pictures_have_scenes_of_their_own(run):
    Record(run, tensorboard=False).pictures("adversarial", 0, {"1-hr": noise(99)})
    text = Elements(written(run)).text
    assert "Picture 1 fidelity" in text
    assert "Picture 1 adversarial" in text


def test_fewer_steps_are_shown_when_the_pictures_are_large(run, monkeypatch):
    monkeypatch.setattr(training, "PICTURE_BYTES", 3000)
    images = Elements(written(run)).images()
    steps = [image for image in images if image["data-what"] == "sr"]
    assert 2 <= len(steps) < 10
    photos = {decoded(image) for image in images if image["data-what"] in ("sr", "bicubic", "hr")}
    assert sum(map(len, photos)) <= 3000
    last = (run / "pictures" / "fidelity" / "2000" / "1-sr.png").read_bytes()
    assert last in {decoded(image) for image in steps}


def test_the_facts_are_told(run):
    text = " ".join(Elements(written(run)).text.split())
    for fact in (
        "SA with Canny's edges",
        "Training report · my run · compact ×4",
        "2 000 of 2 000",
        "200 of 500",
        "1 × sa-canny share 0.15",
        "0.25 × l1",
        "sa-canny: β2 2.137",
        "unet lead 20",
        "0.0006 → 1e-6, cosine",
        "16 crops of 192 × 192",
        "compact-x4",
        "Weight 0.5.",
        "of 500 in adversarial, not at the end yet",
        "5 min",  # 200 s and 100 s
    ):
        assert fact in text
    assert f"sa-upscale image in.png --model '{run}/best.safetensors'" in text


def test_names_are_shown_and_never_run(tmp_path):
    run = tmp_path / HOSTILE.replace("/", "\\")
    record = Record(run, tensorboard=False)
    stage = {
        "name": HOSTILE,
        "train": {"steps": 1, "best": HOSTILE, "precision": HOSTILE},
        "data": {"folders": [HOSTILE], "validation": HOSTILE, "degradation": HOSTILE},
        "losses": [{"name": HOSTILE, "weight": 1, HOSTILE: HOSTILE}],
        "discriminator": {"name": HOSTILE},
    }
    model = {"name": HOSTILE, "scale": 4, "parameters": {HOSTILE: HOSTILE}, "start": HOSTILE}
    recipe = {"description": HOSTILE, "model": model, "stages": [stage, stage | {"name": "second"}]}
    (run / "recipe.json").write_text(json.dumps(recipe))
    record.scalars(HOSTILE, 1, {HOSTILE: 1.0, "best": 2.0})
    for step in (0, 1):
        record.pictures(HOSTILE, step, {f"1-{HOSTILE}": noise(step), f"1-W {HOSTILE}": noise(7), "1-hr": noise(3)})
    text = written(run)
    elements = Elements(text)
    assert [tag for tag, _ in elements.tags].count("script") == 3  # the figures, the curves' and the pictures'
    assert not any(name.startswith("on") for _, attributes in elements.tags for name in attributes)
    assert elements.text.count('alert("1")') > 10
    assert (HOSTILE, HOSTILE) in curves(text)
    assert HOSTILE in {image["data-what"] for image in elements.images()}


def test_the_page_fetches_nothing(run):
    text = written(run)
    for tag, attributes in Elements(text).tags:
        assert "href" not in attributes
        assert "srcset" not in attributes
        assert tag not in ("link", "iframe", "object", "base")
        assert attributes.get("src", "data:").startswith("data:")
    policies = [values for tag, values in Elements(text).tags if values.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0]["content"].startswith("default-src 'none'; img-src data:;")
    assert not any(word in text for word in ("http:", "https:", "url(", "@import", "fetch("))


def test_an_empty_folder_and_a_single_line_give_a_page(tmp_path):
    assert "nothing was logged" in written(tmp_path)
    Record(tmp_path, tensorboard=False).scalars("only", 100, {"l1": 0.5, "seconds": 12.3})
    text = written(tmp_path)
    assert curves(text) == {("only", "l1"): [[100, 0.5]], ("only", "seconds"): [[100, 12.3]]}
    assert "8.1 steps a second" in Elements(text).text


def test_a_page_that_cannot_be_written_leaves_the_one_before(run, monkeypatch):
    before = written(run)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    Record(run, tensorboard=False).scalars("adversarial", 300, {"gan": 1.0})
    with pytest.raises(UpscaleError, match=r"report\.html: cannot be written \(No space left on device\)"):
        report.write(run)
    assert (run / "report.html").read_text(encoding="utf-8") == before
    assert not list(run.glob("*.part"))


def test_thinning_keeps_every_spike_and_the_order():
    points = [(step, 1.0) for step in range(10_000)]
    points[1234], points[7777], points[50] = (1234, 9.0), (7777, -9.0), (50, None)
    kept = thinned(points, 200)
    assert len(kept) <= 200
    assert {(1234, 9.0), (7777, -9.0)} <= set(kept)
    assert kept == sorted(kept, key=lambda point: point[0])
    assert thinned([(step, None) for step in range(1000)], 10) == [(step, None) for step in range(0, 1000, 200)]
    assert thinned(points[:200], 200) == points[:200]


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(1, [9]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, list(range(10))), (99, list(range(10)))],
)
def test_evenly_spaced_items_include_both_ends(count, chosen):
    assert evenly(range(10), count) == chosen


@pytest.mark.parametrize(
    ("value", "shown"),
    [(28.5483, "28.55"), (1e-6, "1e-6"), (0.00012, "0.00012"), (1.0, "1"), (2.5e12, "2.5e12"), (0, "0")],
)
def test_numbers_are_short(value, shown):
    assert page.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(12.3, "12 s"), (59.99, "60 s"), (3599, "1 h 0 min"), (4296, "1 h 12 min")]
)
def test_times_are_told_as_one_says_them(seconds, shown):
    assert page.duration(seconds) == shown


def test_a_browser_draws_the_curves_and_the_viewer(run, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium or Chrome")
    file = report.write(run)
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=2000", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    drawn = Elements(done.stdout)
    plots = [attributes for tag, attributes in drawn.tags if tag == "svg"]
    assert len(plots) == len(curves(file.read_text(encoding="utf-8"))) == 12
    paths = [attributes["d"] for tag, attributes in drawn.tags if tag == "path"]
    assert len(paths) >= 12
    assert not any("NaN" in path for path in paths)
    (viewer,) = [attributes for tag, attributes in drawn.tags if attributes.get("id") == "viewer"]
    assert "hidden" not in viewer
    last = (run / "pictures" / "adversarial" / "200" / "1-sr.png").read_bytes()
    (result,) = [attributes for tag, attributes in drawn.tags if attributes.get("class") == "result"]
    assert decoded(result) == last
