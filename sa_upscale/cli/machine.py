"""The command about the machine it runs on: `doctor`."""

import dataclasses
from typing import Annotated

import typer

from sa_upscale.cli.options import JsonOption
from sa_upscale.cli.terminal import Voice


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing of the network.")] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget what was measured, and measure this machine again.")
    ] = False,
    json_lines: JsonOption = False,
) -> None:
    """Check this machine: devices, speed, codecs, folders.

    What is wrong is marked with ! and comes with its cure; the exit code is then 1.
    """
    from sa_upscale import doctor

    say = Voice(json_lines)
    topic, bad = None, 0
    for found in doctor.examine(offline=offline, reset=reset):
        mark = {"ok": " ", "note": "-", "bad": "!"}[found.state]
        text = f"{mark} {found.name:<24} {found.value}" + (f"\n  {'':<24} -> {found.cure}" if found.cure else "")
        head = f"{found.topic}\n" if found.topic != topic else ""
        head = f"\n{head}" if head and topic else head
        say.tell({"event": "result", **dataclasses.asdict(found)}, head + text)
        topic, bad = found.topic, bad + (found.state == "bad")
    if bad:
        raise typer.Exit(1)
