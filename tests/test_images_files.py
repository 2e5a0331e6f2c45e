"""Where pictures are written to, and what happens when that fails."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sa_upscale.errors import UpscaleError
from sa_upscale.images import WRITTEN, Picture, png, read, write

GREY = Picture(np.arange(12, dtype=np.uint8).reshape(3, 4, 1))


def test_names_in_any_script(tmp_path):
    for name in ("Фото é 写真 🙂.png", "with space.tif", "ünï.JPG"):
        write(tmp_path / name, GREY)
        assert read(tmp_path / name).width == 4
    assert len(list(tmp_path.iterdir())) == 3


def test_format_follows_the_ending_and_content_rules_reading(tmp_path):
    write(tmp_path / "a.TIFF", GREY)
    assert (tmp_path / "a.TIFF").read_bytes()[:4] == b"II*\0"
    (tmp_path / "a.TIFF").rename(tmp_path / "b.png")
    assert read(tmp_path / "b.png").format == "tiff"
    write(tmp_path / "c.png", GREY, format="bmp")
    assert (tmp_path / "c.png").read_bytes()[:2] == b"BM"
    write(tmp_path / "bare", GREY)
    assert read(tmp_path / "bare").format == "png"
    with pytest.raises(UpscaleError, match=r"ends in \.xyz"):
        write(tmp_path / "d.xyz", GREY)
    with pytest.raises(UpscaleError, match="unknown format"):
        write(tmp_path / "d.png", GREY, format="xyz")


@pytest.mark.parametrize("key", WRITTEN)
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch, key):
    target = tmp_path / "old"
    target.write_bytes(b"precious")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UpscaleError, match="no space left for"):
        write(target, GREY, format=key)
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("key", WRITTEN)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_from_other_troubles(key):
    with pytest.raises(UpscaleError, match="no space left for /dev/full"):
        write(Path("/dev/full"), GREY, format=key)


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(png, "encode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.png", GREY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="devices have other names there")
def test_a_device_is_written_to_not_replaced():
    write(Path("/dev/null"), GREY)
    assert not Path("/dev/null").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX links and modes")
def test_links_and_modes_stay(tmp_path):
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    write(link, GREY)
    assert link.is_symlink()
    assert read(real).width == 4
    assert real.stat().st_mode & 0o777 == 0o640
    previous = os.umask(0o027)
    try:
        write(tmp_path / "new.png", GREY)
    finally:
        os.umask(previous)
    assert (tmp_path / "new.png").stat().st_mode & 0o777 == 0o640


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(UpscaleError, match="does not exist; create it"):
        write(tmp_path / "none" / "a.png", GREY)
    with pytest.raises(UpscaleError, match="is a folder"):
        write(tmp_path, GREY, format="png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UpscaleError, match="not writable"):
        write(tmp_path / "a.png", GREY)


def test_a_stream_that_cannot_seek_gets_the_whole_file():
    class Pipe:
        def __init__(self):
            self.data = b""

        def write(self, data):
            self.data += bytes(data)
            return len(data)

        def flush(self):
            pass

    for key in WRITTEN:
        pipe = Pipe()
        write(pipe, GREY, format=key)
        assert read(pipe.data).width == 4
