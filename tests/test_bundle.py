"""From a run's folder to a file to ship and its entry in weights.toml, in one command."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from sa_upscale import checkpoints, models
from sa_upscale.errors import UpscaleError
from sa_upscale.publish import registry
from tests.conftest import ROOT
from tools import bundle

FACTS = {"command": "sa-upscale train", "hardware": "two cores", "licence": "Apache-2.0", "trained_on": "two pictures"}
REGISTRY = """\
# ---- bundled ----

[first-x2]
family = "first"
architecture = "compact"
scale = 2
window = 1
description = "the first"
bundled = "first-x2.safetensors"
repo = "me/first-x2"
file = "first-x2.safetensors"
revision = "0123456789abcdef0123456789abcdef01234567"
sha256 = "aa"  # of the whole file
licence = "Apache-2.0"
trained_on = "one picture"

# ---- planned ----

[planned-x2]
family = "planned"
architecture = "compact"
scale = 2
window = 1
description = "to come"
licence = "Apache-2.0"
published = false
"""


def train(run: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    parameters = {"scale": 2, "features": 4, "convs": 1}
    recipe = {"description": "A tiny one.", "stages": [{"train": {"seed": 7}}]}
    checkpoints.save(
        run / "best.safetensors",
        models.build("compact", **parameters).state_dict(),
        architecture="compact",
        parameters=parameters,
        metadata={"recipe": json.dumps(recipe), "steps": "5", "validation_psnr_y": "30"},
    )
    return run


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    for folder in ("sa_upscale/bundled", "checkpoints/wip", "run"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "weights.toml").write_text(REGISTRY)
    monkeypatch.setattr(checkpoints.registry, "PACKAGE", tmp_path / "sa_upscale")
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(tmp_path / "user"))
    train(tmp_path / "run", seed=0)
    return tmp_path


def ship(checkout: Path, place: str) -> str:
    sha256 = bundle.bundle(checkout / "run", checkout / place, FACTS)
    bundle.register(checkout / place)
    return sha256


def test_the_file_says_how_it_was_made(checkout):
    target = checkout / "first-x2.safetensors"
    assert bundle.bundle(checkout / "run", target, FACTS) == checkpoints.sha256_of(target)
    metadata, tensors = checkpoints.header(target)
    assert metadata.items() >= (FACTS | {"seed": "7", "steps": "5"}).items()
    assert {tensor["dtype"] for tensor in tensors.values()} == {"F16"}


def test_a_mixture_of_the_last_weights_and_another_checkpoint(checkout):
    run = checkout / "run"
    (run / "best.safetensors").rename(run / "last.safetensors")
    other = train(checkout, seed=1) / "best.safetensors"
    target = checkout / "mixed-x2.safetensors"
    bundle.bundle(run, target, FACTS, which="last", mix=(0.75, str(other)))
    mixed = checkpoints.load(target)
    assert mixed.metadata["mixed"] == "0.75 of the run's last weights and 0.25 of those of best"
    assert "validation_psnr_y" not in mixed.metadata
    ours, theirs = (checkpoints.load(file).model.state_dict() for file in (run / "last.safetensors", other))
    for name, value in mixed.model.state_dict().items():
        torch.testing.assert_close(value, 0.75 * ours[name] + 0.25 * theirs[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("share", ["most", "1.5", "nan"])
def test_a_share_that_is_none_is_refused_in_one_line(checkout, share, monkeypatch):
    facts = [part for fact in FACTS for part in (f"--{fact.replace('_', '-')}", "x")]
    words = [str(checkout / "run"), str(checkout / "x-x2.safetensors"), "--mix", share, "other", *facts]
    monkeypatch.setattr(sys, "argv", ["bundle.py", *words])
    with pytest.raises(SystemExit, match=f"^--mix: {share} is no share; give a number from 0 to 1$"):
        bundle.main()
    assert not (checkout / "x-x2.safetensors").exists()


def test_retraining_takes_out_what_was_published_and_the_same_file_does_not(checkout):
    sha256 = ship(checkout, "sa_upscale/bundled/first-x2.safetensors")
    published = (
        'repo = "me/first-x2"\nfile = "first-x2.safetensors"\nrevision = "0123456789abcdef0123456789abcdef01234567"\n'
    )
    expected = REGISTRY.replace(published, "").replace('"aa"', f'"{sha256}"').replace("one picture", "two pictures")
    assert (checkout / "weights.toml").read_text() == expected
    pushed = expected.replace("sha256 =", f"{published}sha256 =")
    (checkout / "weights.toml").write_text(pushed)
    assert ship(checkout, "sa_upscale/bundled/first-x2.safetensors") == sha256
    assert (checkout / "weights.toml").read_text() == pushed
    assert checkpoints.load("first-x2").sha256 == sha256


def test_a_new_checkpoint_belongs_to_the_family_of_all_scales_of_its_kind(checkout):
    ship(checkout, "sa_upscale/bundled/third-x2-photo.safetensors")
    assert checkpoints.entries()["third-x2-photo"].family == "third-photo"


def test_what_int8_cost_holds_for_the_weights_it_was_measured_of(checkout):
    ship(checkout, "sa_upscale/bundled/first-x2.safetensors")
    registry.update(checkout / "weights.toml", "first-x2", {"int8_loss": 0.01}, after=None)
    ship(checkout, "sa_upscale/bundled/first-x2.safetensors")
    assert checkpoints.entries()["first-x2"].int8_loss == 0.01
    train(checkout / "run", seed=1)
    ship(checkout, "sa_upscale/bundled/first-x2.safetensors")
    assert checkpoints.entries()["first-x2"].int8_loss is None


def test_a_planned_checkpoint_moves_to_those_that_are_there(checkout):
    sha256 = ship(checkout, "checkpoints/planned-x2.safetensors")
    text = (checkout / "weights.toml").read_text()
    assert tomllib.loads(text)["planned-x2"] == {
        "family": "planned",
        "architecture": "compact",
        "scale": 2,
        "window": 1,
        "description": "to come",
        "file": "planned-x2.safetensors",
        "sha256": sha256,
        "licence": "Apache-2.0",
        "trained_on": "two pictures",
    }
    assert text.index("[first-x2]") < text.index("[planned-x2]") < text.index("# ---- planned ----")
    assert checkpoints.load("planned-x2").path == checkout / "checkpoints" / "planned-x2.safetensors"


def test_a_new_checkpoint_gets_an_entry(checkout):
    sha256 = ship(checkout, "sa_upscale/bundled/fresh-lv-x2.safetensors")
    entry = checkpoints.entries()["fresh-lv-x2"]
    assert (entry.family, entry.description, entry.bundled, entry.sha256, entry.usable) == (
        "fresh-lv",
        "A tiny one.",
        "fresh-lv-x2.safetensors",
        sha256,
        True,
    )
    assert list(checkpoints.entries()) == ["first-x2", "fresh-lv-x2", "planned-x2"]


def test_a_file_where_nobody_looks_is_not_registered(checkout):
    with pytest.raises(UpscaleError, match="nobody would look for it there"):
        ship(checkout, "checkpoints/wip/first-x2.safetensors")
    assert (checkout / "weights.toml").read_text() == REGISTRY


def test_the_command(tmp_path):
    """Into a folder of no checkout: the file is written, and one line says why it is not registered."""
    run = train(tmp_path, seed=0)
    target = tmp_path / "out.safetensors"
    facts = [part for key, value in FACTS.items() for part in (f"--{key.replace('_', '-')}", value)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "bundle.py"), str(run), str(target), *facts, "--register"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "SA_UPSCALE_WEIGHTS": str(tmp_path)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.strip() == checkpoints.sha256_of(target)
    assert done.stderr.startswith(f"{target} is in neither ")
