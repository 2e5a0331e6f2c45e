"""What a machine is fastest with: measured, remembered, forgotten."""

import json
import time

import pytest
import torch

from sa_upscale import folders
from sa_upscale.engine import Engine, calibration
from sa_upscale.engine.calibration import Choice
from sa_upscale.models.compact import Compact

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_measuring_ends_in_time_and_is_remembered(monkeypatch):
    monkeypatch.setattr(calibration, "SECONDS", 1.0)
    monkeypatch.setattr(calibration, "TILES", (16, 32))
    monkeypatch.setattr(calibration, "DEFAULT_TILE", {"cpu": 32})
    monkeypatch.setattr(calibration, "_busy", lambda choice: False)
    assert calibration.known(CPU) is None
    started = time.perf_counter()
    choice = calibration.calibrate(CPU)
    assert time.perf_counter() - started < 20  # a slow machine finishes what it began; it does not go on for long
    assert choice.tile in (16, 32)
    assert calibration.known(CPU) == choice
    calibration.forget()
    assert calibration.known(CPU) is None


def test_only_what_is_clearly_faster_replaces_the_default(monkeypatch):
    seconds = {"default": 0.010, "hardly": 0.0095, "clearly": 0.005}
    options = [Choice("fp32", 100, 1, False), Choice("fp32", 101, 1, False), Choice("fp32", 102, 1, False)]
    names = dict(zip(options, seconds, strict=True))
    monkeypatch.setattr(calibration, "_work", lambda option: lambda: time.sleep(seconds[names[option]]))
    assert calibration._fastest(options[:2], 1.3, time.perf_counter() + 0.1) == options[0]
    assert calibration._fastest(options, 1.3, time.perf_counter() + 0.1) == options[2]


def test_what_there_is_no_time_to_measure_stays_as_it_was(monkeypatch):
    options = [Choice("fp32", 100, 1, False), Choice("fp32", 100, 1, True)]
    monkeypatch.setattr(calibration, "_work", lambda option: lambda: time.sleep(0.001))
    monkeypatch.setattr(calibration, "SECONDS", 0.0)
    long_ago = time.perf_counter() - 1
    assert calibration._fastest(options, 1.3, long_ago) == options[0]
    assert calibration._fastest(options, 1.3, long_ago, unmeasured=options[1]) == options[1]


def test_the_engine_takes_what_was_measured_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(calibration, "_measured", lambda device: Choice("fp32", 96, 1, False))
    network = Compact(features=4, convs=1)
    network.banded = False
    usual = Engine(network, device="cpu")
    calibration.calibrate(CPU)
    engine = Engine(network, device="cpu")
    assert (engine.precision, engine._default_tile, torch.get_num_threads()) == ("fp32", 96, 1)
    assert usual._default_tile == 256
    # In bands of rows a network's maps stay in the caches whatever the tile is.
    assert Engine(Compact(features=4, convs=1), device="cpu")._default_tile == 2048
    assert Engine(Compact(features=4, convs=1), device="cpu", precision="bf16").precision == "bf16"
    # A video begun with other tiles is another one.
    assert engine.fingerprint != Engine(Compact(features=4, convs=1), device="cpu", tile=32).fingerprint


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', None])
def test_a_damaged_memory_is_none(text, monkeypatch):
    monkeypatch.setattr(calibration, "_measured", lambda device: Choice("fp32", 48, 1, False))
    calibration.calibrate(CPU)
    file = folders.cache() / "calibration.json"
    if text is None:
        kept = json.loads(file.read_text())
        text = json.dumps({machine: choice | {"precision": "int3"} for machine, choice in kept.items()})
    file.write_text(text)
    assert calibration.known(CPU) is None


def test_another_torch_measures_again(monkeypatch):
    monkeypatch.setattr(calibration, "_measured", lambda device: Choice("fp32", 48, 1, False))
    calibration.calibrate(CPU)
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert calibration.known(CPU) is None


def test_a_folder_that_cannot_be_written_only_means_measuring_again(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / "file"))
    monkeypatch.setattr(calibration, "_measured", lambda device: Choice("fp32", 48, 1, False))
    assert calibration.calibrate(CPU) == Choice("fp32", 48, 1, False)
    assert calibration.known(CPU) is None


class Clock:
    """Stands for `time`: each run of the work takes a tenth of a second, of which this process has a `share`."""

    def __init__(self, share):
        self.share, self.now = share, 0.0

    def run(self):
        self.now += 0.1

    def perf_counter(self):
        return self.now

    def process_time(self):
        return self.now * self.share


@pytest.mark.parametrize(
    ("share", "threads", "busy"), [(2.0, 2, False), (1.8, 2, False), (1.3, 2, True), (1.0, 2, True), (1.0, 1, False)]
)
def test_a_machine_is_busy_where_the_threads_do_not_get_their_time(monkeypatch, share, threads, busy):
    clock, used = Clock(share), []
    monkeypatch.setattr(calibration, "time", clock)
    monkeypatch.setattr(
        calibration, "_work", lambda choice: lambda: used.append(torch.get_num_threads()) or clock.run()
    )
    before = torch.get_num_threads()
    assert calibration._busy(Choice("fp32", 48, threads, False)) == busy
    assert set(used) == {threads}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("busy", [[True], [False, True]])
def test_what_a_busy_machine_gives_is_not_remembered(monkeypatch, busy):
    answers, notices = iter(busy), []
    monkeypatch.setattr(calibration, "_busy", lambda choice: next(answers))
    monkeypatch.setattr(calibration, "_best", lambda choice, device: Choice("fp32", 48, 1, False))
    calibration.settle("cpu", notices.append)
    assert calibration.known(CPU) is None
    assert notices[1].startswith("other programs keep the processors busy")
    monkeypatch.setattr(calibration, "_busy", lambda choice: False)
    calibration.settle("cpu", notices.append)
    assert calibration.known(CPU) == Choice("fp32", 48, 1, False)
    assert len(notices) == 3


def test_no_more_threads_than_a_containers_share(monkeypatch):
    torch.set_num_threads(4)
    monkeypatch.setattr(calibration.processors, "share_of_group", lambda: 2.5)
    Engine(Compact(features=4, convs=1), device="cpu")
    assert torch.get_num_threads() == 3
    monkeypatch.setattr(calibration.processors, "share_of_group", lambda: 8.0)
    assert calibration.default(CPU).threads == 3  # as the user or a lane has it


def test_a_long_job_measures_once(monkeypatch):
    measured, notices = [], []
    monkeypatch.setattr(
        calibration, "_measured", lambda device: measured.append(device) or Choice("fp32", 48, 1, False)
    )
    for _ in range(2):
        calibration.settle("cpu", notices.append)
    assert measured == [CPU]
    assert len(notices) == 1
    assert "doctor" in notices[0]
