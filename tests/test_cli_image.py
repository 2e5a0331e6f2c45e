"""The `image` command as its users run it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from sa_upscale import __version__, cli, images
from sa_upscale.models.compact import Compact
from tests.conftest import ROOT
from tests.pictures import exif_block
from tests.test_cli import one_line, save


@pytest.fixture
def run(monkeypatch, capfd):
    """The command in this process, which has torch already: what it printed, after a look at its exit code."""

    def called(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["sa-upscale", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        done = subprocess.CompletedProcess(arguments, stopped.value.code or 0, *map(str.encode, capfd.readouterr()))
        assert done.returncode == code, done.stderr
        return done

    return called


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "x2.safetensors"
    return save(file, Compact(features=4, convs=1, scale=2), "compact")


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + exif_block(), dpi=(300, 300))
    return tmp_path / "in.jpg"


def test_sizes_depth_format_and_metadata_as_asked(run, photo, network):
    options = ["-f", "tiff", "--bit-depth", "16", "--strip", "--suffix", "-big", "--width", "30", "--height", "30"]
    run("image", photo, *options, "--fit", "crop", "--tta", "--match-color", "--model", network)
    picture = images.read(photo.parent / "in-big.tif")
    assert (picture.width, picture.height) == (30, 30)
    assert picture.pixels.dtype == np.uint16
    assert (picture.exif, picture.xmp, picture.dpi) == (None, None, None)


def test_by_default_metadata_is_kept_and_sizes_in_it_are_new(run, photo, network):
    run("image", photo, "-x2", "--max-size", "18", "--model", network)
    with Image.open(photo.parent / "in_x2_max18.jpg") as result:
        assert result.size == (18, 14)
        assert result.info["dpi"] == (300, 300)
        exif = result.getexif()
        assert exif.get_ifd(0x8769)[0xA002] == 18
        assert exif.get_ifd(0x8825)[1] == "N"


def test_an_animation_stays_one(run, tmp_path, network):
    colours = (("red", 255, 50.0), ("blue", 255, 90.0), ("blue", 0, 30.0))
    frames = [
        (images.Picture(np.asarray(Image.new("RGB", (10, 8), colour)), np.full((8, 10), alpha, np.uint8)), time)
        for colour, alpha, time in colours
    ]
    images.write_frames(tmp_path / "in.gif", frames, 3, 0)
    done = run("image", tmp_path / "in.gif", "-x2", "--model", network)
    assert b"in_x2.gif  20x16" in done.stdout
    shown = list(images.opened(tmp_path / "in_x2.gif").play())
    assert [milliseconds for _, milliseconds in shown] == [50, 90, 30]
    assert [int(picture.alpha.max()) for picture, _ in shown] == [255, 255, 0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--strength", "0.5", "--model", "{network}"], 1, "no sibling"),
        (["--denoise", "1", "--model", "compact"], 1, "take compact-x4-photo or compact-x2-photo or compact-x4-real"),
        (["--strength", "2"], 2, "--strength"),
        (["--lossless", "--model", "{network}"], 1, "JPEG cannot be lossless"),
        (["--width", "900", "--model", "{network}"], 1, "8 is the most"),
        (["--width", "20", "--max-size", "20"], 1, "contradict"),
        (["--bit-depth", "12"], 2, "--bit-depth"),
        (["-f", "heic"], 1, "unknown format"),
        (["--retry", "none.json", "--model", "{network}"], 1, "none.json"),
    ],
)
def test_what_cannot_be_is_one_line(run, photo, network, arguments, code, message):
    done = run("image", photo, "-x2", *(argument.format(network=network) for argument in arguments), code=code)
    assert message in one_line(done)


def test_bombs_are_refused_and_the_limit_is_the_users(run, tmp_path, network):
    Image.new("L", (40, 30)).save(tmp_path / "in.png")
    command = ["image", tmp_path / "in.png", "-x2", "--model", network, "--max-pixels"]
    assert "40x30 pixels, above the limit of 0.001 million" in one_line(run(*command, "0.001", code=1))
    run(*command, "0.0012")


def test_a_report_and_its_retry(run, photo, network):
    folder = photo.parent
    (folder / "bad.png").write_text("no picture")
    command = ["image", folder, "-x2", "-o", folder / "out", "--model", network]
    run(*command, "--report", folder / "r.json", code=1)
    told = json.loads((folder / "r.json").read_text())["results"]
    assert {os.path.basename(one["source"]): one["status"] for one in told} == {"bad.png": "failed", "in.jpg": "done"}
    Image.new("RGB", (5, 4)).save(folder / "bad.png")
    before = (folder / "out" / "in_x2.jpg").stat().st_mtime_ns
    assert b"bad_x2.png" in run(*command, "--retry", folder / "r.json").stdout
    assert (folder / "out" / "in_x2.jpg").stat().st_mtime_ns == before


def test_a_dry_run_writes_nothing(run, photo, network):
    folder = photo.parent
    (folder / "bad.png").write_text("no picture")
    done = run("image", folder, "-x2", "--dry-run", "--json", "--model", network, code=1)
    events = [json.loads(line) for line in done.stdout.decode().splitlines()]
    told = {os.path.basename(event["source"]): event for event in events if event["event"] == "forecast"}
    assert (told["in.jpg"]["width"], told["in.jpg"]["height"]) == (24, 18)
    assert told["in.jpg"]["seconds"] > 0
    assert "text file" in told["bad.png"]["error"]
    assert sorted(file.name for file in folder.iterdir()) == ["bad.png", "in.jpg"]


def test_results_say_what_made_them_unless_told_not_to(run, photo, network):
    run("image", photo, "-x2", "--model", network)
    exif = Image.open(photo.parent / "in_x2.jpg").getexif()
    assert exif[305] == f"sa-upscale {__version__}, x2.safetensors, x2"
    assert exif[271] == "Maker"
    for option in ("--no-tag", "--strip"):
        run("image", photo, "-x2", option, "--model", network)
        assert 305 not in Image.open(photo.parent / "in_x2.jpg").getexif()


def test_a_preview_is_one_part_and_can_be_compared(run, photo, network):
    done = run("image", photo, "-x2", "--preview", "2,1,6,5", "--compare", photo.parent / "c.html", "--model", network)
    assert b"in_x2_preview.jpg  12x10" in done.stdout
    page = (photo.parent / "c.html").read_text()
    assert "in_x2_preview.jpg" in page
    assert "6×5, enlarged by bicubic" in page
    assert b"reaches out" in run("image", photo, "-x2", "--preview", "9,1,6,5", "--model", network, code=1).stderr
    assert "--compare" in one_line(run("image", photo, photo.parent, "-x2", "--compare", "c.html", code=2))


def test_the_hint_is_for_people_and_told_once(run, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    command = ["image", photo, "-x2", "-o", tmp_path / "out.png"]
    assert run(*command).stderr == b""
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(cli.terminal.Voice, "progress", lambda _voice: contextlib.nullcontext(lambda *_, **__: None))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert run(*command, "--json").stderr == b""
    assert run(*command).stderr.count(b"models fetch") == 1
    assert run(*command).stderr == b""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_ctrl_c_leaves_whole_files_and_a_report(tmp_path, network):
    for index in range(40):
        Image.effect_noise((120, 120), 60).convert("RGB").save(tmp_path / f"{index:02}.png")
    command = [sys.executable, "-m", "sa_upscale", "image", tmp_path, "-x2", "-o", tmp_path / "out", "--model", network]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*map(str, command), "--report", str(tmp_path / "r.json")], env=environment, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list((tmp_path / "out").glob("*.png"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.decode().splitlines()[-1] == "sa-upscale: interrupted"
    left = list((tmp_path / "out").iterdir())
    assert 2 <= len(left) < 40
    assert all(images.read(file).width == 240 for file in left)
    statuses = [one["status"] for one in json.loads((tmp_path / "r.json").read_text())["results"]]
    assert set(statuses) == {"done", "not reached"}
    assert statuses.count("done") <= len(left)


def test_a_preview_of_an_animation_says_that_it_shows_the_first(run, tmp_path, network):
    frames = [(images.Picture(np.full((9, 12, 3), value, np.uint8)), 50.0) for value in (10, 200)]
    images.write_frames(tmp_path / "in.png", frames, 2, 0)
    command = ["image", tmp_path / "in.png", "-x2", "--preview", "1,2,4,4", "--model", network]
    forecast = json.loads(run(*command, "--dry-run", "--json").stdout.splitlines()[0])
    assert (forecast["width"], forecast["height"], forecast["frames"]) == (8, 8, 1)
    assert b"the preview shows the first of 2" in run(*command).stderr
    assert images.read(tmp_path / "in_x2_preview.png").pixels.max() < 40
