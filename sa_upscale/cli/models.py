"""The commands about networks: the group `models`, and `export`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sa_upscale.cli.options import JsonOption
from sa_upscale.cli.terminal import Voice, draw_table, megabytes


def models_list(json_lines: JsonOption = False) -> None:
    """List every checkpoint: its scale, size, and whether it is here, to fetch, or not published yet."""
    from sa_upscale import checkpoints

    rows = checkpoints.listing()
    if json_lines:
        for row in rows:
            size = {"size": row.size, "path": row.path and str(row.path)}
            about = {"kind": row.entry.kind, "licence": row.entry.licence, "description": row.entry.description}
            print(json.dumps({"name": row.entry.name, "scale": row.entry.scale, "where": row.where, **size, **about}))
        return
    shown = []
    for row in rows:
        entry = row.entry
        facts = entry.name, f"x{entry.scale}", entry.kind, row.where, megabytes(row.size), entry.licence
        shown.append([*facts, entry.description])
    draw_table(["name", "scale", "for", "where", "size", "licence", "what it is"], shown)


def models_info(name: Annotated[str, typer.Argument(metavar="NAME|PATH")], json_lines: JsonOption = False) -> None:
    """Show all that is known of one checkpoint."""
    from sa_upscale import checkpoints

    info = checkpoints.info(name)
    seen = {"where": info.where, "path": info.path and str(info.path), "sha256": info.sha256, "size": info.size}
    seen |= {"weights": info.weights, "types": ", ".join(info.dtypes)}
    entry = {} if info.entry is None else dataclasses.asdict(info.entry)
    # What a file says of itself does not go before what is seen of it.
    said = {key: value for key, value in info.metadata.items() if key not in seen}
    facts = {key: value for key, value in entry.items() if value not in (None, "")} | seen | said
    if json_lines:
        print(json.dumps(facts))
        return
    shown = {key: megabytes(value) if key == "size" else str(value) for key, value in facts.items() if value}
    draw_table(["fact", "value"], [[key, value] for key, value in shown.items()])


def models_fetch(names: Annotated[list[str], typer.Argument(metavar="NAME")], json_lines: JsonOption = False) -> None:
    """Download checkpoints into the Hub's cache, checked against their sha256, and print where they are."""
    from sa_upscale import checkpoints

    say = Voice(json_lines)
    with say.progress() as progress:

        def received(name: str, done: int, total: int | None) -> None:
            progress(done, total, name)

        files = checkpoints.fetch(names, on_progress=received, on_notice=say.notice)
    for name, file in files.items():
        use = f"Try: sa-upscale {checkpoints.select(name).kind} INPUT --model {name}"
        say.tell({"event": "result", "name": name, "path": str(file)}, f"{name}: {file}\n{use}")


def models_verify(json_lines: JsonOption = False) -> None:
    """Check every checkpoint file on this machine against its sha256."""
    from sa_upscale import checkpoints

    say = Voice(json_lines)
    verdicts = checkpoints.verify()
    for verdict in verdicts:
        where = f"  {verdict.path}" if verdict.path else ""
        facts = {"event": "result", "name": verdict.name, "state": verdict.state}
        say.tell(facts | {"path": verdict.path and str(verdict.path)}, f"{verdict.name}: {verdict.state}{where}")
    if any(verdict.state == "corrupt" for verdict in verdicts):
        raise typer.Exit(1)


def models_push(
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="NAMESPACE[/PREFIX]", help="Where on the Hub; repositories are called sa-upscale-NAME."
        ),
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Checkpoints; all of ours with a file by default.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only tell what would be published where; with --json, the model cards, too."),
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make new repositories private.")] = False,
    json_lines: JsonOption = False,
) -> None:
    """Publish checkpoints on the Hub with model cards, and write where they are into weights.toml.

    Works in a checkout, with a token in HF_TOKEN or from `hf auth login`.  Only what has changed is sent.
    """
    from sa_upscale import publish

    say = Voice(json_lines)
    plans = publish.plan(names or [], to, on_notice=say.notice)
    if dry_run:
        for plan in plans:
            about = {"name": plan.name, "repo": plan.repo, "path": str(plan.info.path), "size": plan.info.size}
            state = "these weights are there" if plan.there else "new weights"
            line = f"{plan.name} -> {plan.repo}  {megabytes(plan.info.size)}  {state}"
            say.tell({"event": "plan", **about, "there": plan.there, "card": plan.card}, line)
        return
    with say.progress() as progress:
        publish.push(
            plans, private=private, on_progress=progress, on_result=lambda result: _tell_published(result, say)
        )


def _tell_published(result, say: Voice) -> None:
    """The `publish.Published` of one checkpoint."""
    sent = ", ".join(result.sent) or "nothing new"
    facts = {"event": "result", **dataclasses.asdict(result)}
    say.tell(facts, f"{result.name}: {result.repo} at {result.revision}  {sent}")


def models_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint of ours or of a public network.")],
    name: Annotated[str, typer.Option(help="What to call it from now on.")],
    licence: Annotated[str, typer.Option(help="Under which licence it may be used, for `models info`.")] = "unknown",
    json_lines: JsonOption = False,
) -> None:
    """Give a checkpoint file a name: it is copied, its network recognised and its sha256 recorded."""
    from sa_upscale import checkpoints

    entry = checkpoints.adopt(file, name, licence=licence)
    where = checkpoints.user_folder() / entry.file
    text = f"{name}: {entry.architecture} x{entry.scale}, {where}\nTry: sa-upscale {entry.kind} INPUT --model {name}"
    facts = {"event": "result", "name": name, "architecture": entry.architecture, "scale": entry.scale}
    Voice(json_lines).tell(facts | {"path": str(where), "sha256": entry.sha256}, text)


def models_path(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Print where a checkpoint's file is, fetching it first if need be."""
    from sa_upscale import checkpoints

    print(checkpoints.path(name, on_notice=Voice().notice))


def export(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A checkpoint of `models list`, or a file.")],
    format: Annotated[str, typer.Option("--format", "-f", metavar="onnx|torchscript", help="For which runtime.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="NAME.onnx or NAME.pt by default.")
    ] = None,
    json_lines: JsonOption = False,
) -> None:
    """Write a network for another runtime.

    The file takes pictures of any size and is held against the network before it is written.
    """
    from sa_upscale import export

    target = output or Path(Path(name).stem + export.FORMATS.get(format, ""))
    done = export.export(name, target, format)
    text = (
        f"{done.path}: {done.architecture} x{done.scale}, differs from the network by at most {done.difference:.1g}\n"
        f"  lr  {done.takes}, RGB, float32 in [0, 1]"
        + (", enlarged to the size of the result by bicubic" if done.enlarged else "")
    )
    facts = {"event": "result", **dataclasses.asdict(done), "path": str(done.path)}
    Voice(json_lines).tell(facts, text)
