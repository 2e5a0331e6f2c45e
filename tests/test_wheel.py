"""The wheel: all that is needed at run time is in it, and nothing else."""

import hashlib
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from sa_upscale import checkpoints
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    builders = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling to build the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    (file,) = builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_what_is_needed_is_in_it(wheel):
    package = wheel / "sa_upscale"
    for file in (
        "weights.toml",
        "py.typed",
        "report/page.css",
        "report/comparison.js",
        "recipes/compact-x4.toml",
        "upscale/inspector.safetensors",
    ):
        assert (package / file).is_file(), file
    for entry in checkpoints.entries().values():
        if entry.bundled and entry.usable:
            content = (package / "bundled" / entry.bundled).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry.sha256
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    assert "Provides-Extra: onnx" in metadata.read_text(encoding="utf-8")
    assert list(wheel.glob("*.dist-info/licenses/LICENSE"))


def test_nothing_else_is_in_it(wheel):
    assert {path.name.partition("-")[0] for path in wheel.iterdir()} == {"sa_upscale"}
    suffixes = {path.suffix for path in (wheel / "sa_upscale").rglob("*") if path.is_file()}
    assert suffixes <= {".py", ".typed", ".toml", ".css", ".js", ".safetensors"}


def test_what_was_unpacked_upscales_a_picture_offline(wheel, tmp_path):
    Image.fromarray(np.full((8, 9, 3), 120, np.uint8)).save(tmp_path / "in.png")
    environment = os.environ | {"PYTHONPATH": str(wheel), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sa_upscale", "image", "in.png", "-x", "2"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert Image.open(tmp_path / "in_x2.png").size == (18, 16)
