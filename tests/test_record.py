import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa_upscale.errors import UpscaleError
from sa_upscale.record import Record
from tests.conftest import ROOT

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def plain(run):
    return Record(run, tensorboard=False)


def entries(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def places(run):
    """(stage, step) of every line of the log."""
    return [(entry["stage"], entry["step"]) for entry in entries(run)]


def pictures(run):
    return sorted(file.relative_to(run / "pictures").as_posix() for file in (run / "pictures").rglob("*.png"))


def test_scalars_are_a_line_of_json_in_order(run):
    record = plain(run)
    record.scalars("fidelity", 100, {"rate": 1e-4, "l1": np.float32(0.25), "batches": 7})
    record.scalars("fidelity", 200, {"psnr_y": float("nan"), "gan": float("inf")})
    assert (run / "log.jsonl").read_text().splitlines() == [
        '{"stage": "fidelity", "step": 100, "rate": 0.0001, "l1": 0.25, "batches": 7}',
        '{"stage": "fidelity", "step": 200, "psnr_y": null, "gan": null}',
    ]


@pytest.mark.parametrize("key", ["stage", "step"])
def test_a_value_cannot_take_the_place_of_the_stage_or_step(run, key):
    with pytest.raises(ValueError, match=f"{key} cannot name a value"):
        plain(run).scalars("fidelity", 1, {key: 3.0})


def test_pictures_are_png_files_by_stage_step_and_name(run):
    plain(run).pictures("fidelity", 1000, {"1-sr": PIXELS, "1-W sa-canny": 255 - PIXELS})
    assert pictures(run) == ["fidelity/1000/1-W sa-canny.png", "fidelity/1000/1-sr.png"]
    with Image.open(run / "pictures" / "fidelity" / "1000" / "1-sr.png") as kept:
        np.testing.assert_array_equal(np.asarray(kept), PIXELS)


def record_three_stages(run):
    record = plain(run)
    for stage in ("first", "second", "third"):
        record.pictures(stage, 0, {"1-hr": PIXELS})
        for step in (100, 200, 300):
            record.scalars(stage, step, {"l1": step / 1000})
            record.pictures(stage, step, {"1-sr": PIXELS})


def test_cut_forgets_later_steps_and_stages(run):
    record_three_stages(run)
    plain(run).cut("second", 200)
    assert places(run) == [*(("first", step) for step in (100, 200, 300)), ("second", 100), ("second", 200)]
    assert pictures(run) == [
        "first/0/1-hr.png",
        *(f"first/{step}/1-sr.png" for step in (100, 200, 300)),
        "second/0/1-hr.png",
        "second/100/1-sr.png",
        "second/200/1-sr.png",
    ]


def test_cut_to_the_beginning_of_a_stage_keeps_the_stages_before_it(run):
    record_three_stages(run)
    plain(run).cut("second", 0)
    assert places(run) == [("first", 100), ("first", 200), ("first", 300)]
    assert pictures(run)[-1] == "second/0/1-hr.png"


def test_cut_forgets_pictures_of_a_stage_that_had_not_logged(run):
    record = plain(run)
    record.scalars("first", 100, {"l1": 0.1})
    record.pictures("second", 0, {"1-hr": PIXELS})
    plain(run).cut("first", 100)
    assert places(run) == [("first", 100)]
    assert pictures(run) == []


def test_cut_in_a_stage_that_the_log_does_not_know_keeps_all(run):
    record = plain(run)
    record.scalars("first", 100, {"l1": 0.1})
    record.pictures("second", 0, {"1-hr": PIXELS})
    plain(run).cut("second", 0)
    assert places(run) == [("first", 100)]
    assert pictures(run) == ["second/0/1-hr.png"]


@pytest.mark.parametrize(
    "half",
    [
        b'{"stage": "fidelity", "step": 200, "l1": 0.0',
        b'{"stage": "fidelity", "step": 200, "l\xc3',
        b"2",
        b'{"step": 200}',
    ],
    ids=["number", "character", "no table", "no stage"],
)
def test_cut_drops_a_half_written_line_and_the_next_begins_its_own(run, half):
    record = plain(run)
    record.scalars("fidelity", 100, {"l1": 0.1})
    with (run / "log.jsonl").open("ab") as log:
        log.write(half)
    record = plain(run)
    record.cut("fidelity", 1000)
    record.scalars("fidelity", 200, {"l1": 0.2})
    assert [entry["l1"] for entry in entries(run)] == [0.1, 0.2]


def test_cut_of_a_new_run_does_nothing(run):
    plain(run).cut("fidelity", 0)
    assert list(run.iterdir()) == []


def test_a_killed_process_loses_nothing_that_was_recorded(run):
    script = f"""
import os, signal
from pathlib import Path
from sa_upscale.record import Record
record = Record(Path({str(run)!r}), tensorboard=False)
for step in range(50):
    record.scalars("fidelity", step, {{"l1": step / 50}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert places(run) == [("fidelity", step) for step in range(50)]


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".hidden", "dots.", "100% ä"])
def test_no_name_leaves_the_run(run, name):
    record = plain(run)
    record.pictures(name, 5, {name: PIXELS})
    record.scalars(name, 5, {"l1": 1.0})
    record.cut(name, 5)
    (file,) = run.rglob("*.png")
    stage, step, _ = file.relative_to(run / "pictures").parts
    assert step == "5"
    assert not stage.startswith(".")
    assert not stage.endswith(".")
    assert {entry.name for entry in run.parent.iterdir()} == {"run"}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UpscaleError, match=r"run: the run cannot be recorded .*--resume"):
        plain(tmp_path / "run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(run):
    record = plain(run)
    (run / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(UpscaleError, match="No space left on device"):
        record.scalars("fidelity", 1, {"l1": 1.0})


def test_without_tensorboard_one_notice_is_given_and_the_log_goes_on(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    notices = []
    record = Record(run, on_notice=notices.append)
    record.scalars("fidelity", 100, {"l1": 0.1})
    record.scalars("fidelity", 200, {"l1": 0.2})
    record.pictures("fidelity", 200, {"1-sr": PIXELS})
    record.close()
    (notice,) = notices
    assert "sa-upscale[tensorboard]" in notice
    assert places(run) == [("fidelity", 100), ("fidelity", 200)]
    assert pictures(run) == ["fidelity/200/1-sr.png"]
    assert not (run / "tensorboard").exists()


def events(run, stage):
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the tensorboard package"
    )
    return accumulators.EventAccumulator(str(run / "tensorboard" / stage)).Reload()


def test_tensorboard_reads_scalars_and_pictures_by_stage(run):
    pytest.importorskip("tensorboard", reason="needs the tensorboard package")
    notices = []
    record = Record(run, on_notice=notices.append)
    record.scalars("fidelity", 100, {"l1": 0.25, "psnr_y": 28.5})
    record.scalars("adversarial", 50, {"gan": 2.0})
    record.pictures("fidelity", 100, {"1-sr": PIXELS})
    record.close()
    fidelity, adversarial = events(run, "fidelity"), events(run, "adversarial")
    assert [(event.step, event.value) for event in fidelity.Scalars("l1")] == [(100, 0.25)]
    assert [(event.step, event.value) for event in fidelity.Scalars("psnr_y")] == [(100, 28.5)]
    assert adversarial.Tags()["scalars"] == ["gan"]
    (picture,) = fidelity.Images("1-sr")
    assert (picture.step, picture.height, picture.width) == (100, 2, 3)
    assert notices == []


def test_tensorboard_forgets_what_was_cut(run):
    pytest.importorskip("tensorboard", reason="needs the tensorboard package")
    record = Record(run)
    for step in (100, 200, 300):
        record.scalars("fidelity", step, {"l1": step / 100})
    record.scalars("adversarial", 100, {"gan": 1.0})  # not closed: the process was killed
    record = Record(run)
    record.cut("fidelity", 200)
    record.scalars("fidelity", 300, {"l1": 30.0})
    record.close()
    assert [(event.step, event.value) for event in events(run, "fidelity").Scalars("l1")] == [
        (100, 1.0),
        (200, 2.0),
        (300, 30.0),
    ]
    assert not (run / "tensorboard" / "adversarial").exists()
