"""The Hub as users meet it, each scenario in its own process, since the Hub's client reads its settings at import."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import COMMIT, Hub

ROOT = Path(__file__).resolve().parent.parent
REPO, FILE = "someone/upscalers", "net.safetensors"
WEIGHTS = bytes(range(256)) * 400
OTHER = WEIGHTS[:-1] + b"!"
OLDER = "f" * 40

# Ask for one checkpoint with a folder in place of the installed package; say what came, what was told, and the time.
ASK = """
import json, sys, time
from pathlib import Path
from sa_upscale import checkpoints
from sa_upscale.errors import UpscaleError

checkpoints.registry.PACKAGE = Path(sys.argv[1])
notices, progress = [], []
start = time.perf_counter()
try:
    fetched = checkpoints.fetch(["net-x4"], lambda *counts: progress.append(counts), notices.append)
    answer = {"path": str(fetched["net-x4"])}
except UpscaleError as error:
    answer = {"error": str(error)}
answer |= {"seconds": time.perf_counter() - start, "notices": notices, "progress": progress}
print(json.dumps(answer | {"heavy": [name for name in ("torch", "numpy") if name in sys.modules]}))
"""


class Machine:
    """A user's machine: a package with one bundled checkpoint and one on the Hub, and a Hub cache of its own."""

    def __init__(self, folder: Path, revision: str | None = COMMIT):
        self.package, self.cache = folder / "package", folder / "cache"
        (self.package / "bundled").mkdir(parents=True)
        (self.package / "bundled" / "small-x4.safetensors").write_bytes(b"small")
        common = 'architecture = "compact"\nscale = 4\nwindow = 1\ndescription = ""\nlicence = "Apache-2.0"\n'
        small = f'bundled = "small-x4.safetensors"\nsha256 = "{_sha256(b"small")}"\n'
        net = f'repo = "{REPO}"\nfile = "{FILE}"\nsha256 = "{_sha256(WEIGHTS)}"\n'
        if revision:
            net += f'revision = "{revision}"\n'
        (self.package / "weights.toml").write_text(
            f'[small-x4]\nfamily = "small"\n{common}{small}[net-x4]\nfamily = "net"\n{common}{net}'
        )

    def ask(self, endpoint: str, **settings: str) -> dict:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SA_UPSCALE"))}
        clean |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(self.cache), "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(self.package)],
            env=clean | settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == ""  # the client's own warnings and bars would spoil the command line's output
        answer = json.loads(done.stdout)
        assert answer["heavy"] == []
        return answer

    def cached_files(self) -> list[Path]:
        """What lies in the cache of the repository but the notes of its branches."""
        return [file for file in self.cache.rglob("models--*/*/**/*") if file.is_file() and "refs" not in file.parts]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def serve(content: bytes = WEIGHTS, **how) -> Hub:
    return Hub({COMMIT: {f"{REPO}/{FILE}": content}}, **how)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def refused() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_a_pinned_file_is_fetched_once_and_then_needs_no_hub(machine, refused):
    with serve() as hub:
        answer = machine.ask(hub.endpoint)
        assert Path(answer["path"]).read_bytes() == WEIGHTS
        assert COMMIT in answer["path"]
        assert answer["path"].startswith(str(machine.cache))
        assert answer["progress"][-1] == ["net-x4", len(WEIGHTS), len(WEIGHTS)]
        wanted = f"/{REPO}/resolve/{COMMIT}/{FILE}"
        assert set(hub.requests) == {f"HEAD {wanted}", f"GET {wanted}"}
        hub.requests.clear()
        assert machine.ask(hub.endpoint)["path"] == answer["path"]
        assert hub.requests == []
    again = machine.ask(refused, HF_HUB_OFFLINE="1")
    assert again["path"] == answer["path"]
    assert again["progress"] == again["notices"] == []


def test_a_pinned_commit_is_taken_though_the_branch_has_moved_on(tmp_path):
    old = Machine(tmp_path, revision=OLDER)
    with Hub({OLDER: {f"{REPO}/{FILE}": WEIGHTS}, COMMIT: {f"{REPO}/{FILE}": OTHER}}) as hub:
        answer = old.ask(hub.endpoint)
    assert Path(answer["path"]).read_bytes() == WEIGHTS
    assert all(OLDER in request for request in hub.requests)


def test_without_a_commit_the_hash_alone_pins_and_the_cache_is_asked_first(tmp_path):
    unpinned = Machine(tmp_path, revision=None)
    with serve() as hub:
        first = unpinned.ask(hub.endpoint)
        assert f"GET /{REPO}/resolve/main/{FILE}" in hub.requests
        hub.requests.clear()
        assert unpinned.ask(hub.endpoint)["path"] == first["path"]
    assert hub.requests == []


def test_a_large_file_comes_from_storage_and_the_token_stays_at_the_hub(machine):
    with serve(large=True) as hub:
        answer = machine.ask(hub.endpoint, HF_TOKEN="hf_secret", HF_HUB_CACHE=str(machine.cache / "elsewhere"))
    assert Path(answer["path"]).read_bytes() == WEIGHTS
    assert answer["path"].startswith(str(machine.cache / "elsewhere"))
    assert hub.requests[-1] == "GET storage"
    assert set(hub.authorized) == {"hub Bearer hf_secret"}


def test_a_file_with_another_hash_is_refused_and_deleted(machine):
    with serve(OTHER) as hub:
        error = machine.ask(hub.endpoint)["error"]
    assert "another sha256" in error
    assert "it was deleted" in error
    assert "the bundled small-x4 needs no network" in error
    assert machine.cached_files() == []


def test_a_file_announced_with_another_hash_is_not_even_fetched(machine):
    with serve(OTHER, large=True) as hub:
        error = machine.ask(hub.endpoint)["error"]
    assert "so it was not fetched" in error
    assert not any(request.startswith("GET") for request in hub.requests)


def test_a_file_that_is_not_what_the_hub_announced_is_refused_and_deleted(machine):
    with serve(OTHER, large=True, promised=_sha256(WEIGHTS)) as hub:
        error = machine.ask(hub.endpoint)["error"]
    assert "it was deleted" in error
    assert machine.cached_files() == []


def test_a_download_that_breaks_off_once_goes_on(machine):
    with serve(cut=1) as hub:
        answer = machine.ask(hub.endpoint)
    assert Path(answer["path"]).read_bytes() == WEIGHTS
    assert len([request for request in hub.requests if request.startswith("GET")]) == 2


def test_a_download_that_always_breaks_off_is_one_line_and_leaves_nothing(machine):
    with serve(cut=100) as hub:
        answer = machine.ask(hub.endpoint)
    assert answer["error"].startswith("cannot fetch net-x4: the download broke off (")
    assert "\n" not in answer["error"]
    assert machine.cached_files() == []
    assert answer["seconds"] < 15


@pytest.mark.parametrize("large", [False, True])
def test_a_corrupt_cached_file_is_named_and_fetched_again(machine, large):
    with serve(large=large) as hub:
        cached = Path(machine.ask(hub.endpoint)["path"])
        cached.resolve().write_bytes(OTHER)
        answer = machine.ask(hub.endpoint)
    assert [notice.split(" is corrupt")[0] for notice in answer["notices"]] == [str(cached)]
    assert Path(answer["path"]).read_bytes() == WEIGHTS
    assert {file.read_bytes() for file in machine.cached_files()} == {WEIGHTS}


def test_a_corrupt_cached_file_is_refused_but_kept_while_the_hub_is_away(machine, refused):
    with serve() as hub:
        cached = Path(machine.ask(hub.endpoint)["path"])
    cached.resolve().write_bytes(OTHER)
    answer = machine.ask(refused)
    assert answer["error"].startswith(f"{cached} is corrupt")
    assert "the bundled small-x4 needs no network" in answer["error"]
    assert cached.read_bytes() == OTHER


def test_offline_an_uncached_name_fails_at_once(machine, refused):
    answer = machine.ask(refused, HF_HUB_OFFLINE="1")
    assert answer["error"] == (
        "cannot fetch net-x4: HF_HUB_OFFLINE is set; the bundled small-x4 needs no network (--model small-x4)"
    )
    assert answer["seconds"] < 3


def test_a_refused_connection_fails_without_retries(machine, refused):
    answer = machine.ask(refused)
    assert answer["error"].startswith(f"cannot fetch net-x4: {refused} cannot be reached (")
    assert answer["error"].endswith("the bundled small-x4 needs no network (--model small-x4)")
    assert "\n" not in answer["error"]
    assert answer["seconds"] < 5


def test_a_hub_that_never_answers_is_given_up(machine):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        answer = machine.ask(f"http://127.0.0.1:{mute.getsockname()[1]}", HF_HUB_ETAG_TIMEOUT="1")
    assert "cannot be reached" in answer["error"]
    assert answer["seconds"] < 3 + 1 + 2  # the client asks another question first, for three seconds


def test_the_hub_says_no(machine):
    with serve() as hub:
        hub.status = 503
        assert "the Hub answered 503 for" in machine.ask(hub.endpoint)["error"]
        hub.status, hub.headers = None, False
        assert f"{hub.endpoint} does not answer as a Hub" in machine.ask(hub.endpoint)["error"]
        hub.headers, hub.files = True, {COMMIT: {f"{REPO}/other": b""}}
        assert f"the Hub answered 404 for {REPO}/{FILE} at {COMMIT}" in machine.ask(hub.endpoint)["error"]
        hub.status = 401
        assert "needs HF_TOKEN" in machine.ask(hub.endpoint)["error"]
