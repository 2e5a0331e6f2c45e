"""The command line as its users run it: a process, real files, its output and exit code."""

import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sa_upscale import checkpoints, config
from sa_upscale.models.compact import Compact
from sa_upscale.models.vsrresnet import VSRResNet
from tests.conftest import ROOT

RECIPE = """
[model]
name = "compact"
scale = 2
parameters = { features = 4, convs = 1 }
[data]
batch = 1
patch = 16
holdout = 1
[train]
steps = 4
log_every = 2
[[losses]]
name = "l1"
"""


def run(*arguments, cwd=None, code=0, **options):
    command = [sys.executable, "-m", "sa_upscale", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=cwd or ROOT, capture_output=True, env=environment, check=False, **options)
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


def one_line(done):
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("sa-upscale: ")
    return lines[0]


def save(file, model, architecture):
    metadata = {"scale": str(model.scale)}
    parameters = model.parameters_dict
    checkpoints.save(file, model.state_dict(), architecture=architecture, parameters=parameters, metadata=metadata)
    return file


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    return save(tmp_path_factory.mktemp("weights") / "x4.safetensors", Compact(features=4, convs=1), "compact")


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_help_lists_the_commands():
    shown = run("--help").stdout.decode()
    assert all(command in shown for command in ("image", "video", "train", "evaluate", "models"))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["image", "--help"], ["models", "list"], ["models", "info", "compact-x4"]]
)
def test_help_and_the_list_do_without_torch(arguments):
    code = (
        "import sys; sys.argv = ['sa-upscale', *sys.argv[1:]]\n"
        "from sa_upscale.cli import main\n"
        "try: main()\n"
        "except SystemExit as exit: assert not exit.code, exit.code\n"
        "heavy = {'torch', 'cv2', 'numpy', 'av', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy - ({'huggingface_hub'} if 'models' in sys.argv else set()), heavy"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True)


def test_what_a_file_says_of_itself_does_not_go_before_what_is_seen_of_it(tmp_path):
    model, file = Compact(scale=2, features=4, convs=1), tmp_path / "any.safetensors"
    said = {"weights": "12 billion", "size": "none", "recipe": "old"}
    checkpoints.save(file, model.state_dict(), architecture="compact", parameters=model.parameters_dict, metadata=said)
    facts = json.loads(run("models", "info", file, "--json").stdout)
    assert facts["weights"] == sum(value.numel() for value in model.state_dict().values())
    assert (facts["size"], facts["recipe"]) == (file.stat().st_size, "old")


def test_bare_image_is_times_four_beside_the_input(photo, network):
    done = run("image", photo.name, "--model", network, cwd=photo.parent)
    assert Image.open(photo.parent / "in_x4.png").size == (48, 36)
    assert done.stdout.decode().startswith("in_x4.png  48x36  ")
    assert done.stderr == b""


def test_a_folder_with_good_and_broken_files(photo, network):
    folder = photo.parent
    (folder / "deep").mkdir()
    Image.open(photo).convert("L").save(folder / "deep" / "grey.jpg")
    (folder / "text.png").write_text("not a picture")
    whole = photo.read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    done = run("image", folder, "-r", "-x2.5", "-o", folder / "out", "--model", network, code=1)
    results = {file.relative_to(folder / "out").as_posix() for file in (folder / "out").rglob("*") if file.is_file()}
    assert results == {"in_x2.5.png", "deep/grey_x2.5.jpg"}
    assert Image.open(folder / "out" / "in_x2.5.png").size == (30, 22)
    complaints = done.stderr.decode().splitlines()
    assert len(complaints) == 3
    assert all(sum(name in line for line in complaints) == 1 for name in ("text.png", "cut.png", "empty.jpg"))
    assert re.fullmatch(r"2 of 5 done in [\d.]+ s, 3 failed", done.stdout.decode().splitlines()[-1])


def test_json_lines_tell_progress_and_results(photo, network):
    (photo.parent / "bad.png").write_bytes(b"")
    done = run(
        "image", photo, photo.parent / "bad.png", "-o", photo.parent / "out", "--json", "--model", network, code=1
    )
    events = [json.loads(line) for line in done.stdout.decode().splitlines()]
    by_kind = {kind: [event for event in events if event["event"] == kind] for kind in ("progress", "result", "error")}
    assert by_kind["progress"][0]["label"] == "in.png"
    assert all(0 <= event["done"] <= event["total"] for event in by_kind["progress"])
    assert (by_kind["result"][0]["width"], by_kind["result"][0]["height"]) == (48, 36)
    assert by_kind["error"][0]["source"].endswith("bad.png")
    assert events[-1] == {"event": "summary", "done": 1, "failed": 1, "skipped": 0}
    assert done.stderr == b""


def test_stdin_to_stdout(photo, network):
    done = run("image", "-", "--json", "--model", network, input=photo.read_bytes())
    assert Image.open(io.BytesIO(done.stdout)).size == (48, 36)
    assert json.loads(done.stderr.decode().splitlines()[-1])["event"] == "result"


def test_skip_existing_leaves_whole_results_alone(photo, network):
    target = photo.parent / "in_x4.png"
    run("image", photo, "--model", network)
    before = target.stat().st_mtime_ns
    assert "there already" in run("image", photo, "--skip-existing", "--model", network).stdout.decode()
    assert target.stat().st_mtime_ns == before
    target.write_bytes(target.read_bytes()[:100])
    run("image", photo, "--skip-existing", "--model", network)
    assert Image.open(target).size == (48, 36)


@pytest.mark.parametrize("scale", ["0", "9", "abc", "-1", "nan"])
def test_impossible_scales_are_a_wrong_command_line(photo, scale):
    assert "1 to 8" in one_line(run("image", photo, "-x", scale, code=2))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["image", "none.png"], 1, "none.png"),
        (["image", "."], 1, "no pictures"),
        (["image", "{photo}", "--model", "compcat"], 1, "did you mean compact"),
        (["image", "{photo}", "--model", "{photo}"], 1, "in.png"),
        (["image", "{photo}", "-o", "{photo}", "--model", "{network}"], 1, "itself"),
        (["image", "{photo}", "-o", "none/out.png", "--model", "{network}"], 1, "none"),
        (["image", "{photo}", "--device", "tpu", "--model", "{network}"], 1, "tpu"),
        (["image", "{photo}", "--tile", "0"], 2, "--tile"),
        (["image"], 2, "INPUT"),
        (["image", "-", "{photo}"], 1, "take one picture"),
        (["imgae", "{photo}"], 2, "imgae"),
        (["video", "none.mp4"], 1, "none.mp4"),
        (["video", "{photo}.txt"], 1, "in.png.txt"),
        (["train", "--config", "compact-x4-fidelty"], 1, "did you mean compact-x4-fidelity"),
        (["train", "--config", "compact-x4-fidelity", "-o", "{photo}.run"], 1, "--data"),
        (["evaluate", "--model", "bicubic", "--data", "none"], 1, "none"),
        (["models", "info", "compact-x3"], 1, "did you mean compact-x"),
        (["models", "fetch", "compact-x3"], 1, "did you mean compact-x"),
    ],
)
def test_mistakes_are_one_clear_line(photo, network, arguments, code, message):
    (photo.parent / "empty").mkdir()
    (photo.parent / "in.png.txt").write_text("text")
    before = photo.read_bytes()
    filled = [argument.format(photo=photo, network=network) for argument in arguments]
    assert message in one_line(run(*filled, cwd=photo.parent / "empty", code=code))
    assert photo.read_bytes() == before
    assert {file.name for file in photo.parent.iterdir()} - {"in.png.run"} == {"in.png", "in.png.txt", "empty"}


def test_a_video_network_is_refused_for_pictures(photo, tmp_path):
    file = save(tmp_path / "video.safetensors", VSRResNet(blocks=1, features=4), "vsrresnet")
    assert "video" in one_line(run("image", photo, "--model", file, code=1))


def test_training_then_upscaling_with_the_result(photo, tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    command = ["train", "--config", "tiny.toml", "--data", "photos", "--set", "train.seed=5"]
    assert "2 steps" in run(*command, "--set", "train.steps=2", cwd=tmp_path).stdout.decode()
    assert "--resume" in one_line(run(*command, "--set", "train.steps=2", cwd=tmp_path, code=1))
    weights = tmp_path / "runs" / "tiny" / "best.safetensors"
    assert config.load(str(tmp_path / "tiny.toml")).model.name == "compact"
    assert json.loads(checkpoints.load(str(weights)).metadata["recipe"])["stages"][0]["train"]["seed"] == 5
    run("image", photo, "-x2", "--model", weights)
    assert Image.open(tmp_path / "in_x2.png").size == (24, 18)


def test_verify_says_which_files_are_sound():
    states = [line.split(":")[1].split()[0] for line in run("models", "verify").stdout.decode().splitlines()]
    assert len(states) >= len(checkpoints.entries())
    assert "corrupt" not in states


def test_imports_leave_the_search_for_garbage_as_it_was_and_their_modules_out_of_it():
    script = (
        "import gc, sys\n"
        "from sa_upscale.cli.terminal import swift_imports\n"
        "try:\n"
        "    with swift_imports():\n"
        "        assert not gc.isenabled()\n"
        "        import no_such_module\n"
        "except ImportError:\n"
        "    pass\n"
        "assert gc.isenabled() and gc.get_freeze_count()\n"
        "sys.modules['torch'] = frozen = gc.get_freeze_count()\n"
        "with swift_imports():\n"
        "    assert gc.isenabled()\n"
        "assert gc.get_freeze_count() <= frozen\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
