"""What a training run left in its folder, read for a report: tolerant, because the run may have been killed."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from safetensors import SafetensorError, safe_open

Series = list[tuple[int, float | None]]
"""Steps, rising, and values; None where a value was not finite."""

Files = dict[str, dict[int, dict[str, Path]]]
"""The picture files of a stage by crop, step and what they show."""

REFERENCES = ("bicubic", "hr")
_PNG_BEGINS, _PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


@dataclass
class Stage:
    """A stage: its `options` as the recipe has them, `curves` by key of the log, what was `found`, by loss label."""

    name: str
    options: dict[str, Any]
    curves: dict[str, Series] = field(default_factory=dict)
    found: dict[str, dict] = field(default_factory=dict)

    @property
    def last_step(self) -> int:
        return max((points[-1][0] for points in self.curves.values()), default=0)

    @property
    def losses(self) -> dict[str, dict[str, Any]]:
        """The recipe's losses by the label they are logged under: the name, numbered where it stands more than once."""
        tables = self.options.get("losses") or []
        names = [table["name"] for table in tables]
        labels = [
            f"{name}-{names[: index + 1].count(name)}" if names.count(name) > 1 else name
            for index, name in enumerate(names)
        ]
        return dict(zip(labels, tables, strict=True))

    def option(self, section: str, key: str) -> Any:
        """A field of the recipe, None when it is not there."""
        return (self.options.get(section) or {}).get(key)


@dataclass
class Scene:
    """A validation crop: its `bicubic` and `hr`, and the `shots` taken of it, in the order of the run."""

    crop: str
    references: dict[str, bytes]
    shots: list["Shot"] = field(default_factory=list)


@dataclass(frozen=True)
class Shot:
    """What was made of a crop at a step of a stage: PNG files by what they show, "sr" and maps such as "W sa-lv"."""

    stage: str
    step: int
    pictures: dict[str, bytes]


@dataclass(frozen=True)
class Run:
    """A run's recipe, its stages in order, and its pictures."""

    folder: Path
    description: str
    model: dict[str, Any]
    stages: list[Stage]
    scenes: list[Scene]


def read(folder: Path, shots: int, size: int) -> Run:
    """Read a run, with pictures of about `shots` steps at most, fewer when they would take more than `size` bytes."""
    recipe = _recipe(folder / "recipe.json")
    stages = {table["name"]: Stage(table["name"], table) for table in recipe.get("stages", [])}
    for entry in _log(folder / "log.jsonl"):
        stage = stages.setdefault(entry["stage"], Stage(entry["stage"], {}))
        for key, value in entry.items():
            if key not in ("stage", "step") and (value is None or _is_number(value)):
                stage.curves.setdefault(key, []).append((entry["step"], _finite(value)))
    for stage in stages.values():
        # A step that was logged twice counts as it was logged last.
        stage.curves = {key: sorted(dict(points).items()) for key, points in stage.curves.items()}
        stage.found = _found(folder, stage.name, is_last=stage is list(stages.values())[-1])
    return Run(
        folder=folder,
        description=recipe.get("description", ""),
        model=recipe.get("model", {}),
        stages=list(stages.values()),
        scenes=_scenes(folder / "pictures", list(stages), shots, size),
    )


def thinned(points: Series, most: int) -> Series:
    """At most `most` points, the lowest and the highest of each stretch, so that no spike is lost."""
    if len(points) <= most:
        return points
    length = math.ceil(len(points) / (most // 2))
    kept = []
    for first in range(0, len(points), length):
        stretch = points[first : first + length]
        finite = [point for point in stretch if point[1] is not None]
        ends = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])} if finite else ()
        kept += sorted(ends) or stretch[:1]
    return kept


def evenly(items: Sequence, count: int) -> list:
    """`count` of the items, evenly spaced, the first and the last among them; the last alone for one."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def _recipe(file: Path) -> dict:
    try:
        recipe = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _log(file: Path) -> Iterator[dict]:
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("stage"), str) and isinstance(entry.get("step"), int):
            yield entry


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _found(folder: Path, stage: str, is_last: bool) -> dict[str, dict]:
    """What the checkpoint of a stage says was found while it was trained."""
    file = folder / ("last.safetensors" if is_last else f"{stage}-last.safetensors")
    try:
        with safe_open(file, framework="numpy") as checkpoint:
            found = json.loads((checkpoint.metadata() or {}).get("found", "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _scenes(folder: Path, stages: list[str], shots: int, size: int) -> list[Scene]:
    folders = {unquote(entry.name): entry for entry in folder.iterdir()} if folder.is_dir() else {}
    ordered = sorted(folders, key=lambda name: (stages.index(name) if name in stages else len(stages), name))
    files = {stage: _files(folders[stage]) for stage in ordered}
    scenes = []
    for count in range(max(shots // max(len(files), 1), 3), 0, -1):
        scenes = _gathered(files, count)
        if _size(scenes) <= size:
            break
    return scenes


def _files(folder: Path) -> Files:
    crops = {}
    for file in sorted(folder.glob("*/*.png")):
        if file.parent.name.isdecimal():
            crop, _, what = unquote(file.stem).partition("-")
            crops.setdefault(crop, {}).setdefault(int(file.parent.name), {})[what] = file
    return crops


def _gathered(files: dict[str, Files], count: int) -> list[Scene]:
    """The scenes with `count` shots of each stage; stages that validate on the same crop share its scene."""
    scenes = {}
    for stage, crops in files.items():
        made = {step for steps in crops.values() for step, shown in steps.items() if shown.keys() - {*REFERENCES}}
        chosen = evenly(sorted(made), count)
        for crop, steps in crops.items():
            known = {what: file for shown in steps.values() for what, file in shown.items() if what in REFERENCES}
            references = _contents(known)
            scene = scenes.setdefault((crop, *references.values()), Scene(crop, references))
            for step in chosen:
                shown = {what: file for what, file in steps.get(step, {}).items() if what not in REFERENCES}
                if pictures := _contents(shown):
                    scene.shots.append(Shot(stage, step, pictures))
    return sorted(scenes.values(), key=lambda scene: (len(scene.crop), scene.crop))


def _contents(files: dict[str, Path]) -> dict[str, bytes]:
    """The files by name, in its order, without those that are not whole PNG files."""
    contents = {what: file.read_bytes() for what, file in sorted(files.items())}
    return {what: data for what, data in contents.items() if data.startswith(_PNG_BEGINS) and data.endswith(_PNG_ENDS)}


def _size(scenes: list[Scene]) -> int:
    """Bytes of all pictures, each counted once."""
    everywhere = [scene.references for scene in scenes] + [shot.pictures for scene in scenes for shot in scene.shots]
    return sum(map(len, {data for pictures in everywhere for data in pictures.values()}))
