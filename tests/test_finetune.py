"""`finetune`, and `train` without a recipe file, as people call them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from sa_upscale import checkpoints, train
from sa_upscale.errors import UpscaleError
from tests.conftest import ROOT


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        coarse = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((160, 144), Image.BICUBIC).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    Image.new("RGB", (20, 20)).save(folder / "small.png")
    return folder


def run(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "sa_upscale", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, check=False, cwd=cwd, env=environment, capture_output=True, text=True)


TINY = ("--set", "data.batch=2", "--device", "cpu")


def test_finetune_makes_a_checkpoint_that_works_at_once(photos, tmp_path):
    target, source = tmp_path / "my.safetensors", tmp_path / "photo.png"
    done = run("finetune", "--model", "compact-x2-fidelity", "--data", photos, "--steps", 4, *TINY, "-o", target)
    assert done.returncode == 0, done.stderr
    assert "4 steps by fidelity" in done.stderr
    assert "broken.png" in done.stderr
    assert "small.png" in done.stderr
    assert str(target) in done.stdout
    assert (tmp_path / "my-run" / "report.html").is_file()
    tuned, start = load_file(target), load_file(checkpoints.path("compact-x2-fidelity"))
    assert tuned.keys() == start.keys()
    assert any((tuned[key] - start[key].float()).abs().max() > 0 for key in tuned)
    Image.new("RGB", (24, 16), (200, 10, 30)).save(source)
    done = run("image", source, "--model", target, "-x2", "-o", tmp_path / "big.png")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "big.png").size == (48, 32)
    done = run("finetune", "--model", "compact-x2-fidelity", "--data", photos, "-o", target)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "my.safetensors: exists already" in done.stderr


def test_the_plan_is_train_with_overrides(photos):
    plan = train.plan_finetuning("compact-x4-fidelity", [photos], steps=50, settings=["data.batch=2", "data.patch=32"])
    (stage,) = plan.recipe.stages
    usual = train.assemble(objective="fidelity").stages[0]
    model = plan.recipe.model
    assert (model.name, model.scale, model.start) == ("compact", 4, "compact-x4-fidelity")
    assert model.parameters["features"] == 64
    assert stage.train.rate == usual.train.rate / 2
    assert (stage.train.steps, stage.train.validate_every, stage.data.holdout) == (50, 5, 1)
    assert stage.train.ema == pytest.approx(0.8)  # over a tenth of the steps
    assert plan.seconds > 0
    assert any("3 " in line for line in train.described(plan))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "compact-x5", "-o", "my.safetensors"), "did you mean"),
        (("--model", "compact-x4", "-o", "my.pth"), "name one that ends in .safetensors"),
        (("--model", "compact-x4", "--loss", "sa-cany", "-o", "my.safetensors"), "did you mean sa-canny"),
        (("--model", "compact-x4", "--set", "model.scale=2", "-o", "my.safetensors"), "upscales by 4, not by 2"),
    ],
)
def test_mistakes_are_one_line(photos, tmp_path, arguments, message):
    done = run("finetune", "--data", photos, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "my-run").exists()


def test_a_loss_and_data_are_enough(photos, tmp_path):
    done = run("train", "--loss", "fidelity", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "--data" in done.stderr
    done = run("train", cwd=tmp_path)
    assert "name an objective with --loss or a recipe with --config" in done.stderr
    small = ("--set", "train.steps=3", "--set", "data.patch=32", "--set", "data.holdout=1")
    done = run("train", "--loss", "fidelity", "--data", photos, *small, *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "fidelity"
    best = checkpoints.load(folder / "best.safetensors")
    assert best.metadata["objective"] == "fidelity"
    assert (best.model.scale, best.metadata["architecture"]) == (4, "compact")
    done = run("train", "--loss", "fidelity", "--data", photos, *small, *TINY, cwd=tmp_path)
    assert "holds a run already; go on with --resume" in done.stderr


def test_a_sum_in_json(photos, tmp_path):
    small = ("--set", "train.steps=2", "--set", "data.patch=32", "--set", "data.holdout=1", "--set", "data.batch=2")
    run_dir = tmp_path / "run"
    done = run("train", "--loss", "fidelity", "--data", photos, *small, "--device", "cpu", "-o", run_dir, "--json")
    assert done.returncode == 0, done.stderr
    result = [json.loads(line) for line in done.stdout.splitlines()][-1]
    assert (result["event"], result["steps"]) == ("result", 2)
    assert result["psnr-y"] > 5
    assert result["path"] == str(run_dir / "best.safetensors")


def test_a_target_is_checked(tmp_path):
    (tmp_path / "there.safetensors").write_bytes(b"")
    with pytest.raises(UpscaleError, match="exists already"):
        train.check_target(tmp_path / "there.safetensors")
    with pytest.raises(UpscaleError, match=r"ends in \.safetensors"):
        train.check_target(tmp_path / "other.pt")
