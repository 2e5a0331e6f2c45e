"""The rebuilding of benchmarks/RESULTS.md: what is measured, what is remembered, what of the page is left alone."""

import json
import shutil

import pytest

from benchmarks import results
from benchmarks.results import BENCHES, Method, fill, regions, replaced, table
from sa_upscale import checkpoints
from tests.conftest import ROOT


def bicubic(known=None):
    return Method("bicubic", {} if known is None else known)


def photo(known=None):
    return Method("ours-x4", {} if known is None else known, 4, 1, 620_000)


def video(known=None, *, here=True):
    return Method("clip-x4", {} if known is None else known, 4, 5, 1_330_000, here)


SET5, BSD100, SET5_X2 = BENCHES[:3]
VID4 = next(bench for bench in BENCHES if bench.name == "Vid4 x4")


@pytest.fixture
def measured(monkeypatch):
    """What was asked to be measured, with the figure 1, 2, … for each."""
    asked = []

    def measure(method, bench, metrics, shared, backbones):
        asked.append((method.name, bench.name, tuple(metrics)))
        return {folder: dict.fromkeys(metrics, float(len(asked))) for folder in bench.folders}

    monkeypatch.setattr(results, "measure", measure)
    return asked


def filled(rows, metrics):
    labels = []
    fill(rows, metrics, None, None, labels.append)
    return labels


def test_networks_are_measured_where_they_fit(measured):
    assert filled([bicubic()], ["psnr-y"]) == [f"bicubic on {bench.name}" for bench in BENCHES]
    assert filled([photo()], ["psnr-y"]) == ["ours-x4 on Set5 x4", "ours-x4 on BSD100 x4", "ours-x4 on Vid4 x4"]
    assert filled([video()], ["psnr-y"]) == ["clip-x4 on Vid4 x4"]


def test_only_what_is_new_is_measured(measured):
    known = {}
    filled([video(known)], ["psnr-y"])
    filled([video(known)], ["psnr-y"])
    assert measured == [("clip-x4", "Vid4 x4", ("psnr-y",))]
    filled([video(known)], ["psnr-y", "ssim-y"])
    assert measured[1:] == [("clip-x4", "Vid4 x4", ("ssim-y",))]
    assert known["Vid4 x4"]["calendar"] == {"psnr-y": 1, "ssim-y": 2}
    filled([video(known, here=False)], ["psnr-y", "vif-y"])
    assert len(measured) == 2


def test_a_table_has_a_row_for_each_method_and_the_arrow_of_each_metric():
    rows = [
        bicubic({"Set5 x4": {".": {"psnr-y": 28.4256, "vgg-percep": 0.42261}}}),
        photo({"Set5 x4": {".": {"psnr-y": 31.4444}}, "BSD100 x4": {".": {"psnr-y": 27.0}}}),
        video(),
    ]
    lines = table(rows, [SET5, BSD100]).splitlines()
    assert lines[0] == "| checkpoint | parameters | Set5 PSNR-Y ↑ | vgg-percep ↓ | BSD100 PSNR-Y ↑ | vgg-percep ↓ |"
    assert lines[2:] == [
        "| bicubic |  | 28.43 | 0.4226 |  |  |",
        "| `ours-x4` | 0.62 M | 31.44 |  | 27.00 |  |",
    ]


def test_a_clip_table_names_the_clips():
    rows = [video({"Vid4 x4": {"calendar": {"psnr-y": 21.0}, "foliage": {"psnr-y": 24.0}}})]
    lines = table(rows, [VID4]).splitlines()
    assert lines[0] == "| checkpoint | parameters | calendar PSNR-Y ↑ | foliage PSNR-Y ↑ |"
    assert lines[2] == "| `clip-x4` | 1.33 M | 21.00 | 24.00 |"


def test_there_are_regions_for_the_scales_there_are_networks_of():
    assert list(regions([bicubic(), video()])) == ["clips x4", "published"]
    texts = regions([bicubic(), photo(), video()])
    assert list(texts) == ["pictures x4", "clips x4", "published"]
    assert "clip-x4" not in texts["pictures x4"]
    assert "IMDN" in texts["pictures x4"]


def test_rebuilding_leaves_what_is_written_by_hand():
    page = (
        "# Results\n\nBefore.\n<!-- begin: a -->\nold\n<!-- end: a -->\nBetween \\1.\n"
        "<!-- begin: b -->\n<!-- end: b -->\n"
    )
    once = replaced(replaced(page, "a", "new \\1"), "b", "more")
    assert once == (
        "# Results\n\nBefore.\n<!-- begin: a -->\nnew \\1\n<!-- end: a -->\nBetween \\1.\n"
        "<!-- begin: b -->\nmore\n<!-- end: b -->\n"
    )
    assert replaced(once, "a", "new \\1") == once
    assert replaced("# Results\n", "c", "x") == "# Results\n\n<!-- begin: c -->\nx\n<!-- end: c -->\n"


@pytest.mark.parametrize(
    "page",
    ["<!-- begin: a -->", "<!-- end: a --> <!-- begin: a -->", "<!-- begin: a --><!-- end: a -->" * 2],
)
def test_broken_marks_are_refused(page):
    with pytest.raises(ValueError, match="does not begin and end once"):
        replaced(page, "a", "text")


def test_the_methods_are_what_lies_on_this_machine_or_is_known():
    notices, entries = [], checkpoints.entries()
    far = entries["public-rrdb-psnr-x4"]
    cache = {far.sha256: {"parameters": 16_697_987, "figures": {"Set5 x4": {".": {"psnr-y": 32.7}}}}}
    found = {method.name: method for method in results.methods(cache, notices.append)}
    assert found["bicubic"].known is cache["bicubic"]["figures"]
    assert found[far.name].known["Set5 x4"]["."] == {"psnr-y": 32.7}
    ours = found["compact-x4"]
    assert ours.here
    assert ours.scale == 4
    assert 0.5e6 < ours.parameters < 1.5e6
    assert ours.known is cache[entries["compact-x4"].sha256]["figures"]
    assert found.keys() | {notice.split()[0] for notice in notices} == entries.keys() | {"bicubic"}


def test_bicubic_is_measured_at_the_published_figure(shared):
    figures = results.measure(bicubic(), SET5, ["psnr-y", "ssim-y"], shared, None)["."]
    assert figures["psnr-y"] == pytest.approx(28.43, abs=0.006)
    assert figures["ssim-y"] == pytest.approx(0.8113, abs=0.0002)


def test_the_page_is_what_the_figures_give(measured, tmp_path):
    """A rebuild from the committed figures measures nothing and changes nothing."""
    for name in ("RESULTS.md", "results.json"):
        shutil.copy(ROOT / "benchmarks" / name, tmp_path)
    page, cache = tmp_path / "RESULTS.md", tmp_path / "results.json"
    known = json.loads(cache.read_text(encoding="utf-8"))
    if new := {entry.name for entry in checkpoints.entries().values() if entry.bundled and entry.sha256 not in known}:
        pytest.skip(f"not measured since they were trained: {', '.join(sorted(new))}; run benchmarks.results")
    results.main(["--shared", str(tmp_path), "--output", str(page), "--cache", str(cache)])
    if not measured:  # a machine may hold more checkpoints than were measured
        assert page.read_text(encoding="utf-8") == (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
