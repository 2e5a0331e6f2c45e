"""Our checkpoints on the Hugging Face Hub, with model cards; weights.toml keeps the commit each is at.

Each checkpoint has a repository of its own.  An entry of weights.toml pins one file at one commit, and a model card
tells of one training; in a repository for a whole family, training one scale again would move the head of the others,
and their recipes, sample pictures and figures would have to share one card.

Only what has changed is sent, so that a push that broke off goes on when it is started again.
"""

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sa_upscale import checkpoints
from sa_upscale.errors import UpscaleError, near
from sa_upscale.publish import card, registry
from sa_upscale.publish.hub import Hub

PREFIX = "sa-upscale"
CARD, SAMPLE = "README.md", "sample.jpg"

_PLACE = re.compile(r"(?P<namespace>[\w-][\w.-]*)(/(?P<prefix>[\w-][\w.-]*)?)?", re.ASCII)


@dataclass(frozen=True)
class Plan:
    """One checkpoint to publish: what is known of it, the repository it goes to, and its model card."""

    name: str
    info: checkpoints.Info
    repo: str
    card: str

    @property
    def there(self) -> bool:
        """Whether weights.toml has these weights in that repository already."""
        return self.info.entry.repo == self.repo and self.info.entry.revision is not None


@dataclass(frozen=True)
class Published:
    """A checkpoint that is on the Hub at the commit `revision`; `sent` are the files that were not there before."""

    name: str
    repo: str
    revision: str
    sent: tuple[str, ...]


def plan(names: Iterable[str], to: str, on_notice: Callable[[str], None] | None = None) -> list[Plan]:
    """What there is to publish: the checkpoints called `names`, by default all of ours with a file in this checkout.

    `to` is a namespace of the Hub, or namespace/prefix: the repository of a checkpoint is called `prefix-name`.
    `on_notice(line)` hears of checkpoints of others that are left out.  Nothing is asked of the Hub.  Raises
    `UpscaleError` at the first checkpoint that must not be published.
    """
    file = registry.writable()
    root, known = file.parent, tomllib.loads(file.read_text(encoding="utf-8"))
    place = _PLACE.fullmatch(to)
    if place is None:
        raise UpscaleError(
            f"{to!r} is no place on the Hub; give a namespace such as your user name, or namespace/prefix"
        )
    results = root / "benchmarks" / "results.json"
    measured = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    names, plans = list(names), []
    for info in _named(names, known) if names else _ours(known, on_notice):
        _check(info)
        name = info.entry.name
        repo = f"{place['namespace']}/{place['prefix'] or PREFIX}-{name}"
        plans.append(Plan(name, info, repo, card.text(info.entry, info, repo, SAMPLE, measured)))
    if not plans:
        raise UpscaleError(
            f"no checkpoint trained here has its file in {root}; put it in checkpoints/ and run this again"
        )
    return plans


def _ours(known: Iterable[str], on_notice: Callable[[str], None] | None) -> Iterator[checkpoints.Info]:
    for name in known:
        info = checkpoints.info(name)
        if info.where in checkpoints.HERE and "recipe" in info.metadata:
            yield info
        elif info.where in checkpoints.HERE and on_notice:
            on_notice(f"{name} was not trained here and is left out")


def _named(names: Iterable[str], known: Collection[str]) -> Iterator[checkpoints.Info]:
    for name in dict.fromkeys(names):
        if name not in known:
            raise UpscaleError(f"no checkpoint of weights.toml is called {name!r}; {near(name, known)}")
        info = checkpoints.info(name)
        if info.where not in checkpoints.HERE:
            raise UpscaleError(
                f"{name} has no file in this checkout ({info.where}); bundle or put it in checkpoints/ first"
            )
        if "recipe" not in info.metadata:
            raise UpscaleError(f"{name} was not trained here: its file names no recipe; it is not ours to publish")
        yield info


def _check(info: checkpoints.Info) -> None:
    name = info.entry.name
    if info.sha256 != info.entry.sha256:
        raise UpscaleError(f"{info.path} is not the {name} of weights.toml (another sha256); register it or restore it")
    if not info.entry.licence:
        raise UpscaleError(f"{name} has no licence in weights.toml; what may be done with it must be said first")
    if not (info.entry.trained_on or info.metadata.get("trained_on")):
        raise UpscaleError(f"{name} does not say what it was trained on; set trained_on in weights.toml")


def push(
    plans: Iterable[Plan],
    *,
    private: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
    on_result: Callable[[Published], None] | None = None,
) -> list[Published]:
    """Publish checkpoints one after the other, and write down where each is as soon as it is there.

    `private` makes repositories private that are not there yet.  `on_progress(done, total, name)` counts the bytes of
    weights.  Raises `UpscaleError` at the first that fails; those before it are published and written down.
    """
    file = registry.writable()
    hub = Hub()
    plans = list(plans)
    total, done, results = sum(each.info.size for each in plans), 0, []
    for each in plans:
        if on_progress:
            on_progress(done, total, each.name)
        results.append(_push(hub, each, private, file.parent))
        where = {"repo": each.repo, "file": each.info.path.name, "revision": results[-1].revision}
        registry.update(file, each.name, where | {"sha256": each.info.sha256})
        done += each.info.size
        if on_result:
            on_result(results[-1])
    return results


def _push(hub: Hub, each: Plan, private: bool, root: Path) -> Published:
    weights = each.info.path.name
    files = {weights: each.info.path.read_bytes(), CARD: each.card.encode()}
    state = hub.state(each.repo)
    if state:
        files = {path: content for path, content in files.items() if not state.has(path, content)}
    if weights in files or state is None or SAMPLE not in state.files:
        # Only then, because another machine may round a value of the picture otherwise.
        from sa_upscale.publish import sample

        files[SAMPLE] = sample.before_after(each.info.path, root / "examples" / "dragonfly.jpg")
    if not files:
        return Published(each.name, each.repo, state.commit, ())
    if state is None:
        hub.create(each.repo, private)
    message = f"Publish {each.name}" + (f", sha256 {each.info.sha256[:12]}" if weights in files else ": its card")
    revision = hub.commit(each.repo, files, message, state and state.commit)
    return Published(each.name, each.repo, revision, tuple(files))
