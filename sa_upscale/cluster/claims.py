"""One run to one output: a file says whose it is, and by it workers see that they write where they should."""

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from sa_upscale.errors import UpscaleError

BEAT = 10.0  # s between two signs of life
DEAD = 60.0  # s without one, by the file system's own clock
TOKEN = "token.json"
PARTIAL = re.compile(r"\.[0-9a-f]{32}\.part")  # as `disk.replacing` names what is not whole


class Claim:
    """The hold on an output, while this is open: `file` is there, holds `token`, and is touched now and then.

    What a killed run left is taken over: at once on its own machine, after a minute on another.  Raises `UpscaleError`
    while another run is alive, and when the file cannot be written.
    """

    def __init__(self, file: Path):
        self.file, self.token = file, uuid.uuid4().hex
        self._ended = threading.Event()
        about = {"host": socket.gethostname(), "pid": os.getpid(), "token": self.token}
        try:
            self._take(json.dumps(about))
        except OSError as error:
            raise UpscaleError(f"{file.parent} is not writable ({error.strerror or error})") from None
        self._began = self.file.stat().st_mtime  # by the file system's own clock
        self._beating = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._beating.start()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._beating.join()
        self.file.unlink(missing_ok=True)

    def sweep(self, folders: Iterable[Path]) -> None:
        """Remove what killed workers of this run have left half written in these folders."""
        for folder in folders:
            for entry in os.scandir(folder):
                if PARTIAL.fullmatch(entry.name) and entry.stat().st_mtime >= self._began:
                    Path(entry.path).unlink(missing_ok=True)

    def _take(self, content: str) -> None:
        while True:
            try:
                with open(self.file, "x", encoding="utf-8") as file:
                    file.write(content)
            except FileExistsError:
                self._clear_away()
            else:
                return

    def _clear_away(self) -> None:
        try:
            other = json.loads(self.file.read_text(encoding="utf-8"))
            host, pid = str(other["host"]), int(other["pid"])
        except FileNotFoundError:
            return
        except (ValueError, LookupError, TypeError):
            host, pid = "an unknown machine", None  # it is being written, or was cut short
        if not self._is_dead(host, pid):
            raise UpscaleError(
                f"another run (process {pid} on {host}) writes to {self.file.parent}; wait for its end, or stop it and "
                f"try again a minute later"
            )
        # Renamed first, so that of two who find it dead only one takes it away.
        found = self.file.with_name(f"{self.file.name}.{self.token}")
        os.replace(self.file, found)
        found.unlink()

    def _is_dead(self, host: str, pid: int | None) -> bool:
        if host == socket.gethostname() and pid is not None and os.name == "posix":
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            except PermissionError:
                pass
            return False
        probe = self.file.with_name(f"{self.file.name}.{self.token}")
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now - self.file.stat().st_mtime > DEAD

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                os.utime(self.file)
            except OSError:
                time.sleep(0)  # a share that is away for a moment; the next beat may come through


def leave_token(file: Path, token: str) -> None:
    """Write a file that `check` knows again."""
    file.write_text(json.dumps({"token": token}), encoding="utf-8")


def check(file: Path, token: str) -> None:
    """Raise `UpscaleError` where this machine does not see the claim of the run it works for."""
    try:
        seen = json.loads(file.read_text(encoding="utf-8")).get("token")
    except (OSError, ValueError):
        seen = None
    if seen != token:
        raise UpscaleError(
            f"{socket.gethostname()} does not see the output folder {file.parent}; it has to be on a file system that "
            "all machines share under the same path"
        )
