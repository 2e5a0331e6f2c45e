"""Checkpoints of the user's own, by a name."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sa_upscale import checkpoints
from sa_upscale.cli import app
from sa_upscale.errors import UpscaleError
from sa_upscale.models.compact import Compact


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def file(tmp_path):
    """As the public has them: bare weights in a pickle, wrapped."""
    torch.manual_seed(0)
    torch.save({"params_ema": Compact(scale=2, features=4, convs=1).state_dict()}, tmp_path / 'Net "v1".PTH')
    return tmp_path / 'Net "v1".PTH'


def test_an_imported_file_is_a_checkpoint_by_its_name(folder, file):
    entry = checkpoints.adopt(file, "my-net", licence="MIT")
    assert (entry.architecture, entry.scale, entry.window, entry.kind) == ("compact", 2, 1, "image")
    assert entry.description == 'imported from Net "v1".PTH'
    assert (folder / "my-net.pth").read_bytes() == file.read_bytes()
    file.unlink()
    loaded = checkpoints.load("my-net")
    assert (loaded.name, loaded.metadata["licence"], loaded.sha256) == ("my-net", "MIT", entry.sha256)
    (row,) = [row for row in checkpoints.listing() if row.entry.name == "my-net"]
    assert row.where == "local"


def test_a_file_below_the_home_folder_is_found(folder, file, monkeypatch):
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.setenv("USERPROFILE", str(file.parent))
    checkpoints.adopt(Path("~") / file.name, "my-net")
    assert (folder / "my-net.pth").read_bytes() == file.read_bytes()


def test_several_can_be_imported_and_come_after_ours(folder, file):
    ours = list(checkpoints.entries())
    checkpoints.adopt(file, "second.net")
    checkpoints.adopt(file, "a-net")
    assert list(checkpoints.entries()) == [*ours, "second.net", "a-net"]


@pytest.mark.parametrize("name", ["compact-x4", "compact", "my-net"])
def test_a_name_that_is_taken_is_refused(folder, file, name):
    checkpoints.adopt(file, "my-net")
    with pytest.raises(UpscaleError, match="is the name of another checkpoint"):
        checkpoints.adopt(file, name)


@pytest.mark.parametrize("name", ["", "../x", "My-Net", "a b", "-a"])
def test_a_name_that_is_no_name_is_refused(folder, file, name):
    with pytest.raises(UpscaleError, match="cannot be a name"):
        checkpoints.adopt(file, name)
    assert not folder.exists()


def test_what_is_no_network_is_not_imported(folder, tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UpscaleError, match="not a checkpoint file"):
        checkpoints.adopt(tmp_path / "text.pth", "my-net")
    with pytest.raises(UpscaleError, match="there is no checkpoint file"):
        checkpoints.adopt(tmp_path / "none.pth", "my-net")
    assert not folder.exists()


def test_a_changed_file_is_not_used(folder, file):
    checkpoints.adopt(file, "my-net")
    (folder / "my-net.pth").write_bytes(file.read_bytes() + b"0")
    with pytest.raises(UpscaleError, match="corrupt"):
        checkpoints.load("my-net")


@pytest.mark.parametrize("text", ["[broken", "[x]\nnovel = 1\n"])
def test_a_damaged_registry_is_named(folder, text):
    folder.mkdir()
    (folder / "weights.toml").write_text(text)
    with pytest.raises(UpscaleError, match=r"weights\.toml cannot be read"):
        checkpoints.entries()


def test_no_registry_of_the_user_can_replace_ours(folder, file):
    checkpoints.adopt(file, "my-net")
    registry = folder / "weights.toml"
    registry.write_text(registry.read_text().replace("my-net", "compact-x4"))
    assert checkpoints.entries()["compact-x4"].bundled


def test_the_command_imports_and_says_how_to_use_it(folder, file):
    done = CliRunner().invoke(app, ["models", "import", str(file), "--name", "my-net", "--json"])
    told = json.loads(done.output)
    assert (told["name"], told["architecture"], told["scale"]) == ("my-net", "compact", 2)
    done = CliRunner().invoke(app, ["models", "import", str(file), "--name", "other"])
    assert "Try: sa-upscale image INPUT --model other" in done.output
