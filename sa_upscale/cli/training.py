"""The commands that train: `train` and `finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from sa_upscale.cli.options import (
    DataOption,
    DeviceOption,
    JsonOption,
    ObjectiveOption,
    ResumeOption,
    SettingsOption,
    VGGOption,
)
from sa_upscale.cli.terminal import Voice
from sa_upscale.errors import UpscaleError


def train(
    recipe: Annotated[
        str | None, typer.Option("--config", "-c", metavar="RECIPE", help="A recipe of the package or a TOML file.")
    ] = None,
    objective: ObjectiveOption = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="START", help="The checkpoint to start from.")
    ] = None,
    data: DataOption = None,
    validation: Annotated[Path | None, typer.Option(help="A folder of HR files to choose the best weights by.")] = None,
    vgg_weights: VGGOption = None,
    settings: SettingsOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The run's folder; runs/<loss or recipe>.")
    ] = None,
    resume: ResumeOption = False,
    device: DeviceOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Train a network by a recipe or by a named loss.

    Ctrl-C saves; --resume goes on to the same weights as if the run had never stopped.
    """
    from sa_upscale import train

    chosen = train.assemble(
        recipe,
        objective,
        model=model,
        folders=data or [],
        validation=validation,
        vgg_weights=vgg_weights,
        settings=settings or [],
    )
    say = Voice(json_lines)
    outcome = _fit(chosen, output or Path("runs") / (objective or Path(recipe).stem), resume, device, say)
    _tell(outcome, outcome.file, say)


def finetune(
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME|PATH", help="The checkpoint to start from.")],
    data: DataOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The new checkpoint, a .safetensors file.")
    ],
    objective: ObjectiveOption = None,
    steps: Annotated[int | None, typer.Option(min=1, help="How many steps; 2000.")] = None,
    vgg_weights: VGGOption = None,
    settings: SettingsOption = None,
    resume: ResumeOption = False,
    device: DeviceOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Train a checkpoint further on pictures of one's own.

    The result works with image and video at once.  The run and its report stay in a folder beside it.
    """
    from sa_upscale import train

    train.check_target(output)
    say = Voice(json_lines)
    plan = train.plan_finetuning(
        model, data, objective=objective, steps=steps, vgg_weights=vgg_weights, settings=settings or [], device=device
    )
    for line in train.described(plan):
        say.notice(line)
    outcome = _fit(plan.recipe, output.with_name(f"{output.stem}-run"), resume, device, say)
    train.deliver(outcome.file, output)
    _tell(outcome, output, say)


def _fit(recipe, run: Path, resume: bool, device: str | None, say: Voice):
    """Run `train.fit` and show how it stands."""
    import torch

    from sa_upscale import memory, processors, train

    memory.keep()
    torch.set_num_threads(processors.threads())
    with say.progress() as progress:
        try:
            return train.fit(
                recipe,
                run,
                resume=resume,
                device=device,
                on_progress=lambda report: progress(report.step, report.steps, _standing(report)),
                on_notice=say.notice,
            )
        except KeyboardInterrupt:
            raise UpscaleError("interrupted; the state is saved, go on with the same command and --resume") from None


def _tell(outcome, file: Path, say: Voice) -> None:
    """The `train.Outcome` of a run, whose weights are now in `file`."""
    facts = {"steps": outcome.steps, outcome.criterion: outcome.best, "path": str(file)}
    report = outcome.report and str(outcome.report)
    say.tell(
        {"event": "result", **facts, "report": report},
        f"{outcome.steps} steps, best validation {outcome.criterion} {outcome.best:.4g}: {file}  report: {report}\n"
        f"Try: sa-upscale image INPUT --model {file}",
    )


def _standing(report) -> str:
    terms = ", ".join(f"{name} {value:.4f}" for name, value in report.terms.items())
    return f"{report.stage}: {terms}" + ("" if report.best is None else f", best {report.criterion} {report.best:.4g}")
