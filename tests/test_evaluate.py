import base64
import csv
import io
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sa_upscale import checkpoints, evaluate, metrics
from sa_upscale.compare import gallery
from sa_upscale.degrade import bicubic
from sa_upscale.errors import UpscaleError
from sa_upscale.evaluate import Score
from sa_upscale.models.compact import Compact
from sa_upscale.models.vsrresnet import VSRResNet
from tests.browser import browsing


def smooth(rng, width=38, height=33):
    small = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.BICUBIC))


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("hr", "lr"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        hr = smooth(rng)
        Image.fromarray(hr[:32, :36]).save(tmp_path / "hr" / f"{name}.png")
        Image.fromarray(bicubic(hr, 4)).save(tmp_path / "lr" / f"{name}.png")
    return tmp_path


@pytest.fixture
def clips(tmp_path):
    """Two folders of three frames each."""
    rng = np.random.default_rng(1)
    for folder in ("one", "two"):
        (tmp_path / "clips" / folder).mkdir(parents=True)
        for frame in range(3):
            Image.fromarray(smooth(rng, 32, 32)).save(tmp_path / "clips" / folder / f"{frame}.png")
    return tmp_path / "clips"


def saved(file, model, architecture, scale):
    parameters, metadata = model.parameters_dict, {"scale": str(scale)}
    checkpoints.save(file, model.state_dict(), architecture=architecture, parameters=parameters, metadata=metadata)
    return file


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    return saved(tmp_path / "net.safetensors", Compact(features=4, convs=1), "compact", 4)


@pytest.fixture
def video_network(tmp_path):
    torch.manual_seed(0)
    return saved(tmp_path / "video.safetensors", VSRResNet(features=4, blocks=1), "vsrresnet", 4)


def cli(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sa_upscale", "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


# Measuring


def test_methods_side_by_side(pictures, network):
    given = evaluate.evaluate(["bicubic", str(network)], pictures / "hr", pictures / "lr")
    made = evaluate.evaluate(["bicubic"], pictures / "hr")
    assert [score.method for score in given] == ["bicubic", str(network)]
    assert given[0].means == made[0].means
    assert set(given[0].pictures) == {"a.png", "b.png"}
    assert given[1].means["psnr-y"] == pytest.approx(np.mean([each["psnr-y"] for each in given[1].pictures.values()]))
    assert given[0].means["psnr-y"] > given[1].means["psnr-y"] > 10
    assert given[0].means["ssim-y"] > given[1].means["ssim-y"]
    assert given[0].sha256 is None
    assert given[1].sha256 == checkpoints.sha256_of(network)


def test_results_are_measured_as_8_bit_files(pictures):
    from sa_upscale.functional.resize import resize

    values = []
    for name in ("a.png", "b.png"):
        hr, lr = (np.array(Image.open(pictures / folder / name)).astype(np.float64) for folder in ("hr", "lr"))
        sr = resize(torch.tensor(lr).movedim(-1, 0), hr.shape[:2]).movedim(0, -1).numpy().clip(0, 255).round()
        values.append(20 * math.log10(255 / np.sqrt(np.square((sr - hr)[3:-3, 3:-3]).mean())))
    score = evaluate.evaluate(["bicubic"], pictures / "hr", pictures / "lr", metrics=["psnr"], border=3)[0]
    assert score.means["psnr"] == pytest.approx(np.mean(values), abs=1e-9)


def test_a_perfect_result_is_infinitely_good(pictures):
    score = evaluate.evaluate(["bicubic"], pictures / "hr", pictures / "hr", scale=1, metrics=["psnr", "ssim"])[0]
    assert score.means == {"psnr": math.inf, "ssim": pytest.approx(1)}
    assert evaluate.facts(score)["means"]["psnr"] is None


def test_hr_of_16_bits_and_of_grey_are_taken_as_8_bit_rgb(pictures):
    grey = np.array(Image.open(pictures / "hr" / "a.png").convert("L"))
    for folder, deep in (("eight", grey), ("sixteen", grey.astype(np.uint16) * 257)):
        (pictures / folder).mkdir()
        Image.fromarray(deep).save(pictures / folder / "a.png")
    eight, sixteen = (evaluate.evaluate(["bicubic"], pictures / name)[0].means for name in ("eight", "sixteen"))
    assert eight == sixteen


def test_lr_may_have_another_format_and_the_scale_behind_its_name(pictures):
    expected = evaluate.evaluate(["bicubic"], pictures / "hr", pictures / "lr")[0].means
    Image.open(pictures / "lr" / "a.png").save(pictures / "lr" / "ax4.webp", lossless=True)
    (pictures / "lr" / "a.png").unlink()
    assert evaluate.evaluate(["bicubic"], pictures / "hr", pictures / "lr")[0].means == expected


def test_whole_pictures_go_to_the_metrics_that_crop_none(pictures, monkeypatch):
    seen = {}

    def spy(name):
        return lambda sr, hr, border: seen.setdefault(name, border) * torch.ones(1)

    measures = {name: spy(name) for name in ("psnr", "vgg-percep")}
    monkeypatch.setattr(evaluate, "build", lambda names, needs: measures)
    evaluate.evaluate(["bicubic"], pictures / "hr", metrics=list(measures), border=2)
    assert seen == {"psnr": 2, "vgg-percep": 0}


def test_a_metric_of_the_set_starts_anew_for_each_method(pictures, network, monkeypatch):
    class Count:
        def reset(self):
            self.pictures = 0

        def update(self, sr, hr, border):
            self.pictures += len(sr)

        def compute(self):
            return float(self.pictures)

    monkeypatch.setattr(evaluate, "build", lambda names, needs: {"fid": Count(), "psnr": metrics.psnr})
    scores = evaluate.evaluate(["bicubic", str(network)], pictures / "hr", metrics=["fid", "psnr"])
    assert [score.means["fid"] for score in scores] == [2, 2]
    assert list(scores[0].means) == ["fid", "psnr"]
    assert list(scores[0].pictures["a.png"]) == ["psnr"]


def test_windows_stay_in_their_folder(clips, video_network):
    together = evaluate.evaluate([str(video_network)], clips)[0]
    for folder in ("one", "two"):
        alone = evaluate.evaluate([str(video_network)], clips / folder)[0]
        assert alone.means == together.folders[folder]
        assert alone.pictures["0.png"] == together.pictures[f"{folder}/0.png"]
    assert together.folders["one"] != together.folders["two"]


def test_only_the_pictures_at_work_are_in_memory(clips, monkeypatch):
    reads, results = [], []
    read = evaluate.data.read_rgb
    monkeypatch.setattr(evaluate.data, "read_rgb", lambda file: (reads.append(file), read(file))[1])

    def progress(done, total, label):
        results.append((done, total, len(reads)))

    evaluate.evaluate(["bicubic"], clips, on_progress=progress)
    assert results == [(done, 6, done) for done in range(1, 7)]


# Tables


def scores():
    means = {"psnr-y": 30.0, "fid": 12.5}
    folders = {"one": {"psnr-y": 29.0}, "two": {"psnr-y": 31.0}}
    pictures = {"one/a.png": {"psnr-y": math.inf}, "two/a|b.png": {"psnr-y": 31.0}}
    return [Score("bicubic", means, folders, pictures, 1.25), Score("a|b", means, folders, pictures, 2.0, "5a", "fp32")]


def test_table_has_a_row_for_each_folder_and_all():
    columns, rows = evaluate.table(scores())
    assert columns == ["method", "folder", "psnr-y", "fid", "seconds"]
    assert rows[:3] == [
        ["bicubic", "one", "29.0000", "", ""],
        ["bicubic", "two", "31.0000", "", ""],
        ["bicubic", "all", "30.0000", "12.5000", "1.2"],
    ]


def test_files_hold_the_figures(tmp_path):
    about = {"data": "set", "lr": None, "scale": 4}
    for suffix in ("json", "csv", "md"):
        evaluate.write(tmp_path / f"t.{suffix}", scores(), about)
    told = json.loads((tmp_path / "t.json").read_text(), parse_constant=pytest.fail)
    assert (told["scale"], told["lr"]) == (4, None)
    assert told["scores"][1]["sha256"] == "5a"
    assert told["scores"][0]["pictures"]["one/a.png"]["psnr-y"] is None
    rows = list(csv.reader((tmp_path / "t.csv").open()))
    assert rows[:4] == [
        ["method", "picture", "psnr-y", "fid"],
        ["bicubic", "one/a.png", "inf", ""],
        ["bicubic", "two/a|b.png", "31.0", ""],
        ["bicubic", "mean", "30.0", "12.5"],
    ]
    lines = (tmp_path / "t.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| method | folder | psnr-y ↑ | fid ↓ | seconds |"
    assert lines[1] == "| --- | --- | ---: | ---: | ---: |"
    assert lines[-3] == r"| a\|b | all | 30.0000 | 12.5000 | 2.0 |"
    assert lines[-1] == "data set, scale 4"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t.csv", "t.json", "t.md"]


def test_a_table_that_cannot_be_written_leaves_what_was_there(tmp_path):
    (tmp_path / "t.json").mkdir()
    with pytest.raises(UpscaleError, match=r"t\.json cannot be written"):
        evaluate.write(tmp_path / "t.json", scores(), {})
    assert [file.name for file in tmp_path.iterdir()] == ["t.json"]


# Mistakes


def test_bad_input_is_one_clear_line(pictures, network):
    with pytest.raises(UpscaleError, match="did you mean psnr"):
        evaluate.evaluate(["bicubic"], pictures / "hr", metrics=["psnrr"])
    with pytest.raises(UpscaleError, match="there is no such folder of pictures"):
        evaluate.evaluate(["bicubic"], pictures / "none")
    with pytest.raises(UpscaleError, match="does not fit its HR picture: it is 9x8, not 18x16"):
        evaluate.evaluate(["bicubic"], pictures / "hr", pictures / "lr", scale=2)
    with pytest.raises(UpscaleError, match="upscales by 4, not by 2"):
        evaluate.evaluate([str(network)], pictures / "hr", scale=2)
    with pytest.raises(UpscaleError, match=r"a\.png: ssim cannot be measured: .* needs 11"):
        evaluate.evaluate(["bicubic"], pictures / "hr", metrics=["ssim"], border=12)
    (pictures / "lr" / "a.png").unlink()
    with pytest.raises(UpscaleError, match="0 pictures are called a"):
        evaluate.evaluate(["bicubic"], pictures / "hr", pictures / "lr")
    (pictures / "hr" / "b.png").write_bytes((pictures / "hr" / "b.png").read_bytes()[:60])
    with pytest.raises(UpscaleError, match=r"b\.png is a damaged or incomplete PNG"):
        evaluate.evaluate(["bicubic"], pictures / "hr")


def test_pictures_of_several_sizes_are_no_clip(clips, video_network):
    Image.fromarray(smooth(np.random.default_rng(0), 40, 32)).save(clips / "two" / "1.png")
    with pytest.raises(UpscaleError, match="the pictures in two differ in size"):
        evaluate.evaluate([str(video_network)], clips)
    assert evaluate.evaluate(["bicubic"], clips)


# The command


def test_the_command_prints_and_writes_the_table(pictures, network):
    files = [pictures / name for name in ("t.md", "t.json")]
    options = ["--data", pictures / "hr", "--lr", pictures / "lr", "-o", files[0], "-o", files[1]]
    done = cli("-m", "bicubic", "-m", network, "--metrics", "psnr-y, ssim", *options)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == ["method", "psnr-y", "ssim", "seconds"]
    told = json.loads(files[1].read_text())
    assert [row[0] for row in rows[1:]] == [score["method"] for score in told["scores"]] == ["bicubic", str(network)]
    assert float(rows[1][1]) == pytest.approx(told["scores"][0]["means"]["psnr-y"], abs=1e-4)
    assert f"| {rows[2][0]} | {rows[2][1]} |" in files[0].read_text(encoding="utf-8")
    assert (told["scale"], told["border"]) == (4, 4)


def test_the_command_speaks_json_lines(pictures):
    done = cli("-m", "bicubic", "--data", pictures / "hr", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert set(events[-1]["means"]) == {"psnr-y", "ssim-y"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metrics", "vgg-percep"], "vgg-percep needs the weights of a VGG19"),
        (["-o", "table.xlsx"], "let its name end in .json, .csv, .md"),
        (["-o", "nowhere/table.md"], "there is no folder nowhere"),
    ],
)
def test_the_command_refuses_before_it_works(pictures, options, said):
    done = cli("-m", "bicubic", "--data", pictures / "hr", *options)
    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_report_shows_every_result_beside_bicubic_and_the_original(pictures, network):
    page = pictures / "report.html"
    done = cli("-m", network, "--data", pictures / "hr", "--lr", pictures / "lr", "--report", page)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["method", "bicubic", str(network), str(page)]
    text = page.read_text(encoding="utf-8")
    assert text.count('<section class="scene" data-size="36 32">') == 2
    assert f'<td class="best">{rows[1][1]}</td>' in text
    assert f"<td>{rows[2][1]}</td>" in text
    assert "Evaluation" in text
    sources = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', text)
    assert [title for _, title in sources] == ["bicubic", str(network), "original"] * 2
    original = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[2][0]))))
    np.testing.assert_array_equal(original, np.asarray(Image.open(pictures / "hr" / "a.png")))


def test_a_gallery_leaves_out_what_passes_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_OF_ALL", 2 * 16 * 16)
    shown = gallery.Gallery(1)
    for name in ("a", "b"):
        shown.add(name, "bicubic", np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 9, np.uint8))
    assert shown.left_out == ["b"]
    figures = {"bicubic": {name: {"psnr-y": 30.0} for name in "ab"}}
    shown.write(tmp_path / "page.html", "set", figures, ["method", "psnr-y"], [["bicubic", "30.0000"]])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "set · 1 of 2 pictures shown" in text
    assert "psnr-y 30.0000" in text


def test_the_best_is_found_in_every_folder_and_by_what_is_better():
    rows = [["x", "one", "29", ""], ["y", "one", "31", ""], ["x", "all", "32", "4"], ["y", "all", "30", "3"]]
    assert gallery._best(["method", "folder", "psnr", "lpips"], rows) == {(1, 2), (2, 2), (3, 3)}
    assert gallery._best_picture([{"lpips": 0.2}, {"lpips": 0.1}]) == 1
    assert gallery._best_picture([{"psnr": 20.0}]) is None


def test_the_report_goes_from_picture_to_picture(tmp_path):
    shown = gallery.Gallery(1)
    for name, width in (("a", 20), ("b", 30)):
        flat = np.full((16, width, 3), 9, np.uint8)
        shown.add(name, "bicubic", flat, flat)
    figures = {"bicubic": {name: {"psnr-y": 30.0} for name in "ab"}}
    shown.write(tmp_path / "page.html", "set", figures, ["method", "psnr-y"], [["bicubic", "30.0000"]])
    seen = "[document.querySelector('.layer img').naturalWidth, document.querySelector('#scene').value]"
    with browsing(tmp_path / "profile") as browser:
        browser.open(tmp_path / "page.html", 800, 600)
        assert browser.run(seen) == [20, "a"]
        browser.key("p")
        assert browser.run(seen) == [30, "b"]
        assert browser.run("[...document.querySelectorAll('.scene')].map(scene => scene.hidden)") == [True, False]
        browser.key("1")
        assert browser.run("document.querySelector('.layer img').getBoundingClientRect().width") == 30
        browser.key("p")
        assert browser.run(seen) == [20, "a"]
