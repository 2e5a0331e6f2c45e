"""A page with several pictures of one thing, or of one thing after the other, to look at two of them at a time."""

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Scene:
    """One thing: its name, the pictures of it, and its regions, of which the first is the whole."""

    name: str
    pictures: list[Shown]
    regions: list[Region]


@dataclass(frozen=True)
class Means:
    """A table for the top of the page, all as text; `best` are the (row, column) of the best figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()


_BEST = ' class="best"'
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
    ("N", "another one on the right"),
)
_MORE_KEYS = (("P", "next picture"),)


def write(target: Path, scene: Scene, about: str) -> None:
    """Write the page of one thing.

    `about` says below the table what was measured.  Raises `UpscaleError` when it cannot be written.
    """
    whole, pictures = scene.regions[0], scene.pictures
    notes = "".join(f" · {picture.title} is {picture.note}" for picture in pictures if picture.note)
    head = f"""<p class="eyebrow">Comparison · {whole.width}×{whole.height}{escaped(notes)}</p>
<h1>{escaped(scene.name)}</h1>"""
    page.save(target, _document(f"Comparison: {scene.name}", head, [scene], about))


def write_all(target: Path, title: str, eyebrow: str, means: Means, scenes: list[Scene], about: str) -> None:
    """Write the page of several things that have as many pictures each, below the table of `means`.

    Raises `UpscaleError` when it cannot be written.
    """
    head = f"""<p class="eyebrow">{escaped(eyebrow)}</p>
<h1>{escaped(title)}</h1>
{_means(means)}"""
    page.save(target, _document(title, head, scenes, about))


def _document(title: str, head: str, scenes: list[Scene], about: str) -> str:
    if not scenes:
        return page.document(title, head, styles=("comparison.css",))
    body = f"""{head}
{_viewer(scenes)}
{"".join(_scene(scene, about) for scene in scenes)}"""
    return page.document(title, body, styles=("comparison.css",), scripts=("comparison.js",))


def _means(means: Means) -> str:
    heads = "".join(f'<th scope="col">{escaped(column)}</th>' for column in means.columns)
    rows = ""
    for number, (name, *cells) in enumerate(means.rows):
        shown = "".join(
            f"<td{_BEST if (number, column) in means.best else ''}>{escaped(cell)}</td>"
            for column, cell in enumerate(cells, start=1)
        )
        rows += f'<tr><th scope="row">{escaped(name)}</th>{shown}</tr>'
    return f"""<div class="scroll"><table class="means"><thead><tr>{heads}</tr></thead>
<tbody>{rows}</tbody></table></div>"""


def _viewer(scenes: list[Scene]) -> str:
    names = [(str(index), picture.title) for index, picture in enumerate(scenes[0].pictures)]
    several = len(scenes) > 1
    keys = "".join(f"<span><kbd>{key}</kbd> {meaning}</span>" for key, meaning in _KEYS + _MORE_KEYS * several)
    choices = "".join(f"<option>{escaped(scene.name)}</option>" for scene in scenes)
    chooser = f'<label class="scenes">Picture <select id="scene">{choices}</select></label>' if several else ""
    return f"""<div id="compare" hidden>
{chooser}
<div class="stage" tabindex="0" role="slider" aria-label="Divider between the two pictures" aria-valuemin="0"
aria-valuemax="100" aria-valuenow="50">
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


def _scene(scene: Scene, about: str) -> str:
    whole = scene.regions[0]
    return f"""<section class="scene" data-size="{whole.width} {whole.height}">
{_table(scene.pictures, scene.regions, about)}
<div class="pictures">{"".join(map(_figure, scene.pictures))}</div></section>"""


def _table(pictures: list[Shown], regions: list[Region], about: str) -> str:
    """A button for each region, with what was measured there."""
    if measured := len(regions[0].figures):
        heads = "".join(f'<th scope="col">{escaped(picture.title)}</th>' for picture in pictures[:measured])
        heading, rows = "Measured", "".join(map(_row, regions))
        shown = f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    else:
        heading = "Where they differ most" if len(regions) > 1 else "They do not differ"
        shown = f'<p class="buttons">{"".join(map(_button, regions))}</p>'
    return f"""<section class="regions"><h2>{heading}</h2>
<div class="scroll">{shown}</div><p class="note">{escaped(about)}</p></section>"""


def _row(region: Region) -> str:
    best = {region.best: _BEST}
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
