"""The command line.  Each command parses, calls one task and prints; nothing else in the package prints.

`sa-upscale image photo.jpg` is `main`, then `image.image`, then `upscale.run_jobs`, which reads, enlarges and writes.
Every command is a function in a module of this folder; the table below has them all, with the examples of their help.
Tasks are imported inside the commands, so that `--help` and `models list` answer without torch.
"""

import sys
from typing import Annotated

import typer

from sa_upscale import __version__
from sa_upscale.cli import image, machine, measuring, models, training, usage, video
from sa_upscale.cli.terminal import follows
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
usage.add(
    app,
    image.image,
    "image photo.jpg  # photo_x4.jpg beside it",
    "image photos/ -r -o big/ --skip-existing",
    "image photo.jpg -x 2 --preview 100,80,200,200 --compare look.html",
)
usage.add(
    app,
    video.video,
    "video clip.mp4  # the same command goes on with what was ended",
    "video clip.mp4 --preview 5s",
    "video clip.mkv --height 2160 --codec libx265 --crf 18",
)
usage.add(
    app,
    measuring.evaluate,
    "evaluate -m bicubic -m compact-x4 --data photos/  # LR made by bicubic reduction",
    "evaluate -m bicubic -m compact-x4 --data Set5/HR --lr Set5/LR -o table.md",
)
usage.add(
    app,
    measuring.compare,
    "compare photo.jpg photo_x4.jpg -o report.html",
    "compare bicubic.png ours.png --reference original.png",
    "compare --blind ours/ theirs/ -o test.html",
)
usage.add(app, measuring.maps, "maps photo.png -o maps.png", "maps photo_x4.png --hr original.png -o maps.png")
usage.add(
    app,
    training.train,
    "train --loss sa-canny --data photos/ -o runs/mine",
    "train --loss sa-canny --data photos/ -o runs/mine --resume",
    "train --config sa-esrgan-canny-x4-paper --data DIV2K/ --set data.batch=8",
)
usage.add(
    app,
    training.finetune,
    "finetune -m compact-x4 --data mine/ -o my.safetensors",
    "image photo.jpg -m my.safetensors",
)
usage.add(app, models.export, "export compact-x4 --format onnx")
usage.add(app, machine.doctor, "doctor", "doctor --json --offline")

models_app = typer.Typer(
    cls=usage.Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, fetch, verify and import checkpoints.",
    epilog=usage.examples("models list", "models fetch realesrgan-x4plus  # then: image photo.jpg -m realesrgan"),
)
app.add_typer(models_app, name="models")
usage.add(models_app, models.models_list, name="list")
usage.add(models_app, models.models_info, "models info compact-x4", name="info")
usage.add(models_app, models.models_fetch, "models fetch realesrgan-x4plus", name="fetch")
usage.add(models_app, models.models_verify, name="verify")
usage.add(models_app, models.models_push, "models push --to NAMESPACE --dry-run", name="push")
usage.add(
    models_app,
    models.models_import,
    "models import 4x_community.pth --name community",
    "image photo.jpg -m community",
    name="import",
)
usage.add(models_app, models.models_path, "models path compact-x4", name="path")


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
    if not follows():
        print(f"sa-upscale: {text}" if "\n" not in text else text, file=sys.stderr)
    return code


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
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and the device.")
    ] = False,
) -> None:
    """Upscale photos and videos, and train the networks that do it."""
