"""Tasks worked on at once."""

import threading
import time

import pytest

from sa_upscale.lanes import in_lanes


def test_lanes_work_at_once_and_give_in_order():
    together = threading.Barrier(2, timeout=10)

    def work(number: int) -> int:
        together.wait()  # goes on when another is at work
        time.sleep(0.01 * (number % 3))
        return number**2

    assert list(in_lanes(work, range(10), 2)) == [(number, number**2) for number in range(10)]


def test_no_more_is_taken_than_lanes_need():
    taken = []
    results = in_lanes(str, (taken.append(number) or number for number in range(100)), 2)
    assert next(results) == (0, "0")
    assert len(taken) <= 4
    results.close()


def test_closed_early_no_lane_is_left_at_work():
    done = []

    def work(number: int) -> None:
        time.sleep(0.05)
        done.append(number)

    results = in_lanes(work, range(100), 3)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]
    assert len(done) < 10


def test_an_error_in_a_lane_comes_in_its_place():
    results = in_lanes(lambda number: 1 / number, [1, 2, 0, 4], 2)
    assert [next(results)[1], next(results)[1]] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
