"""Who gets what: the schedule of a cluster's workers, and the shards of a batch array."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_upscale.cluster import rays, shards
from sa_upscale.cluster.pool import Seat
from sa_upscale.cluster.schedule import Item, Schedule
from sa_upscale.cluster.setup import parse_devices
from sa_upscale.errors import UpscaleError

WEIGHTS = st.lists(st.integers(1, 10**9), max_size=60)


def schedule(weights, **options):
    made = Schedule((Item(at, weight, at) for at, weight in enumerate(weights)), **options)
    made.close()
    return made


def numbers(bundle):
    return [item.number for item in bundle]


@given(WEIGHTS, st.integers(1, 8), st.integers(1, 5), st.randoms(use_true_random=False))
def test_everything_is_done_once_or_given_up_after_three_tries(weights, together, workers, chance):
    made, tries, done, lost = schedule(weights, together=together), dict.fromkeys(range(len(weights)), 0), [], []
    while not made.over:
        bundle = made.take(workers, slow=chance.random() < 0.3)
        assert 1 <= len(bundle) <= together
        for item in bundle:
            tries[item.number] += 1
            if chance.random() < 0.4:
                if not made.failed(item):
                    lost.append(item.number)
            else:
                made.done(item)
                done.append(item.number)
    assert sorted(done + lost) == list(range(len(weights)))
    assert all(tries[number] == 3 for number in lost)
    assert made.take(workers) == []
    assert made.waiting == pytest.approx(0)


def test_the_largest_go_first_and_of_equals_the_first():
    made = schedule([5, 9, 5, 1])
    assert [numbers(made.take()) for _ in range(4)] == [[1], [0], [2], [3]]


def test_bundles_grow_small_towards_the_end():
    made = schedule([10] * 64, together=8)
    sizes = [len(bundle) for bundle in iter(lambda: made.take(2), [])]
    assert sizes[:2] == [8, 7]
    assert sizes[-6:] == [1] * 6
    assert sizes == sorted(sizes, reverse=True)


def test_a_slow_worker_gets_the_smallest():
    made = schedule([5, 9, 1])
    assert numbers(made.take(slow=True)) == [2]


def test_what_failed_travels_alone():
    made = schedule([4, 4, 4, 4, 4, 4, 4, 4], together=8)
    first = made.take(1)
    assert len(first) == 2
    for item in first:
        assert made.failed(item)
    assert [numbers(made.take(1)) for _ in range(2)] == [[0], [1]]


def test_it_is_not_over_while_more_may_come():
    made = Schedule()
    assert (made.take(), made.over) == ([], False)
    made.add([Item(0, 1, "late")])
    made.close()
    assert not made.over
    made.done(made.take()[0])
    assert made.over


@given(WEIGHTS, st.integers(1, 12))
def test_shards_are_everything_disjoint_in_order_and_balanced(weights, count):
    things = list(range(len(weights)))
    parts = [shards.share(things, weights, number, count) for number in range(1, count + 1)]
    assert sorted(itertools.chain(*parts)) == things
    assert all(part == sorted(part) for part in parts)
    loads = [sum(weights[at] for at in part) for part in parts]
    # No part has more than its fair share and one thing beyond.
    assert max(loads) <= sum(weights) / count + max(weights, default=0)
    assert parts == [shards.share(things, weights, number, count) for number in range(1, count + 1)]


def test_the_longest_goes_to_the_part_that_has_least():
    assert [shards.share("abcde", [7, 6, 5, 4, 4], number, 2) for number in (1, 2)] == [["a", "d", "e"], ["b", "c"]]


@pytest.mark.parametrize(("text", "parsed"), [("1/1", (1, 1)), ("3/8", (3, 8))])
def test_a_shard_is_a_number_of_a_count(text, parsed):
    assert shards.parse(text) == parsed


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/2/3", ""])
def test_what_is_no_shard_is_one_line(text):
    with pytest.raises(UpscaleError, match="from 1/4 to 4/4"):
        shards.parse(text)


def test_devices_are_a_list_with_counts():
    assert parse_devices("cuda:0, cuda:1,2*cpu") == ["cuda:0", "cuda:1", "cpu", "cpu"]
    assert parse_devices(None) == []
    for wrong in ("cpu,", "0*cpu", "x*cpu", "99999*cpu"):
        with pytest.raises(UpscaleError, match="such as cuda:0"):
            parse_devices(wrong)


GPUS = [{"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}]
CORES = [{"CPU": 16}, {"CPU": 6}, {"CPU": 2}, {}]


@pytest.mark.parametrize(
    ("devices", "nodes", "count", "resources", "threads"),
    [
        ([], GPUS, 4, {"cpus": 1, "gpus": 1}, 4),
        ([], CORES, 6, {"cpus": 3, "gpus": 0}, 3),
        (["cpu"] * 2, CORES, 2, {"cpus": 8, "gpus": 0}, 8),
        (["cpu"] * 24, CORES, 24, {"cpus": 1, "gpus": 0}, 1),
        (["cuda"], GPUS, 1, {"cpus": 1, "gpus": 1}, 16),
    ],
)
def test_seats_on_a_cluster(devices, nodes, count, resources, threads):
    seats, needed, own = rays.seats_for(devices, nodes)
    assert [seat.number for seat in seats] == list(range(count))
    assert needed == [resources] * count
    assert own == [threads] * count


def test_a_cpu_beside_gpus_is_taken_for_slow():
    seats, needed, _ = rays.seats_for(["cuda", "cpu"], GPUS)
    assert [seat.slow for seat in seats] == [False, True]
    assert needed[1] == {"cpus": 8, "gpus": 0}
    assert Seat(0, "cuda:0").slow is False


@pytest.mark.parametrize(
    ("devices", "nodes", "message"),
    [
        (["cuda"], CORES, "1 GPU asked for, and the cluster has none"),
        (["cuda"] * 5, GPUS, "5 GPUs asked for, and the cluster has 4"),
        (["cpu"] * 25, CORES, "25 workers on CPUs asked for, and the cluster has 24 cores free"),
        (["cuda:0"], GPUS, "give cuda or cpu"),
    ],
)
def test_more_than_there_is_is_one_line(devices, nodes, message):
    with pytest.raises(UpscaleError, match=message):
        rays.seats_for(devices, nodes)
