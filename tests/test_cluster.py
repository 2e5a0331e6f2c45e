"""Teams of workers in processes of this machine, and what keeps two runs apart."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sa_upscale.cluster import claims, processes, setup
from sa_upscale.cluster.pool import Seat, Team
from sa_upscale.cluster.schedule import Item, Schedule
from sa_upscale.errors import UpscaleError
from tests.cluster_workers import Echo
from tests.conftest import ROOT


def team(count=2, arguments=(), notices=None, **options):
    seats = [Seat(number, f"worker {number + 1}") for number in range(count)]
    crew = processes.Processes(seats, Echo, [arguments] * count)
    told = [] if notices is None else notices
    return Team(crew, options.pop("admit", lambda facts: None), str, told.append, **options)


def schedule(tasks, together=1):
    made = Schedule((Item(at, 1, task) for at, task in enumerate(tasks)), together=together)
    made.close()
    return made


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_all_is_done_by_several_workers_who_are_then_gone(tmp_path):
    pids, notices, tasks = set(), [], [*range(12), "tell"]
    with team(2, (setup.__version__, None, tmp_path / "log"), notices, admit=lambda f: pids.add(f["pid"])) as made:
        made.ready(everyone=True)
        done = list(made.work(schedule(tasks)))
    assert sorted(str(one.value) for one in done) == sorted(map(str, tasks))
    assert all(one.error is None for one in done)
    assert notices == [f"{next(one.seat for one in done if one.value == 'tell')}: did tell"]
    assert {int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()} == pids
    assert len(pids) == 2
    assert not any(map(alive, pids))


def test_a_death_costs_its_item_a_try_and_the_others_nothing(tmp_path):
    log, notices = tmp_path / "log", []
    with team(1, (setup.__version__, None, log), notices) as made:
        done = {one.item.task: one for one in made.work(schedule(["a", "fail", "die", "b", "c"], together=8))}
    assert all(done[task].error is None and done[task].value == task for task in "abc")
    assert done["fail"].error == "it failed"
    assert "died" in done["die"].error
    assert [line.split()[0] for line in log.read_text().splitlines()].count("die") == 3
    assert [line.split()[0] for line in log.read_text().splitlines()].count("fail") == 3
    assert notices == ["worker 1: the worker died; another takes its place"] * 3


def test_workers_that_only_die_end_the_run():
    with pytest.raises(UpscaleError, match="die one after the other"), team(1) as made:
        list(made.work(schedule(["die"] * 5)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((setup.__version__, "no such device"), "^no such device$"),
        (("0.0.1",), "another version of sa-upscale .0.0.1. than there is here"),
    ],
)
def test_a_worker_that_cannot_be_used_is_one_line(arguments, message):
    with pytest.raises(UpscaleError, match=message), team(1, arguments, admit=setup.Admission()) as made:
        made.ready()


def test_later_such_a_worker_is_left_out():
    notices, admission, pids = [], setup.Admission(), []

    def admit(facts):
        admission(facts)
        pids.append(facts["pid"])

    with team(2, notices=notices, admit=admit) as made:
        made.ready(everyone=True)
        list(made.work(schedule("ab")))
        made.crew._arguments = [("0.0.1",)] * 2
        os.kill(pids[0], signal.SIGKILL)
        done = list(made.work(schedule("abcdef")))
        assert sorted(one.value for one in done) == list("abcdef")
    assert [line.split(":")[1].split("(")[0] for line in notices[:1]] == [" the worker died; another takes its place"]


def test_an_interruption_ends_what_goes_on_at_once():
    pids, made = [], team(2, admit=lambda facts: pids.append(facts["pid"]))

    def interrupted():
        with made:
            made.ready(everyone=True)
            for _ in made.work(schedule(["quick", "sleep"])):
                raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - began < processes.GRACE
    assert len(pids) == 2
    assert not any(map(alive, pids))


def test_workers_end_with_a_driver_that_is_killed():
    script = (
        "from tests.test_cluster import team, schedule\n"
        "if __name__ == '__main__':\n"
        "    with team(1, admit=lambda facts: print(facts['pid'], flush=True)) as made:\n"
        "        list(made.work(schedule(['sleep'])))\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    pid = int(driver.stdout.readline())
    assert alive(pid)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_one_run_to_an_output(tmp_path):
    file = tmp_path / ".lock"
    with claims.Claim(file) as claim:
        claims.check(file, claim.token)
        with pytest.raises(UpscaleError, match=f"another run \\(process {os.getpid()} on "):
            claims.Claim(file)
        with pytest.raises(UpscaleError, match="does not see the output folder"):
            claims.check(file, "another token")
    assert not file.exists()
    with pytest.raises(UpscaleError, match="has to be on a file system that all machines share"):
        claims.check(file, claim.token)


def test_what_killed_workers_left_half_written_is_swept_away(tmp_path):
    partial = f".{'0a' * 16}.part"
    for name in ("older", "newer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / partial).touch()
        (tmp_path / name / "whole.part").touch()
    os.utime(tmp_path / "older" / partial, (1, 1))
    with claims.Claim(tmp_path / ".lock") as claim:
        (tmp_path / "newer" / partial).touch()
        claim.sweep([tmp_path / "older", tmp_path / "newer"])
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.part")) == [
        "newer/whole.part",
        f"older/{partial}",
        "older/whole.part",
    ]


def test_the_claim_of_a_dead_run_is_taken_over(tmp_path):
    file = tmp_path / ".lock"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = json.loads(_content(file))["host"]
    file.write_text(json.dumps({"host": host, "pid": ended.pid, "token": "x"}))
    with claims.Claim(file) as claim:
        claims.check(file, claim.token)
    # On another machine, nobody can look: signs of life decide.
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}))
    with pytest.raises(UpscaleError, match="process 1 on elsewhere"):
        claims.Claim(file)
    os.utime(file, (time.time() - 90, time.time() - 90))
    with claims.Claim(file):
        assert [entry.name for entry in tmp_path.iterdir()] == [".lock"]


def _content(file):
    with claims.Claim(file):
        return file.read_text()


def test_no_ray_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UpscaleError, match=r'pip install "sa-upscale\[ray\]"'):
        setup.crew_for(setup.Where("ray"), Echo, setup.Setup("compact", {}))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (setup.Where(address="auto"), "give --engine ray"),
        (setup.Where(devices="cpu,"), "such as cuda:0"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(where, message):
    with pytest.raises(UpscaleError, match=message):
        setup.crew_for(where, Echo, setup.Setup("compact", {}))


def test_ctrl_c_is_not_for_the_workers():
    with team(1) as made:
        pids = []
        made.admit = lambda facts: pids.append(facts["pid"])
        made.ready()
        os.kill(pids[0], signal.SIGINT)
        assert [one.value for one in made.work(schedule("ab"))] == ["a", "b"]
