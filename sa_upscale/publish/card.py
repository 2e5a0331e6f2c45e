"""The model card of a checkpoint, made of what weights.toml, the file's own metadata and the measurements say."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from sa_upscale.checkpoints import Entry, Info

_WORD = {"image": "photo.jpg", "video": "clip.mp4"}
_ADVERSARIAL = (
    "It was trained against an adversary and invents texture that is likely, not true: not for evidence, measurements "
    "or medical pictures."
)
_FIDELITY = "It was trained without an adversary: nothing is invented, and fine texture stays soft."
_BICUBIC = (
    "It was trained on pictures reduced by bicubic from clean originals: noise and JPEG blocks are taken for detail "
    "and come out sharper, too."
)
_DEGRADED = "It was trained on made degradations (blur, noise, JPEG); what is clean already may lose fine detail."
_FRAMES = "It looks at five frames at a time; across a cut between two shots they do not belong together."
_FIGURES = """
PSNR in dB and SSIM on the luma, a border of `scale` pixels left out (clips: 8); LR made by MATLAB's bicubic; in float32
on a CPU, results rounded to 8 bits.  The distances (`vgg-percep`, `lpips`, `dists`) are better when lower, all else
when higher.  `vgg-percep` compares VGG19 features (conv1_2, conv2_2, conv3_4).  It is not LPIPS, and it shares layers
with perceptual training losses, so that it is no evidence by itself.
"""


def text(entry: Entry, info: Info, repo: str, sample: str, results: Mapping[str, Any]) -> str:
    """The card as Markdown with its head of YAML.

    `repo` is where the checkpoint goes, `sample` its picture's file name there; `results` is benchmarks/results.json.
    The head names no `datasets`: those are data sets on the Hub, and the sources here are none.
    """
    metadata = info.metadata
    recipe = json.loads(metadata["recipe"])
    stages = recipe.get("stages") or [recipe | {"name": metadata.get("objective", "the only one")}]
    parts = [
        _head(entry),
        f"# {entry.name}\n\n{_about(entry, info)}",
        f"![Left bicubic, right {entry.name}]({sample})\n\nLeft bicubic, right {entry.name}: a crop of a CC0 photo.",
        f"## Use\n\n{_use(entry, repo, info.path.name)}",
        f"## Training\n\n{_training(entry, metadata, recipe, stages)}",
        _measured(entry, info, results),
        f"## Limits\n\n{_limits(entry, stages)}",
        f"## Licence\n\n{entry.licence}, for these weights.  What they were trained on has its own, named above.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(entry: Entry) -> str:
    """JSON's values are YAML's, too."""
    tags = ["super-resolution", "upscaling", entry.kind, entry.architecture]
    values = {
        "license": entry.licence.lower(),
        "library_name": "sa-upscale",
        "pipeline_tag": "image-to-image",
        "tags": tags,
    }
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"])


def _about(entry: Entry, info: Info) -> str:
    frames = f"{entry.window} frames in, one out" if entry.window > 1 else "for pictures, and for video frame by frame"
    facts = {
        "scale": f"×{entry.scale}, {frames}",
        "network": f"`{entry.architecture}` {info.metadata['parameters']}, {info.weights / 1e6:.2f} M parameters",
        "file": f"`{info.path.name}`, {info.size / 1e6:.1f} MB, {', '.join(info.dtypes)}, sha256 `{info.sha256}`",
    }
    sentence = f"{entry.description[:1].upper()}{entry.description[1:]}."
    return f"{sentence}\n\n{_table(['', ''], list(facts.items()))}"


def _use(entry: Entry, repo: str, file: str) -> str:
    return f"""With sa-upscale installed:

```bash
hf download {repo} {file} --local-dir .
sa-upscale {entry.kind} {_WORD[entry.kind]} -x {entry.scale} --model {file}
```

A release of sa-upscale that lists it needs no download first: `--model {entry.name}`."""


def _training(entry: Entry, metadata: Mapping[str, str], recipe: Mapping[str, Any], stages: Sequence[Mapping]) -> str:
    facts = {
        "trained on": metadata.get("trained_on") or entry.trained_on,
        "starting from": recipe["model"].get("start"),
        "stage of these weights": metadata.get("objective"),
        "its steps": metadata.get("steps"),
        "its hours": metadata.get("hours"),
        "hardware": metadata.get("hardware"),
        "seed": metadata.get("seed"),
        "by": metadata.get("tool"),
    }
    facts |= {key.replace("_", " "): value for key, value in metadata.items() if key.startswith("validation_")}
    parts = [_table(["", ""], [fact for fact in facts.items() if fact[1]]), _sources(stages)]
    if "command" in metadata:
        parts.append(f"The command:\n\n```\n{metadata['command']}\n```")
    parts.append("The recipe in short:\n\n" + _short(stages))
    if found := json.loads(metadata.get("found", "{}")):
        settled = [[label, _options(values)] for label, values in found.items()]
        parts.append(
            "What it left open and the run settled (layers of the VGG19, β of a share):\n\n" + _table(["", ""], settled)
        )
    whole = json.dumps(recipe, indent=1, ensure_ascii=False)
    parts.append(f"<details><summary>The whole recipe</summary>\n\n```json\n{whole}\n```\n\n</details>")
    return "\n\n".join(part for part in parts if part)


def _sources(stages: Sequence[Mapping]) -> str:
    """The folders that the stages drew from, with what is in them and its licences where they are known by name."""
    named = {folder for stage in stages for folder in stage["data"]["folders"]}
    listed = tomllib.loads(resources.files("sa_upscale.publish").joinpath("sources.toml").read_text(encoding="utf-8"))
    rows = []
    for source in listed["sources"]:
        if used := [folder for folder in source["folders"] if folder in named]:
            rows.append([", ".join(used), source["what"], source["licences"].strip()])
            named -= set(used)
    return _table(["data", "what", "licences"], [*rows, *([folder, "", ""] for folder in sorted(named))])


def _short(stages: Sequence[Mapping]) -> str:
    rows = {
        "losses": [", ".join(map(_loss, stage["losses"])) for stage in stages],
        "discriminator": [(stage.get("discriminator") or {}).get("name") for stage in stages],
        "LR by": [stage["data"].get("degradation", "bicubic") for stage in stages],
        "batch": [
            f"{stage['data']['batch']} crops of {stage['data']['patch']}×{stage['data']['patch']}" for stage in stages
        ],
        "steps": [stage["train"]["steps"] for stage in stages],
        "rate": [f"{stage['train']['rate']:g}, {stage['train']['schedule']}" for stage in stages],
        "seed": [stage["train"]["seed"] for stage in stages],
        "VGG19": [stage["train"].get("vgg_weights") for stage in stages],
    }
    shown = [[key, *cells] for key, cells in rows.items() if any(cell is not None for cell in cells)]
    return _table(["stage", *(stage["name"] for stage in stages)], shown)


def _loss(table: Mapping[str, Any]) -> str:
    options = _options({key: value for key, value in table.items() if key not in ("name", "weight")})
    return f"{table.get('weight', 1):g} × {table['name']}" + (f" ({options})" if options else "")


def _options(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())


def _measured(entry: Entry, info: Info, results: Mapping[str, Any]) -> str:
    """The figures by the sha256 of the weights, with bicubic's beside them; nothing where there are none."""
    ours, bicubic = (results.get(key, {}).get("figures", {}) for key in (info.sha256, "bicubic"))
    places = [(bench, folder) for bench, folders in ours.items() for folder in folders]
    names = list(dict.fromkeys(name for bench, folder in places for name in ours[bench][folder]))
    if not names:
        return ""
    rows = []
    for bench, folder in places:
        place = bench if folder == "." else f"{bench} {folder}"
        for who, figures in (("bicubic", bicubic), (entry.name, ours)):
            known = figures.get(bench, {}).get(folder, {})
            rows.append([place, who, *(_figure(name, known.get(name)) for name in names)])
    return f"## Measured\n\n{_table(['set', '', *names], rows)}\n{_FIGURES.rstrip()}"


def _figure(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if metric.startswith("psnr") else f"{value:.4f}"


def _limits(entry: Entry, stages: Sequence[Mapping]) -> str:
    lines = [
        _ADVERSARIAL if any(stage.get("discriminator") for stage in stages) else _FIDELITY,
        _DEGRADED if stages[-1]["data"].get("degradation") == "second-order" else _BICUBIC,
        "Repeated fine patterns near the resolution limit can come out with a wrong direction.",
    ]
    return "\n".join(f"- {line}" for line in lines + ([_FRAMES] if entry.window > 1 else []))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
