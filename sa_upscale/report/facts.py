"""What a run was trained with, as a table."""

import json
from collections.abc import Callable
from typing import Any

from sa_upscale.report.page import count, duration, escaped, number
from sa_upscale.report.run import Run, Stage


def facts(run: Run) -> str:
    """The model, and a column for each stage; empty when there is neither a recipe nor a log."""
    if not run.stages:
        return ""
    rows = {name: [describe(stage) for stage in run.stages] for name, describe in _ROWS.items()}
    heads = "".join(f'<th scope="col">{escaped(stage.name)}</th>' for stage in run.stages)
    body = "".join(
        f'<tr><th scope="row">{escaped(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, cells in rows.items()
        if any(cells)
    )
    model = "".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in _model(run.model).items() if text)
    return f"""<section id="facts">
<h2>Recipe</h2>
{f"<dl>{model}</dl>" if model else ""}
<div class="scroll"><table><thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table></div>
</section>"""


def _model(model: dict[str, Any]) -> dict[str, str]:
    if not model:
        return {}
    start = model.get("start")
    taken = " (what fits of it)" if model.get("transfer") else ""
    return {
        "Network": escaped(model.get("name") or "that of the start"),
        "Scale": f"×{escaped(model['scale'])}" if model.get("scale") else "",
        "Parameters": _options(model.get("parameters") or {}),
        "Starts from": escaped(f"{start}{taken}") if start else "random weights",
    }


def _steps(stage: Stage) -> str:
    planned = stage.option("train", "steps")
    return f"{count(stage.last_step)} of {count(planned)}" if planned else count(stage.last_step)


def _time(stage: Stage) -> str:
    points = stage.curves.get("seconds")
    return duration(points[-1][1]) if points and points[-1][1] is not None else ""


def _losses(stage: Stage) -> str:
    lines = []
    for label, table in stage.losses.items():
        options = {key: value for key, value in table.items() if key not in ("name", "weight")}
        lines.append(f"<b>{number(table.get('weight', 1))}</b> × {escaped(label)} <small>{_options(options)}</small>")
    return "<br>".join(lines)


def _found(stage: Stage) -> str:
    lines = [f"{escaped(label)}: {_options(table)}" for label, table in stage.found.items()]
    return "<br>".join(lines)


def _rate(stage: Stage) -> str:
    rate, final, schedule, warmup = (stage.option("train", key) for key in ("rate", "final_rate", "schedule", "warmup"))
    if rate is None:
        return ""
    course = {
        "cosine": lambda: f" → {number(final or 0)}, cosine",
        "steps": lambda: (
            f", × {number(stage.option('train', 'factor'))} at {_shown(stage.option('train', 'milestones'))}"
        ),
    }.get(schedule, lambda: ", constant")()
    return escaped(f"{number(rate)}{course}" + (f", {count(warmup)} steps of warm-up" if warmup else ""))


def _batch(stage: Stage) -> str:
    batch, patch = stage.option("data", "batch"), stage.option("data", "patch")
    return f"{batch} crops of {patch} × {patch}" if batch and patch else ""


def _discriminator(stage: Stage) -> str:
    table = stage.options.get("discriminator")
    if not table:
        return ""
    options = {key: value for key, value in table.items() if key != "name" and value not in (None, {}, 0)}
    return f"{escaped(table['name'])} <small>{_options(options)}</small>"


def _folders(stage: Stage) -> str:
    return "<br>".join(escaped(folder) for folder in stage.option("data", "folders") or [])


def _field(section: str, key: str) -> Callable[[Stage], str]:
    def describe(stage: Stage) -> str:
        value = stage.option(section, key)
        return "" if value is None else escaped(_shown(value))

    return describe


_ROWS: dict[str, Callable[[Stage], str]] = {
    "Steps": _steps,
    "Time": _time,
    "Losses": _losses,
    "Found": _found,
    "Discriminator": _discriminator,
    "Learning rate": _rate,
    "Batch": _batch,
    "Degradation": _field("data", "degradation"),
    "Training pictures": _folders,
    "Validation pictures": _field("data", "validation"),
    "Best weights by": _field("train", "best"),
    "Averaged weights": _field("train", "ema"),
    "Precision": _field("train", "precision"),
    "Seed": _field("train", "seed"),
}


def _options(table: dict[str, Any]) -> str:
    return escaped(", ".join(f"{_NAMES.get(key, key)} {_shown(value)}" for key, value in table.items()))


_NAMES = {"beta1": "β1", "beta2": "β2"}


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "no" if not value else "yes"
    if isinstance(value, int | float):
        return number(value) if isinstance(value, float) else count(value)
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
