"""Edits of weights.toml: what was meant is changed, every other line stays as it is."""

import tomllib
from pathlib import Path

import pytest

from sa_upscale import checkpoints
from sa_upscale.errors import UpscaleError
from sa_upscale.publish import registry
from tests.conftest import ROOT

TEXT = """\
# What there is.

# ---- bundled ----

[small-x4]
family = "small"
scale = 4
description = "a # that is no comment, and \\"quotes\\""
bundled = "small-x4.safetensors"
sha256 = "aa"  # of the whole file
licence = "Apache-2.0"

# ---- planned ----

[planned-x4]
family = "planned"
licence = "Apache-2.0"
published = false
"""


def test_values_change_in_place_and_keep_their_comment():
    changed = registry.edited(TEXT, "small-x4", {"sha256": "bb", "scale": 2})
    assert changed == TEXT.replace('"aa"  #', '"bb"  #').replace("scale = 4", "scale = 2")


def test_new_keys_go_where_the_order_of_the_file_has_them():
    values = {"revision": "c0ffee", "file": "small-x4.safetensors", "repo": "me/small"}
    changed = registry.edited(TEXT, "small-x4", values)
    added = 'repo = "me/small"\nfile = "small-x4.safetensors"\nrevision = "c0ffee"\n'
    assert changed == TEXT.replace('sha256 = "aa"', f'{added}sha256 = "aa"')


def test_keys_are_taken_out():
    assert registry.edited(TEXT, "planned-x4", {"published": None}) == TEXT.replace("published = false\n", "")
    assert registry.edited(TEXT, "planned-x4", {"repo": None}) == TEXT


def test_text_is_written_so_that_it_reads_back():
    awkward = 'a "b" \\ # c — ×4\ttab'
    changed = registry.edited(TEXT, "small-x4", {"description": awkward, "trained_on": awkward})
    table = tomllib.loads(changed)["small-x4"]
    assert (table["description"], table["trained_on"]) == (awkward, awkward)


def test_a_new_table_goes_behind_the_one_named_or_to_the_end():
    values = {"family": "new", "scale": 3, "published": False}
    table = '\n[new-x3]\nfamily = "new"\nscale = 3\npublished = false\n'
    assert registry.edited(TEXT, "new-x3", values) == TEXT + table
    behind = registry.edited(TEXT, "new-x3", values, after="small-x4")
    assert behind == TEXT.replace('"Apache-2.0"\n\n# ---- pl', f'"Apache-2.0"\n{table}\n# ---- pl')


def test_a_table_moves_behind_the_one_named():
    values = {"published": None, "scale": 4}
    moved = registry.edited(TEXT, "planned-x4", values, after="small-x4")
    planned = '\n[planned-x4]\nfamily = "planned"\n'
    expected = TEXT.replace(planned, "").replace('licence = "Apache-2.0"\npublished = false\n', "")
    assert moved == expected.replace(
        '"Apache-2.0"\n\n# ---- pl', f'"Apache-2.0"\n{planned}scale = 4\nlicence = "Apache-2.0"\n\n# ---- pl'
    )


def test_line_endings_are_kept():
    changed = registry.edited(TEXT.replace("\n", "\r\n"), "small-x4", {"repo": "me/small", "scale": 2})
    assert changed.replace("\r\n", "\n") == registry.edited(TEXT, "small-x4", {"repo": "me/small", "scale": 2})
    assert changed.count("\r\n") == changed.count("\n")


@pytest.mark.parametrize("value", ['"""first\nsecond"""', '"aa"\n"repo" = "me/other"'])
def test_what_a_line_editor_would_spoil_is_refused(value):
    with pytest.raises(UpscaleError, match=r"\[small-x4\] of weights.toml cannot be edited line by line"):
        registry.edited(TEXT.replace('"aa"', value), "small-x4", {"sha256": "bb", "repo": "me/small"})


def test_the_real_registry_can_be_edited_entry_by_entry():
    text = (ROOT / "weights.toml").read_text(encoding="utf-8")
    changed = text
    values = {"repo": "me/net", "file": "net.safetensors", "revision": "c" * 40, "sha256": "5" * 64}
    for name in tomllib.loads(text):
        changed = registry.edited(changed, name, values)
    assert list(tomllib.loads(changed)) == list(tomllib.loads(text))
    assert all(table.items() >= values.items() for table in tomllib.loads(changed).values())
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in changed.splitlines() if line.startswith("#")] == comments


def test_a_file_is_replaced_and_its_permissions_stay(tmp_path):
    file = tmp_path / "weights.toml"
    file.write_bytes(TEXT.encode())
    file.chmod(0o640)
    registry.update(file, "small-x4", {"sha256": "bb"})
    assert file.read_bytes() == TEXT.replace('"aa"', '"bb"').encode()
    assert file.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.toml"]


def test_only_a_checkout_is_written_to(tmp_path, monkeypatch):
    package = tmp_path / "sa_upscale"
    package.mkdir()
    monkeypatch.setattr(checkpoints.registry, "PACKAGE", package)
    with pytest.raises(UpscaleError, match="is an installed package; run this from a checkout"):
        registry.writable()
    (tmp_path / "weights.toml").write_text(TEXT)
    assert registry.writable() == Path(tmp_path / "weights.toml")
    monkeypatch.setattr(registry.os, "access", lambda *_: False)
    with pytest.raises(UpscaleError, match="is not writable"):
        registry.writable()
    (package / "weights.toml").write_text(TEXT)
    with pytest.raises(UpscaleError, match="is an installed package"):
        registry.writable()
