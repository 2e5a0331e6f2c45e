"""What commands show: lines and tables for people, JSON lines for scripts, progress for both."""

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def swift_imports() -> Iterator[None]:
    """Import large packages without looking for garbage among all they define, now and once more when Python ends.

    Measured: `import torch` alone is a command of 1.39 s, in here 0.90 s.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Voice:
    """How one command speaks: lines for a person, or JSON lines for a script, on stdout; notices go to stderr.

    With `to_stderr` all of it goes there, because stdout is where the picture or film goes.
    """

    def __init__(self, json_lines: bool = False, *, to_stderr: bool = False):
        self._json, self._stream = json_lines, sys.stderr if to_stderr else sys.stdout

    def tell(self, facts: dict, text: str, *, failed: bool = False) -> None:
        """One result: `facts` as a JSON line, or `text`, on stderr if it `failed`."""
        if follows():
            return
        if self._json:
            print(json.dumps(facts), file=self._stream, flush=True)
        else:
            print(text, file=sys.stderr if failed else self._stream, flush=True)

    def notice(self, text: str) -> None:
        """Something to know that is no failure."""
        self.tell({"event": "notice", "text": text}, text, failed=True)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable]:
        """Yield `progress(done, total, label="", **facts)`: JSON lines, or a bar once it has gone on for a second."""
        if self._json:
            yield _throttled(
                lambda done, total, label="", **facts: self.tell(_progress_facts(done, total, label) | facts, "")
            )
        elif sys.stderr.isatty() and not follows():
            with _bar() as draw:
                yield draw
        else:
            yield lambda done, total, label="", **_facts: None


def follows() -> bool:
    """Whether this is one of torchrun's processes but not the first, which speaks for all."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK") != "0"


def _progress_facts(done: float, total: float | None, label: str) -> dict:
    return {"event": "progress", "done": round(done, 3), "total": total} | ({"label": label} if label else {})


def _throttled(report: Callable, seconds: float = 0.2) -> Callable:
    """Pass on a report now and then, and always the last."""
    last = 0.0

    def progress(done, total, label="", **facts) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= seconds:
            last = time.monotonic()
            report(done, total, label, **facts)

    return progress


@contextlib.contextmanager
def _bar() -> Iterator[Callable]:
    """A progress bar on stderr that appears after a second and leaves nothing behind."""
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    bar = rich_progress.Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=None)
    began = time.monotonic()
    lines: dict[int, int] = {}

    def draw(done, total, label="", workers=(), **_facts) -> None:
        if not bar.live.is_started and time.monotonic() - began >= 1:
            bar.start()
        bar.update(task, completed=done, total=total, description=label or f"{len(workers)} workers" * bool(workers))
        for number, worker in enumerate(workers):
            if number not in lines:
                lines[number] = bar.add_task("", total=None)
            at = worker["at"] or worker["state"]
            bar.update(lines[number], description=f"  {worker['name']}  {worker['done']} done  {at}")

    try:
        yield draw
    finally:
        bar.stop()


def worker_facts(seats) -> list[dict]:
    """How the workers stand, for the progress."""
    return [{"name": seat.name, "state": seat.state.value, "at": seat.label, "done": seat.done} for seat in seats]


def draw_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table: framed in a terminal, tab-separated with every cell whole when the output goes to a file or pipe."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in [columns, *rows]))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "scale"))
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def megabytes(size: int | None) -> str:
    """A number of bytes as it is shown; nothing where it is not known."""
    return "" if size is None else f"{size / 1e6:.1f} MB"
