"""What workers have of their machine: cores of their own, and how many threads they keep to whatever else is asked."""

import os

import pytest
import torch

from sa_upscale import processors
from sa_upscale.cluster import cores, setup
from sa_upscale.engine import calibration
from sa_upscale.models.compact import Compact
from tests.cluster_workers import Echo

pytestmark = pytest.mark.skipif(not processors.usable(), reason="this system has no affinities")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Two processors of two cores, two threads in each: of the first core 0 and 4, of the second 1 and 5."""
    monkeypatch.setattr(cores, "SYSTEM", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for number in range(8):
        topology = tmp_path / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{number % 4 // 2}\n")
        (topology / "core_id").write_text(f"{number % 2}\n")


@pytest.fixture
def unbound():
    """What a worker in this process changes is as before."""
    before, threads = processors.usable(), torch.get_num_threads()
    yield before
    cores.keep_to(before)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("threads", "expected"),
    [
        ([2] * 4, [{0, 4}, {1, 5}, {2, 6}, {3, 7}]),
        ([4] * 2, [{0, 1, 4, 5}, {2, 3, 6, 7}]),
        ([3] * 2, [{0, 4, 1}, {5, 2, 6}]),
        ([8], [set(range(8))]),
        ([3] * 3, [None] * 3),
    ],
)
def test_no_core_is_for_two_and_what_is_near_stays_together(machine, threads, expected):
    assert cores.divided(threads) == expected


def test_without_a_topology_cores_go_by_their_numbers(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(cores, "SYSTEM", tmp_path / "none")
    assert cores.divided([4, 4]) == [{0, 1, 2, 3}, {4, 5, 6, 7}]


def test_only_workers_on_cpus_alone_have_cores_of_their_own(machine):
    assert [share.cores for share in setup.shares(["cpu"] * 2, [4] * 2)] == [{0, 1, 4, 5}, {2, 3, 6, 7}]
    assert [share.cores for share in setup.shares(["cpu"] * 2, [4] * 2, apart=False)] == [None, None]
    assert [share.cores for share in setup.shares(["cuda:0", "cpu"], [4] * 2)] == [None, None]
    crew = setup.crew_for(setup.Where(devices="3*cpu"), Echo, setup.Setup("compact", {}))
    own = [share.cores for _, share in crew._arguments]
    assert (len(frozenset.union(*own)), {len(each) for each in own}) == (6, {2})
    crew = setup.crew_for(setup.Where(devices="9*cpu"), Echo, setup.Setup("compact", {}))
    assert {(share.threads, share.cores) for _, share in crew._arguments} == {(1, None)}


def test_a_worker_keeps_to_its_share_whatever_its_engine_was_measured_with(unbound, monkeypatch):
    seen = []

    def known(device):
        seen.append(processors.usable())
        return calibration.Choice("fp32", 192, threads=7, int8=False)

    monkeypatch.setattr(calibration, "known", known)
    own = frozenset([min(unbound)])
    place = setup.Place(setup.Setup("any", {}), setup.Share("cpu", 1, own))
    made = place.networks()["engine"](Compact(features=4, convs=1, scale=2), device="cpu")
    assert (made.precision, seen) == ("fp32", [unbound])
    assert (processors.usable(), torch.get_num_threads()) == (own, 1)
    with place.whole_machine():
        assert processors.usable() == unbound
    for thread in cores.THREADS.iterdir():
        assert os.sched_getaffinity(int(thread.name)) == own


def test_a_system_that_lists_no_threads_has_the_present_one_moved(monkeypatch, tmp_path):
    moved = []
    monkeypatch.setattr(cores, "THREADS", tmp_path / "none")
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, own: moved.append((thread, own)))
    cores.keep_to({0})
    assert moved == [(0, {0})]
