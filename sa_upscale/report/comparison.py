"""A page with several pictures of one thing, to look at two of them at a time."""

from dataclasses import dataclass
from pathlib import Path

from sa_upscale.report import page
from sa_upscale.report.page import choice, escaped, picture_uri


@dataclass(frozen=True)
class Shown:
    """One of the pictures: its name, a few words on it where there is need, and a PNG of the size that all share."""

    title: str
    note: str
    png: bytes


@dataclass(frozen=True)
class Region:
    """A part of the pictures, in pixels, with what was measured of each picture there, as text; none without figures.

    `best` is the index of the best picture, None where there is none or no telling.
    """

    name: str
    left: int
    top: int
    width: int
    height: int
    figures: tuple[str, ...] = ()
    best: int | None = None


_MODES = [("slider", "Slider"), ("beside", "Side by side"), ("difference", "Difference")]
_KEYS = (
    ("F", "flip"),
    ("← →", "divider"),
    ("Shift + arrows", "move"),
    ("+ −", "zoom"),
    ("0", "fit"),
    ("1", "100 %"),
    ("S", "side by side"),
    ("D", "difference"),
    ("N", "next picture on the right"),
)


def write(target: Path, pictures: list[Shown], regions: list[Region], about: str) -> None:
    """Write the page; `about` says under the table what was measured.  Raises `UpscaleError` when it cannot."""
    page.save(target, document(pictures, regions, about))


def document(pictures: list[Shown], regions: list[Region], about: str) -> str:
    """The page.  The first of the regions is the whole, whose size is that of the pictures."""
    whole = regions[0]
    title = " · ".join(picture.title for picture in pictures)
    notes = "".join(f" · {picture.title} is {picture.note}" for picture in pictures if picture.note)
    body = f"""<p class="eyebrow">Comparison · {whole.width}×{whole.height}{escaped(notes)}</p>
<h1>{escaped(title)}</h1>
{_viewer(pictures, whole)}
{_table(pictures, regions, about)}
<section id="pictures">{"".join(map(_figure, pictures))}</section>"""
    return page.document(f"Comparison: {title}", body, styles=("comparison.css",), scripts=("comparison.js",))


def _viewer(pictures: list[Shown], whole: Region) -> str:
    names = [(str(index), picture.title) for index, picture in enumerate(pictures)]
    keys = "".join(f"<span><kbd>{key}</kbd> {meaning}</span>" for key, meaning in _KEYS)
    return f"""<div id="compare" hidden>
<div class="stage" tabindex="0" role="slider" aria-label="Divider between the two pictures" aria-valuemin="0"
aria-valuemax="100" aria-valuenow="50" data-width="{whole.width}" data-height="{whole.height}"
style="aspect-ratio: {whole.width} / {whole.height}">
<div class="both"><div class="layer left"></div><div class="layer right"></div></div>
<span class="divider"></span><b class="side left"></b><b class="side right"></b>
</div>
<div class="controls">
{choice("left", "Left", names, "0")}
{choice("right", "Right", names, "1")}
{choice("mode", "View", _MODES, "slider")}
<div class="zooms"><button type="button" data-zoom="fit">Fit</button>
<button type="button" data-zoom="1">100&nbsp;%</button>
<button type="button" data-zoom="out" aria-label="Smaller">−</button><output></output>
<button type="button" data-zoom="in" aria-label="Larger">+</button>
<button type="button" id="flip">Flip</button></div>
<label class="gain">Difference × <input type="range" id="gain" min="1" max="32" value="8"><output>8</output></label>
</div>
<p class="keys note">{keys}</p>
</div>"""


def _table(pictures: list[Shown], regions: list[Region], about: str) -> str:
    """A button for each region, with what was measured there."""
    if measured := len(regions[0].figures):
        heads = "".join(f'<th scope="col">{escaped(picture.title)}</th>' for picture in pictures[:measured])
        heading, rows = "Measured", "".join(map(_row, regions))
        shown = f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    else:
        heading = "Where they differ most" if len(regions) > 1 else "They do not differ"
        shown = f'<p class="buttons">{"".join(map(_button, regions))}</p>'
    return f"""<section id="regions"><h2>{heading}</h2>
<div class="scroll">{shown}</div><p class="note">{escaped(about)}</p></section>"""


def _row(region: Region) -> str:
    best = {region.best: ' class="best"'}
    cells = "".join(f"<td{best.get(index, '')}>{escaped(text)}</td>" for index, text in enumerate(region.figures))
    return f'<tr><th scope="row">{_button(region)}</th>{cells}</tr>'


def _button(region: Region) -> str:
    box = f"{region.left} {region.top} {region.width} {region.height}"
    return f'<button type="button" data-region="{box}">{escaped(region.name)}</button>'


def _figure(picture: Shown) -> str:
    return (
        f'<figure><img src="{picture_uri(picture.png)}" alt="{escaped(picture.title)}">'
        f"<figcaption>{escaped(picture.title)} <small>{escaped(picture.note)}</small></figcaption></figure>"
    )
