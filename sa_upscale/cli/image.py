"""The `image` command: pictures in, larger pictures out."""

import dataclasses
import enum
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sa_upscale.cli.options import (
    AddressOption,
    CompileOption,
    DeviceOption,
    DevicesOption,
    EngineOption,
    ImageModelOption,
    JsonOption,
    PrecisionOption,
    TileOption,
    how_to_run,
    region_of,
    scale_of,
    shard_of,
    where_of,
)
from sa_upscale.cli.terminal import Voice, swift_imports, worker_facts
from sa_upscale.defaults import DEFAULTS


class Fit(enum.StrEnum):
    INSIDE = "inside"
    FILL = "fill"
    CROP = "crop"


class BitDepth(enum.StrEnum):
    EIGHT = "8"
    SIXTEEN = "16"
    FLOAT = "32"


MANY = 24  # pictures; before so many it pays to measure the machine
DEPTHS = {BitDepth.EIGHT: "uint8", BitDepth.SIXTEEN: "uint16", BitDepth.FLOAT: "float32"}


def image(
    inputs: Annotated[
        list[str], typer.Argument(help="Pictures, folders of pictures, or - for stdin.", metavar="INPUT")
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file, a folder, or - for stdout; beside the input by default."),
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", "-x", parser=scale_of, metavar="1…8", help="How many times as wide and high.")
    ] = 4.0,
    max_size: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Let no side of the result be longer.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=1, metavar="PIXELS", help="Exact width, instead of a scale.")] = None,
    height: Annotated[int | None, typer.Option(min=1, metavar="PIXELS", help="Exact height, likewise.")] = None,
    fit: Annotated[
        Fit, typer.Option(help="With both: stay inside them, fill them, or fill them and crop what stands out.")
    ] = Fit.INSIDE,
    model: ImageModelOption = DEFAULTS["image"],
    strength: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much a perceptual checkpoint may invent: 1 all, 0 its fidelity sibling."),
    ] = None,
    denoise: Annotated[
        float | None, typer.Option(min=0, max=1, help="How much noise to take away, where a checkpoint offers it.")
    ] = None,
    tta: Annotated[
        bool, typer.Option("--tta", help="Mean of eight turned and mirrored runs: 8 times the work.")
    ] = False,
    match_color: Annotated[
        bool, typer.Option("--match-color", help="Give the result the low frequencies of the source.")
    ] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    tile: TileOption = None,
    compile: CompileOption = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Take folders with all below them; the tree is mirrored.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out what has a whole result already.")
    ] = False,
    format: Annotated[
        str | None, typer.Option("--format", "-f", help="png, jpeg, webp, avif, tiff, gif …; the input's by default.")
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of JPEG, WebP and AVIF; no worse than the input's by default.")
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Refuse formats that lose, and WebP's lossy kind.")
    ] = False,
    bit_depth: Annotated[
        BitDepth | None, typer.Option(help="Bits a channel, 32 being float; the input's by default.")
    ] = None,
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave out EXIF with its GPS, XMP, DPI, texts, and the tag.")
    ] = False,
    tag: Annotated[
        bool, typer.Option("--tag/--no-tag", help="Name tool, version, checkpoint and scale in the metadata.")
    ] = True,
    suffix: Annotated[str | None, typer.Option(help="Put between name and ending; _x4 and so on by default.")] = None,
    max_pixels: Annotated[
        float, typer.Option(metavar="MILLIONS", min=0.001, help="Refuse pictures with more pixels than this.")
    ] = 400,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what became of every picture as JSON.")
    ] = None,
    retry: Annotated[
        Path | None, typer.Option(metavar="REPORT", help="Do only what an earlier run with these inputs did not.")
    ] = None,
    preview: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="Upscale only this part, in pixels of the source.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A page on which source and result can be compared.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell sizes, and predict time and memory from a calibration.")
    ] = False,
    engine: EngineOption = None,
    address: AddressOption = None,
    devices: DevicesOption = None,
    shard: Annotated[
        tuple | None,
        typer.Option(parser=shard_of, metavar="I/N", help="Do only part I of N, for batch arrays; balanced by pixels."),
    ] = None,
    json_lines: JsonOption = False,
) -> None:
    """Upscale pictures.

    in.png becomes in_x4.png beside it.  Depth, transparency, animation, colour profile and EXIF are kept.
    """
    with swift_imports():
        from sa_upscale import upscale

    to_stdout = output == "-" or (output is None and "-" in inputs)
    say = Voice(json_lines, to_stderr=to_stdout)
    size = upscale.Size(scale, max_size, width, height, fit.value, part=region_of(preview) if preview else None)
    depth = bit_depth and DEPTHS[bit_depth]
    written = upscale.Output(
        format=format, quality=quality, lossless=lossless or None, depth=depth, strip=strip, tag=tag
    )
    where = where_of(engine, address, devices, device)
    far = any("://" in name for name in (*inputs, output or ""))
    jobs = _planner(far)(
        inputs, output, size=size, suffix=suffix, format=format, recursive=recursive, on_notice=say.notice
    )
    if shard:
        jobs = _part_of(jobs, shard)
        if not jobs:
            say.notice("there is nothing to do in this part: there are more parts than pictures")
            return
    if retry:
        jobs = upscale.report.failed(retry, jobs)
    if compare and (len(jobs) != 1 or not (jobs[0].source and jobs[0].target)):
        raise typer.BadParameter("--compare shows one picture from file to file; give one")
    most = round(max_pixels * 1e6)
    results = []

    def finished(result) -> None:
        results.append(result)
        _tell(result, say)

    with say.progress() as progress:
        effects = {"strength": strength, "denoise": denoise, "tta": tta, "match_color": match_color}
        elsewhere = (where or far) and not dry_run
        long = not (elsewhere or dry_run) and len(jobs) >= MANY
        running = how_to_run(device, precision, tile, compile, say, progress, long=long)
        upscaler = None if elsewhere else upscale.Upscaler(model, size, **effects, **running)
        if dry_run:
            _foretell(upscale.forecast.forecasts(jobs, upscaler, written, most), say)
            return
        began = time.perf_counter()
        try:
            if elsewhere:
                from sa_upscale.cluster import pictures

                pictures.run(
                    where,
                    jobs,
                    model,
                    pictures.Order(size, written, skip_existing, most),
                    effects | {"precision": precision, "tile": tile, "compile": compile},
                    shard=shard,
                    on_progress=lambda done, total, seats: progress(done, total, workers=worker_facts(seats)),
                    on_result=finished,
                    on_notice=say.notice,
                )
            else:
                upscale.run_jobs(
                    jobs,
                    upscaler,
                    written,
                    skip_existing=skip_existing,
                    max_pixels=most,
                    on_progress=progress,
                    on_result=finished,
                )
        finally:
            if report:
                asked = {"model": model, "size": dataclasses.asdict(size), "output": dataclasses.asdict(written)}
                upscale.report.write(report, jobs, results, asked)
    if _summary(results, time.perf_counter() - began, say):
        raise typer.Exit(1)
    if compare:
        _compare_ends(compare, jobs[0], size)
        say.tell({"event": "comparison", "path": str(compare)}, str(compare))
    if not json_lines and model == DEFAULTS["image"]:
        _hint()


def _tell(result, say: Voice) -> None:
    """The `upscale.Result` of one picture."""
    source, target = result.source or "stdin", result.target or "stdout"
    facts = {"event": "error" if result.error else "result", **dataclasses.asdict(result)}
    facts |= {"source": str(source), "target": str(target), "seconds": round(result.seconds, 3)}
    if result.error:
        line = result.error if str(source) in result.error else f"{source}: {result.error}"
        say.tell(facts, f"sa-upscale: {line}", failed=True)
        return
    done = "there already" if result.skipped else f"{result.seconds:.1f} s"
    chosen = f"  {' and '.join(result.damage)}: {', '.join(result.networks)}" if result.damage else ""
    say.tell(facts, f"{target}  {result.width}x{result.height}  {done}{chosen}")
    for warning in result.warnings:
        say.notice(f"{source}: {warning}")


def _compare_ends(page: Path, job, size) -> None:
    """Write the page that compares a picture, or the part of it that was asked for, with its result."""
    import tempfile

    from sa_upscale import compare, upscale

    with tempfile.TemporaryDirectory() as folder:
        source = job.source
        if size.part:
            source = Path(folder) / f"{source.stem}.png"
            upscale.cut(job.source, size.part, source)
        compare.write_page(page, compare.compare([source, job.target]))


def _hint() -> None:
    """Tell once on a machine, and only a person, that there are better checkpoints."""
    if not sys.stderr.isatty():
        return
    from sa_upscale import folders

    told = folders.cache() / "hinted"
    try:
        told.parent.mkdir(parents=True, exist_ok=True)
        told.touch(exist_ok=False)
    except OSError:
        # It was told before, or nothing can be remembered here.
        return
    print(
        "the bundled networks are small and quick; for noisy or compressed photos there is a larger one: "
        "sa-upscale models fetch realesrgan-x4plus, then --model realesrgan (told once)",
        file=sys.stderr,
    )


def _planner(far: bool) -> Callable:
    """What plans the jobs of `image`, `far` where an input or the output is an address."""
    if not far:
        from sa_upscale.upscale import plan_jobs
    else:
        from sa_upscale.cluster.places import plan_jobs
    return plan_jobs


def _part_of(jobs: list, shard: tuple[int, int]) -> list:
    from sa_upscale.cluster import pictures, shards

    return shards.share(jobs, pictures.weights(jobs), *shard)


def _summary(results: list, seconds: float, say: Voice) -> int:
    """Tell how many of several pictures are done, what of them failed, and return the latter's number."""
    failed = [result for result in results if result.error is not None]
    skipped = sum(result.skipped for result in results)
    if len(results) > 1:
        done = len(results) - len(failed)
        facts = {"event": "summary", "done": done, "failed": len(failed), "skipped": skipped}
        warned = sum(bool(result.warnings) for result in results)
        counts = {"failed": len(failed), "there already": skipped, "with warnings": warned}
        more = "".join(f", {count} {what}" for what, count in counts.items() if count)
        say.tell(facts, f"{done} of {len(results)} done in {seconds:.1f} s{more}")
    return len(failed)


def _foretell(forecasts: list, say: Voice) -> None:
    """Tell what a run would do; exits 1 where some of it cannot be done."""
    for told in forecasts:
        ends = {"source": str(told.source or "stdin"), "target": str(told.target or "stdout")}
        facts = {"event": "forecast", **dataclasses.asdict(told), **ends}
        if told.error:
            say.tell(facts, f"sa-upscale: {told.error}", failed=True)
            continue
        frames = f"  {told.frames} frames" if told.frames > 1 else ""
        cost = f"about {told.seconds:.1f} s and {told.megabytes:.0f} MB of memory"
        say.tell(facts, f"{ends['source']} -> {ends['target']}  {told.width}x{told.height}{frames}  {cost}")
    whole = [told for told in forecasts if not told.error]
    if len(forecasts) > 1 and whole:
        seconds, megabytes = sum(told.seconds for told in whole), max(told.megabytes for told in whole)
        facts = {"event": "summary", "seconds": seconds, "megabytes": megabytes}
        say.tell(facts, f"{len(whole)} of {len(forecasts)} in about {seconds:.1f} s and {megabytes:.0f} MB of memory")
    if len(whole) < len(forecasts):
        raise typer.Exit(1)
