"""A page that shows pictures in an order of its own and asks for the score of each, or for the better one of two."""

from pathlib import Path

from sa_upscale.report import page
from sa_upscale.report.page import data_block, escaped, picture_uri

WORDS = ("bad", "poor", "fair", "good", "excellent")


SCORED = "Keys 1 to 5 score, ← goes back. Look at all from the same distance; scroll where one is larger."
PAIRED = "Keys A, B and 0 answer, ← goes back. T shows one at a time, and the space bar the other."


def write(target: Path, pictures: list[tuple[str, str, bytes]], *, pairs: bool = False) -> None:
    """Write the page; each picture is its name, whose it is, and a PNG.  Raises `UpscaleError` when it cannot.

    With `pairs` every two pictures of one name are held against each other; otherwise each is scored.
    """
    page.save(target, document(pictures, pairs=pairs))


def document(pictures: list[tuple[str, str, bytes]], *, pairs: bool = False) -> str:
    """The page.  Whose a picture is stands in its source and nowhere to be seen."""
    if pairs:
        answers, question, about = _ANSWERS, "Which of the two looks better?", PAIRED
    else:
        answers = "".join(_answer(score, f"<b>{score}</b> {word}") for score, word in enumerate(WORDS, start=1))
        question, about = "How good does this picture look?", SCORED
    images = "".join(f'<img src="{picture_uri(png)}" alt="" hidden>' for _, _, png in pictures)
    body = f"""<div id="test" hidden>
<p class="eyebrow"><output id="place"></output></p>
<h1>{question}</h1>
{_WAYS if pairs else ""}
<div class="frame{" pairs" * pairs}">{images}</div>
<p class="scores">{answers}</p>
<p class="note">{about}</p>
</div>
<div id="end" hidden>
<h1>Thank you</h1>
<p>Save the answers and send the file back.</p>
<p><button type="button" id="save">Save the answers</button>
<button type="button" id="back">Back to the last</button></p>
<textarea id="result" rows="12" readonly aria-label="The answers"></textarea>
</div>
<noscript><p>{escaped("This test needs JavaScript, which is switched off.")}</p></noscript>
{data_block("pictures", {"pairs": pairs, "pictures": [_known(name, model) for name, model, _ in pictures]})}"""
    return page.document("Blind test", body, styles=("blind.css",), scripts=("blind.js",))


def _known(name: str, model: str) -> dict[str, str]:
    return {"picture": name, "model": model}


def _answer(value: object, label: str) -> str:
    return f'<button type="button" data-answer="{value}">{label}</button>'


_ANSWERS = (
    _answer("a", "<b>A</b> is better") + _answer("b", "<b>B</b> is better") + _answer(0, "<b>0</b> no difference")
)
_WAYS = """<p class="ways"><output id="seen"></output><button type="button" id="turn">One at a time</button>
<button type="button" id="swap">The other</button></p>"""
