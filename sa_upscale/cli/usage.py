"""How `--help` looks: options under headings, as wide as the terminal, examples at the end.

Plain text without colours, so that it reads alike on light and dark backgrounds, in pipes and in pagers.
"""

import shutil
from collections.abc import Callable, Iterable

import typer
from typer.core import TyperCommand, TyperGroup

WIDEST = 100  # columns: longer lines are hard to read

# The headings in the order they are shown, and by name the options, or commands, below each.  What stands nowhere
# comes last, below "Options" or "Commands".
OPTIONS = {
    "Input": "data hr lr validation reference recursive skip_existing retry shard max_pixels crop regions start end "
    "duration rate",
    "Output": "output format suffix png",
    "Size": "scale max_size width height fit preview",
    "Model": "model models recipe objective strength denoise tta match_color vgg_weights",
    "The run": "settings steps resume",
    "Picture quality": "quality lossless bit_depth strip tag",
    "Encoding": "codec crf preset encoder_options pixel_format container audio",
    "Frames": "deinterlace scene_threshold scene_cuts hardware",
    "Measuring": "metrics border backbones",
    "Blind test": "blind pairs scores",
    "Where it runs": "device precision tile compile engine address devices",
    "Reports": "report compare dry_run json_lines",
}
COMMANDS = {
    "Upscale": "image video",
    "Look and measure": "compare evaluate maps",
    "Train": "train finetune",
    "Networks and this machine": "models export doctor",
}
FEW = 8  # options that need no headings
# What the names of Python's types tell a person.
KINDS = {
    "<int>": "NUMBER",
    "<int range>": "NUMBER",
    "<float>": "NUMBER",
    "<float range>": "NUMBER",
    "<str>": "TEXT",
    "<Path>": "FILE",
}


class _Help:
    """What commands and groups of commands share."""

    def get_help(self, ctx) -> str:
        ctx.terminal_width = max(min(shutil.get_terminal_size().columns, WIDEST + 2) - 2, 20)
        return super().get_help(ctx)

    def format_options(self, ctx, formatter) -> None:
        shown = [(param, param.get_help_record(ctx)) for param in self.get_params(ctx)]
        records = [(param, record) for param, record in shown if record]
        arguments = [
            (record[0].partition(" <")[0], record[1])
            for param, record in records
            if param.param_type_name == "argument"
        ]
        options = [(param.name, _plain(record)) for param, record in records if param.param_type_name == "option"]
        _section(formatter, "Arguments", arguments)
        for heading, rows in _grouped(options, OPTIONS if len(options) > FEW else {}, "Options"):
            _section(formatter, heading, rows)

    def format_epilog(self, ctx, formatter) -> None:
        if self.epilog:
            formatter.write_paragraph()
            formatter.write_text(self.epilog)


class Command(_Help, TyperCommand):
    """A command."""


class Group(_Help, TyperGroup):
    """A command that holds others."""

    def format_options(self, ctx, formatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx, formatter) -> None:
        known = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, (name, command.get_short_help_str(WIDEST))) for name, command in known if not command.hidden]
        for heading, shown in _grouped(rows, COMMANDS, "Commands"):
            _section(formatter, heading, shown)


def add(group: typer.Typer, function: Callable, *lines: str, name: str | None = None) -> None:
    """Make a function a command of the group, called as the function is where no name is given, with its examples."""
    group.command(name, cls=Command, epilog=examples(*lines) if lines else None)(function)


def examples(*lines: str) -> str:
    """The end of a command's help.  A line may tell after `  # ` what it does."""
    # The backspace keeps the lines from being joined.
    return "\b\nExamples:\n" + "\n".join(f"  sa-upscale {line}" for line in lines)


def _grouped(
    rows: Iterable[tuple[str, tuple[str, str]]], headings: dict[str, str], rest: str
) -> list[tuple[str, list[tuple[str, str]]]]:
    """The rows below the headings that their names stand under; `rest` is that of the others, at the end."""
    under = {name: heading for heading, names in headings.items() for name in names.split()}
    found: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*headings, rest)}
    for name, row in rows:
        found[under.get(name, rest)].append(row)
    return [(heading, shown) for heading, shown in found.items() if shown]


def _plain(record: tuple[str, str]) -> tuple[str, str]:
    names, about = record
    for kind, word in KINDS.items():
        names = names.replace(kind, word)
    return names, about


def _section(formatter, heading: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(heading):
            # In a narrow terminal the explanations need the room more than the names do.
            formatter.write_dl(rows, col_max=min(30, formatter.width // 3))
