"""The pictures of a training run: a viewer to compare them in, and a sheet with all of them."""

import io
import itertools

from PIL import Image

from sa_upscale.report.heat import COLOURS, PALETTE
from sa_upscale.report.page import choice, count, escaped, number, picture_uri
from sa_upscale.report.run import REFERENCES, Run, Scene, Shot

_REFERENCE_TITLES = dict(zip(REFERENCES, ("Bicubic", "Ground truth"), strict=True))
_MAPS = {
    "W": "W, the edge map of a spatially adaptive loss: where differences weigh most. It is made from the ground truth "
    "alone. In the dark they count by the loss's β1 only, where it is bright by up to β2 more.",
    "M": "M, LDL's artifact map: where the result is off in the ragged way of artifacts rather than evenly soft. The "
    "loss presses where it is bright. Refined, it is black where the averaged network does worse.",
}


def pictures(run: Run) -> str:
    """The section of pictures; a script makes the viewer work, and the sheet needs none.  Empty without pictures."""
    if not run.scenes:
        return ""
    sheets = "".join(_sheet(run, scene, index) for index, scene in enumerate(run.scenes))
    return f"""<section id="pictures">
<h2>Validation crops</h2>
{_viewer(run)}
<div id="sheets">{sheets}</div>
{_legend(run)}
</section>"""


def _viewer(run: Run) -> str:
    scenes = [(str(index), _title(run, index)) for index in range(len(run.scenes))]
    against = [*_REFERENCE_TITLES.items(), ("first", "First step")]
    zooms = [(str(zoom), f"{zoom * 100} %") for zoom in (1, 2, 4, 8)]
    return f"""<div id="viewer" hidden>
<div class="window"><p class="sides"><b class="left"></b><b class="right"></b></p>
<div class="pane" tabindex="0" role="slider" aria-label="Divider between the two pictures"
aria-valuemin="0" aria-valuemax="100" aria-valuenow="50">
<img class="result" alt=""><img class="against" alt=""><span class="divider"></span>
</div></div>
<div class="controls">
<label class="time"><input type="range" id="time" min="0" step="1" aria-label="Step"><output></output></label>
<p class="buttons"><button type="button" id="play">Play</button> <button type="button" id="flip">Flip</button></p>
{choice("scene", "Picture", scenes, "0")}
{choice("against", "Compare with", against, "bicubic")}
{choice("zoom", "Zoom", zooms, "4")}
<p class="note">Drag the divider. On the picture, the keys ← → move it, ↑ ↓ change the step, F flips.</p>
<div class="maps"></div>
</div>
</div>"""


def _sheet(run: Run, scene: Scene, index: int) -> str:
    """A row for what was made and one for each map; a column for each shot, the references at both ends."""
    kinds = sorted({what for shot in scene.shots for what in shot.pictures}, key=lambda what: (what != "sr", what))
    heads = "".join(_head(run, shot) for shot in scene.shots)
    rows = [_row(scene, what) for what in kinds or ["sr"]]
    return f"""<div class="sheet" data-scene="{index}"><h3>Picture {escaped(_title(run, index))}</h3>
<div class="scroll"><table>
<thead><tr><td></td><th scope="col">Bicubic</th>{heads}<th scope="col">Ground truth</th></tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></div>"""


def _row(scene: Scene, what: str) -> str:
    cells = []
    index = 0
    for data, alike in itertools.groupby(shot.pictures.get(what) for shot in scene.shots):
        length = len(list(alike))
        if data is None:
            cells += ["<td></td>"] * length
        elif what == "sr" or length == 1:
            cells += [f"<td>{_image(data, what, shot)}</td>" for shot in range(index, index + length)]
        else:
            image = _image(data, what, index, length)
            cells.append(
                f'<td colspan="{length}"><div class="same">{image}<small>the same at these steps</small></div></td>'
            )
        index += length
    bicubic, hr = (
        _image(scene.references[which], which) if what == "sr" and which in scene.references else ""
        for which in REFERENCES
    )
    title = "Result" if what == "sr" else what
    return f'<tr><th scope="row">{escaped(title)}</th><td>{bicubic}</td>{"".join(cells)}<td>{hr}</td></tr>'


def _image(data: bytes, what: str, shot: int | None = None, shots: int = 1) -> str:
    """A picture that belongs to `shots` shots from the index `shot` on, or to none in particular."""
    if _is_map(what):
        data = _heated(data)
    place = "" if shot is None else f' data-shot="{shot}" data-shots="{shots}"'
    return f'<img src="{picture_uri(data)}" alt="{escaped(what)}" data-what="{escaped(what)}"{place}>'


def _heated(data: bytes) -> bytes:
    """A grey map with the heat palette: no larger, and seen without a script."""
    with Image.open(io.BytesIO(data)) as picture:
        grey = picture.convert("L")
    grey.putpalette(PALETTE)
    target = io.BytesIO()
    grey.save(target, format="PNG", optimize=True)
    return target.getvalue()


def _is_map(what: str) -> bool:
    return what.partition(" ")[0] in _MAPS


def _legend(run: Run) -> str:
    """What the maps mean and which colour says how much.  Empty without maps."""
    shown = {what.partition(" ")[0] for scene in run.scenes for shot in scene.shots for what in shot.pictures}
    texts = "".join(f"<p>{escaped(text)}</p>" for kind, text in _MAPS.items() if kind in shown)
    colours = ", ".join(f"rgb{colour}" for colour in COLOURS)
    bar = (
        f'<div class="bar"><span style="background: linear-gradient(to right, {colours})"></span>'
        "<small>0</small><small>the brightest hundredth at that step</small></div>"
    )
    return f'<div class="legend">{texts}{bar}</div>' if texts else ""


def _title(run: Run, index: int) -> str:
    """The number of the crop, and the stage where stages validate on different pictures."""
    scene = run.scenes[index]
    alike = [other for other in run.scenes if other.crop == scene.crop]
    return f"{scene.crop} {scene.shots[0].stage}" if len(alike) > 1 and scene.shots else scene.crop


def _head(run: Run, shot: Shot) -> str:
    """When a shot was taken, and what the validation said then: short for the sheet, in full for the viewer."""
    stage = next((stage for stage in run.stages if stage.name == shot.stage), None)
    measured = dict(stage.curves.get("psnr_y", [])).get(shot.step) if stage else None
    short, full = [count(shot.step)], [f"step {count(shot.step)}"]
    if len(run.stages) > 1:
        short, full = [f"{shot.stage} {short[0]}"], [f"{shot.stage}, {full[0]}"]
    if measured is not None:
        short.append(f"{number(measured)} dB")
        full.append(f"PSNR-Y {number(measured)} dB on the whole set")
    return f'<th scope="col" data-moment="{escaped(": ".join(full))}">{"<br>".join(map(escaped, short))}</th>'
