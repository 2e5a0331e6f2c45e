"""Recipes: TOML files read into frozen dataclasses, every key checked."""

import copy
import dataclasses
import tomllib
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from sa_upscale.degrade import PUBLISHED, SecondOrder
from sa_upscale.errors import UpscaleError, near

OPTIMIZERS = ("adam", "muon")
SCHEDULES = ("constant", "cosine", "steps")
PRECISIONS = ("fp32", "bf16", "fp16")
DEGRADATIONS = ("bicubic", "second-order")
CRITERIA = ("psnr-y", "ssim-y", "vgg-percep", "loss")


@dataclass(frozen=True)
class Model:
    """The generator, with `parameters` for its constructor, and the checkpoint it starts from, if any.

    Without a `name`, all but the weights is the start checkpoint's too.  `transfer` takes from it only the weights that
    fit, for a start of another scale, or of fewer RRDBs: those that it lacks follow its own and begin as identities.
    """

    name: str | None = None
    scale: int | None = None
    parameters: dict[str, typing.Any] = field(default_factory=dict)
    start: str | None = None
    transfer: bool = False


@dataclass(frozen=True)
class Data:
    """Pictures, or clips for a network with a window.

    - `folders` of HR files; one named twice is drawn from twice as often.  `lr_folders`: their LR, in the same order,
      which is otherwise made by `degradation`, "bicubic" or "second-order" with the options of `second_order`.
    - `validation` is a folder of HR files; without one, `holdout` of the training files are kept back.
    - `batch` counts the crops of one step, over all ranks; `patch` is their HR side in pixels.
    - `motion` makes windows of still pictures by moving them, for a network that takes several frames.
    - `shrink` below 1 takes every other crop from its picture reduced to between that share and all of its size, for
      finer detail than the files have; 1 takes the pictures as they are.
    - `noise` is the largest standard deviation, in codes of 255, of the normal noise that every other LR gets.
    - `traces` is the share of LR pictures that get soft traces of an earlier file's noise and compression.
    - `damage` is the share of LR pictures that get noise, JPEG compression or both at their own size.
    """

    folders: tuple[str, ...] = ()
    lr_folders: tuple[str, ...] = ()
    validation: str | None = None
    holdout: int = 12
    batch: int = 16
    patch: int = 128
    degradation: str = "bicubic"
    second_order: SecondOrder = PUBLISHED
    motion: bool = False
    shrink: float = 1.0
    noise: float = 0.0
    traces: float = 0.0
    damage: float = 0.0


@dataclass(frozen=True)
class Train:
    """The loop.

    - `rate` rises over `warmup` steps and then follows `schedule` down to `final_rate`: "cosine", "constant" or
      "steps", which multiplies it by `factor` at each of `milestones`.
    - `optimizer`: "adam", or "muon", by which the kernels of the generator's hidden layers learn at the same rate, and
      all else by Adam.  `betas` are Adam's; `weight_decay` is added to Adam's gradients, and shrinks Muon's kernels.
    - `clip` is the largest norm of the generator's gradient.  `accumulate` splits a batch into so many parts, which go
      through the networks one after the other.
    - `ema` is the decay of the averaged weights, which are validated and saved; 0 keeps the weights themselves.  Those
      of the last step are validated too, and are the best ones where the average is still behind them.
    - `shift`: VGG and the discriminator see the pictures moved by up to so many pixels, by another draw in every step;
      3 keeps a network ×4 from a lattice where their strides meet those of its pixel shuffle.
    - `precision` is that of the networks; the fastest that is safe by default.  `compile` runs torch.compile.
    - `best` names what chooses the best weights: a metric of whole pictures, or "loss", the generator's whole loss on
      crops.  `vgg_weights` is a file of VGG19; torchvision's by default.
    - `validate_every`, `log_every` and `stability_every` count steps, `save_every` seconds.  LDL's stability is the
      mean absolute difference between the outputs for fixed crops at steps that lie `stability_every` apart.
    """

    steps: int = 10000
    rate: float = 1e-4
    final_rate: float = 1e-7
    warmup: int = 0
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    factor: float = 0.5
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float | None = None
    accumulate: int = 1
    ema: float = 0.999
    shift: int = 0
    seed: int = 0
    precision: str | None = None
    compile: bool = False
    best: str = "psnr-y"
    vgg_weights: str | None = None
    log_every: int = 100
    validate_every: int = 1000
    stability_every: int = 5000
    save_every: int = 120
    tensorboard: bool = True


@dataclass(frozen=True)
class Discriminator:
    """The discriminator and its optimiser, which follows the generator's schedule from its own `rate`.

    What is None is as the generator's.  In the first `lead` steps it learns alone, so that a generator that is already
    good does not follow the advice of an untrained one.
    """

    name: str
    parameters: dict[str, typing.Any] = field(default_factory=dict)
    rate: float | None = None
    optimizer: str = "adam"
    betas: tuple[float, float] | None = None
    weight_decay: float = 0.0
    lead: int = 0


@dataclass(frozen=True)
class Stage:
    """One run of the loop.  `discriminator` is used when one of the `losses` asks for it."""

    name: str
    data: Data
    train: Train
    losses: tuple[dict[str, typing.Any], ...]
    discriminator: Discriminator | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything a training run is made of, but for the machine it runs on.

    Each of the `stages` starts from the best weights of the one before.
    """

    model: Model
    stages: tuple[Stage, ...]
    description: str = ""


def load(name_or_path: str | None, settings: Sequence[str] = (), objective: str | None = None) -> Recipe:
    """Read a recipe of the package by name, or a TOML file by path, and apply `key=value` settings (`train.steps=100`).

    In a file, `[data]`, `[train]`, `[discriminator]` and `[[losses]]` hold for every one of its `[[stages]]`, which may
    override them; without stages they make up the only one.  A setting holds for all stages, one of
    `stages.NAME.train.steps` for that stage, and one of `losses.NAME.weight` for the losses of that name.

    An `objective` of the package replaces the losses and the discriminator of the last stage; without a recipe it is
    one itself, for a model that the settings name.

    Raises `UpscaleError` for an unknown recipe, objective, key or value, with the nearest known one.
    """
    if name_or_path is None and objective is None:
        raise UpscaleError("nothing says what to train for; name an objective with --loss or a recipe with --config")
    aim = _objective(objective) if objective else {}
    table = _table(name_or_path) if name_or_path else aim
    stages = _stages(table, aim.get("name", "train"))
    if aim and table is not aim:
        stages[-1] |= {key: aim[key] for key in ("name", "losses", "discriminator") if key in aim}
    whole = {key: table[key] for key in ("description", "model") if key in table}
    for setting in settings:
        _apply(setting, whole, stages)
    recipe = Recipe(
        _model(whole.get("model", {})),
        tuple(_read(Stage, stage, "" if len(stages) == 1 else f"stages.{stage.get('name')}.") for stage in stages),
        _convert(str, whole.get("description", ""), "description"),
    )
    check(recipe)
    return recipe


def names() -> list[str]:
    """The recipes that come with the package."""
    return _names(_RECIPES)


def objectives() -> list[str]:
    """The named objectives that come with the package."""
    return _names(_RECIPES / "objectives")


def as_dict(recipe: Recipe) -> dict[str, typing.Any]:
    """The recipe as nested plain values, for a log or a checkpoint's metadata."""
    return dataclasses.asdict(recipe)


def check(recipe: Recipe) -> None:
    """Raise `UpscaleError` for values that no run could have."""
    for stage in recipe.stages:
        _check_choices(stage)
        _check_sizes(stage, recipe.model.scale)
        if not stage.losses:
            raise UpscaleError("recipe: no [[losses]]; a run needs at least one")
        if unnamed := [table for table in stage.losses if not isinstance(table.get("name"), str)]:
            raise UpscaleError(f"recipe: [[losses]]: {unnamed[0]} has no name; name one of the losses")
    stage_names = [stage.name for stage in recipe.stages]
    if twice := {name for name in stage_names if stage_names.count(name) > 1}:
        raise UpscaleError(f"recipe: two stages are named {min(twice)}; give each its own name")


_RECIPES = resources.files("sa_upscale") / "recipes"
_SECTIONS = ("data", "train", "discriminator", "losses")


def _names(folder) -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _table(name_or_path: str) -> dict:
    path = Path(name_or_path)
    if not path.is_file():
        if path.suffix == ".toml" or path.parent != Path():
            raise UpscaleError(f"{name_or_path}: no such recipe file; give a TOML file or one of: {', '.join(names())}")
        if name_or_path not in names():
            raise UpscaleError(f"unknown recipe {name_or_path!r}; {near(name_or_path, names())}")
        path = _RECIPES / f"{name_or_path}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UpscaleError(f"{name_or_path}: not a TOML recipe ({error}); see the recipes of the package") from None


def _objective(name: str) -> dict:
    # The AFM paper writes its variants M_p … M_pcσva.
    plain = name.lower().replace("σ", "s")
    if plain not in objectives():
        raise UpscaleError(f"unknown loss {name!r}; {near(plain, objectives())}")
    return {"name": plain} | _table(str(_RECIPES / "objectives" / f"{plain}.toml"))


def _stages(table: dict, name: str) -> list[dict]:
    """The stages with all that they inherit; `name` is for the only one of a table without stages."""
    for key in table:
        if key not in ("name", "description", "model", "stages", *_SECTIONS):
            raise UpscaleError(
                f"recipe: unknown key {key}; {near(key, ('description', 'model', 'stages', *_SECTIONS))}"
            )
    shared = {key: table[key] for key in _SECTIONS if key in table}
    stages = table.get("stages", [{"name": name}])
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise UpscaleError("recipe: stages are written as [[stages]], with a name each")
    return [{"losses": [], "data": {}, "train": {}} | _merged(shared, stage) for stage in stages]


def _model(table: dict) -> Model:
    model = _convert(Model, table, "model")
    return dataclasses.replace(model, scale=4) if model.name and model.scale is None else model


def _merged(base: dict, over: dict) -> dict:
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _apply(setting: str, whole: dict, stages: list[dict]) -> None:
    key, separator, text = setting.partition("=")
    path = key.strip().split(".")
    if not separator or not all(path):
        raise UpscaleError(f"--set {setting}: write it as key=value, such as train.steps=1000")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    if path[0] in ("model", "description"):
        _put(whole, path, value, setting)
        return
    if path[0] == "stages" and len(path) > 2:
        known = [stage.get("name") for stage in stages]
        if path[1] not in known:
            raise UpscaleError(f"--set {setting}: no stage {path[1]!r}; {near(path[1], known)}")
        stages, path = [stages[known.index(path[1])]], path[2:]
    for table, rest in _places(stages, path, setting):
        _put(table, rest, value, setting)


def _places(stages: list[dict], path: list[str], setting: str) -> list[tuple[dict, list[str]]]:
    """The tables that a setting for `stages` goes to, and the path within them."""
    if path[0] == "losses" and len(path) == 3:
        losses = [loss for stage in stages for loss in stage["losses"]]
        known = {str(loss.get("name")) for loss in losses}
        if path[1] not in known:
            raise UpscaleError(f"--set {setting}: the recipe has no loss {path[1]!r}; {near(path[1], known)}")
        return [(loss, path[2:]) for loss in losses if loss.get("name") == path[1]]
    # A stage without a discriminator does not get one by a setting of another's.
    holders = [stage for stage in stages if path[0] != "discriminator" or "discriminator" in stage]
    return [(stage, path) for stage in holders or stages]


def _put(table: dict, path: list[str], value, setting: str) -> None:
    for section in path[:-1]:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UpscaleError(f"--set {setting}: {section} is no section with keys of its own")
    table[path[-1]] = value


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
    values = {key: _convert(hints[key], value, f"{where}{key}") for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise UpscaleError(f"recipe: {where.removesuffix('.')}: {error}") from None


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


def _check_choices(stage: Stage) -> None:
    judge = stage.discriminator
    for key, value, known in (
        ("train.schedule", stage.train.schedule, SCHEDULES),
        ("train.optimizer", stage.train.optimizer, OPTIMIZERS),
        ("discriminator.optimizer", judge.optimizer if judge else OPTIMIZERS[0], OPTIMIZERS),
        ("train.precision", stage.train.precision or PRECISIONS[0], PRECISIONS),
        ("train.best", stage.train.best, CRITERIA),
        ("data.degradation", stage.data.degradation, DEGRADATIONS),
    ):
        if value not in known:
            raise UpscaleError(f"recipe: unknown {key} {value!r}; {near(value, known)}")


def _check_sizes(stage: Stage, scale: int | None) -> None:
    data, train = stage.data, stage.train
    if scale is not None and (scale < 1 or data.patch < scale or data.patch % scale):
        raise UpscaleError(f"recipe: data.patch = {data.patch} is no multiple of the scale, {scale}")
    for key, value in _at_least_one(stage):
        if value < 1:
            raise UpscaleError(f"recipe: {key} must be at least 1, not {value}")
    if data.batch % train.accumulate:
        raise UpscaleError(f"recipe: a batch of {data.batch} does not split into train.accumulate = {train.accumulate}")
    if not 0 < data.shrink <= 1:
        raise UpscaleError(f"recipe: data.shrink must lie above 0 and not above 1, not at {data.shrink}")
    if not 0 <= data.noise <= 255:
        raise UpscaleError(f"recipe: data.noise must lie between 0 and 255, not at {data.noise}")
    for name, share in (("traces", data.traces), ("damage", data.damage)):
        if not 0 <= share <= 1:
            raise UpscaleError(f"recipe: data.{name} must lie between 0 and 1, not at {share}")
    if not 0 <= train.ema < 1:
        raise UpscaleError(f"recipe: train.ema must lie between 0 and 1, not at {train.ema}")
    if not 0 <= train.shift <= data.patch // 2:
        raise UpscaleError(f"recipe: train.shift must lie between 0 and half a crop, not at {train.shift}")
    if data.lr_folders and len(data.lr_folders) != len(data.folders):
        raise UpscaleError(
            f"recipe: {len(data.folders)} data.folders but {len(data.lr_folders)} data.lr_folders; name one for each"
        )


def _at_least_one(stage: Stage) -> Iterable[tuple[str, int]]:
    yield "data.batch", stage.data.batch
    yield "data.patch", stage.data.patch
    for key in ("steps", "accumulate", "log_every", "validate_every", "stability_every"):
        yield f"train.{key}", getattr(stage.train, key)
