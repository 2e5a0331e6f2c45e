"""Runs with a discriminator, a VGG, averaged weights and calibration; of several stages; on several ranks."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sa_upscale import checkpoints, config, losses, train
from sa_upscale.errors import UpscaleError
from sa_upscale.models.discriminators import UNetDiscriminator
from sa_upscale.train import networks
from sa_upscale.train.players import Players
from sa_upscale.train.ranks import Place
from tests.conftest import ROOT

RECIPE = """
[model]
name = "compact"
scale = 2
parameters = { features = 8, convs = 1 }
[data]
batch = 4
patch = 32
holdout = 1
[train]
steps = 14
rate = 1e-3
ema = 0.9
seed = 3
precision = "fp32"
log_every = 7
validate_every = 7
stability_every = 5
save_every = 0
tensorboard = false
[discriminator]
name = "unet"
parameters = { features = 4 }
[[stages]]
name = "fidelity"
train = { steps = 6, best = "ssim-y" }
losses = [ { name = "l1" } ]
[[stages]]
name = "adversarial"
train = { best = "loss", shift = 2 }
losses = [
    { name = "sa-canny", weight = 0.5, beta1 = 0.01, low = 20, high = 40 },
    { name = "perceptual", layers = ["conv1_2"] },
    { name = "gan", weight = 0.1, kind = "relativistic" },
    { name = "content", weight = 0.1 },
    { name = "ldl" },
]
"""


@pytest.fixture
def recipe(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(3):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((72, 60), Image.BICUBIC).save(tmp_path / "photos" / f"{index}.png")
    torch.manual_seed(0)
    vgg = {}
    for layer, (inputs, outputs) in {0: (3, 64), 2: (64, 64)}.items():
        vgg[f"features.{layer}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        vgg[f"features.{layer}.bias"] = torch.zeros(outputs)
    save_file(vgg, tmp_path / "vgg.safetensors")
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    return file


def load(recipe, *settings):
    folder, vgg = recipe.parent / "photos", recipe.parent / "vgg.safetensors"
    return config.load(
        str(recipe),
        [f'data.folders=["{folder.as_posix()}"]', f'train.vgg_weights="{vgg.as_posix()}"', *settings],
    )


def same(a, b):
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def interrupted_at(stage, step):
    """A report that presses Ctrl-C there."""

    def report(progress):
        if (progress.stage, progress.step) == (stage, step):
            signal.raise_signal(signal.SIGINT)

    return report


FEATURES = ("discriminator.name=vgg-features", 'discriminator.parameters={features=4, layers=["conv1_2"]}')


def test_a_discriminator_of_features_learns_to_tell_and_is_no_part_of_vgg(recipe, tmp_path):
    """Its losses and verdicts are logged, it resumes exactly, and a generator learns from it alone."""
    for index, file in enumerate((tmp_path / "photos").iterdir()):  # grain, that no network can guess
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (60, 72, 3), dtype=np.uint8)).save(file)
    alone = "stages.adversarial.losses=[{name='gan', kind='relativistic'}, {name='content'}]"
    settings = (*FEATURES, "discriminator.rate=1e-2", "discriminator.lead=35", "train.steps=42", alone)
    outcome = train.fit(load(recipe, *settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train.fit(load(recipe, *settings), tmp_path / "cut", on_progress=interrupted_at("adversarial", 21))
    train.fit(load(recipe, *settings), tmp_path / "cut", resume=True)
    assert same(outcome.file, tmp_path / "cut" / "best.safetensors")
    entries = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    judged = [entry for entry in entries if entry["stage"] == "adversarial" and "gan" in entry]
    leading = next(entry for entry in judged if entry["step"] == 35)
    assert leading["real"] > leading["fake"]
    assert leading["discriminator"] < 0.6  # 0.69 is chance
    assert not same(tmp_path / "whole" / "fidelity-best.safetensors", tmp_path / "whole" / "last.safetensors")


def test_a_discriminator_of_layers_that_vgg_lacks_is_refused_before_the_first_step(recipe, tmp_path):
    settings = ("discriminator.name=vgg-features", "discriminator.parameters={features=4}")
    with pytest.raises(UpscaleError, match="the VGG weights have no conv2_2, conv3_4"):
        train.fit(load(recipe, *settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_stages_follow_one_another_and_resume_exactly(recipe, tmp_path):
    settings = ("train.log_every=1",)
    notices = []
    outcome = train.fit(load(recipe, *settings), tmp_path / "whole", on_notice=notices.append)
    assert outcome.file == tmp_path / "whole" / "best.safetensors"
    assert sum("beta2 = " in notice for notice in notices) == 1
    for stop in (("fidelity", 4), ("fidelity", 6), ("adversarial", 3), ("adversarial", 12)):
        with pytest.raises(KeyboardInterrupt):
            train.fit(load(recipe, *settings), tmp_path / "cut", resume=True, on_progress=interrupted_at(*stop))
    train.fit(load(recipe, *settings), tmp_path / "cut", resume=True)
    for name in ("fidelity-best", "fidelity-last", "best", "last"):
        assert same(tmp_path / "whole" / f"{name}.safetensors", tmp_path / "cut" / f"{name}.safetensors"), name
    assert not same(tmp_path / "whole" / "fidelity-best.safetensors", tmp_path / "whole" / "best.safetensors")
    entries = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [(entry["stage"], entry["step"]) for entry in entries] == [("fidelity", step) for step in range(1, 7)] + [
        ("adversarial", step) for step in range(1, 15)
    ]
    by_step = {entry["step"]: entry for entry in entries if entry["stage"] == "adversarial"}
    for label in ("sa-canny", "perceptual", "gan", "content", "ldl", "discriminator", "real", "fake"):
        assert by_step[9][label] == by_step[9][label]
    assert {"loss", "psnr_y", "best"} <= by_step[7].keys()
    assert by_step[10]["stability"] > 0
    assert "stability" not in by_step[5]  # nothing to compare with yet
    found = json.loads(checkpoints.load(str(outcome.file)).metadata["found"])
    assert found["perceptual"]["layers"] == {"conv1_2": 1.0}
    assert 0 < found["sa-canny"]["beta2"] < 1e4
    shown = {file.name for file in (tmp_path / "whole" / "pictures" / "adversarial" / "14").iterdir()}
    assert {"1-sr.png", "1-W sa-canny.png", "1-M ldl.png"} <= shown


def test_the_first_stage_of_a_run_starts_from_the_best_of_the_one_before(recipe, tmp_path):
    still = ("stages.adversarial.train.rate=0", "stages.adversarial.train.final_rate=0")
    outcome = train.fit(load(recipe, *still), tmp_path / "run")
    assert same(outcome.file, tmp_path / "run" / "fidelity-best.safetensors")


def batch(seed=0, count=4):
    generator = torch.Generator().manual_seed(seed)
    hr = torch.rand(count, 3, 32, 32, generator=generator)
    return torch.nn.functional.avg_pool2d(hr, 2), hr


def players(recipe, *settings, losses=None):
    settings = list(settings) + ([f"stages.adversarial.losses={losses}"] if losses else [])
    chosen = load(recipe, *settings)
    torch.manual_seed(0)
    return Players(chosen.stages[1], chosen.model, Place(torch.device("cpu")))


def test_each_network_learns_from_its_own_loss_alone(recipe):
    # With a generator that may not move, the discriminator still learns, and the other way round.
    ours = players(recipe, "train.rate=0", "train.final_rate=0", "discriminator.rate=1e-3", losses="[{name='gan'}]")
    generator = {key: value.clone() for key, value in ours.generator.state_dict().items()}
    judge = ours._discriminator.network.discriminator
    before = judge.conv0.weight.detach().clone()
    first = ours.learn(*batch(), 1)[0]
    for _ in range(5):
        last = ours.learn(*batch(), 1)[0]
    assert all(torch.equal(value, generator[key]) for key, value in ours.generator.state_dict().items())
    assert not torch.equal(judge.conv0.weight, before)
    names = ours.measured()
    assert names == ["gan", "discriminator", "real", "fake"]
    assert last[1] < first[1]  # the discriminator's loss falls, and real pictures please it more than made ones
    assert last[2] - last[3] > first[2] - first[3]

    ours = players(recipe, "discriminator.rate=0", "train.final_rate=0", losses="[{name='gan'}]")
    judge = ours._discriminator.network.discriminator
    before = judge.conv0.weight.detach().clone()
    first = ours.learn(*batch(), 1)[0]
    for _ in range(5):
        last = ours.learn(*batch(), 1)[0]
    assert torch.equal(judge.conv0.weight, before)
    assert last[0] < first[0]


def test_the_discriminator_leads_alone(recipe):
    ours = players(recipe, "discriminator.lead=2", losses="[{name='l1'}, {name='gan'}]")
    before = ours.generator.state_dict()["tail.weight"].clone()
    for step in (1, 2):
        ours.learn(*batch(), step)
        assert torch.equal(ours.generator.state_dict()["tail.weight"], before)
    ours.learn(*batch(), 3)
    assert not torch.equal(ours.generator.state_dict()["tail.weight"], before)


def test_the_pictures_are_judged_at_another_place_in_every_step(recipe):
    ours = players(recipe, "stages.adversarial.train.shift=3", losses="[{name='gan'}]")
    shown = []
    ours._discriminator.network.discriminator.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    lr, hr = batch()
    places = []
    for step in range(1, 9):
        shown.clear()
        ours.learn(lr, hr, step)
        # The generator's step and the discriminator's own see the same.
        found = [place for place in np.ndindex(4, 4) if any(torch.equal(x, losses.moved(hr, place)) for x in shown)]
        places += found
        assert len(found) == 1
    assert len(set(places)) > 3
    shown.clear()
    assert ours.offered(lr, hr, hr).real_logits is not None
    assert torch.equal(shown[0], hr)  # what is measured is not moved


def test_a_batch_in_parts_gives_the_gradients_of_the_whole(recipe):
    losses = "[{name='l1'}, {name='gan', weight=0.1}]"  # no term that mixes the pictures of a batch
    whole = players(recipe, losses=losses)
    parts = players(recipe, "train.accumulate=2", losses=losses)
    # The spectral norms iterate at every call, and would take more steps in parts.
    whole.evaluating(True), parts.evaluating(True)
    for step in range(1, 4):
        torch.testing.assert_close(whole.learn(*batch(step), step)[0], parts.learn(*batch(step), step)[0])
    for key, value in whole.generator.state_dict().items():
        torch.testing.assert_close(value, parts.generator.state_dict()[key], rtol=1e-4, atol=1e-6)


def test_the_total_is_in_float32_under_autocast(recipe):
    ours = players(recipe, "train.precision=bf16", losses="[{name='l1', weight=0.1}, {name='gan', weight=0.3}]")
    with ours.autocast():
        total = ours.terms.total(torch.tensor([1.001, 2.003]))
    assert total.item() == pytest.approx(0.1001 + 0.6009, abs=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns(recipe, precision):
    ours = players(recipe, f"train.precision={precision}", losses="[{name='l1'}, {name='gan', weight=0.01}]")
    lr, hr = batch()
    values = [ours.learn(lr, hr / 2, step)[0][0].item() for step in range(1, 15)]  # half as bright as its LR
    assert values[-1] < 0.95 * values[0]
    assert ours.generator.state_dict()["tail.weight"].dtype == torch.float32


def test_averaged_weights_follow_with_their_buffers():
    network, average = UNetDiscriminator(32, 4), UNetDiscriminator(32, 4)
    before = average.conv0.weight.detach().clone()
    networks.follow(average, network, 0.75)
    torch.testing.assert_close(average.conv0.weight, 0.75 * before + 0.25 * network.conv0.weight)
    assert torch.equal(average.conv1.weight_u, network.conv1.weight_u)


def test_what_would_stop_a_later_stage_is_said_before_the_first(recipe, tmp_path):
    for setting, message in (
        ("losses.perceptual.layers=['conv4_4']", "no conv4_4; they have conv1_1 to conv1_2"),
        ("losses.gan.kind=hing", "did you mean hinge"),
        ("stages.adversarial.data.patch=36", "multiple of 8, not 36"),
        ("losses.l1.spatial=lw", "unknown edge map 'lw'"),
    ):
        with pytest.raises(UpscaleError, match=message):
            train.fit(load(recipe, setting), tmp_path / "run")
        assert not (tmp_path / "run").exists()


_UNET = ("{name='l1', weight=0.01}", "{name='gan', kind='relativistic'}", "{name='sa-canny', low=20}", "{name='ldl'}")
LOSSES = {"fidelity": "[{name='l1'}]", "unet": f"[{', '.join(_UNET)}]"}


@pytest.mark.parametrize("kind", LOSSES)
def test_two_ranks_match_one(recipe, tmp_path, kind):
    settings = [f"stages.adversarial.losses={LOSSES[kind]}", "stages.adversarial.train.steps=12"]
    one = tmp_path / "one"
    train.fit(load(recipe, *settings), one)
    run, photos = tmp_path / "two", tmp_path / "photos"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "sa_upscale", "train", "--config", str(recipe), "--data", str(photos), "-o", str(run)]
    command += ["--vgg-weights", str(tmp_path / "vgg.safetensors"), "--device", "cpu"]
    for setting in settings:
        command += ["--set", setting]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # One rank writes and speaks.
    assert done.stdout.count("best validation") == 1
    ours, theirs = load_file(run / "last.safetensors"), load_file(one / "last.safetensors")
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=2e-5)
    start = load_file(one / "fidelity-best.safetensors")
    assert any((theirs[key] - start[key]).abs().max() > 1e-3 for key in theirs)
    one_log, two_log = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (one, run)
    )
    for mine, other in zip(two_log, one_log, strict=True):
        assert mine.keys() == other.keys()
        for key in mine.keys() - {"stage", "seconds"}:
            # The generator's weights were held to 2e-5 above; the discriminator's logits move further than that.
            slack = 3e-2 if key in ("real", "fake") else 1e-3
            assert mine[key] == pytest.approx(other[key], rel=2e-2, abs=slack), key
