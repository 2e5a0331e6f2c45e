"""What the doctor finds on this machine, and on ones that are ill."""

import json
import sys
import time
import urllib.error
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from sa_upscale import checkpoints, doctor
from sa_upscale.cli import app
from sa_upscale.engine import calibration


def by_name(findings):
    return {(found.topic, found.name): found for found in findings}


@pytest.fixture(scope="module", autouse=True)
def own_memory(tmp_path_factory):
    """What is measured here is not for the tests of other rooms."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
            patch.setenv(variable, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def healthy():
    return by_name(doctor.examine(offline=True))


def test_a_healthy_machine_is_told_in_full(healthy):
    assert {topic for topic, _ in healthy} == {"software", "devices", "video", "folders", "checkpoints"}
    assert healthy["software", "torch"].value
    assert "libx264" in healthy["video", "encoders"].value
    assert healthy["checkpoints", "compact-x4"].state == "ok"
    assert not any(found.cure for found in healthy.values() if found.state != "bad")


def test_every_precision_has_a_measured_speed(healthy):
    speeds = {name: found.value for (topic, name), found in healthy.items() if topic == "devices" and " " in name}
    assert speeds.pop("cpu runs with").endswith(("measured now", calibration.BUSY))
    assert {"cpu fp32", "cpu bf16"} <= set(speeds)
    for value in speeds.values():
        assert value.startswith("not measured") or float(value.split(" megapixels")[0]) > 0


@pytest.mark.parametrize("busy", [True, False])
def test_what_a_device_runs_with_is_measured_in_quiet(monkeypatch, tmp_path, busy):
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(doctor, "MEASURING_SECONDS", 0)
    monkeypatch.setattr(calibration, "_busy", lambda choice: busy)
    monkeypatch.setattr(calibration, "_best", lambda choice, device: replace(choice, tile=123))
    seen = []
    for _ in range(2):
        found = next(found for found in doctor._devices(torch, reset=False) if found.name == "cpu runs with")
        seen.append((found.state, found.value.rpartition(", ")[2], "123" in found.value))
    usual = ("note", f"as usual: {calibration.BUSY}", False)
    assert seen == ([usual, usual] if busy else [("ok", "measured now", True), ("ok", "measured earlier", True)])


def test_speed_counts_pixels_of_the_result():
    def run(picture):
        time.sleep(0.02)

    speed = doctor._speed(SimpleNamespace(run=run, scale=4), time.perf_counter() + 10)
    assert 0 < speed <= (96 * 4) ** 2 / 1e6 / 0.02
    assert doctor._speed(SimpleNamespace(run=run, scale=4), time.perf_counter() - 1) is None


def test_a_corrupt_checkpoint_is_bad_and_has_a_cure(monkeypatch, tmp_path):
    verdicts = [checkpoints.Verdict("compact-x4", "corrupt", tmp_path), checkpoints.Verdict("far-x4", "absent")]
    monkeypatch.setattr(checkpoints, "verify", lambda: verdicts)
    bad, absent = doctor._checkpoints()
    assert (bad.name, bad.state) == ("compact-x4", "bad")
    assert bad.cure.endswith("sa-upscale models fetch compact-x4")
    assert absent.value.startswith("1;")


def test_a_damaged_registry_does_not_end_the_visit(monkeypatch, tmp_path):
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(tmp_path))
    (tmp_path / "weights.toml").write_text("[broken")
    (found,) = doctor._spared("checkpoints", doctor._checkpoints())
    assert "weights.toml cannot be read" in found.value
    assert (found.state, found.cure) == ("bad", "mend it or move it away")


def test_a_torchvision_for_another_torch_is_found(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    found = doctor._torchvision(SimpleNamespace(__version__="2.13.0+cpu"))
    assert (found.state, "2.13.0+cpu: operator torchvision::nms" in found.value) == ("bad", True)
    assert "from the same place" in found.cure


def test_a_card_that_torch_cannot_use_is_found(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    torch = SimpleNamespace(__version__="2.13.0+cpu", version=SimpleNamespace(cuda=None, hip=None))
    assert "install the CUDA build" in doctor._blind_torch(torch).cure
    torch.version.cuda = "13.0"
    assert doctor._blind_torch(torch) is None


def test_a_torch_that_does_not_load_ends_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = doctor._torch()
    assert (found.name, found.state) == ("torch", "bad")


def test_two_opencvs_are_found(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "5" if name.startswith("opencv-python") else None)
    (found,) = doctor._opencv()
    assert found.value == "opencv-python and opencv-python-headless overwrite each other"


def test_a_named_folder_that_is_not_there_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("SA_UPSCALE_WEIGHTS", str(tmp_path / "none"))
    found = by_name(doctor._folders())
    assert found["folders", "SA_UPSCALE_WEIGHTS"].state == "bad"
    assert found["folders", "weights"].value.endswith("not there yet")


def test_sizes_count_what_is_linked_once(tmp_path):
    (tmp_path / "blob").write_bytes(b"x" * 1000)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "link").symlink_to(tmp_path / "blob")
    assert doctor._size(tmp_path) == 1000


@pytest.mark.parametrize(
    ("error", "told", "state"),
    [
        (None, "answers after", "ok"),
        (urllib.error.HTTPError("", 503, "", {}, None), "answers with 503", "note"),
        (urllib.error.URLError("no route"), r"cannot be reached (no route)", "note"),
        (TimeoutError("timed out"), r"cannot be reached (timed out)", "note"),
    ],
)
def test_the_network_is_asked_once_and_briefly(monkeypatch, error, told, state):
    from huggingface_hub import constants

    def open_url(request, timeout):
        assert (request.method, timeout <= 3) == ("HEAD", True)
        if error:
            raise error
        return open(__file__)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    found = doctor._network(open_url)
    assert (told in found.value, found.state) == (True, state)


def test_the_command_tells_lines_and_fails_when_something_is_bad(monkeypatch):
    findings = [doctor.Finding("software", "torch", "2"), doctor.Finding("devices", "x", "broken", "bad", "mend it")]
    monkeypatch.setattr(doctor, "examine", lambda offline, reset: iter(findings))
    done = CliRunner().invoke(app, ["doctor", "--offline"])
    assert done.exit_code == 1
    assert done.output.split() == ["software", "torch", "2", "devices", "!", "x", "broken", "->", "mend", "it"]
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert [json.loads(line)["state"] for line in done.output.splitlines()] == ["ok", "bad"]
