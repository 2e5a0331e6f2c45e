"""The shell that every page shares: its frame, its look, and how data, pictures and files get into it."""

import base64
import html
import json
from importlib import resources
from pathlib import Path

from sa_upscale import disk
from sa_upscale.errors import UpscaleError

# Nothing is ever fetched, whatever a name in a recipe might say.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def document(title: str, body: str, *, styles: tuple[str, ...] = (), scripts: tuple[str, ...] = ()) -> str:
    """A whole page; `body` is HTML, `styles` and `scripts` are files of this folder that come after `page.css`."""
    style = "".join(_file(name) for name in ("page.css", *styles))
    script = "".join(f"<script>\n{_file(name)}</script>\n" for name in scripts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
{script}</body>
</html>
"""


def escaped(text: object) -> str:
    """Text that a reader sees as it is, between tags or inside a quoted attribute."""
    return html.escape(str(text))


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}".replace(",", "\u202f")


def number(value: float) -> str:
    """A number to four figures, as short as that can be."""
    text = f"{value:.4g}"
    mantissa, separator, exponent = text.partition("e")
    return mantissa + (f"e{int(exponent)}" if separator else "")


def duration(seconds: float) -> str:
    """A time as one would say it: 45 s, 12 min, 3 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def picture_uri(data: bytes, kind: str = "png") -> str:
    """An encoded picture as the value of `src`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def choice(name: str, legend: str, options: list[tuple[str, str]], chosen: str) -> str:
    """Buttons of which one is chosen: `(value, label)` each, in a form's field called `name`."""
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{" checked" if value == chosen else ""}>'
        f"<span>{escaped(label)}</span></label>"
        for value, label in options
    )
    return f'<fieldset class="choice"><legend>{legend}</legend>{buttons}</fieldset>'


def data_block(name: str, value: object) -> str:
    """Plain values for a script to read, by the element's id; they must be finite."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def save(target: Path, text: str) -> None:
    """Write a page that appears whole or not at all.  Raises `UpscaleError` when it cannot be written."""
    try:
        with disk.replacing(target) as file:
            file.write(text.encode())
    except OSError as error:
        raise UpscaleError(f"{target}: cannot be written ({error.strerror}); make room or mend the folder") from None


def _file(name: str) -> str:
    return (resources.files("sa_upscale.report") / name).read_text(encoding="utf-8")
