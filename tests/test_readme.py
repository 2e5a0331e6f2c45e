"""What the README tells people to type: every command is understood, and those for pictures are run."""

import json
import re
import shlex

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from sa_upscale import checkpoints, cli
from sa_upscale.models.compact import Compact
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")
# Videos, training and measuring take long and have tests of their own, as have the doctor and the extra onnx.
RUN = ("image", "compare", "maps", "models")
# What needs the network, an earlier failure, or several devices.
UNREACHABLE = ("fetch", "--retry", "--devices", "--engine", "s3://bucket/scans")


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text=README):
    lines = [line.split("  #")[0].strip() for block in blocks("bash", text) for line in block.splitlines()]
    return [line for line in lines if line.startswith("sa-upscale ")]


@pytest.mark.parametrize("line", commands() + commands(GUIDE))
def test_every_command_is_understood(line):
    command, arguments = typer.main.get_command(cli.app), shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context(command.name, arguments)


def save(file, height, width):
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where somebody stands who types what the README says, with small pictures of the names in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("in.png", "in.jpg", "photo.png", "photos/one.png"):
        save(tmp_path / name, 36, 40)
    for name in ("original.png", "bicubic.png", "ours/one.png", "theirs/one.png"):
        save(tmp_path / name, 144, 160)
    save(tmp_path / "examples" / "dragonfly.jpg", 60, 60)
    small = Compact(features=4, convs=1)
    torch.save(small.state_dict(), tmp_path / "4x_community.pth")
    about = {"architecture": "compact", "parameters": small.parameters_dict, "metadata": {}}
    checkpoints.save(tmp_path / "my.safetensors", small.state_dict(), **about)
    for name in ("ann", "bob"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"scores": [{"model": "ours", "score": 4}]}))
    return tmp_path


def test_the_commands_for_pictures_run_one_after_the_other(folder):
    lines = [line for line in commands() if line.split()[1] in RUN and not set(UNREACHABLE) & set(line.split())]
    assert len(lines) >= 10
    # Small regions and sizes for a small picture, where the README has large ones.
    for large, small in (("40,60,96,96", "4,6,32,32"), ("--width 3840 --height 2160", "--width 96 --height 54")):
        lines = [line.replace(large, small) for line in lines]
    for line in lines:
        done = CliRunner().invoke(cli.app, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception}"
    assert Image.open("in_x4.png").size == (160, 144)


def test_the_python_block_runs(folder):
    (block,) = blocks("python")
    names = {}
    exec(block, names)
    assert names["large"].shape == (240, 240, 3)
    assert Image.open("dragonfly_x4.jpg").size == (240, 240)


def test_pages_of_the_guide_point_to_what_is_there():
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
