import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of benchmark sets and training images beside the checkout; tests that need it skip without it."""
    folder = ROOT.parent / "shared"
    if not (folder / "data" / "bench").is_dir():
        pytest.skip("needs the benchmark data in ../shared, which is not here")
    return folder


@pytest.fixture(scope="session", autouse=True)
def nothing_imported(tmp_path_factory):
    """Checkpoints that the user of this machine has imported are not there for the tests, nor what it remembers."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
            patch.setenv(variable, str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A script's background jobs ignore Ctrl-C, and so would the commands that the tests start and interrupt."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
