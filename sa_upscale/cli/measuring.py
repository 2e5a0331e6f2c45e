"""The commands that look and measure: `compare`, `evaluate` and `maps`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sa_upscale import __version__
from sa_upscale.cli.options import DeviceOption, JsonOption, PrecisionOption, region_of
from sa_upscale.cli.terminal import Voice, draw_table, swift_imports


def compare(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Two pictures of one thing, or more; with --blind folders.", metavar="PICTURE"),
    ],
    reference: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="The original: shown last, and measured against.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The page; comparison.html where there is no --png."),
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A contact sheet with enlarged parts and a difference map.")
    ] = None,
    crop: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="Compare this part, in pixels of the largest picture.")
    ] = None,
    regions: Annotated[
        list[str] | None,
        typer.Option("--region", metavar="X,Y,W,H", help="Show this part; again for more. Where they differ most."),
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Make a blind test of folders of results: each picture scored 1 to 5.")
    ] = False,
    pairs: Annotated[bool, typer.Option("--ab", help="With --blind: of every two, the better is chosen.")] = False,
    scores: Annotated[
        bool, typer.Option("--scores", help="Sum up the files that the raters of a blind test sent back.")
    ] = False,
    json_lines: JsonOption = False,
) -> None:
    """Compare pictures by eye and by figure.

    The page is one file that needs no network: a divider to drag, zoom to the pixel, flip by a key, a difference map.
    Smaller pictures are enlarged to the largest by bicubic.
    """
    from sa_upscale import compare

    boxes = [compare.Region(*region_of(text)) for text in regions or []]
    part = compare.Region(*region_of(crop)) if crop else None
    if blind and scores:
        raise typer.BadParameter("--blind makes a test, --scores sums it up; give one of them")
    if pairs and not blind:
        raise typer.BadParameter("--ab is a kind of blind test; give --blind, too")
    if blind:
        target = output or Path("test.html")
        names = compare.write_test(target, inputs, pairs=pairs)
        asked = "to be chosen from two by two" if pairs else "to be scored 1 to 5"
        print(f"{target}: {len(names)} pictures of each of {len(inputs)} folders, {asked}")
        print(f"Send it to people; then: sa-upscale compare --scores {'choices' if pairs else 'scores'}.json …")
        return
    if scores:
        _opinions(compare.opinions(inputs), compare.preferences(inputs), json_lines)
        return
    page = output or (None if png else Path("comparison.html"))
    found = compare.compare(inputs, reference=reference, crop=part, regions=boxes)
    for write, target in ((compare.write_page, page), (compare.write_sheet, png)):
        if target:
            write(target, found)
            print(target)


def _opinions(opinions: list, preferences: list, json_lines: bool) -> None:
    if json_lines:
        for found in (*opinions, *preferences):
            print(json.dumps({"event": "result", **dataclasses.asdict(found)}))
        return
    if opinions:
        intervals = ["" if each.interval is None else f" ± {each.interval:.2f}" for each in opinions]
        draw_table(
            ["model", "scores", "mean opinion, 95 %"],
            [
                [each.model, str(each.count), f"{each.mean:.2f}{interval}"]
                for each, interval in zip(opinions, intervals, strict=True)
            ],
        )
    if preferences:
        draw_table(
            ["preferred", "over", "choices", "share, 95 %"],
            [
                [each.model, each.other, str(each.count), f"{each.share:.0%}, {each.low:.0%} to {each.high:.0%}"]
                for each in preferences
            ],
        )


def evaluate(
    models: Annotated[
        list[str], typer.Option("--model", "-m", metavar="NAME|PATH", help="A checkpoint, or bicubic; again for more.")
    ],
    hr: Annotated[Path, typer.Option("--data", help="A folder of HR pictures, or of folders of frames.")],
    lr: Annotated[Path | None, typer.Option(help="Their LR; made of the HR by bicubic reduction by default.")] = None,
    scale: Annotated[int, typer.Option("--scale", "-x", min=1, max=8)] = 4,
    metrics: Annotated[
        str,
        typer.Option(
            help="A list with commas: psnr, ssim, vif (each with -y for luma), vgg-percep, lpips, dists, fid."
        ),
    ] = "psnr-y,ssim-y",
    border: Annotated[
        int | None, typer.Option(min=0, help="Pixels that PSNR, SSIM and VIF leave out on each side; the scale.")
    ] = None,
    vgg_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The VGG19 that vgg-percep looks through.")
    ] = None,
    backbones: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where checkpoints/ has the networks of lpips, dists and fid; torch's hub."),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write a .json, .csv or .md file; again for more."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A page to compare the results by eye, beside bicubic and originals."),
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Measure checkpoints on pictures whose HR is known."""
    with swift_imports():
        from sa_upscale import compare, evaluate, memory

    files = output or []
    for file in files:
        evaluate.check_output(file)
    say = Voice(json_lines)
    border = scale if border is None else border
    gallery = None
    if report:
        evaluate.check_folder(report)
        models = list(dict.fromkeys([evaluate.BICUBIC, *models]))
        gallery = compare.Gallery(len(models))
    memory.keep()
    with say.progress() as progress:
        scores = evaluate.evaluate(
            models,
            hr,
            lr,
            scale=scale,
            metrics=[name.strip() for name in metrics.split(",")],
            border=border,
            vgg_weights=vgg_weights,
            backbones=backbones,
            device=device,
            precision=precision,
            on_progress=progress,
            on_notice=say.notice,
            **({"on_result": gallery.add} if gallery else {}),
        )
    if json_lines:
        for score in scores:
            say.tell({"event": "result", **evaluate.facts(score)}, "")
    else:
        draw_table(*evaluate.table(scores))
    about = {"data": str(hr), "lr": lr and str(lr), "scale": scale, "border": border, "version": __version__}
    for file in files:
        evaluate.write(file, scores, about)
    if gallery:
        settings = f"{hr} · LR {lr or 'by bicubic reduction'} · x{scale} · border {border}"
        gallery.write(report, settings, {score.method: score.pictures for score in scores}, *evaluate.table(scores))
        say.tell({"event": "comparison", "path": str(report)}, str(report))


def maps(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="An original; with --hr, a result.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to draw the maps.")],
    hr: Annotated[Path | None, typer.Option(metavar="PICTURE", help="The original, for LDL's maps.")] = None,
    ema: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="The averaged network's result, for the refined map.")
    ] = None,
    window: Annotated[int, typer.Option(help="Side of the local variance's window, odd.")] = 5,
    delta: Annotated[float, typer.Option(min=1e-9, help="The local variance that weighs one half.")] = 0.01,
    low: Annotated[float, typer.Option(min=0, help="Canny's lower threshold.")] = 100,
    high: Annotated[float, typer.Option(min=0, help="Canny's upper threshold.")] = 200,
) -> None:
    """Draw the maps that losses weigh by.

    W of local variance and of Canny; with the original, LDL's residual and artifact map of a result.
    """
    from sa_upscale import maps

    maps.draw(picture, output, hr=hr, ema=ema, window=window, delta=delta, low=low, high=high)
    print(output)
