"""Films at addresses: fetched once, gone on with, sent whole, and nothing left or lost."""

import contextlib
import json
import sys
import time

import pytest

from sa_upscale import cli, folders, video
from sa_upscale.cluster import places, trips
from sa_upscale.errors import UpscaleError
from tests.clips import Clip, make
from tests.test_cluster_pictures import network, run  # noqa: F401

fsspec = pytest.importorskip("fsspec", reason="addresses need fsspec")
FRAMES, SEGMENT = 20, 8


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(folders.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(video, "length_for", lambda info: SEGMENT)
    return tmp_path / "cache" / "sa-upscale" / "films"


@pytest.fixture
def film(tmp_path):
    return make(tmp_path / "clip.mp4", Clip([((9 * i) % 200, 60, 90) for i in range(FRAMES)], options={"crf": "4"}))


@pytest.fixture
def memory(film):
    system = fsspec.filesystem("memory")
    system.pipe("/in/clip.mp4", film.read_bytes())
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def command(run, network):  # noqa: F811
    return lambda *arguments: run("video", *arguments, "-x2", "--model", network, "--preset", "ultrafast")


def kept(cache):
    """Every file that is left of trips."""
    return [path for path in cache.rglob("*") if path.is_file()] if cache.exists() else []


def test_there_and_back_and_mixed_is_the_film_of_one_machine(command, film, memory, tmp_path, cache):
    assert command(film, "-o", tmp_path / "here.mp4")[0] == 0
    expected = (tmp_path / "here.mp4").read_bytes()
    code, out, err = command("memory://in/clip.mp4", "-o", "memory://out/big.mp4", "--json")
    *progress, result = map(json.loads, out.splitlines())
    assert (code, err, result["source"], result["target"]) == (0, "", "memory://in/clip.mp4", "memory://out/big.mp4")
    assert [*dict.fromkeys(at["label"].split()[0] for at in progress)] == ["fetching", "clip.mp4", "sending"]
    assert memory.cat("/out/big.mp4") == expected
    assert command("memory://in/clip.mp4", "-o", tmp_path / "far.mp4")[0] == 0
    assert (tmp_path / "far.mp4").read_bytes() == expected
    assert command(film, "-o", "memory://folder/")[0] == 0
    assert command("memory://in/clip.mp4")[0] == 0
    assert memory.cat("/folder/clip_x2.mp4") == memory.cat("/in/clip_x2.mp4") == expected
    assert (memory.ls("/out", detail=False), kept(cache)) == (["/out/big.mp4"], [])


def test_interrupted_it_goes_on_without_fetching_again(command, memory, cache, monkeypatch):
    def noted():
        return any("sha256" in path.read_text() for path in kept(cache) if path.name == "journal.jsonl")

    def interrupt(at, name):
        if at.done > SEGMENT + 2:
            until = time.monotonic() + 20
            while not noted() and time.monotonic() < until:
                time.sleep(0.01)  # the encoder's thread is behind, on a slow disk far
            raise video.Interrupted("interrupted after a while")
        return name

    way = ("memory://in/clip.mp4", "-o", "memory://out/big.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(cli.video, "_pace", interrupt)
        code, _, err = command(*way)
    assert (code, err) == (130, "sa-upscale: interrupted after a while\n")
    assert "journal.jsonl" in {path.name for path in kept(cache)}
    with monkeypatch.context() as patch:
        patch.setattr(places, "fetch", lambda *_: pytest.fail("fetched twice"))
        code, out, _ = command(*way)
    assert (code, "8 of them from an earlier run" in out, kept(cache)) == (0, True, [])
    # Another film of the same name is fetched, and begun afresh.
    with monkeypatch.context() as patch:
        patch.setattr(cli.video, "_pace", interrupt)
        assert command(*way)[0] == 130
    memory.pipe("/in/clip.mp4", memory.cat("/in/clip.mp4") + b"\0\0\0\x08free")
    code, out, _ = command(*way)
    assert (code, "earlier run" in out) == (0, False)


def test_what_cannot_be_sent_is_kept_and_sent_by_the_same_command(command, memory, cache, monkeypatch):
    way = ("memory://in/clip.mp4", "-o", "memory://out/big.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(memory, "put_file", lambda *_, **__: (_ for _ in ()).throw(PermissionError("Access Denied")))
        code, out, err = command(*way)
    (result,) = [path for path in kept(cache) if path.name == "big.mp4"]
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("sa-upscale: memory://out/big.mp4 cannot be reached: Access Denied; the result is kept as ")
    assert str(result) in err
    content = result.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(video, "upscale_file", lambda *_, **__: pytest.fail("made twice"))
        code, out, err = command(*way)
    assert (code, err, memory.cat("/out/big.mp4")) == (0, "the result is made already; sending it\n", content)
    assert (f"{FRAMES} of {FRAMES}" in out, kept(cache)) == (True, [])


def test_a_result_that_was_not_sent_is_not_that_of_another_order(memory, tmp_path, cache, monkeypatch):
    made = tmp_path / "made.mp4"
    made.write_bytes(b"film")
    result = video.VideoResult("in", made, 2, 2, "h264", "yuv420p", 1, 1, 0, 1.0, 1.0, 0, 0.0, {}, True, ())
    showing = lambda: contextlib.nullcontext(print)  # noqa: E731
    monkeypatch.setattr(places, "send", lambda *_: (_ for _ in ()).throw(UpscaleError("away")))
    with trips.Trip("memory://in/clip.mp4", "memory://out/big.mp4", showing) as trip:
        trip.target(None, 2)
        with pytest.raises(UpscaleError, match=r"away; the result is kept as .*made\.mp4"):
            trip.deliver(result, "x2")
        assert trip.finished("x2").target == str(made)
        assert trip.finished("x4") is None
        with pytest.raises(UpscaleError, match=r"memory://out/big\.mp4: another run is making it"):
            trips.Trip("memory://in/clip.mp4", "memory://out/big.mp4", showing).__enter__()


@pytest.mark.parametrize(
    ("source", "output", "line"),
    [
        ("memory://in/none.mp4", "o.mp4", "memory://in/none.mp4: there is nothing"),
        ("memory://in", "o.mp4", "memory://in is a folder; name a file in it"),
        ("memory://in/clip.mp4", "memory://in/clip.mp4", "memory://in/clip.mp4: the output is the input"),
        ("memory://in/%03d.png", "o.mp4", "memory://in/%03d.png: numbered pictures have to be on a file system"),
        ("memory://in/clip.mp4", "https://there/o.mp4", "https://there/o.mp4: nothing can be written there"),
        ("nonsense://in/clip.mp4", "o.mp4", "nonsense://in/clip.mp4: Protocol not known"),
        ("memory://in/text.mp4", "o.mp4", "memory://in/text.mp4"),
    ],
)
def test_what_cannot_be_is_one_line(command, memory, source, output, line):
    memory.pipe("/in/text.mp4", b"no film at all")
    code, out, err = command(source, "-o", output)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"sa-upscale: {line}")
    assert "cache" not in err


def test_a_missing_library_names_the_extra_and_a_full_disk_the_folder(command, memory, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gcsfs", None)
        code, _, err = command("gs://bucket/clip.mp4", "-o", "o.mp4")
    assert (code, err.count("\n"), 'pip install "sa-upscale[gs]"' in err) == (1, 1, True)
    monkeypatch.setattr(trips.shutil, "disk_usage", lambda folder: trips.shutil._ntuple_diskusage(1, 1, 0))
    code, _, err = command("memory://in/clip.mp4", "-o", "o.mp4")
    assert (code, err.count("\n"), f"set {folders.VARIABLE} to a folder with more room" in err) == (1, 1, True)
