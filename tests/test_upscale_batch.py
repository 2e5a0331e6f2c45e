"""Many pictures: what overlaps, what a report tells, what a retry does, what an interruption leaves."""

import json
import math
import os
import threading
import time

import numpy as np
import pytest
import torch

from sa_upscale import images, processors
from sa_upscale.engine import Engine
from sa_upscale.errors import UpscaleError
from sa_upscale.models.compact import Compact
from sa_upscale.upscale import Output, Size, Upscaler, batch, forecast, plan_jobs, report, run_jobs, work
from tests.test_upscale import Nearest, Ready, four_times, noise, save


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c", "d"):
        save(tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


@pytest.fixture(params=[1, 3], ids=["in turn", "side by side"])
def either_way(request, monkeypatch):
    monkeypatch.setattr(Nearest, "lanes", lambda self, size: request.param)


def jobs_of(folder, **options):
    return plan_jobs([folder], folder.parent / "out", size=Size(4), **options)


def test_the_next_is_opened_and_the_last_written_while_one_is_at_work(folder, monkeypatch):
    """Reading and writing wait for an event that only the network at work on another picture sets."""
    at_work, order = threading.Event(), []

    class Watched(Nearest):
        def enlarge(self, image):
            order.append(f"network {len(self.seen)}")
            at_work.set()
            time.sleep(0.05)
            return super().enlarge(image)

    opened, wrote = work.prepare, images.write

    def prepare(source, *rest, **options):
        if source.name != "a.png":
            assert at_work.wait(5)
        order.append(f"open {source.stem}")
        return opened(source, *rest, **options)

    def write(target, picture, **options):
        order.append(f"write {target.name[0]}")
        time.sleep(0.02)
        return wrote(target, picture, **options)

    monkeypatch.setattr(work, "prepare", prepare)
    monkeypatch.setattr(images, "write", write)
    results = run_jobs(jobs_of(folder), Ready(Watched(4)))
    assert [result.error for result in results] == [None] * 4
    assert order.index("open c") < order.index("network 3")
    assert order.index("write a") > order.index("network 1")
    assert order.index("network 2") < order.index("write b")


def test_results_come_in_order_with_their_own_warnings(folder, either_way):
    told = []
    results = run_jobs(jobs_of(folder, format="bmp"), four_times(), Output(depth="uint16"), on_result=told.append)
    assert [result.source.name for result in told] == ["a.png", "b.png", "c.png", "d.png"]
    assert results == told
    assert all(result.warnings == ["BMP holds at most 8 bits a channel: depth reduced"] for result in results)


def test_a_result_that_cannot_be_written_spoils_only_itself(folder, either_way, monkeypatch):
    wrote = images.write

    def write(target, picture, **options):
        if target.name.startswith("b"):
            raise UpscaleError("no space left")
        return wrote(target, picture, **options)

    monkeypatch.setattr(images, "write", write)
    results = run_jobs(jobs_of(folder), four_times())
    assert [result.error for result in results] == [None, "no space left", None, None]
    assert results[1].width is None


def interrupted(engine):
    """That kind of engine, interrupted at its third picture."""

    class Interrupted(engine):
        def enlarge(self, image):
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return super().enlarge(image)

    return Interrupted


def test_an_interruption_leaves_whole_files_only(folder):
    told = []
    jobs = jobs_of(folder)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, Ready(interrupted(Nearest)(4)), on_result=told.append)
    left = sorted((folder.parent / "out").iterdir())
    assert [file.name for file in left] == ["a_x4.png", "b_x4.png"][: len(left)]
    assert len(left) >= 1
    assert all(images.read(file).width == 24 for file in left)
    report.write(folder.parent / "r.json", jobs, told, {})
    statuses = [one["status"] for one in json.loads((folder.parent / "r.json").read_text())["results"]]
    assert statuses == ["done"] * len(told) + ["not reached"] * (4 - len(told))
    assert report.failed(folder.parent / "r.json", jobs) == jobs[len(told) :]


class AtOnce(Nearest):
    """Tells how many threads are at work on it, by the heights of their pictures."""

    def __init__(self, lanes):
        super().__init__(4)
        self.lanes = lambda size: lanes
        self.at_work, self.most = [], []

    def enlarge(self, image):
        self.at_work.append(image.shape[0])
        for _ in range(20):
            time.sleep(0.005)
            self.most.append(sorted(self.at_work))
        self.at_work.remove(image.shape[0])
        return super().enlarge(image)


@pytest.mark.parametrize(
    ("heights", "together"),
    [
        ([5, 6, 7, 8, 9], [5, 6]),
        ([40, 5, 6, 41], [5, 6]),
        ([5, 40, 6, 41], None),  # one alone among large ones has the whole processor
        ([40, 41, 5], None),
    ],
)
def test_small_pictures_are_worked_on_side_by_side_and_others_alone(tmp_path, monkeypatch, heights, together):
    monkeypatch.setattr(batch, "SMALL_PIXELS", 4 * 4 * 12 * 7)
    for index, height in enumerate(heights):
        save(tmp_path / "in" / f"{index}.png", noise(height, 7, 3))
    engine, progress = AtOnce(2), []
    jobs = jobs_of(tmp_path / "in")
    results = run_jobs(jobs, Ready(engine), on_progress=lambda *now: progress.append(now))
    assert [(result.error, result.height) for result in results] == [(None, 4 * height) for height in heights]
    assert [images.opened(job.target).height for job in jobs] == [4 * height for height in heights]
    assert max(map(len, engine.most)) == (2 if together else 1)
    assert together is None or together in engine.most
    assert not [some for some in engine.most if len(some) > 1 and max(some) >= 40]
    assert [done for done, _, _ in progress] == sorted(done for done, _, _ in progress)
    assert progress[-1][:2] == (1000, 1000)
    assert {label for _, _, label in progress} == {f"{index}.png" for index in range(len(heights))}


def test_progress_counts_all_that_are_at_work_side_by_side(folder):
    together, told = threading.Barrier(4, timeout=10), []

    class Halfway(Nearest):
        def lanes(self, size):
            return 4

        def run(self, image, *, on_progress):
            on_progress(1, 2)
            together.wait()
            return super().run(image, on_progress=on_progress)

    run_jobs(
        jobs_of(folder),
        Ready(Halfway(4)),
        on_progress=lambda done, total, label: told.append(done),
        on_result=lambda result: told.append("a result"),
    )
    assert 500 in told[: told.index("a result")]


def test_interrupted_side_by_side_whole_files_are_left_and_no_thread(folder):
    told = []
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs_of(folder), Ready(interrupted(AtOnce)(2)), on_result=told.append)
    left = sorted((folder.parent / "out").iterdir())
    assert all(images.read(file).width == 24 for file in left)
    assert 1 <= len(left) <= 4
    assert [result.target for result in told] == left[: len(told)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]


def test_side_by_side_a_network_gives_what_it_gives_in_turn(folder, monkeypatch):
    monkeypatch.setattr(processors, "share_of_group", lambda: math.inf)
    torch.manual_seed(0)
    model, before, made = Compact(scale=4, features=8, convs=2), torch.get_num_threads(), []

    class Watched(Engine):
        def run(self, image, **options):
            made[-1].add(torch.get_num_threads())
            return super().run(image, **options)

    for threads in (1, 4):
        made.append(set())
        torch.set_num_threads(threads)
        try:
            run_jobs(jobs_of(folder, format="png"), Ready(Watched(model, device="cpu", precision="fp32")))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        made.append(np.stack([images.read(job.target).pixels for job in jobs_of(folder, format="png")]).astype(int))
    assert made[0] == made[2] == {1}
    assert np.abs(made[1] - made[3]).max() <= 1


def test_a_report_tells_all_and_a_retry_does_what_failed(folder, either_way):
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    jobs = jobs_of(folder)
    results = run_jobs(jobs, four_times(), skip_existing=True)
    file = folder.parent / "report.json"
    report.write(file, jobs, results, {"model": "made"})
    told = json.loads(file.read_text())
    assert told["options"] == {"model": "made"}
    assert [(one["status"], one["width"]) for one in told["results"]] == [
        ("done", 24),
        ("failed", None),
        ("done", 24),
        ("done", 24),
    ]
    assert "damaged" in told["results"][1]["error"]
    save(folder / "b.png")
    again = report.failed(file, jobs_of(folder))
    assert [job.source.name for job in again] == ["b.png"]
    report.write(file, again, run_jobs(again, four_times()), {})
    with pytest.raises(UpscaleError, match="nothing that failed"):
        report.failed(file, jobs_of(folder))


@pytest.mark.parametrize("content", ["", "[]", '{"results": 3}', '{"results": [{}]}', "\xff"])
def test_what_is_no_report_is_refused(folder, content):
    file = folder.parent / "report.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(UpscaleError, match="no report"):
        report.failed(file, jobs_of(folder))


def test_skip_existing_reads_animations_to_their_end(folder, either_way):
    frames = [(images.Picture(noise(5, 6, 3, seed=seed)), 50.0) for seed in range(3)]
    images.write_frames(folder / "e.png", frames, 3, 0)
    jobs = [job for job in jobs_of(folder) if job.source.name == "e.png"]
    run_jobs(jobs, four_times())
    assert run_jobs(jobs, four_times(), skip_existing=True)[0].skipped
    whole = jobs[0].target.read_bytes()
    jobs[0].target.write_bytes(whole[:-200])
    assert not run_jobs(jobs, four_times(), skip_existing=True)[0].skipped
    assert images.opened(jobs[0].target).frames == 3


@pytest.mark.parametrize("name", ["фото", "写真", "صورة", "café\u0301", "a b'\"$&", "-x", "%s"])
def test_names_in_any_script(tmp_path, name):
    save(tmp_path / "in" / f"{name}.png")
    jobs = plan_jobs([tmp_path / "in"], tmp_path / "out", size=Size(4))
    assert run_jobs(jobs, four_times())[0].error is None
    assert (tmp_path / "out" / f"{name}_x4.png").is_file()
    report.write(tmp_path / "report.json", jobs, [], {})
    assert report.failed(tmp_path / "report.json", jobs) == jobs


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_no_text(tmp_path):
    save(tmp_path / "in" / "a.png").rename(tmp_path / "in" / os.fsdecode(b"\xff\xfe.png"))
    jobs = plan_jobs([tmp_path / "in"], tmp_path / "out", size=Size(4))
    assert run_jobs(jobs, four_times())[0].error is None
    report.write(tmp_path / "report.json", jobs, [], {})
    assert report.failed(tmp_path / "report.json", jobs) == jobs


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_one_line(folder):
    (folder.parent / "out").mkdir()
    (folder.parent / "out").chmod(0o500)
    results = run_jobs(jobs_of(folder), four_times())
    (folder.parent / "out").chmod(0o700)
    assert all("not writable" in result.error for result in results)


def test_a_forecast_tells_sizes_and_writes_nothing(folder):
    (folder / "b.png").write_text("no picture")
    frames = [(images.Picture(noise(5, 6, 3, seed=seed)), 50.0) for seed in range(3)]
    images.write_frames(folder / "c.png", frames, 3, 0)
    jobs = jobs_of(folder)
    upscaler = Ready(Nearest(4))
    upscaler.networks = upscaler
    upscaler.for_scale = lambda scale: [upscaler.engine]
    told = forecast.forecasts(jobs, upscaler, Output(), 10**6)
    assert [(one.width, one.height, one.frames) for one in told] == [
        (24, 20, 1),
        (None, None, 1),
        (24, 20, 3),
        (24, 20, 1),
    ]
    assert "text file" in told[1].error
    assert told[2].seconds == pytest.approx(3 * told[0].seconds)
    assert not (folder.parent / "out").exists()


def test_a_forecast_is_near_what_then_happens(tmp_path):
    upscaler = Upscaler("compact-x4", 4, device="cpu", precision="fp32")
    save(tmp_path / "in.png", np.clip(noise(64, 80, 3) // 4 + 90, 0, 255).astype(np.uint8))
    jobs = plan_jobs([tmp_path / "in.png"], size=Size(4))
    (told,) = forecast.forecasts(jobs, upscaler, Output(), 10**6)
    (result,) = run_jobs(jobs, upscaler)
    assert result.error is None
    # Machines are shared: right within a few times is what can be asked of a test.
    assert 0.1 < told.seconds / result.seconds < 10
    assert 0.3 < told.megabytes / (forecast.own_memory() / 1e6) < 3
