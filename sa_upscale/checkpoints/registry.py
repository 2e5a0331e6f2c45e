"""The registry, `weights.toml`: which checkpoints there are, and which of them a name and a scale mean."""

import functools
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from sa_upscale.defaults import CLEAN
from sa_upscale.errors import UpscaleError, first_line, near

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Entry:
    """One table of `weights.toml`; its head explains the keys."""

    name: str
    family: str
    architecture: str
    scale: int
    window: int
    description: str
    licence: str
    trained_on: str = ""
    repo: str | None = None
    file: str | None = None
    revision: str | None = None
    sha256: str | None = None
    bundled: str | None = None
    fidelity: str | None = None
    denoise: str | None = None
    int8_loss: float | None = None
    published: bool = True

    @property
    def kind(self) -> str:
        """Either "image" or "video", the latter for a network that takes several frames."""
        return "video" if self.window > 1 else "image"

    @property
    def usable(self) -> bool:
        """Whether the file exists somewhere in the world and is known by its hash."""
        return self.published and self.sha256 is not None


def entries() -> dict[str, Entry]:
    """The checkpoints of `weights.toml` by name, in its order, and after them those that were imported."""
    packed = PACKAGE / "weights.toml"
    known = _registered(packed if packed.is_file() else PACKAGE.parent / "weights.toml")
    imported = user_folder() / "weights.toml"
    # A name of ours stays ours, whatever a registry of the user's says.
    return known | (_registered(imported) if imported.is_file() else {}) | known


def _registered(registry: Path) -> dict[str, Entry]:
    try:
        return _parsed(registry, registry.stat().st_mtime_ns)
    except (OSError, ValueError, TypeError) as error:
        raise UpscaleError(f"{registry} cannot be read ({first_line(error)}); mend it or move it away") from None


@functools.cache
def _parsed(registry: Path, _mtime: int) -> dict[str, Entry]:
    tables = tomllib.loads(registry.read_text(encoding="utf-8"))
    return {name: Entry(name=name, **table) for name, table in tables.items()}


def user_folder() -> Path:
    """Where imported checkpoints and their `weights.toml` lie: SA_UPSCALE_WEIGHTS, or a place for the user's data."""
    if named := os.environ.get("SA_UPSCALE_WEIGHTS"):
        return Path(named).expanduser()
    data = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "sa-upscale"


def names() -> list[str]:
    """What a checkpoint can be asked for by: the names of all, then those of families."""
    known = entries()
    return list(dict.fromkeys([*known, *(entry.family for entry in known.values())]))


def select(name: str, scale: float | None = None, kind: str | None = None) -> Entry:
    """The entry called `name`, or the member of the family `name` that fits `scale`.

    Of a family, that is the smallest native scale that suffices, else (or without a scale) its largest; members that
    are not there yet count only when there are no others.  `kind="image"` refuses video networks; `kind="video"` takes
    both, an image network working frame by frame, and of two of one scale the video network, which else comes second.
    Raises `UpscaleError` for an unknown name, suggesting near ones.
    """
    known = entries()
    members = [known[name]] if name in known else [entry for entry in known.values() if entry.family == name]
    if not members:
        raise UpscaleError(f"no checkpoint is called {name!r}; {near(name, names())}")
    members = [entry for entry in members if entry.usable] or members
    members.sort(key=lambda entry: entry.kind == (kind or "image"))
    by_scale = {entry.scale: entry for entry in members}
    enough = [native for native in by_scale if scale is not None and native >= scale]
    chosen = by_scale[min(enough) if enough else max(by_scale)]
    if kind == "image" and chosen.kind == "video":
        raise UpscaleError(wrong_kind(chosen.name, chosen.window))
    return chosen


def wrong_kind(name: str, window: int) -> str:
    """Why a network of several frames is refused for a picture."""
    return f"{name} is a video network, it needs {window} frames; for a picture take --model {CLEAN}"


def bundled_file(entry: Entry) -> Path | None:
    """The file that came with the package, if it did."""
    file = PACKAGE / "bundled" / (entry.bundled or "")
    return file if file.is_file() else None


def instead_of(entry: Entry) -> str:
    """What to do without `entry`: the bundled checkpoint nearest in kind and scale."""
    bundled = [other for other in entries().values() if other.usable and bundled_file(other) and other != entry]
    if not bundled:
        return "give the path of a file you have"
    best = min(bundled, key=lambda other: (other.kind != entry.kind, abs(other.scale - entry.scale)))
    return f"the bundled {best.name} needs no network (--model {best.name})"
