"""Turn a run's weights into a file to ship: half precision, what it took to train in the metadata.

    python tools/bundle.py runs/compact-x4 sa_upscale/bundled/compact-x4.safetensors --hardware "2 CPU cores" \\
        --command "sa-upscale train …" --licence Apache-2.0 --trained-on "…" --register

Prints the sha256; --register writes the entry of `weights.toml`, too.  With `--weights last --mix 0.8 OTHER` the file
is 0.8 of the last step's weights and 0.2 of the checkpoint OTHER's, as most adversarial ones are best.
"""

import argparse
import contextlib
import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from sa_upscale import checkpoints
from sa_upscale.errors import UpscaleError
from sa_upscale.publish import registry

FACTS = ("command", "hardware", "licence", "trained_on")  # of a training, that its run does not know
_SAVED = ("architecture", "parameters", "scale", "window")  # what saving writes by itself


def bundle(
    run: Path, target: Path, facts: dict[str, str], *, which: str = "best", mix: tuple[float, str] | None = None
) -> str:
    """Write the run's "best" or "last" weights to `target` with what the run says of them and `facts`.

    With `mix` they are taken at that share, and those of another checkpoint at the rest.  Returns the sha256.
    """
    ours = checkpoints.load(run / f"{which}.safetensors")
    seed = json.loads(ours.metadata["recipe"])["stages"][-1]["train"]["seed"]
    weights = ours.model.state_dict()
    told = {key: value for key, value in ours.metadata.items() if key not in _SAVED} | {"seed": str(seed)}
    if mix:
        share, name = mix
        weights = ours.mixed_with(checkpoints.load(name), share)
        # The run measured its own weights, not these.
        told = {key: value for key, value in told.items() if not key.startswith("validation_")}
        told["mixed"] = f"{share:g} of the run's {which} weights and {1 - share:g} of those of {Path(name).stem}"
    return checkpoints.save(
        target,
        weights,
        architecture=ours.metadata["architecture"],
        parameters=ours.model.parameters_dict,
        metadata=told | facts,
        dtype="fp16",
    )


def register(target: Path) -> None:
    """Have the entry of `weights.toml` that is called like the file tell of it; an entry that is not there is added.

    Where other weights were published, they are the entry's no more: the repository and its commit are taken out, and
    what int8 cost them.
    Raises `UpscaleError` for a file that a checkout does not look into.
    """
    file = registry.writable()
    folders = {checkpoints.registry.PACKAGE / "bundled": "bundled", file.parent / "checkpoints": "file"}
    place = folders.get(target.resolve().parent)
    if place is None:
        raise UpscaleError(f"{target} is in neither {' nor '.join(map(str, folders))}; nobody would look for it there")
    tables, name = tomllib.loads(file.read_text(encoding="utf-8")), target.stem
    metadata, sha256 = checkpoints.header(target)[0], checkpoints.sha256_of(target)
    values = {
        "architecture": metadata["architecture"],
        "scale": int(metadata["scale"]),
        "window": int(metadata["window"]),
        "sha256": sha256,
        "licence": metadata["licence"],
        "trained_on": metadata["trained_on"],
        "published": None,
    }
    if tables.get(name, {}).get("sha256") != sha256:
        values |= dict.fromkeys(("bundled", "repo", "file", "revision", "int8_loss")) | {place: target.name}
    if name not in tables:
        values["family"] = re.sub(r"-x\d+(?=-|$)", "", name)
        values["description"] = json.loads(metadata["recipe"])["description"]
    to_come = name not in tables or tables[name].get("published") is False
    bundled = [other for other, table in tables.items() if "bundled" in table and other != name]
    registry.update(file, name, values, after=bundled[-1] if to_come and bundled else None)


def ship(parser: argparse.ArgumentParser, write: Callable[[argparse.Namespace], str]) -> None:
    """A tool's command: `write` the file `target` as its options say, print its sha256, register it with --register.

    What goes wrong is one line.
    """
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--register", action="store_true", help="write the entry of weights.toml, too")
    arguments = parser.parse_args()
    try:
        print(write(arguments))
        if arguments.register:
            register(arguments.target)
    except UpscaleError as error:
        sys.exit(str(error))


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (share := float(text)) <= 1:
            return share
    raise UpscaleError(f"--mix: {text} is no share; give a number from 0 to 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="which of the run's")
    parser.add_argument(
        "--mix", nargs=2, metavar=("SHARE", "OTHER"), help="their share, and the checkpoint of the rest"
    )
    for fact in FACTS:
        parser.add_argument(f"--{fact.replace('_', '-')}", required=True)
    parser.add_argument("--int8-loss", type=float, metavar="DB", help="what int8 costs these weights, if measured")
    ship(parser, _written)


def _written(arguments: argparse.Namespace) -> str:
    mix = arguments.mix and (_share(arguments.mix[0]), arguments.mix[1])
    facts = {fact: getattr(arguments, fact) for fact in FACTS}
    if arguments.int8_loss is not None:
        facts["int8_loss"] = f"{arguments.int8_loss:g}"
    return bundle(arguments.run, arguments.target, facts, which=arguments.weights, mix=mix)


if __name__ == "__main__":
    main()
