"""Folders of pictures by several workers, on this machine and at addresses."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sa_upscale import cli, upscale, video
from sa_upscale.cluster import claims, pictures, places
from sa_upscale.cluster.setup import Setup, Share, Weights, Where, crew_for
from sa_upscale.errors import UpscaleError
from sa_upscale.models.compact import Compact
from tests.clips import Clip, make
from tests.test_cli import save

fsspec = pytest.importorskip("fsspec", reason="addresses need fsspec")

SIZE = upscale.Size(2)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    return str(
        save(tmp_path_factory.mktemp("weights") / "x2.safetensors", Compact(features=4, convs=1, scale=2), "compact")
    )


@pytest.fixture
def folder(tmp_path):
    """Nine pictures of growing size, two of them deeper, and a file that is none."""
    for at in range(9):
        place = tmp_path / "in" / ("deep" if at % 4 == 3 else "") / f"{at}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(at).integers(0, 256, (6 + at, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place)
    (tmp_path / "in" / "bad.png").write_text("no picture")
    return tmp_path


@pytest.fixture
def run(monkeypatch, capfd):
    """The command in this process: its exit code, and what it printed."""

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["sa-upscale", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, *capfd.readouterr()

    return called


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_two_workers_give_what_one_machine_gives_and_go_on_where_they_stopped(run, folder, network):
    command = ["image", folder / "in", "-r", "-x2", "--model", network]
    assert run(*command, "-o", folder / "one")[0] == 1
    report = folder / "report.json"
    code, out, err = run(*command, "-o", folder / "two", "--devices", "2*cpu", "--json", "--report", report)
    assert content(folder / "two") == content(folder / "one")
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (1, "")
    assert events[-1] == {"event": "summary", "done": 9, "failed": 1, "skipped": 0}
    (failed,) = [event for event in events if event["event"] == "error"]
    assert (failed["source"], "is a text file" in failed["error"]) == (str(folder / "in" / "bad.png"), True)
    workers = [event["workers"] for event in events if event["event"] == "progress"][-1]
    assert [worker["name"] for worker in workers] == ["cpu 1", "cpu 2"]
    assert sum(worker["done"] for worker in workers) == 9
    assert {told["status"] for told in json.loads(report.read_text())["results"]} == {"done", "failed"}

    # One result is gone, one is cut short, and the failure is mended.
    (folder / "two" / "2_x2.png").unlink()
    (folder / "two" / "5_x2.png").write_bytes((folder / "one" / "5_x2.png").read_bytes()[:60])
    Image.new("RGB", (4, 4)).save(folder / "in" / "bad.png")
    code, out, _ = run(*command, "-o", folder / "two", "--devices", "cpu", "--skip-existing")
    assert (code, out.count("there already")) == (0, 7 + 1)
    (folder / "two" / "bad_x2.png").unlink()
    assert content(folder / "two") == content(folder / "one")


def test_a_killed_worker_changes_nothing(folder, network):
    jobs = upscale.plan_jobs([folder / "in"], folder / "out", size=SIZE, recursive=True)
    upscale.run_jobs(jobs, upscale.Upscaler(network, SIZE))
    expected, pids = content(folder / "out"), []
    for file in (folder / "out").rglob("*.png"):
        file.unlink()
    factory = functools.partial(pictures.PictureWorker, order=pictures.Order(SIZE))
    crew = crew_for(Where(devices="2*cpu"), factory, Setup(network, {}))
    hire = crew.hire

    def hired(seat):
        hand = hire(seat)
        pids.append(hand._pid.result())
        return hand

    crew.hire, results = hired, []

    def finished(result):
        results.append(result)
        if len(results) == 2:
            os.kill(pids[0], signal.SIGKILL)

    notices = []
    # With a claim, what the killed worker was writing is swept away.
    with claims.Claim(folder / "out" / ".lock") as claim:
        told = pictures.run_jobs(jobs, crew, claim=claim, on_result=finished, on_notice=notices.append)
    assert content(folder / "out") == expected
    assert sorted(result.error is None for result in told) == [False] + [True] * 9
    assert notices in ([], ["cpu 1: the worker died; another takes its place"])
    assert len(pids) == 2 + len(notices)


def test_shards_together_are_the_folder(run, folder, network):
    (folder / "in" / "bad.png").unlink()
    command = ["image", folder / "in", "-r", "-x2", "--model", network, "-o", folder / "out"]
    done = [run(*command, "--shard", f"{number}/3")[1].count("out/") for number in (1, 2, 3)]
    assert sum(done) == 9
    assert min(done) >= 2
    assert len(content(folder / "out")) == 9


def test_interrupted_it_leaves_whole_files_only(folder, network):
    command = [sys.executable, "-m", "sa_upscale", "image", folder / "in", "-x2", "-o", folder / "out"]
    for at in range(60):
        Image.new("RGB", (400, 300), (at, 9, 9)).save(folder / "in" / f"more{at}.png")
    begun = subprocess.Popen(
        [*command, "--model", network, "--devices", "2*cpu"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    begun.stdout.readline()
    begun.send_signal(signal.SIGINT)
    _, err = begun.communicate(timeout=30)
    assert (begun.returncode, err) == (130, "sa-upscale: interrupted\n")
    names = [file.name for file in (folder / "out").iterdir()]
    assert 0 < len(names) < 70
    assert not [name for name in names if name.startswith(".")]
    for name in names:
        Image.open(folder / "out" / name).load()


def test_two_runs_to_one_output_are_one_line(run, folder, network):
    (folder / "out").mkdir()
    (folder / "out" / ".sa-upscale.lock").write_text(json.dumps({"host": "elsewhere", "pid": 7, "token": "x"}))
    code, _, err = run("image", folder / "in", "-o", folder / "out", "--model", network, "--devices", "cpu")
    assert (code, err.count("\n")) == (1, 1)
    assert "another run (process 7 on elsewhere) writes to" in err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--devices", "cpu", "--device", "cpu"], 2, "give --devices"),
        (["--shard", "5/4"], 2, "from 1/4 to 4/4"),
        (["--engine", "slurm"], 2, "slurm"),
        (["--engine", "ray", "--address", "nowhere"], 1, "host:port"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], 1, "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_is_one_line_and_soon(run, folder, network, options, code, message):
    if "ray" in options:
        pytest.importorskip("ray", reason="needs Ray")
    began = time.monotonic()
    got = run("image", folder / "in", "-o", folder / "out", "-x2", "--model", network, *options)
    assert got[0] == code
    assert message in got[2]
    assert got[2].count("\n") == 1
    assert time.monotonic() - began < 20


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_one_line(network):
    with pytest.raises(UpscaleError, match="no cuda device is available here"):
        pictures.PictureWorker(Setup(network, {}), Share("cuda:0", 1), pictures.Order(SIZE))


def test_a_node_without_the_checkpoint_gets_and_verifies_it(network, tmp_path, monkeypatch):
    weights = Weights.of(network, travel=True)
    assert weights.here() == network
    moved = Weights("/not/here/x2.safetensors", weights.sha256, weights.content)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert Path(moved.here()).read_bytes() == weights.content
    assert moved.here().startswith(str(tmp_path))
    with pytest.raises(UpscaleError, match="is not the checkpoint that the run began with"):
        Weights("/not/here", weights.sha256, weights.content[:-1]).here()
    assert Weights.of("compact", travel=True) is None


def upscaled(inputs, output, network, **order):
    """What a worker makes of pictures at addresses."""
    jobs = places.plan_jobs(inputs, output, size=SIZE, recursive=True)
    worker = pictures.PictureWorker(Setup(network, {}), Share("cpu", 1), pictures.Order(SIZE, **order))
    return [outcome.value for outcome in worker.do(jobs).outcomes]


def test_there_and_back_at_an_address(folder, network):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "in") + "/", "/scans/", recursive=True)
    results = upscaled(["memory://scans"], "memory://big/", network)
    good = {result.target for result in results if result.error is None}
    assert good == {f"memory://big/{'deep/' if at % 4 == 3 else ''}{at}_x2.png" for at in range(9)}
    (failed,) = [result for result in results if result.error]
    assert failed.error.startswith("memory://scans/bad.png is a text file")
    assert sorted(name.split("/")[-1] for name in memory.find("/big")) == sorted(t.split("/")[-1] for t in good)
    with memory.open("/big/8_x2.png") as file:
        assert Image.open(file).size == (18, 28)
    again = upscaled(["memory://scans"], "memory://big/", network, skip_existing=True)
    assert [result.skipped for result in again if not result.error] == [True] * 9
    memory.rm("/scans", recursive=True)
    memory.rm("/big", recursive=True)


def test_names_at_addresses_follow_the_rules_for_folders(folder):
    memory = fsspec.filesystem("memory")
    memory.pipe({"/b/one.png": b"1", "/b/one.jpg": b"22", "/b/.hidden.png": b"", "/b/sub/two.png": b"4444"})
    notices = []
    planned = places.plan_jobs(["memory://b"], "memory://out/", size=SIZE, on_notice=notices.append)
    assert {(job.source, job.target, job.weight) for job in planned} == {
        ("memory://b/one.png", "memory://out/one_png_x2.png", 1),
        ("memory://b/one.jpg", "memory://out/one_jpg_x2.jpg", 2),
    } or {job.source for job in planned} == {"memory://b/one.png", "memory://b/one.jpg"}
    beside = places.plan_jobs(["memory://b/sub/two.png"], None, size=SIZE)
    assert [job.target for job in beside] == ["memory://b/sub/two_x2.png"]
    with pytest.raises(UpscaleError, match="memory://nothing does not exist"):
        places.plan_jobs(["memory://nothing"], None, size=SIZE)
    with pytest.raises(UpscaleError, match="nonsense://x"):
        places.plan_jobs(["nonsense://x"], None, size=SIZE)
    memory.rm("/b", recursive=True)


def test_elsewhere_than_in_object_stores_a_file_is_renamed_when_whole(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"content")
    system, sent = fsspec.filesystem("memory"), []
    put = system.put_file

    def put_file(here, there):
        sent.append(there)
        put(here, there)

    monkeypatch.setattr(system, "put_file", put_file)
    places.send(tmp_path / "file", "memory://to/file")
    assert sent[0].startswith("/to/.")
    assert (system.cat("/to/file"), system.ls("/to", detail=False)) == (b"content", ["/to/file"])
    system.rm("/to", recursive=True)


def test_there_and_back_through_s3(run, folder, network, monkeypatch):
    pytest.importorskip("s3fs", reason="needs s3fs")
    server = pytest.importorskip("moto.server", reason="needs moto's server")
    serving = server.ThreadedMotoServer(port=0)
    serving.start()
    try:
        host, port = serving.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        store = fsspec.filesystem("s3")
        store.mkdir("bucket")
        store.put(str(folder / "in") + "/", "bucket/in/", recursive=True)
        two, scans = ["--devices", "2*cpu"], ["image", "s3://bucket/in", "-r", "-x2", "--model", network]
        code, out, err = run(*scans, "-o", "s3://bucket/out/", *two)
        assert (code, "s3://bucket/in/bad.png is a text file" in err) == (1, True)
        assert "9 of 10 done" in out
        run("image", folder / "in", "-r", "-x2", "--model", network, "-o", folder / "out")
        assert {key: store.cat(f"bucket/out/{key}") for key in content(folder / "out")} == content(folder / "out")
        assert len(store.find("bucket/out")) == 9
        shallow = places.plan_jobs(["s3://bucket/in"], "s3://bucket/out/", size=SIZE)
        assert {job.label for job in shallow} == {f"{at}.png" for at in (0, 1, 2, 4, 5, 6, 8)} | {"bad.png"}
        code, _, err = run("image", "s3://no-bucket/in", "--model", network, "-o", "s3://bucket/out/")
        assert (code, err.count("\n"), "s3://no-bucket/in" in err) == (1, 1, True)
        film = make(folder / "film.mp4", Clip([(3 * at, 60, 90) for at in range(40)]))
        store.pipe("bucket/film.mp4", film.read_bytes())
        monkeypatch.setattr(video, "length_for", lambda info: 8)
        command = ["video", "s3://bucket/film.mp4", "-x2", "--model", network, "-o"]
        code, out, err = run(*command, "s3://bucket/big.mp4", "--json", *two)
        workers = [json.loads(line)["workers"] for line in out.splitlines() if '"workers"' in line][-1]
        assert (code, err, sum(worker["done"] for worker in workers)) == (0, "", 40 // 8)
        run("video", folder / "film.mp4", "-x2", "--model", network, "-o", folder / "big.mp4")
        assert store.cat("bucket/big.mp4") == (folder / "big.mp4").read_bytes()
        code, _, err = run(*command, "s3://no-bucket/big.mp4")
        assert (code, err) == (1, "sa-upscale: s3://no-bucket/big.mp4: there is no bucket no-bucket; make it first\n")
    finally:
        serving.stop()
        fsspec.filesystem("s3").clear_instance_cache()
