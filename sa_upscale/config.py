"""Recipes: TOML files read into frozen dataclasses, every key checked."""

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from sa_upscale.errors import UpscaleError, near


@dataclass(frozen=True)
class Model:
    """The generator, with `parameters` for its constructor, and the checkpoint it starts from, if any.

    `transfer` takes from the start checkpoint only the weights that fit, for a start of another scale.
    """

    name: str
    scale: int = 4
    parameters: dict[str, typing.Any] = field(default_factory=dict)
    start: str | None = None
    transfer: bool = False


@dataclass(frozen=True)
class Data:
    """Pictures, or clips for a network with a window.

    `patch` is the HR side of a crop in pixels.  A folder named twice is drawn from twice as often.  Without a
    `validation` folder, `holdout` of the training pictures are kept back for it.
    """

    folders: tuple[str, ...] = ()
    validation: str | None = None
    holdout: int = 12
    batch: int = 16
    patch: int = 128


@dataclass(frozen=True)
class Train:
    """The loop.  `rate` rises over `warmup` steps and then follows `schedule` down to `final_rate`.

    `schedule` is `cosine`, `constant` or `steps`, which multiplies the rate by `factor` at each of `milestones`.
    `validate_every` and `log_every` count steps; `save_every` counts seconds.
    """

    steps: int = 10000
    rate: float = 1e-4
    final_rate: float = 1e-7
    warmup: int = 0
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    factor: float = 0.5
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = None
    ema: float = 0.999
    seed: int = 0
    precision: str | None = None
    log_every: int = 100
    validate_every: int = 1000
    save_every: int = 120


@dataclass(frozen=True)
class Recipe:
    """Everything a training run is made of, but for the machine it runs on."""

    model: Model
    losses: tuple[dict[str, typing.Any], ...]
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    description: str = ""


def load(name_or_path: str, settings: typing.Sequence[str] = ()) -> Recipe:
    """Read a recipe of the package by name, or a TOML file by path, and apply `key=value` settings (`train.steps=100`).

    Raises `UpscaleError` for an unknown recipe, key or value, with the nearest known one.
    """
    path = Path(name_or_path)
    if not path.is_file():
        if path.suffix == ".toml" or path.parent != Path():
            raise UpscaleError(f"{name_or_path}: no such recipe file; give a TOML file or one of: {', '.join(names())}")
        if name_or_path not in names():
            raise UpscaleError(f"unknown recipe {name_or_path!r}; {near(name_or_path, names())}")
        path = resources.files("sa_upscale") / "recipes" / f"{name_or_path}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UpscaleError(f"{name_or_path}: not a TOML recipe ({error}); see the recipes of the package") from None
    for setting in settings:
        _apply(table, setting)
    recipe = _read(Recipe, table, "")
    _check(recipe)
    return recipe


def names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("sa_upscale") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def as_dict(recipe: Recipe) -> dict[str, typing.Any]:
    """The recipe as nested plain values, for a log or a checkpoint's metadata."""
    return dataclasses.asdict(recipe)


def _apply(table: dict, setting: str) -> None:
    key, separator, text = setting.partition("=")
    *sections, last = key.strip().split(".")
    if not separator or not last:
        raise UpscaleError(f"--set {setting}: write it as key=value, such as train.steps=1000")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UpscaleError(f"--set {setting}: {section} is a value, not a section")
    table[last] = value


def _read(kind: type, table: dict, where: str):
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in known:
            raise UpscaleError(f"recipe: unknown key {where}{key}; {near(key, known)}")
    for key, entry in known.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and key not in table:
            raise UpscaleError(f"recipe: {where}{key} is missing")
    return kind(**{key: _convert(hints[key], value, f"{where}{key}") for key, value in table.items()})


def _convert(hint, value, key: str):
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UpscaleError(f"recipe: {key} is a section, not {value!r}")
        return _read(hint, value, f"{key}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if value is None else _convert(arguments[0], value, key)
    if origin is tuple:
        if not isinstance(value, list | tuple) or (arguments[-1] is not Ellipsis and len(value) != len(arguments)):
            raise UpscaleError(f"recipe: {key} takes a list, not {value!r}")
        return tuple(_convert(arguments[0], item, key) for item in value)
    plain = origin or hint
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        raise UpscaleError(f"recipe: {key} takes {plain.__name__}, not {value!r}")
    return value


def _check(recipe: Recipe) -> None:
    if recipe.data.patch % recipe.model.scale:
        raise UpscaleError(
            f"recipe: data.patch = {recipe.data.patch} is no multiple of the scale, {recipe.model.scale}"
        )
    if recipe.train.schedule not in ("constant", "cosine", "steps"):
        known = ("constant", "cosine", "steps")
        raise UpscaleError(
            f"recipe: unknown train.schedule {recipe.train.schedule!r}; {near(recipe.train.schedule, known)}"
        )
    if recipe.train.precision not in (None, "fp32", "bf16"):
        known = near(recipe.train.precision, ("fp32", "bf16"))
        raise UpscaleError(f"recipe: cannot train in train.precision {recipe.train.precision!r}; {known}")
    for key, value in (("train.steps", recipe.train.steps), ("data.batch", recipe.data.batch)):
        if value < 1:
            raise UpscaleError(f"recipe: {key} must be at least 1, not {value}")
    if not recipe.losses:
        raise UpscaleError("recipe: no [[losses]]; a run needs at least one")
