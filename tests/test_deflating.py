"""One zlib stream by several threads."""

import random
import zlib

import pytest

from sa_upscale.images import deflating
from sa_upscale.images.deflating import deflated


def parts(count, size=5000):
    dice = random.Random(count)
    return [bytes(dice.choices(b"abcdef", k=size)) for _ in range(count)]


def packed(content):
    return b"".join(deflated(((lambda part=part: part) for part in content), 3))


@pytest.mark.parametrize("count", [0, 1, 2, 17])
def test_the_stream_is_that_of_all_parts_in_order(count):
    content = parts(count)
    assert zlib.decompress(packed(content)) == b"".join(content)


def test_the_bytes_do_not_depend_on_the_threads(monkeypatch):
    content = parts(9)
    monkeypatch.setattr(deflating, "THREADS", 1)
    alone = packed(content)
    monkeypatch.setattr(deflating, "THREADS", 4)
    assert packed(content) == alone
    assert len(alone) < len(b"".join(content)) / 2


def test_parts_are_asked_for_as_they_are_packed(monkeypatch):
    monkeypatch.setattr(deflating, "THREADS", 2)
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield lambda: b"x" * 1000

    stream = deflated(endless(), 3)
    for _ in range(4):
        next(stream)
    assert len(asked) < 8


def test_what_a_part_raises_is_raised():
    def broken():
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(deflated([lambda: b"x", broken], 3))
