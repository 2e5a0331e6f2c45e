"""Workers for the tests that need no network: they begin quickly, because torch is not loaded."""

import os
import signal
import socket
import time
from pathlib import Path

from sa_upscale import __version__
from sa_upscale.cluster.pool import Outcome, Report
from sa_upscale.errors import UpscaleError


class Echo:
    """Gives every task back; of the words among them "fail" fails, "die" kills the process, "sleep" takes long."""

    def __init__(self, version: str = __version__, refusal: str | None = None, log: Path | None = None):
        if refusal:
            raise UpscaleError(refusal)
        self._version, self._log, self._stopped = version, log, False

    def facts(self) -> dict:
        return {"version": self._version, "host": socket.gethostname(), "pid": os.getpid()}

    def do(self, tasks: list) -> Report:
        return Report([self._one(task) for task in tasks], [f"did {task}" for task in tasks if task == "tell"])

    def stop(self) -> None:
        self._stopped = True

    def _one(self, task: object) -> Outcome:
        if self._log:
            with self._log.open("a") as file:
                file.write(f"{task} {os.getpid()}\n")
        if task == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "fail":
            return Outcome(error="it failed")
        deadline = time.monotonic() + 30
        while task == "sleep" and time.monotonic() < deadline:
            if self._stopped:
                raise InterruptedError("stopped")
            time.sleep(0.01)
        return Outcome(task)
