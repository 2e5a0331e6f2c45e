"""What docs/training.md and TRAINING_QUEUE.md tell people to type is understood, and the worked example works."""

import re
import shlex
import string

import pytest
import torch
import typer

from sa_upscale import cli, config, losses, train
from tests.conftest import ROOT

GUIDE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
QUEUE = (ROOT / "TRAINING_QUEUE.md").read_text(encoding="utf-8")
SUBCOMMANDS = typer.main.get_command(cli.app).commands


def blocks(language, text=GUIDE):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands():
    typed = [
        line.split("  #")[0] for text in (GUIDE, QUEUE) for block in blocks("bash", text) for line in block.splitlines()
    ]
    typed += re.findall(r"`(sa-upscale [^`]+)`", QUEUE)
    variables = {}
    for line in typed:
        if assigned := re.fullmatch(r'(\w+)="?([^"]*)"?', line):
            variables[assigned[1]] = string.Template(assigned[2]).substitute(variables)
        elif line.startswith(("sa-upscale", "torchrun")):
            command = re.sub(r"^torchrun .* -m sa_upscale ", "sa-upscale ", line)
            yield string.Template(command).substitute(variables)


def parsed(line):
    program, verb, *arguments = shlex.split(line)
    assert program == "sa-upscale"
    return verb, SUBCOMMANDS[verb].make_context(verb, arguments).params


@pytest.mark.parametrize("line", list(commands()))
def test_commands_are_understood(line):
    verb, options = parsed(line)
    if verb == "train":
        names = {"name_or_path": "recipe", "folders": "data"}
        keys = ("objective", "model", "validation", "vgg_weights")
        recipe = train.assemble(
            **{key: options[name] for key, name in names.items()},
            **{key: options[key] for key in keys},
            settings=options["settings"] or [],
        )
        assert recipe.stages[0].data.folders
        assert recipe.model.start or recipe.model.name
    elif verb == "finetune":
        assert config.load(None, options["settings"] or [], options["objective"] or "fidelity")
        assert options["output"].suffix == ".safetensors"


def test_every_objective_and_recipe_stands_in_the_guide():
    rows = [line for line in GUIDE.splitlines() if line.startswith("|")]
    named = {name.lower().replace("σ", "s") for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert set(config.objectives()) <= named
    assert {name for name in config.names() if name.endswith("-paper")} <= named
    assert all(f"`{name}`" in GUIDE for name in config.names())


def test_the_example_of_a_call_from_python_works():
    example = {}
    exec(blocks("python")[0], example)
    assert example["value"].item() > 0
    assert example["sr"].grad.abs().sum() > 0
    assert example["hr"].grad is None


def test_the_example_of_a_new_loss_works(monkeypatch, tmp_path):
    module = {"__name__": "sa_upscale.losses.gradient"}
    exec(blocks("python")[1], module)
    monkeypatch.setitem(losses.LOSSES, "gradient", module["Gradient"])
    (recipe_text,) = blocks("toml")
    (tmp_path / "mine.toml").write_text(recipe_text, encoding="utf-8")
    (stage,) = config.load(str(tmp_path / "mine.toml")).stages
    (options,) = [dict(table) for table in stage.losses if table["name"] == "gradient"]
    assert losses.build(options.pop("name"), distance=options["distance"])(_ramps(0.5, 0.5)).item() < 0.0021
    # Every one of the differences along rows is 0.2 too large, and none of those along columns.
    step = _ramps(0.5, 0.3)
    value = losses.build("gradient")(step)
    assert value.item() == pytest.approx(0.2)
    value.backward()
    assert step.sr.grad.abs().sum() > 0


def _ramps(slope, slope_of_hr):
    columns = torch.arange(6.0).expand(1, 3, 6, 6)
    return losses.Step(lr=None, hr=columns * slope_of_hr, sr=(columns * slope).requires_grad_())
