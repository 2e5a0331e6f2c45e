"""Checkpoints published to a Hub on loopback: what is sent, what is refused, and what weights.toml keeps of it."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image

from sa_upscale import checkpoints, models, publish
from sa_upscale.errors import UpscaleError
from tests.conftest import ROOT
from tests.hub_writable import WritableHub

COMPACT = {"scale": 2, "features": 4, "convs": 1}
MOVING = {"scale": 4, "blocks": 1, "features": 4}
STAGE = {
    "name": "sa-canny",
    "data": {"folders": ["part-1", "part-5", "mine"], "degradation": "second-order", "batch": 12, "patch": 128},
    "train": {"steps": 900, "rate": 1e-4, "schedule": "steps", "seed": 3, "vgg_weights": "vgg19.safetensors"},
    "discriminator": {"name": "esrgan"},
    "losses": [{"name": "l1", "weight": 0.5}, {"name": "perceptual", "weight": 1.0, "layers": {"conv1_2": 0.1}}],
}
RECIPE = {"model": {"name": "compact", "start": "small-fidelity"}, "stages": [STAGE], "description": ""}
OLD_RECIPE = {"model": {"name": "vsrresnet", "start": None}, "description": ""} | {
    "data": {"folders": ["video"], "batch": 8, "patch": 48},
    "train": {"steps": 600, "rate": 3e-4, "schedule": "cosine", "seed": 2},
    "losses": [{"name": "charbonnier", "weight": 1.0}],
}
FACTS = {
    "objective": "sa-canny",
    "steps": "800",
    "hours": "1.25",
    "hardware": "2 CPU cores",
    "command": "sa-upscale train --config small-x2",
    "found": '{"sa-canny": {"beta2": 0.125}, "perceptual": {"layers": {"conv1_2": 0.1}}}',
}
REGISTRY = """\
# The head of the file.

[small-x2]
family = "small"
architecture = "compact"
scale = 2
window = 1
description = "tiny"
bundled = "small-x2.safetensors"
sha256 = "{small}"  # of the whole file
licence = "Apache-2.0"
trained_on = "two pictures"

# ---- large ----

[moving-x4]
family = "moving"
architecture = "vsrresnet"
scale = 4
window = 5
description = "five frames"
file = "moving-x4.safetensors"
sha256 = "{moving}"
licence = "Apache-2.0"
trained_on = "one clip"

[other-x4]
family = "other"
architecture = "compact"
scale = 4
window = 1
description = "somebody else's"
repo = "somebody/upscalers"
file = "other.pth"
sha256 = "{other}"
licence = "BSD-3-Clause"

[planned-x4]
family = "planned"
architecture = "compact"
scale = 4
window = 1
description = "to come"
licence = "Apache-2.0"
published = false
"""


def save(file: Path, architecture: str, parameters: dict, recipe: dict, seed: int = 0, **facts: str) -> str:
    torch.manual_seed(seed)
    state = models.build(architecture, **parameters).state_dict()
    metadata = {"recipe": json.dumps(recipe)} | facts
    return checkpoints.save(file, state, architecture=architecture, parameters=parameters, metadata=metadata)


def build_checkout(root: Path) -> Path:
    """A bundled network for pictures, one for video in checkpoints/, somebody else's file, and a photo."""
    for folder in ("sa_upscale/bundled", "checkpoints", "examples"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    other = root / "checkpoints" / "other.pth"
    other.write_bytes(b"not ours")
    registry = REGISTRY.format(
        small=save(root / "sa_upscale" / "bundled" / "small-x2.safetensors", "compact", COMPACT, RECIPE, **FACTS),
        moving=save(root / "checkpoints" / "moving-x4.safetensors", "vsrresnet", MOVING, OLD_RECIPE),
        other=hashlib.sha256(other.read_bytes()).hexdigest(),
    )
    (root / "weights.toml").write_text(registry)
    shutil.copy(ROOT / "examples" / "dragonfly.jpg", root / "examples")
    return root


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    root = build_checkout(tmp_path / "checkout")
    monkeypatch.setattr(checkpoints.registry, "PACKAGE", root / "sa_upscale")
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(tmp_path / "user"))
    return root


def registry(root: Path) -> str:
    return (root / "weights.toml").read_text()


@pytest.fixture
def hub(monkeypatch):
    with WritableHub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", running.token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# ---- what is sent ----------------------------------------------------------------------------------------------------


def test_everything_of_ours_is_published_and_written_down(checkout, hub):
    before, notices, seen = registry(checkout), [], []
    plans = publish.plan([], "me", notices.append)
    assert notices == ["other-x4 was not trained here and is left out"]
    results = publish.push(plans, on_progress=lambda *counts: seen.append(counts))
    assert [(each.name, each.repo) for each in results] == [
        ("small-x2", "me/sa-upscale-small-x2"),
        ("moving-x4", "me/sa-upscale-moving-x4"),
    ]
    weights = checkout / "sa_upscale" / "bundled" / "small-x2.safetensors"
    content = hub.content("me/sa-upscale-small-x2")
    assert sorted(content) == ["README.md", "sample.jpg", "small-x2.safetensors"]
    assert content["small-x2.safetensors"] == weights.read_bytes()
    assert content["README.md"].decode() == plans[0].card
    with Image.open(io.BytesIO(content["sample.jpg"])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (2 * 240 + 8, 180))
    assert hub.private == {"me/sa-upscale-small-x2": False, "me/sa-upscale-moving-x4": False}
    small, moving = (each.revision for each in results)
    expected = before.replace(
        'small-x2.safetensors"\nsha256',
        'small-x2.safetensors"\nrepo = "me/sa-upscale-small-x2"\n'
        f'file = "small-x2.safetensors"\nrevision = "{small}"\nsha256',
    ).replace(
        'file = "moving-x4.safetensors"\n',
        f'repo = "me/sa-upscale-moving-x4"\nfile = "moving-x4.safetensors"\nrevision = "{moving}"\n',
    )
    assert registry(checkout) == expected
    assert (small, moving) == (hub.heads["me/sa-upscale-small-x2"], hub.heads["me/sa-upscale-moving-x4"])
    sizes = [plan.info.size for plan in plans]
    assert seen == [(0, sum(sizes), "small-x2"), (sizes[0], sum(sizes), "moving-x4")]


def test_only_what_has_changed_is_sent(checkout, hub):
    publish.push(publish.plan(["small-x2"], "me"))
    first, head = registry(checkout), hub.main
    hub.requests.clear()
    (again,) = publish.push(publish.plan(["small-x2"], "me"))
    assert (again.sent, again.revision) == ((), head)
    assert hub.requests == ["GET /api/models/me/sa-upscale-small-x2?blobs=true"]
    assert registry(checkout) == first

    figures = {"figures": {"Set5 x2": {".": {"psnr-y": 37.123}}}}
    (checkout / "benchmarks").mkdir()
    (checkout / "benchmarks" / "results.json").write_text(
        json.dumps({digest(checkout / "sa_upscale" / "bundled" / "small-x2.safetensors"): figures})
    )
    (card,) = publish.push(publish.plan(["small-x2"], "me"))
    assert card.sent == ("README.md",)
    assert registry(checkout) == first.replace(head, card.revision)

    weights = checkout / "sa_upscale" / "bundled" / "small-x2.safetensors"
    old = digest(weights)
    save(weights, "compact", COMPACT, RECIPE, seed=1)
    (checkout / "weights.toml").write_text(registry(checkout).replace(old, digest(weights)))
    (retrained,) = publish.push(publish.plan(["small-x2"], "me"))
    assert sorted(retrained.sent) == ["README.md", "sample.jpg", "small-x2.safetensors"]
    assert hub.sent == [old, digest(weights)]
    assert [(repo, summary) for repo, summary, _ in hub.commits] == [
        ("me/sa-upscale-small-x2", f"Publish small-x2, sha256 {old[:12]}"),
        ("me/sa-upscale-small-x2", "Publish small-x2: its card"),
        ("me/sa-upscale-small-x2", f"Publish small-x2, sha256 {digest(weights)[:12]}"),
    ]


def test_a_push_that_was_not_written_down_is_made_up_for(checkout, hub):
    before = registry(checkout)
    publish.push(publish.plan(["small-x2"], "me"))
    after = registry(checkout)
    (checkout / "weights.toml").write_text(before)
    (again,) = publish.push(publish.plan(["small-x2"], "me"))
    assert again.sent == ()
    assert registry(checkout) == after


def test_a_prefix_and_a_private_repository(checkout, hub):
    (plan,) = publish.plan(["small-x2"], "me/tiny")
    publish.push([plan], private=True)
    assert hub.private == {"me/tiny-small-x2": True}
    assert [publish.plan(["small-x2"], to)[0].there for to in ("me/tiny", "me", "you/tiny")] == [True, False, False]


def test_what_was_published_before_a_failure_is_written_down(checkout, hub):
    plans = publish.plan([], "me")
    results = []

    def first_then_none(result) -> None:
        results.append(result)
        hub.token = "hf_other"

    with pytest.raises(UpscaleError, match="cannot publish me/sa-upscale-moving-x4: the Hub does not know this token"):
        publish.push(plans, on_result=first_then_none)
    tables = tomllib.loads(registry(checkout))
    assert tables["small-x2"]["revision"] == results[0].revision
    assert "repo" not in tables["moving-x4"]


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal-x2", "no checkpoint of weights.toml is called 'smal-x2'; did you mean small-x2"),
        ("planned-x4", "planned-x4 has no file in this checkout (not published)"),
        ("other-x4", "other-x4 was not trained here: its file names no recipe"),
    ],
)
def test_a_name_that_cannot_be_published_says_why(checkout, name, message):
    with pytest.raises(UpscaleError) as refused:
        publish.plan(["small-x2", name], "me")
    assert str(refused.value).startswith(message)


def test_an_imported_checkpoint_is_the_users_own(checkout, tmp_path):
    save(tmp_path / "mine.safetensors", "compact", COMPACT, RECIPE)
    checkpoints.adopt(tmp_path / "mine.safetensors", "mine")
    assert [plan.name for plan in publish.plan([], "me")] == ["small-x2", "moving-x4"]
    with pytest.raises(UpscaleError, match="'mine'; known: small-x2, moving-x4"):
        publish.plan(["mine"], "me")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('sha256 = "', 'sha256 = "0', "is not the small-x2 of weights.toml (another sha256)"),
        ('licence = "Apache-2.0"\ntrained_on = "two', 'licence = ""\ntrained_on = "two', "small-x2 has no licence"),
        ('trained_on = "two pictures"\n', "", "small-x2 does not say what it was trained on"),
    ],
)
def test_a_checkpoint_that_must_not_be_published_stops_all(checkout, old, new, message):
    (checkout / "weights.toml").write_text(registry(checkout).replace(old, new, 1))
    with pytest.raises(UpscaleError) as refused:
        publish.plan([], "me")
    assert message in str(refused.value)


@pytest.mark.parametrize("to", ["", "me/x/y", "https://hub/me", "../me", "my name"])
def test_a_place_that_is_none_is_refused(checkout, to):
    with pytest.raises(UpscaleError, match="is no place on the Hub"):
        publish.plan([], to)


def test_an_installed_package_publishes_nothing(checkout):
    shutil.move(checkout / "weights.toml", checkout / "sa_upscale" / "weights.toml")
    with pytest.raises(UpscaleError, match="is an installed package; run this from a checkout"):
        publish.plan([], "me")


def test_a_checkout_without_files_says_so(checkout):
    shutil.rmtree(checkout / "checkpoints")
    shutil.rmtree(checkout / "sa_upscale" / "bundled")
    with pytest.raises(UpscaleError, match="no checkpoint trained here has its file"):
        publish.plan([], "me")


def refusal(to: str = "me") -> str:
    with pytest.raises(UpscaleError) as refused:
        publish.push(publish.plan(["small-x2"], to))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_without_a_token_the_two_ways_to_one_are_named(checkout, hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "set HF_TOKEN or run `hf auth login`" in refusal()
    assert hub.requests == []


def test_what_the_hub_says_is_one_line(checkout, hub, monkeypatch):
    before, place = registry(checkout), "cannot publish me/sa-upscale-small-x2: "
    assert refusal("you").startswith("cannot publish you/sa-upscale-small-x2: this token may not write to you; take ")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert refusal() == f"{place}the Hub does not know this token; set another HF_TOKEN or run `hf auth login`"
    hub.status = 503
    assert refusal() == f"{place}the Hub answered 503"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal() == f"{place}HF_HUB_OFFLINE is set"
    assert (registry(checkout), hub.commits, hub.heads) == (before, [], {})


def test_a_hub_out_of_reach_is_one_line(checkout, hub, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    assert refusal().startswith(f"cannot publish me/sa-upscale-small-x2: {nowhere} cannot be reached (")


def test_a_repository_that_changes_meanwhile_is_not_overwritten(checkout, hub, monkeypatch):
    publish.push(publish.plan(["small-x2"], "me"))
    (checkout / "weights.toml").write_text(registry(checkout).replace('description = "tiny"', 'description = "small"'))
    before = registry(checkout)
    answer = hub.take

    def pushed_by_another(request) -> None:
        hub.heads["me/sa-upscale-small-x2"] = "f" * 40
        answer(request)

    monkeypatch.setattr(hub, "take", pushed_by_another)
    assert "has changed meanwhile; run this again" in refusal()
    assert registry(checkout) == before


# ---- the card --------------------------------------------------------------------------------------------------------


def test_the_card_tells_what_is_known(checkout):
    small = digest(checkout / "sa_upscale" / "bundled" / "small-x2.safetensors")
    set5 = {"psnr-y": 37.4012, "ssim-y": 0.9582}
    (checkout / "benchmarks").mkdir()
    (checkout / "benchmarks" / "results.json").write_text(
        json.dumps(
            {
                small: {"parameters": 1, "figures": {"Set5 x2": {".": set5 | {"vgg-percep": 0.05}}}},
                "bicubic": {"parameters": None, "figures": {"Set5 x2": {".": {"psnr-y": 33.68, "ssim-y": 0.9304}}}},
            }
        )
    )
    (plan,) = publish.plan(["small-x2"], "me")
    _, head, body = plan.card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": "apache-2.0",
        "library_name": "sa-upscale",
        "pipeline_tag": "image-to-image",
        "tags": ["super-resolution", "upscaling", "image", "compact"],
    }
    for line in (
        "# small-x2",
        "Tiny.",
        "![Left bicubic, right small-x2](sample.jpg)",
        "hf download me/sa-upscale-small-x2 small-x2.safetensors --local-dir .",
        "sa-upscale image photo.jpg -x 2 --model small-x2.safetensors",
        "| trained on | two pictures |",
        "| starting from | small-fidelity |",
        "| its hours | 1.25 |",
        "| hardware | 2 CPU cores |",
        "sa-upscale train --config small-x2",
        "| stage | sa-canny |",
        '| losses | 0.5 × l1, 1 × perceptual (layers {"conv1_2": 0.1}) |',
        "| discriminator | esrgan |",
        "| LR by | second-order |",
        "| seed | 3 |",
        "| VGG19 | vgg19.safetensors |",
        "| sa-canny | beta2 0.125 |",
        '| perceptual | layers {"conv1_2": 0.1} |',
        "| mine |  |  |",
        "| set |  | psnr-y | ssim-y | vgg-percep |",
        "| Set5 x2 | bicubic | 33.68 | 0.9304 |  |",
        "| Set5 x2 | small-x2 | 37.40 | 0.9582 | 0.0500 |",
    ):
        assert line in body.splitlines()
    assert small in body
    assert "CC-BY (henrah)" in body  # what part-5 is made of
    assert "elementary (CC0" in body  # and part-1
    assert "SA-V" not in body
    assert "invents texture that is likely, not true" in body
    assert "made degradations" in body


def test_the_card_of_a_recipe_as_it_was_written_before_there_were_stages(checkout):
    (plan,) = publish.plan(["moving-x4"], "me")
    lines = plan.card.splitlines()
    assert "sa-upscale video clip.mp4 -x 4 --model moving-x4.safetensors" in lines
    assert "| losses | 1 × charbonnier |" in lines
    assert "| LR by | bicubic |" in lines
    assert any(line.startswith("| video | 22 clips") and "SA-V (CC-BY-4.0)" in line for line in lines)
    assert "nothing is invented" in plan.card
    assert "five frames at a time" in plan.card
    assert "## Measured" not in plan.card


def test_cards_of_the_real_checkpoints_name_every_source():
    for plan in publish.plan([], "me"):
        assert "hf download me/" in plan.card
        sources = plan.card.split("| data | what | licences |")[1].split("\n\n")[0].splitlines()[2:]
        assert sources
        assert all(len(cell) > 4 for line in sources for cell in line.split(" | "))


def test_the_picture_shows_bicubic_and_the_network(checkout):
    from sa_upscale.publish import sample

    file = checkout / "checkpoints" / "moving-x4.safetensors"
    written = sample.before_after(file, checkout / "examples" / "dragonfly.jpg")
    pixels = np.asarray(Image.open(io.BytesIO(written))).astype(float)
    assert pixels.shape == (360, 2 * 480 + 8, 3)
    assert pixels[:, 482:486].min() > 240  # the white between them
    left, top, width, height = sample.BOX
    with Image.open(checkout / "examples" / "dragonfly.jpg") as photo:
        crop = photo.crop((left, top, left + width, top + height))
        expected = np.asarray(crop.resize((480, 360), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(pixels[8:-8, 8:472] - expected[8:-8, 8:-8]).mean() < 2


# ---- the command -----------------------------------------------------------------------------------------------------


def test_from_a_checkout_to_the_hub_to_a_machine_with_nothing(tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(
        ROOT / "sa_upscale", checkout / "sa_upscale", ignore=shutil.ignore_patterns("bundled", "__pycache__")
    )
    build_checkout(checkout)
    with WritableHub() as hub:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SA_UPSCALE"))}
        clean |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "cache")}
        clean |= {
            "SA_UPSCALE_WEIGHTS": str(tmp_path / "user"),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(checkout),
        }

        def run(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, *command],
                env=clean,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
            assert done.stderr in ("", "other-x4 was not trained here and is left out\n")
            return done.stdout

        push = ("-m", "sa_upscale", "models", "push", "--to", "me")
        told = [json.loads(line) for line in run(*push, "--dry-run", "--json").splitlines()]
        assert hub.requests == []
        plans = [line for line in told if line["event"] == "plan"]
        assert [(line["name"], line["repo"], line["there"]) for line in plans] == [
            ("small-x2", "me/sa-upscale-small-x2", False),
            ("moving-x4", "me/sa-upscale-moving-x4", False),
        ]
        assert plans[0]["card"].startswith("---\nlicense:")
        first, second = run(*push).splitlines()
        assert first.startswith("small-x2: me/sa-upscale-small-x2 at ")
        assert first.endswith("  small-x2.safetensors, README.md, sample.jpg")
        assert second.startswith("moving-x4: me/sa-upscale-moving-x4 at ")

        shutil.rmtree(checkout / "sa_upscale" / "bundled")
        shutil.rmtree(checkout / "checkpoints")
        load = "c = checkpoints.load('small-x2'); print(c.path, c.model.scale, c.sha256)"
        path, scale, sha256 = run("-c", f"from sa_upscale import checkpoints; {load}").split()
    assert path.startswith(str(tmp_path / "cache"))
    assert hub.heads["me/sa-upscale-small-x2"] in path
    assert (scale, sha256) == ("2", hub.sent[0])
