"""Which networks to run one after the other for a scale, each loaded once."""

import math
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from sa_upscale import checkpoints
from sa_upscale.defaults import CLEAN
from sa_upscale.engine import Engine
from sa_upscale.errors import UpscaleError
from sa_upscale.upscale.pictures import Runner
from sa_upscale.upscale.sizes import check_scale

_OPTIONS = {"fidelity": "strength", "denoise": "denoise"}
"""How the share of a checkpoint in a mixture is asked for, by the field of `weights.toml` that names its sibling."""


def plan(scale: float, available: Collection[int]) -> tuple[int, ...]:
    """The native scales to run one after the other so that their product is at least `scale`.

    The smallest of `available` that suffices; where none does, the largest, and again for what is left.  Raises
    `UpscaleError` when `available` has nothing that enlarges.
    """
    steps: list[int] = []
    left = check_scale(scale)
    while not steps or left > 1:
        step = min((native for native in available if native >= left), default=max(available))
        if step == 1 and left > 1:
            raise UpscaleError(f"this network keeps the size, it cannot enlarge by {scale:g}; choose another")
        steps.append(step)
        left /= step
    return tuple(steps)


class Networks:
    """The engines for whatever scales are asked for, each network loaded once.

    `model` is a checkpoint's name, the name of a family, of which the fitting members are taken, or the path of a file.
    With `kind="video"` it may take several frames, and a family's video network comes before its others; what that
    lacks in scale the networks for clean pictures then add.
    `strength` from 0 to 1 mixes the weights of a perceptual checkpoint (1) with those of its fidelity sibling (0), and
    `denoise` likewise those of one that offers it.  `running` is how engines run: device, precision, tile, tta,
    match_color.  `on_fetch(name)` gives the progress callback for the download of one checkpoint.  `load` and `engine`
    stand in for `checkpoints.load` and `Engine`.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        kind: str = "image",
        strength: float | None = None,
        denoise: float | None = None,
        on_notice: Callable[[str], None] | None = None,
        on_fetch: Callable[[str], Callable[[int, int | None], None]] | None = None,
        load: Callable = checkpoints.load,
        engine: Callable[..., Runner] = Engine,
        **running,
    ):
        self._model, self._kind = str(model), kind
        self._mixing = {
            key: share for key, share in (("fidelity", strength), ("denoise", denoise)) if share is not None
        }
        self._on_notice, self._on_fetch = on_notice, on_fetch
        self._load, self._engine, self._running = load, engine, running
        self._loaded: dict[str, Runner] = {}
        self._loading = threading.RLock()

    def for_scale(self, scale: float) -> list[Runner]:
        """The engines to run one after the other to enlarge by `scale`; none to reduce.

        Raises `UpscaleError` for a scale above 8, an unknown model, one that cannot be had, one of another kind, and
        one without the sibling that a mixture needs.
        """
        return [self._ready(name, scale) for name in self._chosen(scale)]

    def names(self, scale: float) -> list[str]:
        """What those engines run, by name: each once, files without their folders, mixtures with their share.

        Errors as for `for_scale`.
        """
        return list(dict.fromkeys(self._name(name) for name in self._chosen(scale)))

    def _name(self, name: str) -> str:
        mixed = [f"{_OPTIONS[kind]} {share:g}" for kind, share in self._mixing.items() if _sibling(name, kind)]
        return f"{Path(name).name} ({', '.join(mixed)})" if mixed else Path(name).name

    def _chosen(self, scale: float) -> list[str]:
        if scale < 1:
            return []
        check_scale(scale)
        known = _relatives(self._model)
        if known:
            chain = _chain(self._model, scale, known)
            clean = _sibling(chain[0], "denoise")
            if clean and len(chain) > 1:
                # After the first network there is no noise for a second one to take away.
                clean = checkpoints.entries()[clean].family
                chain[1:] = _chain(clean, scale / known[chain[0]], _relatives(clean))
            if self._kind == "video":
                chain[0] = checkpoints.select(self._model, known[chain[0]], "video").name
            self._require_siblings(chain)
            return chain
        self._require_siblings([self._model])
        first = self._ready(self._model, scale)
        if first.window == 1:
            return [self._model] * len(plan(scale, [first.scale]))
        left = scale / first.scale
        return [self._model, *(_chain(CLEAN, left, _relatives(CLEAN)) if left > 1 else [])]

    def _ready(self, name: str, scale: float) -> Runner:
        with self._loading:
            if name not in self._loaded:
                checkpoint = self._checkpoint(name, scale)
                for kind in self._mixing:
                    if other := _sibling(name, kind):
                        sibling = self._checkpoint(other, None)
                        checkpoint.model.load_state_dict(checkpoint.mixed_with(sibling, self._mixing[kind]))
                        if self._mixing[kind] < 1:
                            checkpoint.model.int8_loss = math.inf  # nobody has measured it of this mixture
                self._loaded[name] = self._engine(checkpoint.model, on_notice=self._on_notice, **self._running)
            return self._loaded[name]

    def _checkpoint(self, name: str, scale: float | None) -> checkpoints.Checkpoint:
        fetching = self._on_fetch(name) if self._on_fetch else None
        return self._load(name, scale, self._kind, on_progress=fetching, on_notice=self._on_notice)

    def _require_siblings(self, chain: list[str]) -> None:
        for kind, share in self._mixing.items():
            option = _OPTIONS[kind]
            if not 0 <= share <= 1:
                raise UpscaleError(f"the {option} is a number from 0 to 1, not {share:g}")
            if not any(_sibling(name, kind) for name in chain):
                offering = [entry.name for entry in checkpoints.entries().values() if _sibling(entry.name, kind)]
                able = f"take {' or '.join(offering)}" if offering else "no checkpoint offers it yet"
                raise UpscaleError(f"{chain[0]} has no sibling to set the {option} with; {able}")


def _sibling(name: str, kind: str) -> str | None:
    """The checkpoint that `weights.toml` names as the other end of "fidelity" or "denoise", None without one."""
    entry = checkpoints.entries().get(name)
    other = getattr(entry, kind) if entry and entry.usable else None
    return other if other and checkpoints.entries()[other].usable else None


def load_engines(model: str | Path, scale: float, **options) -> list[Runner]:
    """The engines to run one after the other to enlarge by `scale`; options and errors as for `Networks`."""
    return Networks(model, **options).for_scale(check_scale(scale))


def _relatives(model: str | Path) -> dict[str, int]:
    """Names and native scales of the image networks that may serve for `model`: its family, as far as it can be had.

    Empty for a file and for a video network.
    """
    known = checkpoints.entries()
    name = str(model)
    if name in known and known[name].kind == "video":
        return {}
    family = known[name].family if name in known else name
    members = [entry for entry in known.values() if entry.family == family and (entry.usable or entry.name == name)]
    return {entry.name: entry.scale for entry in members if entry.kind == "image"}


def _chain(name: str, scale: float, relatives: dict[str, int]) -> list[str]:
    """The checkpoints to run one after the other; one that was named comes first, whatever its scale."""
    chain = [name] if name in relatives else []
    left = scale / relatives[name] if chain else scale
    if not chain or left > 1:
        by_scale = {native: member for member, native in relatives.items()}
        # Of two with the same scale, the one that was named.
        by_scale |= {relatives[member]: member for member in chain}
        chain += [by_scale[step] for step in plan(left, by_scale)]
    return chain
