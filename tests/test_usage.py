"""What `--help` shows: headings, examples that work, and lines that fit the terminal."""

import re
import shlex

import pytest
import typer
from typer.testing import CliRunner

from sa_upscale import cli
from sa_upscale.cli import usage

ROOT_COMMAND = typer.main.get_command(cli.app)


def every_command(command=ROOT_COMMAND, path=()):
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from every_command(below, (*path, name))


EVERY = list(every_command())


def help_of(path, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = CliRunner().invoke(cli.app, [*path, "--help"], prog_name="sa-upscale")
    assert done.exit_code == 0
    return done.output


def examples():
    for _, command in EVERY:
        for line in (command.epilog or "").splitlines():
            if line.startswith("  sa-upscale "):
                yield line.split("  #")[0].strip()


@pytest.mark.parametrize("command", ["image", "video", "compare", "evaluate", "train"])
def test_long_helps_stand_under_headings(command, monkeypatch):
    shown = help_of([command], 100, monkeypatch)
    rest = shown.partition("\nOptions:\n")[2].partition("\n\n")[0]
    assert rest.split() == ["-h,", "--help", "Show", "this", "message", "and", "exit."]


def test_options_are_found_under_their_heading(monkeypatch):
    shown = help_of(["image"], 100, monkeypatch)
    under = {name: body for name, body in re.findall(r"^(\w[\w ]*):\n((?:  .*\n)+)", shown, flags=re.MULTILINE)}
    assert list(under)[:4] == ["Arguments", "Input", "Output", "Size"]
    for heading, option in (("Size", "--max-size"), ("Model", "--strength"), ("Where it runs", "--tile")):
        assert option in under[heading]
    assert "  -x, --scale 1…8 " in under["Size"]
    assert "--tile NUMBER" in under["Where it runs"]


def test_headings_name_what_there_is():
    names = {param.name for _, command in EVERY for param in command.params}
    assert {name for listed in usage.OPTIONS.values() for name in listed.split()} <= names
    assert {name for listed in usage.COMMANDS.values() for name in listed.split()} == set(ROOT_COMMAND.commands)


@pytest.mark.parametrize("path", [path for path, _ in EVERY], ids=" ".join)
def test_narrow_terminals_are_filled_and_not_passed(path, monkeypatch):
    shown = help_of(path, 40, monkeypatch).partition("\nExamples:")[0]
    # A name too long for its column stands alone in its line.
    long = [line for line in shown.splitlines() if len(line) > 40 and not re.match(r"  (-\w, )?--\S+( / --\S+)?", line)]
    assert long == []
    assert max(map(len, shown.splitlines())) > 30


def test_help_has_no_colours(monkeypatch):
    assert "\x1b" not in help_of(["image"], 100, monkeypatch)


@pytest.mark.parametrize("line", list(examples()))
def test_every_example_is_understood(line):
    command, arguments = ROOT_COMMAND, shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    if "--help" not in arguments:
        command.make_context(command.name, arguments)


def test_a_wrong_command_line_points_to_the_help(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sa-upscale", "image", "x.png", "--scale", "9"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("give a scale from 1 to 8 (see sa-upscale image --help)\n")
