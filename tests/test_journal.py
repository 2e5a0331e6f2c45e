import json
import os

import pytest

from sa_upscale import journal
from sa_upscale.journal import Journal

ABOUT = {"input": "abc", "crf": 17, "part": [None, 2.5]}


def lines(folder):
    return [json.loads(line) for line in (folder / journal.NAME).read_text().splitlines()]


def test_a_journal_remembers_what_was_added(tmp_path):
    first = Journal(tmp_path / "work", ABOUT)
    assert (first.entries, first.changed) == ([], None)
    first.add({"frames": 3})
    first.add({"frames": 4})
    again = Journal(tmp_path / "work", ABOUT)
    assert again.entries == [{"frames": 3}, {"frames": 4}]
    assert again.changed is None


def test_tuples_and_lists_are_the_same_job(tmp_path):
    Journal(tmp_path / "work", {"part": (1, 2)}).add({})
    assert Journal(tmp_path / "work", {"part": [1, 2]}).entries == [{}]


def test_another_job_starts_afresh_and_names_what_changed(tmp_path):
    Journal(tmp_path / "work", ABOUT).add({"frames": 3})
    (tmp_path / "work" / "0.segment").write_bytes(b"old")
    other = Journal(tmp_path / "work", {**ABOUT, "crf": 18, "codec": "libx265"})
    assert other.entries == []
    assert other.changed == ("crf", "codec")
    assert [path.name for path in (tmp_path / "work").iterdir()] == [journal.NAME]


def test_without_resume_nothing_of_the_earlier_run_is_left(tmp_path):
    Journal(tmp_path / "work", ABOUT).add({"frames": 3})
    fresh = Journal(tmp_path / "work", ABOUT, resume=False)
    assert (fresh.entries, fresh.changed) == ([], None)
    assert lines(tmp_path / "work") == [ABOUT]


@pytest.mark.parametrize("torn", [b'{"fra', b'{"frames": 5}', b"\xff\xfe\n", b"\n"])
def test_a_torn_last_line_is_as_good_as_none(tmp_path, torn):
    Journal(tmp_path / "work", ABOUT).add({"frames": 3})
    with open(tmp_path / "work" / journal.NAME, "ab") as file:
        file.write(torn)
    again = Journal(tmp_path / "work", ABOUT)
    assert again.entries == [{"frames": 3}]
    again.add({"frames": 4})
    assert Journal(tmp_path / "work", ABOUT).entries == [{"frames": 3}, {"frames": 4}]


def test_a_torn_first_line_is_no_journal(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / journal.NAME).write_bytes(b'{"input": "a')
    assert Journal(tmp_path / "work", ABOUT).entries == []


def test_keep_forgets_the_rest(tmp_path):
    first = Journal(tmp_path / "work", ABOUT)
    for frames in (1, 2, 3):
        first.add({"frames": frames})
    first.keep(1)
    assert first.entries == [{"frames": 1}]
    assert lines(tmp_path / "work") == [ABOUT, {"frames": 1}]


def test_remove_leaves_nothing(tmp_path):
    work = Journal(tmp_path / "work", ABOUT)
    work.remove()
    assert not (tmp_path / "work").exists()
    work.remove()


def test_each_line_is_on_the_disk_before_add_returns(tmp_path, monkeypatch):
    work = Journal(tmp_path / "work", ABOUT)
    real, synced = os.fsync, []

    def watched(descriptor):
        synced.append(lines(tmp_path / "work"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    work.add({"frames": 3})
    assert synced == [[ABOUT, {"frames": 3}]]
