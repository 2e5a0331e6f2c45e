"""The command line.  Each command parses, calls one task and prints; nothing else in the package prints.

Tasks are imported inside the commands, so that `--help` and `models list` answer without torch.
"""

import contextlib
import dataclasses
import enum
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from sa_upscale import __version__, usage
from sa_upscale.errors import UpscaleError

app = typer.Typer(
    cls=usage.Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # The framed help imports a Markdown renderer and more, and took twice as long to appear.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=usage.examples("image photo.jpg", "video clip.mp4", "image --help  # all options, and examples"),
)
models_app = typer.Typer(
    cls=usage.Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, fetch, verify and import checkpoints.",
    epilog=usage.examples("models list", "models fetch realesrgan-x4plus  # then: image photo.jpg -m realesrgan"),
)
app.add_typer(models_app, name="models")


def _command(group: typer.Typer, *examples: str, name: str | None = None) -> Callable:
    """What makes a function a command of the group, called as the function is where no name is given."""
    return group.command(name, cls=usage.Command, epilog=usage.examples(*examples) if examples else None)


class Precision(enum.StrEnum):
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Fit(enum.StrEnum):
    INSIDE = "inside"
    FILL = "fill"
    CROP = "crop"


class ClusterEngine(enum.StrEnum):
    PROCESSES = "processes"
    RAY = "ray"


class BitDepth(enum.StrEnum):
    EIGHT = "8"
    SIXTEEN = "16"
    FLOAT = "32"


DEPTHS = {BitDepth.EIGHT: "uint8", BitDepth.SIXTEEN: "uint16", BitDepth.FLOAT: "float32"}


def main() -> None:
    """Run the command line and exit: 0 all done, 1 something failed, 2 wrong command line, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold bytes that are no text.
        stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="sa-upscale", standalone_mode=False)
        if code == 130:
            # Typer has caught Ctrl-C itself.
            raise KeyboardInterrupt
    except UpscaleError as error:
        code = _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        # Typer would draw a box of several lines around it.
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        code = _fail(error.format_message() + hint, error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = _fail("interrupted", 130)
    except BrokenPipeError:
        # Whoever read the output has gone; what is left in the buffer must not raise again at exit.
        sys.stdout = None
        code = 1
    sys.exit(code)


def _fail(text: str, code: int) -> int:
    if not _follows():
        print(f"sa-upscale: {text}" if "\n" not in text else text, file=sys.stderr)
    return code


def _follows() -> bool:
    """Whether this is one of torchrun's processes but not the first, which speaks for all."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK") != "0"


def _scale(text: str | float) -> float:
    try:
        scale = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number; give one from 1 to 8, such as 4 or 2.5") from None
    if not 1 <= scale <= 8:
        raise typer.BadParameter(f"{text} is out of range; give a scale from 1 to 8")
    return scale


def _shard(text: str | tuple) -> tuple[int, int]:
    from sa_upscale.cluster import shards

    try:
        return shards.parse(text) if isinstance(text, str) else text
    except UpscaleError as error:
        raise typer.BadParameter(str(error)) from None


def _version(asked: bool) -> None:
    if not asked:
        return
    print(f"sa-upscale {__version__}")
    try:
        import torch

        from sa_upscale import engine
    except (ImportError, OSError):
        print("torch does not load here; sa-upscale doctor tells why")
    else:
        device = engine.find_device(None)
        print(f"torch {torch.__version__} on {device} in {engine.precisions(device)[0]}")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and the device.")
    ] = False,
) -> None:
    """Upscale photos and videos, and train the networks that do it."""


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A checkpoint or family of `models list`, or a file.", metavar="NAME|PATH")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:N or mps; the fastest there is by default.", show_default=False)
]
PrecisionOption = Annotated[
    Precision | None, typer.Option(help="The type to compute in; the fastest that is safe by default.")
]
TileOption = Annotated[
    int | None, typer.Option(min=16, help="Side of the tiles in source pixels; chosen from free memory by default.")
]
EngineOption = Annotated[
    ClusterEngine | None,
    typer.Option(help="Work over several devices: processes of this machine, or a Ray cluster.", show_default=False),
]
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="auto|HOST:PORT", help="The Ray cluster; by default this machine's, or one begun now."),
]
DevicesOption = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="A worker on each, such as cuda:0,cuda:1,cpu or 2*cpu; with Ray 8*cuda."),
]
ObjectiveOption = Annotated[
    str | None,
    typer.Option("--loss", metavar="NAME", help="A named objective: fidelity, esrgan, sa-lv, sa-canny, ldl, afm …"),
]
DataOption = Annotated[
    list[Path] | None,
    typer.Option("--data", help="A folder of HR pictures or clips; again for more, twice to draw from it twice."),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any field of the recipe, such as train.steps=1000."),
]
VGGOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A VGG19 with torchvision's keys; torchvision's own by default."),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the run's last state.")]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Progress and results as JSON lines on stdout (stderr when the picture goes there)."),
]


@_command(
    app,
    "image photo.jpg  # photo_x4.jpg beside it",
    "image photos/ -r -o big/ --skip-existing",
    "image photo.jpg -x 2 --preview 100,80,200,200 --compare look.html",
)
def image(
    inputs: Annotated[
        list[str], typer.Argument(help="Pictures, folders of pictures, or - for stdin.", metavar="INPUT")
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file, a folder, or - for stdout; beside the input by default."),
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", "-x", parser=_scale, metavar="1…8", help="How many times as wide and high.")
    ] = 4.0,
    max_size: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Let no side of the result be longer.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=1, metavar="PIXELS", help="Exact width, instead of a scale.")] = None,
    height: Annotated[int | None, typer.Option(min=1, metavar="PIXELS", help="Exact height, likewise.")] = None,
    fit: Annotated[
        Fit, typer.Option(help="With both: stay inside them, fill them, or fill them and crop what stands out.")
    ] = Fit.INSIDE,
    model: ModelOption = "compact",
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
        typer.Option(parser=_shard, metavar="I/N", help="Do only part I of N, for batch arrays; balanced by pixels."),
    ] = None,
    json_lines: JsonOption = False,
) -> None:
    """Upscale pictures.

    in.png becomes in_x4.png beside it.  Depth, transparency, animation, colour profile and EXIF are kept.
    """
    from sa_upscale import upscale

    to_stdout = output == "-" or (output is None and "-" in inputs)
    say = _Voice(json_lines, sys.stderr if to_stdout else sys.stdout)
    size = upscale.Size(scale, max_size, width, height, fit.value, part=_region(preview) if preview else None)
    depth = bit_depth and DEPTHS[bit_depth]
    written = upscale.Output(
        format=format, quality=quality, lossless=lossless or None, depth=depth, strip=strip, tag=tag
    )
    where = _where(engine, address, devices, device)
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
        say.picture(result)

    with say.progress() as progress:
        running = _running(device, precision, tile, say, progress)
        effects = {"strength": strength, "denoise": denoise, "tta": tta, "match_color": match_color}
        elsewhere = (where or far) and not dry_run
        upscaler = None if elsewhere else upscale.Upscaler(model, size, **effects, **running)
        if dry_run:
            _foretell(upscale.forecast.forecasts(jobs, upscaler, written, most), say)
            return
        try:
            if elsewhere:
                from sa_upscale.cluster import pictures

                pictures.run(
                    where,
                    jobs,
                    model,
                    pictures.Order(size, written, skip_existing, most),
                    effects | {"precision": precision, "tile": tile},
                    shard=shard,
                    on_progress=lambda done, total, seats: progress(done, total, workers=_workers(seats)),
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
    if _summary(results, say):
        raise typer.Exit(1)
    if compare:
        _compare_ends(compare, jobs[0], size)
        say.tell({"event": "comparison", "path": str(compare)}, str(compare))
    if not json_lines and model == "compact":
        _hint()


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
        "compact is small and quick; for noisy or compressed photos try: sa-upscale models fetch realesrgan-x4plus, "
        "then --model realesrgan (told once)",
        file=sys.stderr,
    )


def _where(engine: ClusterEngine | None, address: str | None, devices: str | None, device: str | None):
    """Where a command is to do its work; false for this process."""
    from sa_upscale.cluster.setup import Where

    where = Where(engine and engine.value, address, devices)
    if where and device:
        raise typer.BadParameter("--device is that of one process; with --engine or several give --devices")
    return where


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


def _workers(seats) -> list[dict]:
    """How the workers stand, for the progress."""
    return [{"name": seat.name, "state": seat.state.value, "at": seat.label, "done": seat.done} for seat in seats]


def _summary(results: list, say: "_Voice") -> int:
    """Tell how many of several pictures are done, what of them failed, and return the latter's number."""
    failed = [result for result in results if result.error is not None]
    skipped = sum(result.skipped for result in results)
    if len(results) > 1:
        done = len(results) - len(failed)
        facts = {"event": "summary", "done": done, "failed": len(failed), "skipped": skipped}
        seconds = sum(result.seconds for result in results)
        warned = sum(bool(result.warnings) for result in results)
        counts = {"failed": len(failed), "there already": skipped, "with warnings": warned}
        more = "".join(f", {count} {what}" for what, count in counts.items() if count)
        say.tell(facts, f"{done} of {len(results)} done in {seconds:.1f} s{more}")
    return len(failed)


def _foretell(forecasts: list, say: "_Voice") -> None:
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


@_command(
    app,
    "video clip.mp4  # the same command goes on with what was ended",
    "video clip.mp4 --preview 5s",
    "video clip.mkv --height 2160 --codec libx265 --crf 18",
)
def video(
    source: Annotated[
        str, typer.Argument(help="A video file, numbered pictures as frames/%06d.png, or - for y4m.", metavar="INPUT")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A file, a folder, numbered pictures as out/%06d.png, or - for y4m on stdout; beside the input.",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            "-x",
            parser=_scale,
            metavar="1…8",
            help="How many times as wide and high; 4, or 2 where 4 would pass 4096 pixels.",
            show_default=False,
        ),
    ] = None,
    height: Annotated[int | None, typer.Option(min=2, help="As high as this, in pixels, instead of --scale.")] = None,
    width: Annotated[int | None, typer.Option(min=2, help="As wide as this, in pixels, instead of --scale.")] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="WxH", help="As large as fits into this box, instead of --scale.")
    ] = None,
    model: ModelOption = "compact",
    codec: Annotated[
        str | None,
        typer.Option(help="libx264, libx265, libsvtav1, libvpx-vp9, prores, ffv1 …; auto: in hardware; by container."),
    ] = None,
    crf: Annotated[int | None, typer.Option(min=0, help="Quality; lower is better and larger.")] = None,
    preset: Annotated[str | None, typer.Option(help="The encoder's speed preset.")] = None,
    encoder_options: Annotated[
        list[str] | None, typer.Option("--encoder-option", metavar="KEY=VALUE", help="Any option of the encoder's.")
    ] = None,
    pixel_format: Annotated[
        str | None, typer.Option("--pix-fmt", help="Such as yuv422p10le; 4:2:0 as deep as the source by default.")
    ] = None,
    bit_depth: Annotated[int | None, typer.Option(help="8 or 10 bits; the source's by default.")] = None,
    container: Annotated[str | None, typer.Option(help="mp4, mov, mkv or webm; by the name by default.")] = None,
    audio: Annotated[bool, typer.Option("--audio/--no-audio", help="Keep the sound.")] = True,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames per second of numbered pictures.")] = 24,
    start: Annotated[float | None, typer.Option(min=0, help="Begin at this second.")] = None,
    end: Annotated[float | None, typer.Option(min=0, help="End at this second.")] = None,
    duration: Annotated[float | None, typer.Option(min=0, help="Take this many seconds.")] = None,
    preview: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Make a short file, such as 5s, source left and ours right.")
    ] = None,
    deinterlace: Annotated[
        str, typer.Option(metavar="auto|off", help="Make interlaced frames whole before they are upscaled.")
    ] = "auto",
    scene_threshold: Annotated[
        float, typer.Option(min=0, max=2, help="How unlike two frames of different shots are at least, 0 to 2.")
    ] = 0.3,
    scene_cuts: Annotated[
        bool, typer.Option("--scene-cuts/--no-scene-cuts", help="Build no frame from those of another shot.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with an earlier run of this command that was ended.")
    ] = True,
    hardware: Annotated[
        bool, typer.Option("--hw-decode/--no-hw-decode", help="Decode where the network runs, if that is a GPU.")
    ] = True,
    tag: Annotated[bool, typer.Option("--tag/--no-tag", help="Say in the file's metadata what made it.")] = True,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    tile: TileOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    devices: DevicesOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Upscale a video.

    clip.mp4 becomes clip_x4.mp4 beside it.  Sound, subtitles, chapters, colour and every timestamp are kept.  A run
    that was killed goes on when it is started again.
    """
    if deinterlace not in ("auto", "off"):
        raise typer.BadParameter(f"--deinterlace {deinterlace}: give auto or off")
    if bit_depth not in (None, 8, 10):
        raise typer.BadParameter(f"--bit-depth {bit_depth}: give 8 or 10")

    from fractions import Fraction

    from sa_upscale import media, upscale, video
    from sa_upscale.cluster import trips

    where = _where(engine, address, devices, device)
    to_stdout = output == "-"
    say = _Voice(json_lines, sys.stderr if to_stdout else sys.stdout)
    pipe = media.Pipe(sys.stdin.buffer) if source == "-" else None
    with trips.Trip(source, output, say.progress) as trip:
        info = media.probe(media.Source(Path(trip.source), Fraction(rate).limit_denominator(1001), pipe))
        if (scale, height, width, fit) == (None,) * 4:
            scale = video.default_scale(info)
            say.notice(f"{source if pipe is None else info.source}: upscaling x{scale:g}; choose another scale with -x")
        size = video.size_for(info, scale=scale, width=width, height=height, fit=fit and _box(fit))
        if preview is not None:
            start, end, duration = video.preview_part(info, start, _span(preview))
        enlarged = size[0] / info.width
        target = None
        if not to_stdout:
            target = trip.target(info.source, enlarged, preview=preview is not None)
        encode = media.Wishes(codec, crf, preset, _pairs(encoder_options or []), pixel_format, bit_depth, container)
        chosen = video.Options(
            part=media.Part(start, end, duration),
            encode=encode,
            threshold=scene_threshold if scene_cuts else None,
            deinterlace=deinterlace == "auto",
            audio=audio,
            preview=preview is not None,
            resume=resume,
            tag=_made_by(model, enlarged) if tag else None,
        )
        order = repr((model, size, chosen, precision))
        result = trip.finished(order) if resume else None
        with say.progress() as progress:

            def told(at, seats=()) -> None:
                facts = {"workers": _workers(seats)} if where else {}
                progress(at.done, at.total, _pace(at, Path(source).name), **_pace_facts(at), **facts)

            asked = {"size": size, "options": chosen, "on_progress": told, "on_notice": say.notice}
            if result:
                say.notice("the result is made already; sending it")
            elif where:
                from sa_upscale.cluster import films

                running = {"precision": precision, "tile": tile}
                result = films.upscale_file(where, info, target, model, running=running, **asked)
            else:
                running = _running(device, precision, tile, say, progress)
                engines = upscale.load_engines(model, enlarged, kind="video", **running)
                if hardware:
                    asked["options"] = dataclasses.replace(chosen, hardware=video.DECODERS.get(engines[0].device.type))
                result = video.upscale_file(info, target, engines, **asked)
        result = trip.deliver(result, order)
    say.clip(result)
    if not result.complete:
        raise typer.Exit(1)


def _made_by(model: str, scale: float) -> str:
    """What a finished video says of itself: tool, version, checkpoint, scale."""
    from sa_upscale import checkpoints

    name = Path(model).name if Path(model).is_file() else checkpoints.select(model, scale, "video").name
    return f"sa-upscale {__version__}, {name}, x{scale:.4g}"


def _box(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"--fit {text}: give a width and a height, such as 1920x1080")
    return int(width), int(height)


def _span(text: str) -> float:
    try:
        return float(text.removesuffix("s"))
    except ValueError:
        raise typer.BadParameter(f"--preview {text}: give a number of seconds, such as 5s") from None


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"--encoder-option {text}: give it as KEY=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _pace(at, name: str) -> str:
    return f"{name}  {at.rate:.2g} fps  segment {at.segment}"


def _pace_facts(at) -> dict:
    return {"fps": round(at.rate, 3), "eta": at.left and round(at.left, 1), "segment": at.segment}


@_command(
    app,
    "evaluate -m bicubic -m compact-x4 --data photos/  # LR made by bicubic reduction",
    "evaluate -m bicubic -m compact-x4 --data Set5/HR --lr Set5/LR -o table.md",
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
    from sa_upscale import compare, evaluate

    files = output or []
    for file in files:
        evaluate.check_output(file)
    say = _Voice(json_lines, sys.stdout)
    border = scale if border is None else border
    gallery = None
    if report:
        evaluate.check_folder(report)
        models = list(dict.fromkeys([evaluate.BICUBIC, *models]))
        gallery = compare.Gallery(len(models))
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
        _draw(*evaluate.table(scores))
    about = {"data": str(hr), "lr": lr and str(lr), "scale": scale, "border": border, "version": __version__}
    for file in files:
        evaluate.write(file, scores, about)
    if gallery:
        settings = f"{hr} · LR {lr or 'by bicubic reduction'} · x{scale} · border {border}"
        gallery.write(report, settings, {score.method: score.pictures for score in scores}, *evaluate.table(scores))
        say.tell({"event": "comparison", "path": str(report)}, str(report))


@_command(
    app,
    "compare photo.jpg photo_x4.jpg -o report.html",
    "compare bicubic.png ours.png --reference original.png",
    "compare --blind ours/ theirs/ -o test.html",
)
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
    boxes = [_region(text) for text in regions or []]
    part = _region(crop) if crop else None
    from sa_upscale import compare

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
    found = compare.compare(
        inputs,
        reference=reference,
        crop=part and compare.Region(*part),
        regions=[compare.Region(*box) for box in boxes],
    )
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
        _draw(
            ["model", "scores", "mean opinion, 95 %"],
            [
                [each.model, str(each.count), f"{each.mean:.2f}{interval}"]
                for each, interval in zip(opinions, intervals, strict=True)
            ],
        )
    if preferences:
        _draw(
            ["preferred", "over", "choices", "share, 95 %"],
            [
                [each.model, each.other, str(each.count), f"{each.share:.0%}, {each.low:.0%} to {each.high:.0%}"]
                for each in preferences
            ],
        )


def _region(text: str) -> tuple[int, int, int, int]:
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"{text}: give left, top, width and height in pixels, such as 40,60,128,128")
    left, top, width, height = map(int, numbers)
    if not (width and height):
        raise typer.BadParameter(f"{text}: a part without pixels")
    return left, top, width, height


@_command(app, "export compact-x4 --format onnx")
def export(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A checkpoint of `models list`, or a file.")],
    format: Annotated[str, typer.Option("--format", "-f", metavar="onnx|torchscript", help="For which runtime.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="NAME.onnx or NAME.pt by default.")
    ] = None,
    json_lines: JsonOption = False,
) -> None:
    """Write a network for another runtime.

    The file takes pictures of any size and is held against the network before it is written.
    """
    from sa_upscale import export

    target = output or Path(Path(name).stem + export.FORMATS.get(format, ""))
    done = export.export(name, target, format)
    text = (
        f"{done.path}: {done.architecture} x{done.scale}, differs from the network by at most {done.difference:.1g}\n"
        f"  lr  {done.takes}, RGB, float32 in [0, 1]"
        + (", enlarged to the size of the result by bicubic" if done.enlarged else "")
    )
    facts = {"event": "result", **dataclasses.asdict(done), "path": str(done.path)}
    _Voice(json_lines, sys.stdout).tell(facts, text)


@_command(app, "maps photo.png -o maps.png", "maps photo_x4.png --hr original.png -o maps.png")
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


@_command(app, "doctor", "doctor --json --offline")
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing of the network.")] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget what was measured, and measure this machine again.")
    ] = False,
    json_lines: JsonOption = False,
) -> None:
    """Check this machine: devices, speed, codecs, folders.

    What is wrong is marked with ! and comes with its cure; the exit code is then 1.
    """
    from sa_upscale import doctor

    say = _Voice(json_lines, sys.stdout)
    topic, bad = None, 0
    for found in doctor.examine(offline=offline, reset=reset):
        mark = {"ok": " ", "note": "-", "bad": "!"}[found.state]
        text = f"{mark} {found.name:<24} {found.value}" + (f"\n  {'':<24} -> {found.cure}" if found.cure else "")
        head = f"{found.topic}\n" if found.topic != topic else ""
        head = f"\n{head}" if head and topic else head
        say.tell({"event": "result", **dataclasses.asdict(found)}, head + text)
        topic, bad = found.topic, bad + (found.state == "bad")
    if bad:
        raise typer.Exit(1)


@_command(models_app, name="list")
def models_list(json_lines: JsonOption = False) -> None:
    """List every checkpoint: its scale, size, and whether it is here, to fetch, or not published yet."""
    from sa_upscale import checkpoints

    rows = checkpoints.listing()
    if json_lines:
        for row in rows:
            size = {"size": row.size, "path": row.path and str(row.path)}
            about = {"kind": row.entry.kind, "licence": row.entry.licence, "description": row.entry.description}
            print(json.dumps({"name": row.entry.name, "scale": row.entry.scale, "where": row.where, **size, **about}))
        return
    about = ((row.entry, row.where, row.size) for row in rows)
    _draw(
        ["name", "scale", "for", "where", "size", "licence", "what it is"],
        [
            [entry.name, f"x{entry.scale}", entry.kind, where, _bytes(size), entry.licence, entry.description]
            for entry, where, size in about
        ],
    )


@_command(models_app, "models info compact-x4", name="info")
def models_info(name: Annotated[str, typer.Argument(metavar="NAME|PATH")], json_lines: JsonOption = False) -> None:
    """Show all that is known of one checkpoint."""
    from sa_upscale import checkpoints

    info = checkpoints.info(name)
    facts = {"where": info.where, "path": info.path and str(info.path), "sha256": info.sha256, "size": info.size}
    if info.entry is not None:
        entry = dataclasses.asdict(info.entry)
        facts = {key: value for key, value in entry.items() if value not in (None, "")} | facts
    facts |= {"weights": info.weights, "types": ", ".join(info.dtypes)} | info.metadata
    if json_lines:
        print(json.dumps(facts))
        return
    shown = {key: _bytes(value) if key == "size" else str(value) for key, value in facts.items() if value}
    _draw(["fact", "value"], [[key, value] for key, value in shown.items()])


@_command(models_app, "models fetch realesrgan-x4plus", name="fetch")
def models_fetch(names: Annotated[list[str], typer.Argument(metavar="NAME")], json_lines: JsonOption = False) -> None:
    """Download checkpoints into the Hub's cache, checked against their sha256, and print where they are."""
    from sa_upscale import checkpoints

    say = _Voice(json_lines, sys.stdout)
    with say.progress() as progress:

        def received(name: str, done: int, total: int | None) -> None:
            progress(done, total, name)

        files = checkpoints.fetch(names, on_progress=received, on_notice=say.notice)
    for name, file in files.items():
        use = f"Try: sa-upscale {checkpoints.select(name).kind} INPUT --model {name}"
        say.tell({"event": "result", "name": name, "path": str(file)}, f"{name}: {file}\n{use}")


@_command(models_app, name="verify")
def models_verify(json_lines: JsonOption = False) -> None:
    """Check every checkpoint file on this machine against its sha256."""
    from sa_upscale import checkpoints

    say = _Voice(json_lines, sys.stdout)
    verdicts = checkpoints.verify()
    for verdict in verdicts:
        where = f"  {verdict.path}" if verdict.path else ""
        facts = {"event": "result", "name": verdict.name, "state": verdict.state}
        say.tell(facts | {"path": verdict.path and str(verdict.path)}, f"{verdict.name}: {verdict.state}{where}")
    if any(verdict.state == "corrupt" for verdict in verdicts):
        raise typer.Exit(1)


@_command(models_app, "models push --to NAMESPACE --dry-run", name="push")
def models_push(
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="NAMESPACE[/PREFIX]", help="Where on the Hub; repositories are called sa-upscale-NAME."
        ),
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Checkpoints; all of ours with a file by default.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only tell what would be published where; with --json, the model cards, too."),
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make new repositories private.")] = False,
    json_lines: JsonOption = False,
) -> None:
    """Publish checkpoints on the Hub with model cards, and write where they are into weights.toml.

    Works in a checkout, with a token in HF_TOKEN or from `hf auth login`.  Only what has changed is sent.
    """
    from sa_upscale import publish

    say = _Voice(json_lines, sys.stdout)
    plans = publish.plan(names or [], to, on_notice=say.notice)
    if dry_run:
        for plan in plans:
            about = {"name": plan.name, "repo": plan.repo, "path": str(plan.info.path), "size": plan.info.size}
            state = "these weights are there" if plan.there else "new weights"
            line = f"{plan.name} -> {plan.repo}  {_bytes(plan.info.size)}  {state}"
            say.tell({"event": "plan", **about, "there": plan.there, "card": plan.card}, line)
        return
    with say.progress() as progress:
        publish.push(plans, private=private, on_progress=progress, on_result=say.published)


@_command(models_app, "models import 4x_community.pth --name community", "image photo.jpg -m community", name="import")
def models_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint of ours or of a public network.")],
    name: Annotated[str, typer.Option(help="What to call it from now on.")],
    licence: Annotated[str, typer.Option(help="Under which licence it may be used, for `models info`.")] = "unknown",
    json_lines: JsonOption = False,
) -> None:
    """Give a checkpoint file a name: it is copied, its network recognised and its sha256 recorded."""
    from sa_upscale import checkpoints

    entry = checkpoints.adopt(file, name, licence=licence)
    where = checkpoints.user_folder() / entry.file
    text = f"{name}: {entry.architecture} x{entry.scale}, {where}\nTry: sa-upscale {entry.kind} INPUT --model {name}"
    facts = {"event": "result", "name": name, "architecture": entry.architecture, "scale": entry.scale}
    _Voice(json_lines, sys.stdout).tell(facts | {"path": str(where), "sha256": entry.sha256}, text)


@_command(models_app, "models path compact-x4", name="path")
def models_path(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Print where a checkpoint's file is, fetching it first if need be."""
    from sa_upscale import checkpoints

    print(checkpoints.path(name, on_notice=_Voice(False, sys.stderr).notice))


@_command(
    app,
    "train --loss sa-canny --data photos/ -o runs/mine",
    "train --loss sa-canny --data photos/ -o runs/mine --resume",
    "train --config sa-esrgan-canny-x4-paper --data DIV2K/ --set data.batch=8",
)
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
    say = _Voice(json_lines, sys.stdout)
    outcome = _fit(chosen, output or Path("runs") / (objective or Path(recipe).stem), resume, device, say)
    say.trained(outcome, outcome.file)


@_command(app, "finetune -m compact-x4 --data mine/ -o my.safetensors", "image photo.jpg -m my.safetensors")
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
    say = _Voice(json_lines, sys.stdout)
    plan = train.plan_finetuning(
        model, data, objective=objective, steps=steps, vgg_weights=vgg_weights, settings=settings or [], device=device
    )
    for line in train.described(plan):
        say.notice(line)
    outcome = _fit(plan.recipe, output.with_name(f"{output.stem}-run"), resume, device, say)
    train.deliver(outcome.file, output)
    say.trained(outcome, output)


def _fit(recipe, run: Path, resume: bool, device: str | None, say: "_Voice"):
    """Run `train.fit` and show how it stands."""
    from sa_upscale import train

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


def _running(device: str | None, precision: str | None, tile: int | None, say: "_Voice", progress: Callable) -> dict:
    """How `upscale.load_engines` is to load and run the networks of a command."""
    return {
        "device": device,
        "precision": precision,
        "tile": tile,
        "on_notice": say.notice,
        "on_fetch": lambda name: functools.partial(progress, label=f"fetching {name}"),
    }


def _standing(report) -> str:
    terms = ", ".join(f"{name} {value:.4f}" for name, value in report.terms.items())
    return f"{report.stage}: {terms}" + ("" if report.best is None else f", best {report.criterion} {report.best:.4g}")


class _Voice:
    """How one command speaks: lines for a person, or JSON lines for a script, on `stream`; notices go to stderr."""

    def __init__(self, json_lines: bool, stream):
        self._json, self._stream = json_lines, stream

    def tell(self, facts: dict, text: str, *, failed: bool = False) -> None:
        """One result: `facts` as a JSON line, or `text`, on stderr if it `failed`."""
        if _follows():
            return
        if self._json:
            print(json.dumps(facts), file=self._stream, flush=True)
        else:
            print(text, file=sys.stderr if failed else self._stream, flush=True)

    def notice(self, text: str) -> None:
        """Something to know that is no failure."""
        self.tell({"event": "notice", "text": text}, text, failed=True)

    def picture(self, result) -> None:
        """The `upscale.Result` of one picture."""
        source, target = result.source or "stdin", result.target or "stdout"
        facts = {"event": "error" if result.error else "result", **dataclasses.asdict(result)}
        facts |= {"source": str(source), "target": str(target), "seconds": round(result.seconds, 3)}
        if result.error:
            line = result.error if str(source) in result.error else f"{source}: {result.error}"
            self.tell(facts, f"sa-upscale: {line}", failed=True)
            return
        done = "there already" if result.skipped else f"{result.seconds:.1f} s"
        self.tell(facts, f"{target}  {result.width}x{result.height}  {done}")
        for warning in result.warnings:
            self.notice(f"{source}: {warning}")

    def clip(self, result) -> None:
        """The `video.VideoResult` of one clip."""
        facts = {"event": "result", **dataclasses.asdict(result)}
        source, target = str(result.source), str(result.target or "stdout")
        facts |= {"source": source, "target": target}
        took = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in result.seconds.items())
        resumed = f", {result.frames_resumed} of them from an earlier run" if result.frames_resumed else ""
        self.tell(
            facts,
            f"{target}  {result.width}x{result.height}  {result.codec} {result.pixel_format}\n"
            f"  frames    {result.frames_out} of {result.frames_in}{resumed}\n"
            f"  duration  {result.duration_out:.3f} of {result.duration_in:.3f} s\n"
            f"  streams   1 upscaled, {result.streams_copied} kept beside it\n"
            f"  seconds   {took}",
        )
        if not result.complete:
            self.tell(
                {"event": "error", "error": "incomplete"}, f"sa-upscale: {result.source}: incomplete", failed=True
            )

    def trained(self, outcome, file: Path) -> None:
        """The `train.Outcome` of a run, whose weights are now in `file`."""
        facts = {"steps": outcome.steps, outcome.criterion: outcome.best, "path": str(file)}
        report = outcome.report and str(outcome.report)
        self.tell(
            {"event": "result", **facts, "report": report},
            f"{outcome.steps} steps, best validation {outcome.criterion} {outcome.best:.4g}: {file}  report: {report}\n"
            f"Try: sa-upscale image INPUT --model {file}",
        )

    def published(self, result) -> None:
        """The `publish.Published` of one checkpoint."""
        sent = ", ".join(result.sent) or "nothing new"
        facts = {"event": "result", **dataclasses.asdict(result)}
        self.tell(facts, f"{result.name}: {result.repo} at {result.revision}  {sent}")

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable]:
        """Yield `progress(done, total, label="", **facts)`: JSON lines, or a bar once it has gone on for a second."""
        if _follows():
            yield lambda done, total, label="": None
        elif self._json:
            yield _throttled(
                lambda done, total, label="", **facts: self.tell(_progress_facts(done, total, label) | facts, "")
            )
        elif sys.stderr.isatty():
            with _bar() as draw:
                yield draw
        else:
            yield lambda done, total, label="", **facts: None


def _progress_facts(done: float, total: float | None, label: str) -> dict:
    return {"event": "progress", "done": round(done, 3), "total": total} | ({"label": label} if label else {})


def _throttled(report: Callable, seconds: float = 0.2) -> Callable:
    """Pass on a report now and then, and always the last."""
    last = 0.0

    def progress(done, total, label="", **facts) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= seconds:
            last = time.monotonic()
            report(done, total, label, **facts)

    return progress


@contextlib.contextmanager
def _bar() -> Iterator[Callable]:
    """A progress bar on stderr that appears after a second and leaves nothing behind."""
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    bar = rich_progress.Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=None)
    began = time.monotonic()

    lines: dict[int, int] = {}

    def draw(done, total, label="", workers=(), **_facts) -> None:
        if not bar.live.is_started and time.monotonic() - began >= 1:
            bar.start()
        bar.update(task, completed=done, total=total, description=label or f"{len(workers)} workers" * bool(workers))
        for number, worker in enumerate(workers):
            if number not in lines:
                lines[number] = bar.add_task("", total=None)
            at = worker["at"] or worker["state"]
            bar.update(lines[number], description=f"  {worker['name']}  {worker['done']} done  {at}")

    try:
        yield draw
    finally:
        bar.stop()


def _draw(columns: list[str], rows: list[list[str]]) -> None:
    """A table: framed in a terminal, tab-separated with every cell whole when the output goes to a file or pipe."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in [columns, *rows]))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "scale"))
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _bytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"
