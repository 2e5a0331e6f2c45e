"""The blind test: what it shows and hides, what it collects, and how that is summed up."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sa_upscale.cli import app
from sa_upscale.compare import Opinion, Preference, opinions, preferences, write_test
from sa_upscale.errors import UpscaleError
from tests.browser import browsing


@pytest.fixture
def folders(tmp_path):
    """Two pictures that both have, of a width that tells them apart, and one that only the first has."""
    for number, folder in enumerate(("ours", "theirs")):
        (tmp_path / folder).mkdir()
        for index, name in enumerate(("boat", "cat", "dog")[: 3 - number]):
            pixels = np.full((20, 30 + 10 * index + number, 3), 90, np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    return [tmp_path / "ours", tmp_path / "theirs"]


def answers(file, **scores):
    listed = [{"picture": "x", "model": model, "score": score} for model, each in scores.items() for score in each]
    file.write_text(json.dumps({"sa-upscale blind test": 1, "scores": listed}))
    return file


def test_the_page_takes_what_all_folders_have(tmp_path, folders):
    assert write_test(tmp_path / "test.html", folders) == ["boat", "cat"]
    text = (tmp_path / "test.html").read_text(encoding="utf-8")
    assert text.count("<img ") == 4


def test_folders_that_make_no_test_are_refused(tmp_path, folders):
    (tmp_path / "empty").mkdir()
    for given, message in (
        (folders[:1], "two folders"),
        ([folders[0], tmp_path / "empty"], "no picture is in all"),
        ([folders[0], tmp_path / "none"], "is no folder"),
    ):
        with pytest.raises(UpscaleError, match=message):
            write_test(tmp_path / "test.html", given)


def test_a_rater_scores_without_names_and_the_result_knows_them(tmp_path, folders):
    write_test(tmp_path / "test.html", folders)
    with browsing(tmp_path / "profile") as browser:
        browser.open(tmp_path / "test.html", 800, 600)
        wanted = {}
        names = {30: ("boat", "ours"), 31: ("boat", "theirs"), 40: ("cat", "ours"), 41: ("cat", "theirs")}
        for turn, key in enumerate("3124"):
            seen = browser.run("document.body.innerText")
            assert f"{turn + 1} of 4" in seen
            assert not any(word in seen for word in ("ours", "theirs", "boat"))
            width = browser.run("document.querySelector('.frame img:not([hidden])').naturalWidth")
            wanted[names[width]] = int(key)
            browser.key(key)
        browser.run("document.querySelector('#back').click()")
        browser.key("5")
        wanted[names[width]] = 5
        told = browser.run("document.querySelector('#result').value")
    assert {(entry["picture"], entry["model"]): entry["score"] for entry in json.loads(told)["scores"]} == wanted
    (tmp_path / "scores.json").write_text(told)
    assert {opinion.model for opinion in opinions([tmp_path / "scores.json"])} == {"ours", "theirs"}


def test_opinions_have_means_and_intervals(tmp_path):
    first = answers(tmp_path / "1.json", ours=[5, 4], theirs=[2])
    second = answers(tmp_path / "2.json", ours=[3], other=[1])
    # A standard deviation of 1 over three scores.
    assert opinions([first, second]) == [
        Opinion("ours", 3, 4, pytest.approx(1.96 / 3**0.5)),
        Opinion("theirs", 1, 2, None),
        Opinion("other", 1, 1, None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "does not hold"), ("[]", "does not hold"), ('{"scores": [{"model": "x", "score": 6}]}', "not 1, 2, 3, 4")],
)
def test_what_are_no_scores_is_said(tmp_path, text, message):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(UpscaleError, match=message):
        opinions([tmp_path / "scores.json"])


def test_the_commands(tmp_path, folders):
    shell = CliRunner()
    done = shell.invoke(app, ["compare", "--blind", *map(str, folders), "-o", str(tmp_path / "test.html")])
    assert "2 pictures of each of 2 folders" in done.output
    file = answers(tmp_path / "1.json", ours=[5, 4, 3], theirs=[2])
    done = shell.invoke(app, ["compare", "--scores", str(file)])
    assert done.output.splitlines()[1:] == ["ours\t3\t4.00 ± 1.13", "theirs\t1\t2.00"]
    done = shell.invoke(app, ["compare", "--scores", "--json", str(file)])
    assert json.loads(done.output.splitlines()[0])["mean"] == 4
    assert shell.invoke(app, ["compare", "--scores", "--blind", str(file)]).exit_code == 2


def choices(file, *made):
    listed = [{"picture": "x", "models": list(models), "better": better} for models, better in made]
    file.write_text(json.dumps({"sa-upscale blind test": 1, "choices": listed}))
    return file


def test_a_rater_chooses_from_two_without_names(tmp_path, folders):
    assert write_test(tmp_path / "test.html", folders, pairs=True) == ["boat", "cat"]
    models, wanted = {30: "ours", 31: "theirs", 40: "ours", 41: "theirs"}, {}
    shown = "[...document.querySelectorAll('.frame img:not([hidden])')]"
    widths = f"{shown}.sort((a, b) => a.style.order - b.style.order).map(image => image.naturalWidth)"
    with browsing(tmp_path / "profile") as browser:
        browser.open(tmp_path / "test.html", 800, 600)
        for turn in (1, 2):
            seen = browser.run("document.body.innerText")
            assert f"{turn} of 2" in seen
            assert not any(word in seen for word in ("ours", "theirs", "boat"))
            left, right = browser.run(widths)
            lefts = browser.run(f"{shown}.map(image => [image.naturalWidth, image.getBoundingClientRect().left])")
            assert dict(lefts)[left] < dict(lefts)[right]
            browser.key("t")
            assert browser.run(widths) == [left]
            browser.run("document.querySelector('#swap').click()")
            assert browser.run(widths) == [right]
            browser.key("t")
            assert browser.run(widths) == [left, right]
            wanted["boat" if left < 40 else "cat"] = (
                [models[left], models[right]],
                models[right] if turn == 1 else None,
            )
            browser.key("b" if turn == 1 else "0")
        told = browser.run("document.querySelector('#result').value")
    found = {entry["picture"]: (entry["models"], entry["better"]) for entry in json.loads(told)["choices"]}
    assert found == wanted
    (tmp_path / "choices.json").write_text(told)
    (preference,) = preferences([tmp_path / "choices.json"])
    assert (preference.count, preference.share) == (2, 0.75)


def test_preferences_have_shares_and_intervals(tmp_path):
    both, other = ("b", "a"), ("a", "c")
    first = choices(tmp_path / "1.json", *[(both, "b")] * 7, (both, "a"), (both, None), (both, None))
    second = choices(tmp_path / "2.json", (other, "c"), (("c", "a"), "c"))
    # Wilson's interval of 8 in 10, by hand: (0.8 + 0.19208 ± 1.96 sqrt(0.016 + 0.009604)) / 1.38416.
    assert preferences([first, second]) == [
        Preference("c", "a", 2, 1, pytest.approx(0.3424, abs=1e-4), pytest.approx(1)),
        Preference("b", "a", 10, 0.8, pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4)),
    ]
    assert opinions([first]) == []


def test_the_commands_of_pairs(tmp_path, folders):
    shell = CliRunner()
    done = shell.invoke(app, ["compare", "--blind", "--ab", *map(str, folders), "-o", str(tmp_path / "test.html")])
    assert "2 pictures of each of 2 folders, to be chosen from two by two" in done.output
    assert "compare --scores choices.json" in done.output
    assert shell.invoke(app, ["compare", "--ab", *map(str, folders)]).exit_code == 2
    files = [answers(tmp_path / "1.json", ours=[5]), choices(tmp_path / "2.json", *[(("ours", "theirs"), "ours")] * 3)]
    done = shell.invoke(app, ["compare", "--scores", *map(str, files)])
    assert done.output.splitlines()[1::2] == ["ours\t1\t5.00", "ours\ttheirs\t3\t100%, 44% to 100%"]
    for text in ('{"choices": [{"models": ["a", "a"], "better": "a"}]}', '{"choices": [{"models": ["a", "b"]}]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UpscaleError, match="does not hold the answers"):
            preferences([tmp_path / "bad.json"])
