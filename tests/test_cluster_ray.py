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
from tests import test_cluster_films
from tests.clips import Nearest, upscale
from tests.cluster_workers import Echo
from tests.test_cluster import alive, schedule
from tests.test_cluster_films import clip, short_segments  # noqa: F401

NEED = {"cpus": 0.5, "gpus": 0}


@pytest.fixture(scope="module")
def cluster():
    """One Ray for all tests that need one, because it takes seconds to begin; at its end nothing is left of it."""
    begun = rays.Cluster()
    close, begun.close = begun.close, lambda: None
    folder, begun.pids = begun._folder, []
    yield begun
    close()
    deadline = time.monotonic() + 5
    while any(map(alive, begun.pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, begun.pids))
    assert not folder.exists()


def seats(count):
    return [Seat(number, f"worker {number + 1}") for number in range(count)]


def test_actors_one_of_them_killed(cluster, capfd):
    assert cluster.nodes()[0]["CPU"] >= 1
    pids, notices, done = [], [], []
    crew = rays.Actors(cluster, seats(2), Echo, [()] * 2, [NEED] * 2)
    with Team(crew, lambda facts: pids.append(facts["pid"]), str, notices.append) as team:
        team.ready(everyone=True)
        threading.Timer(0.3, os.kill, (pids[0], signal.SIGKILL)).start()
        for one in team.work(schedule([*range(200), "fail"])):
            done.append(one)
            time.sleep(0.005)
    cluster.pids += pids
    assert sorted(one.value for one in done if not one.error) == list(range(200))
    assert [one.error for one in done if one.error] == ["it failed"]
    assert [line[len("worker 1") :] for line in notices if "died" in line] == [test_cluster_films.DIED]
    assert len(pids) == 3
    assert capfd.readouterr() == ("", "")


def test_an_actor_that_refuses_is_one_line(cluster, capfd):
    crew = rays.Actors(cluster, seats(1), Echo, [(setup.__version__, "no such device")], [NEED])
    with pytest.raises(UpscaleError, match=r"^no such device$"), Team(crew, print, str, print) as team:
        team.ready()
    assert capfd.readouterr() == ("", "")


def test_a_machine_with_an_older_sa_upscale_is_one_line(cluster, monkeypatch):
    # Pickled by its name, which is there on this side only.
    newer = type("Newer", (Echo,), {"__module__": Echo.__module__, "__qualname__": "Newer"})
    monkeypatch.setattr("tests.cluster_workers.Newer", newer, raising=False)
    crew = rays.Actors(cluster, seats(1), newer, [()], [NEED])
    line = r"^a machine of the cluster cannot make a worker \([^\n]*'Newer'[^\n]*\); is this version [^\n]*\Z"
    with pytest.raises(UpscaleError, match=line), Team(crew, print, str, print) as team:
        team.ready()


def test_an_actor_at_work_is_stopped(cluster):
    crew = rays.Actors(cluster, seats(1), Echo, [()], [NEED])
    began = time.monotonic()
    with Team(crew, lambda facts: cluster.pids.append(facts["pid"]), str, lambda line: None) as team:
        team.ready()
        work = team.work(schedule(["quick", "sleep"]))
        assert next(work).value == "quick"
    assert time.monotonic() - began < 2 * rays.GRACE


def test_a_film_by_two_actors_one_of_them_killed(cluster, clip, tmp_path):  # noqa: F811
    whole = upscale(clip, tmp_path / "whole.mp4", Nearest(window=5))
    crew = rays.Actors(cluster, seats(2), test_cluster_films.NearestWorker, [()] * 2, [NEED] * 2)
    result, deaths, pids = test_cluster_films.made_with_one_killed(crew, clip, tmp_path / "out.mp4")
    cluster.pids += pids
    assert [line[len("worker 1") :] for line in deaths] == [test_cluster_films.DIED]
    assert result.complete
    assert test_cluster_films.decoded(result.target) == test_cluster_films.decoded(whole.target)


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


def test_an_error_without_words_is_told_by_its_kind():
    assert "cannot make a worker (MemoryError)" in str(rays._unfit(MemoryError()))
