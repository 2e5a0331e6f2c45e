"""The `video` command: a film in, a larger film out."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from sa_upscale import __version__
from sa_upscale.cli.options import (
    AddressOption,
    CompileOption,
    DeviceOption,
    DevicesOption,
    EngineOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    TileOption,
    how_to_run,
    scale_of,
    where_of,
)
from sa_upscale.cli.terminal import Voice, swift_imports, worker_facts
from sa_upscale.defaults import DEFAULTS

LONG = 50_000_000  # pixels of all frames, minutes of work; before it, it pays to measure the machine


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
            parser=scale_of,
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
    model: ModelOption = DEFAULTS["video"],
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
    compile: CompileOption = False,
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

    with swift_imports():
        from sa_upscale import media, upscale, video
        from sa_upscale.cluster import trips

    where = where_of(engine, address, devices, device)
    to_stdout = output == "-"
    say = Voice(json_lines, to_stderr=to_stdout)
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
        order = repr((model, size, chosen, precision, compile))
        result = trip.finished(order) if resume else None
        with say.progress() as progress:

            def told(at, seats=()) -> None:
                facts = {"workers": worker_facts(seats)} if where else {}
                progress(at.done, at.total, _pace(at, Path(source).name), **_pace_facts(at), **facts)

            asked = {"size": size, "options": chosen, "on_progress": told, "on_notice": say.notice}
            if result:
                say.notice("the result is made already; sending it")
            elif where:
                from sa_upscale.cluster import films

                running = {"precision": precision, "tile": tile, "compile": compile}
                result = films.upscale_file(where, info, target, model, running=running, **asked)
            else:
                long = (info.frames or 0) * info.width * info.height >= LONG
                running = how_to_run(device, precision, tile, compile, say, progress, long=long)
                engines = upscale.load_engines(model, enlarged, kind="video", **running)
                if hardware:
                    asked["options"] = dataclasses.replace(chosen, hardware=video.DECODERS.get(engines[0].device.type))
                result = video.upscale_file(info, target, engines, **asked)
        result = trip.deliver(result, order)
    _tell(result, say)
    if not result.complete:
        raise typer.Exit(1)


def _tell(result, say: Voice) -> None:
    """The `video.VideoResult` of one clip."""
    facts = {"event": "result", **dataclasses.asdict(result)}
    source, target = str(result.source), str(result.target or "stdout")
    facts |= {"source": source, "target": target}
    took = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in result.seconds.items())
    resumed = f", {result.frames_resumed} of them from an earlier run" if result.frames_resumed else ""
    say.tell(
        facts,
        f"{target}  {result.width}x{result.height}  {result.codec} {result.pixel_format}\n"
        f"  frames    {result.frames_out} of {result.frames_in}{resumed}\n"
        f"  duration  {result.duration_out:.3f} of {result.duration_in:.3f} s\n"
        f"  streams   1 upscaled, {result.streams_copied} kept beside it\n"
        f"  seconds   {took}",
    )
    if not result.complete:
        say.tell({"event": "error", "error": "incomplete"}, f"sa-upscale: {result.source}: incomplete", failed=True)


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
