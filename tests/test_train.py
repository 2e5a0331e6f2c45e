import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sa_upscale import checkpoints, config, models, train
from sa_upscale.errors import UpscaleError
from sa_upscale.train import networks
from tests.conftest import ROOT

RECIPE = """
[model]
name = "compact"
scale = 2
parameters = { features = 8, convs = 2, branches = true }
[data]
batch = 2
patch = 16
holdout = 1
[train]
steps = 12
rate = 2e-3
ema = 0.5
seed = 3
log_every = 4
validate_every = 6
[[losses]]
name = "l1"
"""


@pytest.fixture
def recipe(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(3):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((36, 36), Image.BICUBIC).save(tmp_path / "photos" / f"{index}.png")
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    return file


def load(recipe, *settings):
    return config.load(str(recipe), [f'data.folders=["{(recipe.parent / "photos").as_posix()}"]', *settings])


def test_a_run_leaves_its_files_and_a_network_that_loads(recipe, tmp_path):
    reports = []
    outcome = train.fit(load(recipe), tmp_path / "run", on_progress=reports.append)
    assert [report.step for report in reports] == [4, 8, 12]
    assert outcome.best == reports[-1].best
    best = checkpoints.load(str(outcome.file))
    assert best.model.parameters_dict == {"scale": 2, "features": 8, "convs": 2, "channels": 3}
    assert float(best.metadata["validation_psnr_y"]) == pytest.approx(outcome.best, abs=1e-3)
    shared = json.loads(best.metadata["recipe"])["stages"][0]
    assert (shared["train"]["seed"], shared["data"]["folders"]) == (3, ["photos"])
    assert outcome.report.read_text().startswith("<!doctype html>")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "l1" in entry] == [4, 8, 12]
    assert [entry["step"] for entry in log if "psnr_y" in entry] == [6, 12]


def test_an_average_that_lags_behind_the_network_does_not_hide_what_it_has_learnt(recipe, tmp_path):
    notices = []
    settings = ("train.steps=60", "train.ema=0.999", "train.precision=fp32", "model.parameters.branches=false")
    outcome = train.fit(load(recipe, *settings), tmp_path / "run", on_notice=notices.append)
    (notice,) = (text for text in notices if "average" in text)
    assert "train.ema = 0.999" in notice
    assert f"psnr-y {outcome.best:.4f}" in notice
    best, last = (checkpoints.load(str(tmp_path / "run" / f"{which}.safetensors")) for which in ("best", "last"))
    assert (best.metadata["averaged"], last.metadata["averaged"]) == ("no", "yes")
    assert float(best.metadata["validation_psnr_y"]) > float(last.metadata["validation_psnr_y"]) + 0.5
    own = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["players"]["generator"]["network"]
    assert all(torch.equal(tensor, own[key]) for key, tensor in load_file(outcome.file).items())


def test_the_average_is_kept_where_it_is_no_worse(recipe, tmp_path):
    notices = []
    still = ("train.rate=0", "train.final_rate=0")
    outcome = train.fit(load(recipe, *still), tmp_path / "run", on_notice=notices.append)
    assert not [text for text in notices if "average" in text]
    assert checkpoints.load(str(outcome.file)).metadata["averaged"] == "yes"


def test_it_learns(recipe, tmp_path):
    reports = []
    settings = ("train.steps=200", "train.log_every=20", "train.precision=fp32")
    train.fit(load(recipe, *settings), tmp_path / "run", on_progress=reports.append)
    assert reports[-1].terms["l1"] < 0.75 * reports[0].terms["l1"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_resumed_gives_the_same_weights(recipe, tmp_path, precision):
    settings = (f"train.precision={precision}", "train.steps=40", "train.save_every=0")
    train.fit(load(recipe, *settings), tmp_path / "whole")
    arguments = [f'data.folders=["{(tmp_path / "photos").as_posix()}"]', *settings]
    code = (
        "import sys, torch; from sa_upscale import config, train; from pathlib import Path; "
        f"torch.set_num_threads({torch.get_num_threads()}); "
        "train.fit(config.load(sys.argv[1], sys.argv[3:]), Path(sys.argv[2]))"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, str(recipe), str(tmp_path / "cut"), *arguments], cwd=ROOT)
    log = tmp_path / "cut" / "log.jsonl"
    while killed.poll() is None and not (log.is_file() and '"step": 8' in log.read_text()):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    killed.wait()
    train.fit(load(recipe, *settings), tmp_path / "cut", resume=True)
    for name in ("last", "best"):
        whole, cut = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "cut"))
        assert all(torch.equal(whole[key], cut[key]) for key in whole)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(steps)
    assert len(steps) == len((tmp_path / "whole" / "log.jsonl").read_text().splitlines())


def test_ctrl_c_saves_and_resumes(recipe, tmp_path):
    def interrupt(report):
        if report.step == 8:
            signal.raise_signal(signal.SIGINT)

    train.fit(load(recipe), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train.fit(load(recipe), tmp_path / "cut", on_progress=interrupt)
    train.fit(load(recipe), tmp_path / "cut", resume=True)
    whole, cut = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_another_scale_starts_from_what_fits(recipe, tmp_path):
    outcome = train.fit(load(recipe), tmp_path / "x2")
    start = [f'model.start="{outcome.file.as_posix()}"', "model.scale=4", "train.rate=0", "train.final_rate=0"]
    with pytest.raises(UpscaleError, match=r"set model\.transfer = true"):
        train.fit(load(recipe, *start), tmp_path / "x4")
    train.fit(load(recipe, *start, "model.transfer=true", "train.steps=1"), tmp_path / "x4", resume=True)
    x2, x4 = load_file(outcome.file), load_file(tmp_path / "x4" / "last.safetensors")
    torch.testing.assert_close(x4["body.0.weight"], x2["body.0.weight"])
    assert x4["tail.weight"].shape != x2["tail.weight"].shape


def test_a_deeper_network_starts_as_the_shallow_one_it_grows_from(tmp_path):
    shallow = models.build("rrdbnet", scale=4, blocks=1, features=8, growth=4)
    start = tmp_path / "one.safetensors"
    checkpoints.save(
        start, shallow.state_dict(), architecture="rrdbnet", parameters=shallow.parameters_dict, metadata={}
    )
    parameters = {"blocks": 3, "features": 8, "growth": 4}
    model = config.Model("rrdbnet", 4, parameters, str(start), transfer=True)
    deep = networks.generator(model, torch.device("cpu"))
    x = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(deep(x), checkpoints.load(str(start)).model.float()(x), atol=1e-5, rtol=1e-4)
    deep(x).square().mean().backward()
    assert deep.body[2].rdb3.conv5.weight.grad.abs().max() > 0  # what is 0 learns
    with pytest.raises(UpscaleError, match=r"set model\.transfer = true"):
        networks.generator(dataclasses.replace(model, transfer=False), torch.device("cpu"))
    other = dataclasses.replace(model, parameters=parameters | {"growth": 6})
    wider = networks.generator(other, torch.device("cpu"))
    assert torch.equal(wider.conv_body.weight, checkpoints.load(str(start)).model.conv_body.weight)


def test_schedules():
    cosine = config.Train(steps=110, rate=1.0, final_rate=0.0, warmup=10)
    assert [train.learning_rate(cosine, step) for step in (1, 10, 60, 110)] == pytest.approx([0.1, 1, 0.5, 0])
    steps = config.Train(steps=100, rate=1.0, schedule="steps", milestones=(10, 20))
    assert [train.learning_rate(steps, step) for step in (10, 11, 20, 21)] == [1, 0.5, 0.5, 0.25]
    assert train.learning_rate(config.Train(rate=0.3, schedule="constant"), 77) == 0.3


def test_a_loss_that_is_not_finite_stops_the_run(recipe, tmp_path):
    with pytest.raises(UpscaleError, match=r"step \d+: the loss is no longer finite \(l1\)"):
        train.fit(load(recipe, "train.rate=1e30", "train.precision=fp32"), tmp_path / "run")


def test_bad_input_is_one_clear_line(recipe, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(UpscaleError, match="--data"):
        train.fit(config.load(str(recipe)), run)
    with pytest.raises(UpscaleError, match="did you mean compact"):
        train.fit(load(recipe, "model.name=compcat"), run)
    with pytest.raises(UpscaleError, match=r"\[\[losses\]\].*did you mean l1"):
        train.fit(load(recipe, "losses=[{name='l12'}]"), run)
    with pytest.raises(UpscaleError, match=r"need a discriminator; add \[discriminator\]"):
        train.fit(load(recipe, "losses=[{name='gan'}]"), run)
    with pytest.raises(UpscaleError, match=r"discriminator: .* multiple of 32, not 16"):
        train.fit(load(recipe, "losses=[{name='gan'}]", "discriminator.name=esrgan"), run)
    assert not run.exists()
    train.fit(load(recipe, "train.steps=1"), run, resume=True)
    with pytest.raises(UpscaleError, match="holds a run already"):
        train.fit(load(recipe), run)
    with pytest.raises(UpscaleError, match="made by another recipe"):
        train.fit(load(recipe, "train.seed=4"), run, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UpscaleError, match="cannot be written"):
        train.fit(load(recipe), tmp_path / "file")


def test_a_state_that_cannot_be_saved_leaves_the_one_before(recipe, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train.fit(load(recipe, "train.steps=8", "train.save_every=0"), tmp_path / "whole")
    whole = torch.save

    def full(state, stream):
        if state["step"] > 4:
            stream.write(b"half")
            raise OSError(28, "No space left on device")
        whole(state, stream)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UpscaleError, match="No space left"):
        train.fit(load(recipe, "train.steps=8", "train.save_every=0"), run)
    monkeypatch.undo()
    assert not (run / "state.tmp").exists()
    train.fit(load(recipe, "train.steps=8", "train.save_every=0"), run, resume=True)
    whole, cut = (load_file(folder / "last.safetensors") for folder in (tmp_path / "whole", run))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
