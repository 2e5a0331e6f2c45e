"""What a training run leaves beside its weights: the log, TensorBoard's events and the validation pictures."""

import json
import math
import re
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from sa_upscale import disk
from sa_upscale.errors import UpscaleError

LOG, PICTURES, TENSORBOARD = "log.jsonl", "pictures", "tensorboard"


class Record:
    """Writes `log.jsonl`, `pictures/` and `tensorboard/` in the folder `run` while a recipe is trained.

    What was recorded is in the system's hands when a call returns, so that a killed process loses none of it.
    Without the tensorboard package one notice says so, and the rest is recorded.  Not for several processes at once.

    Every method raises `UpscaleError` when the folder cannot be written.
    """

    def __init__(self, run: Path, *, tensorboard: bool = True, on_notice: Callable[[str], None] = lambda text: None):
        self._run = run
        self._on_notice = on_notice
        self._wants_tensorboard = tensorboard
        self._writers = {}
        self._purge = {}
        with self._writing():
            run.mkdir(parents=True, exist_ok=True)

    def cut(self, stage: str, step: int) -> None:
        """Forget what a killed run recorded after its last state: `stage` past `step`, and the stages after `stage`.

        A last line that was not written to its end is dropped.  To be called before a run goes on, and before anything
        else is recorded.  Stages come in the order in which the log first names them.
        """
        with self._writing():
            entries = [entry for line in self._lines() if (entry := _entry(line)) is not None]
            order = list(dict.fromkeys(entry["stage"] for entry in entries))
            begun = {*order[: order.index(stage)], stage} if stage in order else {*order, stage}
            kept = [x for x in entries if x["stage"] in begun and (x["stage"] != stage or x["step"] <= step)]
            self._replace_log(kept)
            for folder in self._folders(PICTURES):
                _cut_pictures(folder, begun, stage, step)
            for folder in self._folders(TENSORBOARD):
                if folder.name not in {folder_name(name) for name in begun}:
                    shutil.rmtree(folder)
        self._purge[stage] = step + 1

    def scalars(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Add a line to the log.  A value that is not finite is logged as null, for JSON knows no other word for it."""
        if reserved := {"stage", "step"} & values.keys():
            raise ValueError(f"{' and '.join(sorted(reserved))} cannot name a value: every line of the log has its own")
        entry = {"stage": stage, "step": step} | {key: _number(value) for key, value in values.items()}
        with self._writing(), (self._run / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        if writer := self._writer(stage):
            with self._writing():
                for key, value in values.items():
                    writer.add_scalar(key, float(value), step)
                writer.flush()

    def pictures(self, stage: str, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Keep pictures, uint8 `(H, W, 3)`, by name as `pictures/STAGE/STEP/NAME.png`."""
        folder = self._run / PICTURES / folder_name(stage) / str(step)
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            for name, pixels in pictures.items():
                with disk.replacing(folder / f"{folder_name(name)}.png") as file:
                    Image.fromarray(pixels).save(file, format="PNG")
        if writer := self._writer(stage):
            with self._writing():
                for name, pixels in pictures.items():
                    writer.add_image(name, pixels, step, dataformats="HWC")
                writer.flush()

    def close(self) -> None:
        """Close TensorBoard's files; the log and the pictures are whole after each call."""
        with self._writing():
            for writer in self._writers.values():
                writer.close()
        self._writers.clear()

    def _writer(self, stage: str):
        """TensorBoard's writer of a stage, whose sub-run hides what an earlier, killed process wrote past the cut."""
        if not self._wants_tensorboard:
            return None
        if stage not in self._writers:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._wants_tensorboard = False
                self._on_notice(
                    'TensorBoard is not installed, so this run has none; pip install "sa-upscale[tensorboard]" adds it'
                )
                return None
            folder = self._run / TENSORBOARD / folder_name(stage)
            purge = self._purge.get(stage) if folder.is_dir() else None
            with self._writing():
                self._writers[stage] = SummaryWriter(str(folder), purge_step=purge)
        return self._writers[stage]

    def _lines(self) -> list[str]:
        log = self._run / LOG
        # A kill may have split a character of several bytes, too.
        return log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []

    def _replace_log(self, entries: list[dict]) -> None:
        log = self._run / LOG
        if log.is_file():
            with disk.replacing(log) as file:
                file.writelines(json.dumps(entry).encode() + b"\n" for entry in entries)

    def _folders(self, kind: str) -> list[Path]:
        folder = self._run / kind
        return [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []

    @contextmanager
    def _writing(self):
        try:
            yield
        except OSError as error:
            raise UpscaleError(
                f"{self._run}: the run cannot be recorded ({error.strerror or error}); make room or mend the folder, "
                "then go on with --resume"
            ) from None


def folder_name(name: str) -> str:
    """A stage's or picture's name as that of a folder or file, wherever it came from; `unquote` gives it back."""
    quoted = quote(name, safe=" +,=()")
    # Hidden files and ".." begin with a dot; Windows drops dots and spaces from the end.
    return re.sub(r"^\.|[. ]$", lambda match: f"%{ord(match[0]):02X}", quoted)


def _entry(line: str) -> dict | None:
    """A line of the log, or None for one that was not written to its end."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    whole = isinstance(entry, dict) and isinstance(entry.get("stage"), str) and isinstance(entry.get("step"), int)
    return entry if whole else None


def _number(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None


def _cut_pictures(folder: Path, begun: set[str], stage: str, step: int) -> None:
    if folder.name not in {folder_name(name) for name in begun}:
        shutil.rmtree(folder)
    elif folder.name == folder_name(stage):
        for taken in folder.iterdir():
            if taken.is_dir() and taken.name.isdecimal() and int(taken.name) > step:
                shutil.rmtree(taken)
