"""Rebuild the tables of benchmarks/RESULTS.md: `python -m benchmarks.results --shared ../shared`.

Measures bicubic and every checkpoint of weights.toml whose file is on this machine with `sa_upscale.evaluate`, on the
CPU in float32, so that another machine finds the same figures.  What a file of weights has been measured at stays in
benchmarks/results.json under its sha256: a rebuild measures only what is new.  Only the text between the marks of a
region is replaced; all other text of RESULTS.md is written by hand.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sa_upscale import checkpoints, evaluate
from sa_upscale.errors import UpscaleError
from sa_upscale.metrics import METRICS

HERE = Path(__file__).resolve().parent
VGG = Path("data/vgg/vgg19_conv1_1-conv3_4.safetensors")
TITLES = {  # the metrics of the tables, in their order
    "psnr-y": "PSNR-Y",
    "ssim-y": "SSIM-Y",
    "vif-y": "VIF-Y",
    "vgg-percep": "vgg-percep",
    "lpips": "LPIPS",
    "dists": "DISTS",
}
WITH_BACKBONES = ("lpips", "dists")

Figures = dict[str, float]
Known = dict[str, dict[str, Figures]]  # bench → folder → metric


@dataclass(frozen=True)
class Bench:
    """A set to measure on: where it lies below the shared folder, and the border that its tables leave out.

    `folders` are those of its pictures, by their paths in it, and what the tables call them.
    """

    name: str
    scale: int
    hr: str
    folders: Mapping[str, str]
    lr: str | None = None
    border: int | None = None
    clips: bool = False


VID4 = {"calendar": "calendar", "foliage": "foliage"}
BENCHES = (
    Bench("Set5 x4", 4, "data/bench/Set5/HRx4", {".": "Set5"}, "data/bench/Set5/LRx4"),
    Bench("BSD100 x4", 4, "data/bench/BSD100/HRx4", {".": "BSD100"}, "data/bench/BSD100/LRx4"),
    Bench("Set5 x2", 2, "data/bench/Set5/HRx2", {".": "Set5"}, "data/bench/Set5/LRx2"),
    Bench("Set5 x3", 3, "data/bench/Set5/HRx3", {".": "Set5"}, "data/bench/Set5/LRx3"),
    *(Bench(f"Vid4 x{scale}", scale, "data/bench/Vid4", VID4, border=8, clips=True) for scale in (4, 3, 2)),
)

PUBLIC = """
Public networks on this very data (PSNR-Y and SSIM-Y with a border of 4 pixels left out), for comparison:

| network | parameters | Set5 PSNR-Y ↑ | SSIM-Y ↑ | BSD100 PSNR-Y ↑ | SSIM-Y ↑ | vgg-percep ↓ |
|---|---:|---:|---:|---:|---:|---:|
| VDSR | 0.66 M | 31.36 | 0.8810 | 27.24 | 0.7207 | 0.3546 |
| CARN-M | 0.41 M | 31.88 | 0.8910 | 27.45 | 0.7315 | |
| IMDN | 0.72 M | 32.21 | 0.8948 | 27.56 | 0.7353 | 0.3255 |
| RFDN | 0.43 M | 32.16 | 0.8946 | 27.61 | 0.7370 | 0.3228 |
| an SRGAN | 0.73 M | 30.66 | 0.8642 | 26.99 | 0.7121 | 0.3264 |
"""

PUBLISHED = """
What the source papers print, each in its own protocol (colour space, border, clips, and for VIF the implementation):
to be read down the rows of one paper, not across to the tables above.

| paper | set | network | PSNR ↑ | SSIM ↑ | LPIPS ↓ | DISTS ↓ | VIF ↑ |
|---|---|---|---:|---:|---:|---:|---:|
| SA | VidSet4 ×4 | ESRGAN | 21.53 | .6349 | .1022 | | |
| SA | VidSet4 ×4 | SA-ESRGAN lv | 22.14 | .6581 | .0953 | | |
| SA | VidSet4 ×4 | SA-ESRGAN canny | 22.32 | .6674 | .0955 | | |
| SA | VidSet4 ×4 | VSRResFeatGAN | 24.71 | .7199 | .1045 | | |
| SA | VidSet4 ×4 | SA-VSRResFeatGAN lv | 25.09 | .7344 | .0992 | | |
| SA | VidSet4 ×4 | SA-VSRResFeatGAN canny | 24.74 | .7192 | .1027 | | |
| SA-VSRGAN | VidSet4 ×2 | without SA | 30.90 | .9241 | .0283 | | |
| SA-VSRGAN | VidSet4 ×2 | with SA | 31.64 | .9327 | .0257 | | |
| SA-VSRGAN | VidSet4 ×3 | without SA | 26.53 | .8148 | .0668 | | |
| SA-VSRGAN | VidSet4 ×3 | with SA | 26.80 | .8256 | .0641 | | |
| SA-VSRGAN | VidSet4 ×4 | without SA | 24.50 | .7023 | .1043 | | |
| SA-VSRGAN | VidSet4 ×4 | with SA | 24.72 | .7233 | .1010 | | |
| LDL | Urban100 ×4 | ESRGAN | 24.365 | .7341 | .1229 | .0880 | |
| LDL | Urban100 ×4 | RRDB+LDL (DF2K) | 25.459 | .7661 | .1084 | .0793 | |
| LDL | Urban100 ×4 | SwinIR+LDL | 26.231 | .7918 | .1021 | .0800 | |
| LDL | Set5 ×4 | RRDB+LDL | 31.033 | .8611 | .0691 | .0919 | |
| LDL | Set5 ×4 | SRResNet+LDL | 30.527 | .8570 | .0759 | .1010 | |
| LDL | Set14 ×4 | RRDB+LDL | 27.228 | .7358 | .1132 | .0866 | |
| AFM | Set5 ×4 | bicubic | 28.42 | .810 | | | .443 |
| AFM | Set5 ×4 | M_p | 31.77 | .890 | | | .575 |
| AFM | Set5 ×4 | M_pcσva | 30.03 | .864 | | | .520 |
| AFM | Set14 ×4 | M_p | 28.40 | .778 | | | .472 |
| AFM | Set14 ×4 | M_pcσva | 26.74 | .742 | | | .418 |
"""


# ---- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A row of the tables: a checkpoint, or bicubic, which has any scale and no parameters.

    `known` are its figures so far; without its file (`here`) no others can be had.
    """

    name: str
    known: Known
    scale: int | None = None
    window: int = 1
    parameters: int | None = None
    here: bool = True

    def fits(self, bench: Bench) -> bool:
        """Whether it can be measured there: a picture alone is no clip, and every network has its scale."""
        return self.scale in (None, bench.scale) and (bench.clips or self.window == 1)


def methods(cache: dict, on_notice: Callable[[str], None]) -> list[Method]:
    """Bicubic and the checkpoints of weights.toml that lie on this machine or are in the cache.

    The cache has `parameters` and `figures` for each sha256, and for "bicubic"; what it lacks of the methods is added,
    with no figures yet.  The checkpoints that are left out are named by `on_notice`.
    """
    bicubic = cache.setdefault(evaluate.BICUBIC, {"parameters": None, "figures": {}})
    found = [Method(evaluate.BICUBIC, bicubic["figures"])]
    for name, entry in checkpoints.entries().items():
        file = _file(name, on_notice)
        if file is not None:
            cache.setdefault(entry.sha256, {"parameters": checkpoints.info(file).weights, "figures": {}})
        if entry.sha256 in cache:
            kept = cache[entry.sha256]
            shape = (entry.scale, entry.window, kept["parameters"])
            found.append(Method(name, kept["figures"], *shape, here=file is not None))
        else:
            on_notice(f"{name} is not on this machine and is left out")
    return found


def _file(name: str, on_notice: Callable[[str], None]) -> Path | None:
    try:
        return checkpoints.path(name, download=False, on_notice=on_notice)
    except UpscaleError:
        return None


def measure(
    method: Method, bench: Bench, metrics: Sequence[str], shared: Path, backbones: Path | None
) -> dict[str, Figures]:
    """The means of each of the bench's folders."""
    (score,) = evaluate.evaluate(
        [method.name],
        shared / bench.hr,
        shared / bench.lr if bench.lr else None,
        scale=bench.scale,
        metrics=metrics,
        border=bench.border,
        vgg_weights=shared / VGG,
        backbones=backbones,
        device="cpu",
        precision="fp32",
    )
    return {
        folder: {name: round(figure, 6) for name, figure in score.folders[folder].items()} for folder in bench.folders
    }


def fill(
    rows: Sequence[Method],
    metrics: Sequence[str],
    shared: Path,
    backbones: Path | None,
    on_measured: Callable[[str], None],
) -> None:
    """Add to what is known of the methods what is missing; `on_measured(label)` hears of each method on each bench."""
    for method in rows:
        for bench in filter(method.fits, BENCHES):
            known = method.known.setdefault(bench.name, {})
            missing = [name for name in metrics if any(name not in known.get(folder, {}) for folder in bench.folders)]
            if missing and method.here:
                for folder, figures in measure(method, bench, missing, shared, backbones).items():
                    known.setdefault(folder, {}).update(figures)
                on_measured(f"{method.name} on {bench.name}")


# ---- writing ---------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Method], benches: Sequence[Bench]) -> str:
    """A Markdown table: a row for each method, all metrics that any has been measured at for each folder."""
    rows = [method for method in rows if any(method.fits(bench) for bench in benches)]
    places = [(bench, folder) for bench in benches for folder in bench.folders]
    figures = {
        method.name: [method.known.get(bench.name, {}).get(folder, {}) for bench, folder in places] for method in rows
    }
    metrics = [name for name in TITLES if any(name in each for row in figures.values() for each in row)]
    head = ["checkpoint", "parameters"]
    for bench, folder in places:
        for number, name in enumerate(metrics):
            arrow = "↑" if METRICS[name].higher_is_better else "↓"
            group = f"{bench.folders[folder]} " if number == 0 else ""
            head.append(f"{group}{TITLES[name]} {arrow}")
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for method in rows:
        name = method.name if method.scale is None else f"`{method.name}`"
        size = "" if method.parameters is None else f"{method.parameters / 1e6:.2f} M"
        lines.append(
            [name, size, *(_shown(metric, of.get(metric)) for of in figures[method.name] for metric in metrics)]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(metric: str, figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:.2f}" if metric.startswith("psnr") else f"{figure:.4f}"


def regions(rows: Sequence[Method]) -> dict[str, str]:
    """The text of each region of RESULTS.md that has anything to tell."""
    texts = {}
    for clips in (False, True):
        for scale in sorted({bench.scale for bench in BENCHES if bench.clips == clips}, reverse=True):
            benches = [bench for bench in BENCHES if (bench.scale, bench.clips) == (scale, clips)]
            if any(method.scale == scale and method.fits(benches[0]) for method in rows):
                texts[f"{'clips' if clips else 'pictures'} x{scale}"] = table(rows, benches)
    if "pictures x4" in texts:
        texts["pictures x4"] += f"\n{PUBLIC.rstrip()}"
    return texts | {"published": PUBLISHED.strip()}


def replaced(document: str, name: str, text: str) -> str:
    """The document with the region `name` holding `text`; a region that is not there is added at its end.

    Raises `ValueError` when a region begins and does not end, or is there twice.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    region = f"{begin}\n{text}\n{end}"
    marks = document.count(begin), document.count(end)
    if marks == (0, 0):
        return f"{document.rstrip()}\n\n{region}\n"
    if marks != (1, 1) or document.index(begin) > document.index(end):
        raise ValueError(f"the region {name!r} does not begin and end once, in this order")
    # A function, because a text as replacement would have its backslashes read.
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: region, document, flags=re.DOTALL)


def _write(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="the folder that holds data/bench")
    parser.add_argument("--backbones", type=Path, help="torch's hub folder, to measure LPIPS and DISTS, too")
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    parser.add_argument("--cache", type=Path, default=HERE / "results.json")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    options = parser.parse_args(arguments)
    metrics = [name for name in TITLES if options.backbones or name not in WITH_BACKBONES]
    known = options.cache.is_file() and not options.fresh
    cache = json.loads(options.cache.read_text(encoding="utf-8")) if known else {}

    def keep(label: str) -> None:
        _write(options.cache, json.dumps(cache, indent=1, sort_keys=True) + "\n")
        print(label, file=sys.stderr)

    try:
        rows = methods(cache, lambda text: print(text, file=sys.stderr))
        fill(rows, metrics, options.shared, options.backbones, keep)
    except UpscaleError as error:
        sys.exit(str(error))
    document = options.output.read_text(encoding="utf-8") if options.output.is_file() else "# Results\n"
    for name, text in regions(rows).items():
        document = replaced(document, name, text)
    _write(options.output, document)


if __name__ == "__main__":
    main()
