"""Exported networks: run by the other runtime at sizes they were not exported at."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from sa_upscale import checkpoints, export, models
from sa_upscale.cli import app
from sa_upscale.errors import UpscaleError


def save(file, architecture, **parameters):
    torch.manual_seed(0)
    weights = models.build(architecture, **parameters).state_dict()
    checkpoints.save(file, weights, architecture=architecture, parameters=parameters, metadata={"recipe": "none"})
    return file


@pytest.fixture
def compact(tmp_path):
    return save(tmp_path / "net.safetensors", "compact", scale=2, features=4, convs=1)


def test_torchscript_runs_any_size_and_carries_its_facts(tmp_path, compact):
    done = export.export(compact, tmp_path / "net.pt", "torchscript")
    assert (done.scale, done.takes, done.enlarged) == (2, "(N, 3, height, width)", False)
    assert done.difference <= 1e-6
    facts = {"sa-upscale.json": ""}
    loaded = torch.jit.load(tmp_path / "net.pt", _extra_files=facts)
    lr = torch.rand(3, 3, 9, 5)
    expected = checkpoints.load(compact).model(lr).clamp(0, 1)
    torch.testing.assert_close(loaded(lr), expected)
    assert expected.shape == (3, 3, 18, 10)
    told = json.loads(facts["sa-upscale.json"])
    assert (told["checkpoint"], told["architecture"], told["recipe"]) == ("net", "compact", "none")


def test_networks_that_prepare_frames_take_them_enlarged(tmp_path):
    file = save(tmp_path / "video.safetensors", "vsrresnet", features=4, blocks=1)
    done = export.export(file, tmp_path / "video.pt", "torchscript")
    assert (done.takes, done.enlarged) == ("(N, 5, 3, height, width)", True)
    frames = torch.rand(1, 5, 3, 8, 6)
    model = checkpoints.load(file).model
    prepared = model.prepare(frames[0])[None]
    torch.testing.assert_close(torch.jit.load(tmp_path / "video.pt")(prepared), model(frames).clamp(0, 1))


def test_networks_that_fold_pixels_get_sizes_they_can_take(tmp_path):
    file = save(tmp_path / "fold.safetensors", "rrdbnet", scale=2, blocks=1, features=4, growth=2)
    export.export(file, tmp_path / "fold.pt", "torchscript")
    assert torch.jit.load(tmp_path / "fold.pt")(torch.rand(1, 3, 10, 6)).shape == (1, 3, 20, 12)


def test_onnx_runs_any_size(tmp_path, compact):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    assert export.export(compact, tmp_path / "net.onnx", "onnx").difference <= 1e-3
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    lr = torch.rand(3, 3, 9, 5)
    expected = checkpoints.load(compact).model(lr).clamp(0, 1).detach().numpy()
    np.testing.assert_allclose(session.run(None, {"lr": lr.numpy()})[0], expected, atol=1e-3)
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_modelmeta().custom_metadata_map["checkpoint"] == "net"


class Simple(nn.Module):
    scale, window, multiple, channels = 1, 1, 1, 3

    def forward(self, x):
        return x


def failing(lr):
    raise RuntimeError("sizes do not match")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda lr: lr + 0.01, "as torchscript differs from the network by 0.01"),
        (lambda lr: lr * float("nan"), "differs from the network by nan"),
        (failing, "keeps the size it was exported with"),
        (lambda lr: lr[..., :12], "keeps the size it was exported with"),
    ],
)
def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch, compact, run, message):
    loaded = checkpoints.load(compact)
    loaded.model = Simple()
    monkeypatch.setattr(checkpoints, "load", lambda name: loaded)
    monkeypatch.setattr(export, "_torchscript", lambda network, facts: (b"content", run))
    with pytest.raises(UpscaleError, match=message):
        export.export(compact, tmp_path / "net.pt", "torchscript")
    assert not (tmp_path / "net.pt").exists()


def test_onnx_without_its_libraries_names_the_extra(tmp_path, compact):
    with pytest.raises(UpscaleError, match=r"no_such_library, which is not here; pip install 'sa-upscale\[onnx\]'"):
        export._require("json", "no_such_library")


def test_the_command_says_what_the_file_takes(tmp_path, compact, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", str(compact), "--format", "torchscript"])
    assert done.exit_code == 0, done.output
    assert "net.pt: compact x2, differs from the network by at most" in done.output
    assert "lr  (N, 3, height, width), RGB, float32 in [0, 1]" in done.output
    done = CliRunner().invoke(app, ["export", str(compact), "--format", "onxx"])
    assert "did you mean onnx?" in str(done.exception)
