"""The processors that a process may use."""

import math

import pytest

from sa_upscale import processors


@pytest.mark.parametrize(
    ("limit", "share"),
    [
        ("max 100000\n", math.inf),
        ("150000 100000\n", 1.5),
        ("1000 100000\n", 0.01),
        ("", math.inf),
        ("1 0", math.inf),
        (None, math.inf),
    ],
)
def test_a_containers_limit_is_read(tmp_path, limit, share):
    if limit is not None:
        (tmp_path / "cpu.max").write_text(limit)
    assert processors.share_of_group(tmp_path) == share


@pytest.mark.parametrize(("share", "count"), [(math.inf, 8), (16.0, 8), (2.0, 2), (1.5, 2), (0.3, 1)])
def test_a_part_of_a_processor_is_one(monkeypatch, share, count):
    monkeypatch.setattr(processors, "usable", lambda: frozenset(range(8)))
    monkeypatch.setattr(processors, "share_of_group", lambda: share)
    assert processors.count() == count
