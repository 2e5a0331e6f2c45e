"""The memory of a process that trains or runs a network."""

import ctypes
import platform
import subprocess
import sys

import pytest

from sa_upscale import memory, models
from sa_upscale.engine import Engine

FAULTS = """
import resource, sys
import numpy as np
from sa_upscale import memory

if sys.argv[1] == "keep":
    memory.keep()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 << 20, np.uint8)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_memory_that_was_freed_comes_without_new_pages():
    def faults(what: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, what], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 100
    assert faults("leave") >= 16  # pages of 4 KB, 64 KB or 2 MB


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.keep()


def test_an_engine_has_it_kept_when_asked(monkeypatch):
    kept = []
    monkeypatch.setattr(memory, "keep", lambda: kept.append(True))
    model = models.build("compact", features=4, convs=1)
    Engine(model, device="cpu")
    assert not kept
    Engine(model, device="cpu", keep_memory=True)
    assert len(kept) == 1
