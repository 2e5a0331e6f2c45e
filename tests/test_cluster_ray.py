"""The same over Ray: actors of a Ray that is begun for the run, and what Ray itself would only say after minutes."""

import os
import signal
import socket
import threading
import time

import pytest

pytest.importorskip("ray", reason='needs Ray: pip install "sa-upscale[ray]"')

from sa_upscale.cluster import rays, setup
from sa_upscale.cluster.pool import Seat, Team
from sa_upscale.errors import UpscaleError
from tests.cluster_workers import Echo
from tests.test_cluster import alive, schedule


def test_actors_one_of_them_killed_and_one_that_refuses(capfd):
    """One Ray for all of it, because it takes seconds to begin."""
    cluster, pids, notices = rays.Cluster(), [], []
    folder = cluster._folder
    assert cluster.nodes()[0]["CPU"] >= 1
    seats = [Seat(number, f"worker {number + 1}") for number in range(2)]
    need = [{"cpus": 0.5, "gpus": 0}] * 2
    close, cluster.close = cluster.close, lambda: None
    try:
        crew = rays.Actors(cluster, seats, Echo, [()] * 2, need)
        with Team(crew, lambda facts: pids.append(facts["pid"]), str, notices.append) as team:
            team.ready(everyone=True)
            threading.Timer(0.3, os.kill, (pids[0], signal.SIGKILL)).start()
            done = []
            for one in team.work(schedule([*range(200), "fail"])):
                done.append(one)
                time.sleep(0.005)
            assert sorted(one.value for one in done if not one.error) == list(range(200))
            assert [one.error for one in done if one.error] == ["it failed"]
        assert [line[len("worker 1") :] for line in notices] == [": the worker died; another takes its place"]
        assert len(pids) == 3

        refusing = rays.Actors(cluster, seats[:1], Echo, [(setup.__version__, "no such device")], need)
        with pytest.raises(UpscaleError, match=r"^no such device$"), Team(refusing, print, str, print) as team:
            team.ready()

        slow = rays.Actors(cluster, seats[:1], Echo, [()], need)
        began = time.monotonic()
        with Team(slow, lambda facts: pids.append(facts["pid"]), str, print) as team:
            team.ready()
            work = team.work(schedule(["quick", "sleep"]))
            assert next(work).value == "quick"
        assert time.monotonic() - began < 2 * rays.GRACE
    finally:
        close()
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))
    assert not folder.exists()
    assert capfd.readouterr() == ("", "")


def test_a_cluster_that_does_not_answer_is_one_line_and_soon():
    with pytest.raises(UpscaleError, match="no Ray cluster runs on this machine"):
        rays.Cluster("auto")
    for address in ("127.0.0.1:1", "no.such.host.invalid:6379"):
        with pytest.raises(UpscaleError, match=f"no Ray cluster answers at {address}"):
            rays.Cluster(address)


def test_what_answers_but_is_no_cluster_is_one_line(monkeypatch):
    monkeypatch.setattr(rays, "STATUS_SECONDS", 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UpscaleError, match=f"what answers at {address} is no Ray cluster"):
            rays.Cluster(address)
