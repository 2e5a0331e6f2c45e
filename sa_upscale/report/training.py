"""The report of a training run: what it made of the validation pictures, every curve, and what it was trained with."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sa_upscale.report import page
from sa_upscale.report.facts import facts
from sa_upscale.report.page import count, duration, escaped, number
from sa_upscale.report.pictures import pictures
from sa_upscale.report.run import Run, Series, Stage, read, thinned

REPORT = "report.html"
SHOTS = 8
PICTURE_BYTES = 10_000_000
"""A third more in the page, as base64."""
CURVE_POINTS = 2000

_KNOWN = {
    "psnr_y": ("PSNR-Y", "dB on whole validation pictures, luma. Higher is closer to the truth."),
    "ssim_y": ("SSIM-Y", "Structure of whole validation pictures, luma. 1 is the truth."),
    "vgg_percep": ("VGG distance", "Whole validation pictures as a VGG sees them. Lower is more alike."),
    "loss": ("Validation loss", "All terms with their weights, on validation crops. Lower is better."),
    "best": ("Best so far", "Of what chooses the best weights."),
    "stability": ("Stability", "How far the output for fixed crops moved since the last look. Lower is steadier."),
    "discriminator": ("Discriminator", "Its own loss. Near 0 it has won, and the generator learns little from it."),
    "real": ("Real", "The discriminator's mean logit for real pictures."),
    "fake": ("Fake", "The discriminator's mean logit for made pictures. Far below Real, it tells them apart."),
    "rate": ("Learning rate", "The generator's."),
    "seconds": ("Seconds", "Spent on this stage so far."),
}
_VALIDATION = ("psnr_y", "ssim_y", "vgg_percep", "loss", "best", "stability")
_JUDGE, _PACE = ("discriminator", "real", "fake"), ("rate", "seconds")


def write(run: Path) -> Path:
    """Write `report.html` into the folder of a run, from its `recipe.json`, `log.jsonl` and `pictures/`.

    The page holds everything and fetches nothing.  What is missing, or was cut short by a kill, is left out.

    Raises `UpscaleError` when it cannot be written.
    """
    left = read(run, SHOTS, PICTURE_BYTES)
    name = run.resolve().name
    main = "\n".join((pictures(left), _curves(left), facts(left), _use(left)))
    text = page.document(
        f"{name}: training report",
        f"{_header(left, name)}\n<main>\n{main}\n</main>",
        styles=("training.css",),
        scripts=("curves.js", "pictures.js"),
    )
    page.save(run / REPORT, text)
    return run / REPORT


def _header(run: Run, name: str) -> str:
    network = [f"{run.model['name']} ×{run.model['scale']}"] if {"name", "scale"} <= run.model.keys() else []
    tiles = "".join(
        f'<div class="tile"><span>{escaped(label)}</span><b>{escaped(value)}</b><small>{escaped(note)}</small></div>'
        for label, value, note in _tiles(run)
    )
    return f"""<header>
<p class="eyebrow">{escaped(" · ".join(["Training report", name, *network]))}</p>
<h1>{escaped(run.description or name)}</h1>
<div class="tiles">{tiles}</div>
</header>"""


def _tiles(run: Run) -> Iterator[tuple[str, str, str]]:
    """The few figures that tell how it went: what, how much, and a word about it."""
    begun = [stage for stage in run.stages if stage.curves]
    if not begun:
        yield "Steps", "0", "nothing was logged"
        return
    stage = begun[-1]
    of_stage = f" in {stage.name}" if len(run.stages) > 1 else ""
    yield from _best(stage, of_stage)
    planned = stage.option("train", "steps")
    ended = planned in (None, stage.last_step) and stage is run.stages[-1]
    note = f"of {count(planned)}{of_stage}" if planned else f"done{of_stage}"
    yield "Steps", count(stage.last_step), note if ended else f"{note}, not at the end yet"
    seconds = [stage.curves["seconds"][-1][1] or 0 for stage in begun if "seconds" in stage.curves]
    if sum(seconds):
        yield "Time", duration(sum(seconds)), "over all stages" if len(seconds) > 1 else _pace(stage)


def _best(stage: Stage, of_stage: str) -> Iterator[tuple[str, str, str]]:
    key = str(stage.option("train", "best") or "").replace("-", "_")
    label, unit = _KNOWN.get(key, ("validation", ""))[0], " dB" if key == "psnr_y" else ""
    if best := _finite(stage.curves.get("best", [])):
        value = best[-1][1]
        step = next(step for step, earlier in best if earlier == value)
        yield f"Best {label}", f"{number(value)}{unit}", f"at step {count(step)}{of_stage}"
    measured = _finite(stage.curves.get(key, []))
    if len(measured) > 1:
        change = measured[-1][1] - measured[0][1]
        sign = "+" if change >= 0 else "−"
        yield f"{label} change", f"{sign}{number(abs(change))}{unit}", f"since step {count(measured[0][0])}"


def _pace(stage: Stage) -> str:
    (step, seconds) = stage.curves["seconds"][-1]
    return f"{step / seconds:.2g} steps a second"


def _finite(points: Series) -> Series:
    return [point for point in points if point[1] is not None]


def _curves(run: Run) -> str:
    """Every key of the log as a chart, by stage and kind; a script draws them from the figures at the end."""
    charts: list[dict[str, Any]] = []
    stages = [f"<div>{_stage_curves(run, stage, charts)}</div>" for stage in run.stages if stage.curves]
    if not stages:
        return ""
    return f"""<section id="curves">
<h2>Curves</h2>
<div class="toolbar">
<label>Smoothing <input type="range" id="smoothing" min="0" max="10" step="0.5" value="2"></label>
<span>Faint: as logged. Bold: smoothed. Point at a curve to read all of its stage at that step.</span>
</div>
<noscript><p class="note">The curves need a script, and scripts are off; the figures are in log.jsonl.</p></noscript>
{"".join(stages)}
{page.data_block("curve-data", charts)}
</section>"""


def _stage_curves(run: Run, stage: Stage, charts: list[dict[str, Any]]) -> str:
    weights = {label: float(table.get("weight", 1)) for label, table in stage.losses.items()}
    known = {
        "Validation": _VALIDATION,
        "Loss terms, without their weights": weights,
        "Discriminator": _JUDGE,
        "Pace": _PACE,
    }
    kinds = {kind: [key for key in names if key in stage.curves] for kind, names in known.items()}
    kinds |= {"Other values": [key for key in stage.curves if all(key not in names for names in known.values())]}
    title = f"<h3>{escaped(stage.name)} <small>{count(stage.last_step)} steps</small></h3>"
    parts = [title] if len(run.stages) > 1 else []
    for kind, keys in kinds.items():
        figures = "".join(_chart(stage, key, weights, charts) for key in keys)
        parts.append(f'<h4>{kind}</h4><div class="charts">{figures}</div>' if keys else "")
    return "".join(parts)


def _chart(stage: Stage, key: str, weights: dict[str, float], charts: list[dict[str, Any]]) -> str:
    title, note = (key, f"Weight {number(weights[key])}.") if key in weights else _KNOWN.get(key, (key, ""))
    points = [(step, value if value is None else float(f"{value:.6g}")) for step, value in stage.curves[key]]
    figures = {"stage": stage.name, "key": key, "exact": key in _PACE}
    charts.append(figures | {"points": thinned(points, CURVE_POINTS)})
    return (
        f'<figure class="chart" data-chart="{len(charts) - 1}"><figcaption><b>{escaped(title)}</b>'
        f'<button type="button" class="log" aria-pressed="false" hidden>log</button><output></output>'
        f'<small>{escaped(note)}</small></figcaption><div class="plot"></div></figure>'
    )


def _use(run: Run) -> str:
    """How to go on with the weights, if there are any."""
    best = run.folder / "best.safetensors"
    if not best.is_file():
        return ""
    return f"""<section id="use">
<h2>Use it</h2>
<pre><code>sa-upscale image in.png --model {escaped(shlex.quote(str(best)))}</code></pre>
</section>"""
