"""A page that shows pictures one at a time, in an order of its own, and asks for a score."""

from pathlib import Path

from sa_upscale.report import page
from sa_upscale.report.page import data_block, escaped, picture_uri

WORDS = ("bad", "poor", "fair", "good", "excellent")


def write(target: Path, pictures: list[tuple[str, str, bytes]]) -> None:
    """Write the page; each picture is its name, whose it is, and a PNG.  Raises `UpscaleError` when it cannot."""
    page.save(target, document(pictures))


def document(pictures: list[tuple[str, str, bytes]]) -> str:
    """The page.  Whose a picture is stands in its source and nowhere to be seen."""
    scores = "".join(
        f'<button type="button" data-score="{score}"><b>{score}</b> {word}</button>'
        for score, word in enumerate(WORDS, start=1)
    )
    images = "".join(f'<img src="{picture_uri(png)}" alt="" hidden>' for _, _, png in pictures)
    body = f"""<div id="test" hidden>
<p class="eyebrow"><output id="place"></output></p>
<h1>How good does this picture look?</h1>
<div class="frame">{images}</div>
<p class="scores">{scores}</p>
<p class="note">Keys 1 to 5 score, ← goes back. Look at all from the same distance; scroll where one is larger.</p>
</div>
<div id="end" hidden>
<h1>Thank you</h1>
<p>Save the scores and send the file back.</p>
<p><button type="button" id="save">Save the scores</button>
<button type="button" id="back">Back to the last</button></p>
<textarea id="result" rows="12" readonly aria-label="The scores"></textarea>
</div>
<noscript><p>{escaped("This test needs JavaScript, which is switched off.")}</p></noscript>
{data_block("pictures", [{"picture": name, "model": model} for name, model, _ in pictures])}"""
    return page.document("Blind test", body, styles=("blind.css",), scripts=("blind.js",))
