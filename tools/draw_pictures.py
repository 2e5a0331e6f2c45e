"""Draw training pictures that collections of photos lack: text, signs, interfaces, line art, maps, charts, patterns.

    python tools/draw_pictures.py OUT --count 150 --seed 1

Everything is drawn at four times its size and reduced by area averages: a reduction with negative lobes would put
rings around every edge, for the network to learn.  Picture i of a seed follows from the seed, i, the fonts found and
the versions of Pillow and numpy; they are noted in OUT/about.json.

Only fonts of `FREE_FONTS` are used.  On Debian and Ubuntu: apt install fonts-dejavu-core fonts-liberation fonts-lato
fonts-open-sans fonts-roboto-unhinted fonts-crosextra-carlito fonts-crosextra-caladea fonts-cabin fonts-comfortaa
fonts-dancingscript fonts-ebgaramond fonts-inconsolata fonts-firacode fonts-freefont-ttf fonts-noto-core fonts-noto-cjk
"""

import argparse
import colorsys
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

SIDE = 480
OVER = 4  # canvas pixels along the side of one pixel of the picture
MARGIN = 1.25  # how much larger the canvas is than the picture, so that a slanted view finds something at its corners
FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)

# Free fonts by how their file names begin, with their licence.
FREE_FONTS = {
    "Cabin": "OFL-1.1",
    "Caladea": "Apache-2.0",
    "Carlito": "OFL-1.1",
    "Comfortaa": "OFL-1.1",
    "DancingScript": "OFL-1.1",
    "DejaVu": "Bitstream Vera",
    "EBGaramond": "OFL-1.1",
    "FiraCode": "OFL-1.1",
    "FreeMono": "GPL-3 with font exception",
    "FreeSans": "GPL-3 with font exception",
    "FreeSerif": "GPL-3 with font exception",
    "Inconsolata": "OFL-1.0",
    "Lato-": "OFL-1.1",
    "Liberation": "OFL-1.1 or GPL-2 with font exception",
    "NotoNaskh": "OFL-1.1",
    "NotoSans": "OFL-1.1",
    "NotoSerif": "OFL-1.1",
    "OpenSans": "Apache-2.0",
    "Roboto": "Apache-2.0",
}
SHAPED = ("arabic", "hebrew", "devanagari", "thai")  # right only with the library that joins and reorders letters

WORDS = {
    "latin": """the of and light water garden street morning open closed information welcome exit station museum coffee
        page chapter figure table price sale today north south library market hotel airport please return quality river
        Straße Grüße schön über für Öffnungszeiten façade élève garçon où Noël niño mañana señal coração não ação
        quick brown fox jumps lazy dog William quartz Jugend waxy HAMBURG smørrebrød
        minimum illumination million WAVE Tokyo kg km/h 24h A4 Wi-Fi e-mail""",
    "central": "łódź żółty książka źródło příliš kůň řeka dům zítra město dağ güneş şehir ışık čeština ježek gyűrű",
    "greek": "και το φως νερό δρόμος πρωί ανοιχτό είσοδος έξοδος μουσείο βιβλίο θάλασσα ψωμί Αθήνα ξύλο ημέρα",
    "cyrillic": "и свет вода улица утро вход выход музей книга город площадь рынок яблоко съезд Москва ещё жизнь цифра",
    "han": "的一是不了人我在有他中大来上国个到说们为子和你地出道也时年得就那要下以生会家学对可里后小心多天能好日发事",
    "kana": "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもよらりるれろをんアウエカキサシスソ",
    "hangul": "가나다라마바사아자차카타파하한국어서울시간물빛거리문을열다아침저녁학교",
    "arabic": "السلام مدينة شارع ماء ضوء كتاب مفتوح مغلق خروج دخول صباح مساء سوق متحف طريق جديد",
    "hebrew": "שלום עיר רחוב מים אור ספר פתוח סגור יציאה כניסה בוקר ערב שוק מוזיאון דרך חדש",
    "devanagari": "नमस्ते शहर सड़क पानी प्रकाश पुस्तक खुला बंद निकास प्रवेश सुबह शाम बाज़ार संग्रहालय",
    "thai": "สวัสดี เมือง ถนน น้ำ แสง หนังสือ เปิด ปิด ทางออก ทางเข้า เช้า เย็น ตลาด พิพิธภัณฑ์",
}
MARKS, DIGITS = ",.:!?)%", "0123456789"
MARKED = ("latin", "central", "greek", "cyrillic")  # fonts for the others may lack our marks and digits
UNSPACED = ("han", "kana")  # written without spaces: the table lists letters, not words

Colour = tuple[int, int, int]
Point = tuple[float, float]
Fonts = dict[str, list[Path]]


class Canvas:
    """A square picture being drawn at `OVER` times its size, with the random numbers and fonts to draw it with."""

    def __init__(self, side: int, rng: np.random.Generator, fonts: Fonts, paper: Colour = (255, 255, 255)):
        self.side, self.rng, self.fonts = side, rng, fonts
        self.image = Image.new("RGB", (side, side), paper)
        self.draw = ImageDraw.Draw(self.image)

    def fill(self, pixels: np.ndarray) -> None:
        """Replace the whole canvas by `(side, side, 3)`, values in [0, 255]."""
        self.image.paste(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))

    def script(self) -> str:
        """Western European for two of three, else another script there is a font for."""
        others = [script for script in self.fonts if script != "latin"]
        return str(self.rng.choice(others)) if others and self.rng.random() < 0.33 else "latin"

    def font(self, size: float, script: str = "latin") -> ImageFont.FreeTypeFont:
        """A font of that script, `size` pixels of the finished picture tall."""
        files = self.fonts[script]
        return ImageFont.truetype(files[int(self.rng.integers(len(files)))], max(1, round(size * OVER)))

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def size(self, low: float, high: float) -> float:
        """A size in pixels of the picture, small ones as likely per octave as large ones."""
        return math.exp(self.between(math.log(low), math.log(high)))

    def one_of(self, choices: Sequence) -> object:
        return choices[int(self.rng.integers(len(choices)))]


# ---- colours, words, curves ------------------------------------------------------------------------------------------


def colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """A random hue with saturation and value from the given ranges in [0, 1]."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return tuple(round(255 * part) for part in rgb)


def luma(rgb: Colour) -> float:
    return (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 255


def paper_and_ink(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Two colours that can be told apart: mostly dark on light, else light on dark or any two."""
    kind = rng.random()
    light, dark = colour(rng, (0, 0.12), (0.9, 1)), colour(rng, (0, 0.6), (0, 0.25))
    if kind < 0.5:
        return light, dark
    if kind < 0.65:
        return dark, light
    while True:
        paper, ink = colour(rng, (0, 1), (0.1, 1)), colour(rng, (0, 1), (0, 1))
        if abs(luma(paper) - luma(ink)) > 0.3:
            return paper, ink


def words(rng: np.random.Generator, script: str, count: int) -> str:
    """`count` words of the script in a line, in European ones now and then a number, a capital, a mark."""
    if script in UNSPACED:
        return "".join(rng.choice(list(WORDS[script]), size=3 * count))
    known = WORDS[script].split() if script != "hangul" else _syllables(rng)
    line = [str(word) for word in rng.choice(known, size=count)]
    return " ".join(_marked(rng, word) if script in MARKED else word for word in line)


def _marked(rng: np.random.Generator, word: str) -> str:
    kind = rng.random()
    if kind < 0.08:
        word = str(rng.integers(10 ** int(rng.integers(1, 5))))
    elif kind < 0.25:
        word = word.upper() if kind < 0.12 else word.capitalize()
    return word + str(rng.choice(list(MARKS))) if rng.random() < 0.15 else word


def _syllables(rng: np.random.Generator) -> list[str]:
    letters = list(WORDS["hangul"])
    return ["".join(rng.choice(letters, size=int(rng.integers(1, 5)))) for _ in range(20)]


def curve(points: Sequence[Point], *, closed: bool = False, steps: int = 24) -> list[Point]:
    """A smooth line through the points (Catmull-Rom), `steps` straight pieces between each two."""
    knots = np.asarray(points, dtype=float)
    knots = np.vstack([knots[-1], knots, knots[:2]]) if closed else np.vstack([knots[0], knots, knots[-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = [
        b + 0.5 * t * (c - a) + t**2 * (a - 2.5 * b + 2 * c - 0.5 * d) + t**3 * (-0.5 * a + 1.5 * b - 1.5 * c + 0.5 * d)
        for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False)
    ]
    return [tuple(point) for point in np.vstack([*pieces, knots[-2:-1]])]


def blob(rng: np.random.Generator, centre: Point, radius: float) -> list[Point]:
    """A smooth closed outline around `centre`."""
    count = int(rng.integers(5, 12))
    angles = np.arange(count) * 2 * math.pi / count + rng.uniform(0, 6)
    radii = radius * rng.uniform(0.6, 1.2, count)
    ring = [(centre[0] + r * math.cos(a), centre[1] + r * math.sin(a)) for a, r in zip(angles, radii, strict=True)]
    return curve(ring, closed=True)


def noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """A smooth random field `(side, side)` of hills about `side / cells` wide, in [0, 1]."""
    total = np.zeros((side, side))
    for octave in range(3):
        coarse = rng.standard_normal((cells * 2**octave + 2,) * 2).astype(np.float32)
        smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        total += np.asarray(smooth) / 2.5**octave
    return (total - total.min()) / np.ptp(total)


def gradient(rng: np.random.Generator, side: int, begin: Colour, end: Colour) -> np.ndarray:
    """`(side, side, 3)` from one colour to another along a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    along = 0.5 + (x * math.cos(angle) + y * math.sin(angle)) / 2.83
    return np.asarray(begin) + along[..., None] * (np.asarray(end, dtype=float) - np.asarray(begin))


def paragraph(canvas: Canvas, box: tuple[float, float, float, float], font, ink: Colour, script: str) -> None:
    """Fill the box (left, top, right, bottom in canvas pixels) with lines of text, cut off at its right."""
    left, top, right, bottom = box
    step = font.size * canvas.between(1.15, 1.6)
    while top + step < bottom:
        line = words(canvas.rng, script, 14)
        length = (right - left) * (canvas.between(0.3, 1) if canvas.rng.random() < 0.2 else 1)
        keep = max(1, int(len(line) * min(1.0, length / max(1.0, font.getlength(line)))))
        canvas.draw.text((left, top), line[:keep], font=font, fill=ink)
        top += step


# ---- the kinds of pictures -------------------------------------------------------------------------------------------


def page(canvas: Canvas) -> None:
    """Columns of text under headings, as in books, papers and web pages."""
    paper, ink = paper_and_ink(canvas.rng)
    canvas.draw.rectangle((0, 0, canvas.side, canvas.side), fill=paper)
    size, columns = canvas.size(11, 34), int(canvas.rng.integers(1, 4))
    width = canvas.side / columns
    for column in range(columns):
        script = canvas.script()
        font, heading = canvas.font(size, script), canvas.font(size * canvas.between(1.3, 3), script)
        left, top = (column + 0.06) * width, canvas.between(0, 0.05) * canvas.side
        while top < canvas.side:
            tall = heading.size * 1.6
            paragraph(canvas, (left, top, left + 0.9 * width, top + tall * 1.05), heading, ink, script)
            bottom = top + tall + canvas.between(3, 12) * font.size * 1.4
            paragraph(canvas, (left, top + tall, left + 0.9 * width, bottom), font, ink, script)
            top = bottom + font.size
        if canvas.rng.random() < 0.3:
            canvas.draw.line((left - 0.03 * width, 0, left - 0.03 * width, canvas.side), fill=ink, width=OVER)


def sign(canvas: Canvas) -> None:
    """A few large words on plates and gradients, as on posters, shop signs and covers."""
    rng, side = canvas.rng, canvas.side
    canvas.fill(gradient(rng, side, colour(rng, (0.1, 0.9), (0.2, 1)), colour(rng, (0.1, 0.9), (0.2, 1))))
    top = canvas.between(0, 0.1) * side
    while top < side:
        script = canvas.script()
        font = canvas.font(canvas.size(22, 130), script)
        paper, ink = paper_and_ink(rng)
        height, left = font.size * 1.5, canvas.between(-0.05, 0.2) * side
        text = words(rng, script, int(rng.integers(1, 4)))
        right = left + font.getlength(text) + font.size * 0.6
        radius = canvas.one_of((0, height / 6, height / 2))
        outline = ink if rng.random() < 0.5 else None
        canvas.draw.rounded_rectangle(
            (left, top, max(right, left + height), top + height), radius, paper, outline, width=round(font.size / 12)
        )
        canvas.draw.text((left + font.size * 0.3, top + height / 2), text, font=font, fill=ink, anchor="lm")
        top += height * canvas.between(1.05, 1.5)


def interface(canvas: Canvas) -> None:
    """Windows, lists, buttons, fields and icons whose edges lie on whole pixels, light or dark."""
    rng, side = canvas.rng, canvas.side
    dark = rng.random() < 0.4
    grey = (lambda level: (round(255 * (1 - level)),) * 3) if dark else (lambda level: (round(255 * level),) * 3)
    accent = colour(rng, (0.5, 1), (0.5, 0.95))
    canvas.draw.rectangle((0, 0, side, side), fill=colour(rng, (0.1, 0.6), (0.2, 0.9)))
    for _ in range(int(rng.integers(1, 4))):
        left, top = (_on_pixel(canvas.between(-0.1, 0.5) * side) for _ in range(2))
        right, bottom = (_on_pixel(edge + canvas.between(0.4, 0.9) * side) for edge in (left, top))
        _window(canvas, (left, top, right, bottom), grey, accent)


def _window(canvas: Canvas, box: tuple[int, int, int, int], grey: Callable[[float], Colour], accent: Colour) -> None:
    left, top, right, bottom = box
    size = canvas.size(10, 22)
    font, row = canvas.font(size), _on_pixel(size * OVER * canvas.between(1.7, 2.4))
    canvas.draw.rounded_rectangle(box, canvas.one_of((0, 6, 12)) * OVER, grey(0.97), grey(0.6), width=OVER)
    canvas.draw.rectangle((left + OVER, top + OVER, right - OVER, top + row), fill=canvas.one_of((accent, grey(0.88))))
    canvas.draw.text((left + row, top + row / 2), words(canvas.rng, "latin", 3), font=font, fill=grey(0), anchor="lm")
    draw_row = (_list_row, _button_row, _field_row, _table_row)
    at = top + row + OVER * 4
    while at + row < bottom:
        canvas.one_of(draw_row)(canvas, (left + 2 * OVER, at, right - 2 * OVER, at + row), font, grey, accent)
        at += row + OVER * int(canvas.rng.integers(0, 6))


def _list_row(canvas: Canvas, box, font, grey, accent: Colour) -> None:
    left, top, right, bottom = box
    chosen = canvas.rng.random() < 0.2
    if chosen:
        canvas.draw.rectangle(box, fill=accent)
    third = (bottom - top) / 3
    icon = (left + third / 2, top + third / 2, left + third * 2.5, bottom - third / 2)
    shapes = (canvas.draw.ellipse, canvas.draw.rectangle)
    canvas.one_of(shapes)(icon, outline=grey(0.2), fill=colour(canvas.rng, (0, 1), (0.3, 1)), width=OVER)
    text = words(canvas.rng, "latin", 4)
    canvas.draw.text((left + third * 4, top + 1.5 * third), text, font=font, fill=grey(0.1), anchor="lm")
    if not chosen:
        canvas.draw.line((left, bottom, right, bottom), fill=grey(0.85), width=OVER)


def _button_row(canvas: Canvas, box, font, grey, accent: Colour) -> None:
    left, top, right, bottom = box
    while left < right:
        text = words(canvas.rng, "latin", 1)
        end = left + _on_pixel(font.getlength(text) + font.size * 1.5)
        main = canvas.rng.random() < 0.4
        fill, ink = (accent, (255, 255, 255)) if main else (grey(0.93), grey(0.15))
        canvas.draw.rounded_rectangle((left, top, end, bottom), font.size * 0.3, fill, grey(0.55), width=OVER)
        canvas.draw.text(((left + end) / 2, (top + bottom) / 2), text, font=font, fill=ink, anchor="mm")
        left = end + 6 * OVER


def _field_row(canvas: Canvas, box, font, grey, accent: Colour) -> None:
    left, top, right, bottom = box
    middle = _on_pixel((left + right) / 2)
    canvas.draw.text((left, (top + bottom) / 2), words(canvas.rng, "latin", 2), font=font, fill=grey(0.25), anchor="lm")
    if canvas.rng.random() < 0.5:
        canvas.draw.rectangle((middle, top, right, bottom), fill=grey(1), outline=grey(0.5), width=OVER)
        inside = (middle + 4 * OVER, (top + bottom) / 2)
        canvas.draw.text(inside, words(canvas.rng, "latin", 2), font=font, fill=grey(0), anchor="lm")
        return
    level, height = middle + canvas.rng.random() * (right - middle), (top + bottom) / 2
    canvas.draw.line((middle, height, right, height), fill=grey(0.7), width=3 * OVER)
    canvas.draw.line((middle, height, level, height), fill=accent, width=3 * OVER)
    canvas.draw.circle((level, height), (bottom - top) / 4, fill=grey(1), outline=accent, width=2 * OVER)


def _table_row(canvas: Canvas, box, font, grey, accent: Colour) -> None:
    left, top, right, bottom = box
    cell = _on_pixel((right - left) / 4)
    for column in range(4):
        start = left + column * cell
        canvas.draw.rectangle((start, top, start + cell, bottom), fill=grey(0.99), outline=grey(0.75), width=OVER)
        figure = f"{canvas.between(0, 10 ** int(canvas.rng.integers(1, 5))):.2f}"
        place = (start + cell - 3 * OVER, (top + bottom) / 2)
        ink = accent if canvas.rng.random() < 0.2 else grey(0.1)
        canvas.draw.text(place, figure, font=font, fill=ink, anchor="rm")


def line_art(canvas: Canvas) -> None:
    """Flat shapes with dark outlines, strokes that swell and thin out, hatching and eyes, as in comics."""
    rng, side = canvas.rng, canvas.side
    paper, ink = paper_and_ink(rng)
    coloured, outline = rng.random() < 0.6, round(canvas.size(1.5, 6) * OVER)
    canvas.draw.rectangle((0, 0, side, side), fill=paper)
    for _ in range(int(rng.integers(8, 24))):
        centre, radius = (canvas.between(0, side), canvas.between(0, side)), canvas.between(0.06, 0.35) * side
        shape = blob(rng, centre, radius)
        canvas.draw.polygon(shape, fill=colour(rng, (0.1, 0.9), (0.3, 1)) if coloured else paper)
        if rng.random() < 0.5:
            _hatch(canvas, shape, ink)
        canvas.draw.line(shape, fill=ink, width=outline, joint="curve")
        if rng.random() < 0.4:
            _eye(canvas, centre, radius * canvas.between(0.15, 0.4), ink)
    for _ in range(int(rng.integers(6, 24))):
        _stroke(canvas, ink)


def _hatch(canvas: Canvas, shape: list[Point], ink: Colour) -> None:
    """Parallel lines inside the shape's right part."""
    side = canvas.side
    mask, lines = Image.new("1", (side, side)), Image.new("1", (side, side))
    ImageDraw.Draw(mask).polygon(shape, fill=1)
    draw, step, slope = ImageDraw.Draw(lines), canvas.between(5, 14) * OVER, canvas.between(-1, 1)
    width = round(canvas.between(1, 2.5) * OVER)
    start = np.mean([x for x, _ in shape])
    for position in np.arange(start, start + side, step):
        draw.line((position, 0, position + slope * side, side), fill=1, width=width)
    both = Image.fromarray(np.asarray(mask) & np.asarray(lines))
    canvas.image.paste(ink, (0, 0), both)


def _eye(canvas: Canvas, centre: Point, radius: float, ink: Colour) -> None:
    x, y = centre
    canvas.draw.ellipse(
        (x - radius, y - 0.7 * radius, x + radius, y + 0.7 * radius), "white", ink, round(radius / 9) + 1
    )
    canvas.draw.circle(centre, radius * 0.55, fill=colour(canvas.rng, (0.3, 1), (0.2, 0.8)), outline=ink, width=OVER)
    canvas.draw.circle(centre, radius * 0.28, fill=(10, 10, 10))
    canvas.draw.circle((x + radius * 0.2, y - radius * 0.2), radius * 0.1, fill="white")


def _stroke(canvas: Canvas, ink: Colour) -> None:
    """A brush stroke: discs along a curve, thickest in its middle."""
    start = canvas.rng.uniform(0, canvas.side, 2)
    knots = start + np.cumsum(canvas.rng.normal(0, canvas.side / 10, (int(canvas.rng.integers(3, 7)), 2)), axis=0)
    path = np.asarray(curve([tuple(knot) for knot in knots], steps=160))
    thickest = canvas.size(0.7, 5) * OVER
    for place, (x, y) in enumerate(path):
        canvas.draw.circle((x, y), max(OVER / 3, thickest * math.sin(math.pi * place / len(path))), fill=ink)


def chart(canvas: Canvas) -> None:
    """Axes with bars, lines or dots, a legend, and boxes joined by arrows."""
    rng, side = canvas.rng, canvas.side
    paper, ink = paper_and_ink(rng)
    canvas.draw.rectangle((0, 0, side, side), fill=paper)
    font = canvas.font(canvas.size(11, 24))
    for drawing in (_plot, _boxes) if rng.random() < 0.5 else (_boxes, _plot):
        top = 0.08 * side if drawing == _plot else canvas.between(0.5, 0.6) * side
        drawing(canvas, (0.12 * side, top, 0.9 * side, top + 0.36 * side), font, ink)


def _plot(canvas: Canvas, box, font, ink: Colour) -> None:
    rng, draw, (left, top, right, bottom) = canvas.rng, canvas.draw, box
    count = int(rng.integers(5, 14))
    xs = np.linspace(left, right, count + 1)
    thin = round(canvas.between(0.8, 2) * OVER)
    for tick in np.linspace(bottom, top, 6):
        draw.line((left - 3 * OVER, tick, right, tick), fill=colour(rng, (0, 0.1), (0.6, 0.8)), width=OVER)
        figure = f"{canvas.between(0, 100):.1f}"
        draw.text((left - 5 * OVER, tick), figure, font=font, fill=ink, anchor="rm")
    bars = rng.random() < 0.4
    for _ in range(1 if bars else int(rng.integers(1, 5))):
        paint, heights = colour(rng, (0.5, 1), (0.3, 0.9)), bottom - (bottom - top) * rng.uniform(0.1, 1, count + 1)
        if bars:
            for start, end, height in zip(xs, xs[1:], heights, strict=False):
                draw.rectangle((start + OVER, height, end - 3 * OVER, bottom), fill=paint, outline=ink, width=thin)
            continue
        points = list(zip(xs, heights, strict=True))
        path = curve(points) if rng.random() < 0.4 else points
        draw.line(path, fill=paint, width=round(canvas.between(1.2, 3.5) * OVER), joint="curve")
        for point in points if rng.random() < 0.6 else ():
            draw.circle(point, 4 * OVER, fill=paint, outline=ink, width=OVER)
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=ink, width=thin)
    draw.text((left, top - 4 * OVER), words(rng, "latin", 4), font=font, fill=ink, anchor="lb")


def _boxes(canvas: Canvas, box, font, ink: Colour) -> None:
    rng, draw, (left, top, right, bottom) = canvas.rng, canvas.draw, box
    columns, rows = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    width, height = (right - left) / columns, (bottom - top) / rows
    thin = round(canvas.between(0.9, 2.5) * OVER)
    for row in range(rows):
        for column in range(columns):
            x, y = left + column * width, top + row * height
            inner = (x, y, x + 0.7 * width, y + 0.6 * height)
            fill = colour(rng, (0.05, 0.5), (0.85, 1))
            shape = canvas.one_of((draw.rectangle, draw.ellipse))
            shape(inner, fill=fill, outline=ink, width=thin)
            centre = ((inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2)
            draw.text(centre, words(rng, "latin", 1), font=font, fill=(20, 20, 20), anchor="mm")
            if column + 1 < columns:
                _arrow(draw, (inner[2], centre[1]), (x + width, centre[1]), ink, thin)


def _arrow(draw: ImageDraw.ImageDraw, start: Point, end: Point, ink: Colour, width: int) -> None:
    draw.line((*start, *end), fill=ink, width=width)
    length, angle = 4 * width, math.atan2(end[1] - start[1], end[0] - start[0])
    sides = [
        (end[0] - length * math.cos(angle + turn), end[1] - length * math.sin(angle + turn)) for turn in (-0.4, 0.4)
    ]
    draw.polygon([end, *sides], fill=ink)


def town(canvas: Canvas) -> None:
    """A map: heights in bands with contour lines, roads with casings, dashed borders, symbols and names."""
    rng, side = canvas.rng, canvas.side
    field = noise(rng, side, int(rng.integers(2, 6)))
    bands = int(rng.integers(4, 12))
    paints = np.asarray([colour(rng, (0.05, 0.45), (0.75, 1)) for _ in range(bands + 1)])
    level = field * bands
    pixels = paints[level.astype(int)].astype(float)
    slope = np.hypot(*np.gradient(level)) + 1e-9
    lines = np.abs(level - level.round()) < slope * canvas.between(0.4, 0.9) * OVER
    pixels[lines] = pixels[lines] * 0.55
    canvas.fill(pixels)
    ink = colour(rng, (0, 0.5), (0.1, 0.35))
    for _ in range(int(rng.integers(3, 9))):
        _road(canvas, ink)
    for _ in range(int(rng.integers(5, 16))):
        place = (canvas.between(0, side), canvas.between(0, side))
        script = canvas.script()
        font = canvas.font(canvas.size(11, 30), script)
        canvas.draw.circle(place, canvas.between(2, 6) * OVER, fill="white", outline=ink, width=round(1.5 * OVER))
        beside = (place[0] + 8 * OVER, place[1])
        text = words(rng, script, 1)
        canvas.draw.text(beside, text, font=font, fill=ink, anchor="lm", stroke_width=2 * OVER, stroke_fill="white")


def _road(canvas: Canvas, ink: Colour) -> None:
    ends = canvas.rng.uniform(-0.1, 1.1, (int(canvas.rng.integers(3, 6)), 2)) * canvas.side
    path = curve([tuple(end) for end in ends[ends[:, 0].argsort()]], steps=48)
    width = round(canvas.size(1.5, 9) * OVER)
    if canvas.rng.random() < 0.3:
        for start in range(0, len(path) - 3, 6):
            canvas.draw.line(path[start : start + 4], fill=ink, width=max(OVER, width // 3))
        return
    canvas.draw.line(path, fill=ink, width=width + 2 * OVER, joint="curve")
    canvas.draw.line(path, fill=colour(canvas.rng, (0, 0.6), (0.9, 1)), width=width, joint="curve")


def pattern(canvas: Canvas) -> None:
    """Stripes, bricks, windows, rings or rays with periods that a fourth of the size still shows."""
    rng, side = canvas.rng, canvas.side
    paper, ink = paper_and_ink(rng)
    y, x = np.mgrid[0:side, 0:side] - side * rng.uniform(0.2, 0.8, (2, 1, 1))
    angle = rng.uniform(0, math.pi) if rng.random() < 0.5 else 0.0
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    period, duty = canvas.size(9, 48) * OVER, canvas.between(0.3, 0.7)
    tall = period * canvas.between(0.4, 2.5)
    masks = {
        "stripes": lambda: u / period % 1 < duty,
        "windows": lambda: (u / period % 1 < duty) & (v / tall % 1 < canvas.between(0.4, 0.7)),
        "bricks": lambda: (
            ((u / (2 * period) + 0.5 * (np.floor(v / period) % 2)) % 1 > 0.08 + 0.05 * duty)
            & (v / period % 1 > 0.16 + 0.1 * duty)
        ),
        "checks": lambda: (np.floor(u / period) + np.floor(v / period)) % 2 == 0,
        "rings": lambda: np.hypot(x, y) / period % 1 < duty,
        # Towards the middle rays become finer than any picture shows: there they give way to a disc.
        "rays": lambda: (
            (np.arctan2(y, x) * int(rng.integers(8, 40)) / math.pi % 2 < 1) & (np.hypot(x, y) > 12 * period / duty)
        ),
        "grid": lambda: (u / period % 1 < 0.15) | (v / tall % 1 < 0.15),
    }
    mask = masks[str(rng.choice(list(masks)))]()
    shade = gradient(rng, side, (255, 255, 255), (round(canvas.between(150, 255)),) * 3) / 255
    canvas.fill(np.where(mask[..., None], ink, paper) * shade)


KINDS: dict[str, tuple[Callable[[Canvas], None], float]] = {  # the function, and how often it is chosen
    "page": (page, 0.24),
    "sign": (sign, 0.18),
    "interface": (interface, 0.18),
    "line-art": (line_art, 0.16),
    "chart": (chart, 0.08),
    "town": (town, 0.08),
    "pattern": (pattern, 0.08),
}
UPRIGHT = {"interface"}  # seen on a screen, never at a slant


# ---- from canvas to file ---------------------------------------------------------------------------------------------


def picture(
    seed: int, index: int, fonts: Fonts, *, kind: str | None = None, side: int = SIDE
) -> tuple[str, Image.Image]:
    """Picture `index` of `seed`: the name of its kind, and `side`×`side` RGB."""
    rng = np.random.default_rng((seed, index))
    chances = np.asarray([chance for _, chance in KINDS.values()])
    drawn = str(rng.choice(list(KINDS), p=chances / chances.sum()))
    kind = kind or drawn
    canvas = Canvas(_on_pixel(side * OVER * MARGIN), rng, fonts)
    KINDS[kind][0](canvas)
    seen = view(canvas.image, side * OVER, rng, slanted=kind not in UPRIGHT and rng.random() < 0.4)
    if rng.random() < 0.3:  # as a lens would: not every edge in the world is as sharp as pixels can be
        seen = seen.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8) * OVER))
    return kind, seen.reduce(OVER)


def view(image: Image.Image, side: int, rng: np.random.Generator, *, slanted: bool) -> Image.Image:
    """The middle `side`×`side` of the canvas; slanted, a quadrilateral about there as seen in perspective."""
    margin = (image.width - side) // 2 // OVER * OVER
    if not slanted:
        return image.crop((margin, margin, margin + side, margin + side))
    corners = np.asarray([(0, 0), (side, 0), (side, side), (0, side)], dtype=float)
    return image.transform(
        (side, side),
        Image.Transform.PERSPECTIVE,
        _perspective(corners, corners + margin + rng.uniform(-margin, margin, (4, 2))),
        Image.Resampling.BILINEAR,  # the others overshoot at edges
    )


def _perspective(targets: np.ndarray, sources: np.ndarray) -> list[float]:
    """The eight coefficients with which Pillow looks the four `sources` up for the four `targets`."""
    rows, values = [], []
    for (x, y), (u, v) in zip(targets, sources, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(rows, values).tolist()


def _on_pixel(length: float) -> int:
    """The nearest length in canvas pixels that is a whole number of the picture's."""
    return round(length / OVER) * OVER


def find_fonts(folders: Iterable[str | os.PathLike] = FONT_FOLDERS) -> Fonts:
    """The free fonts below `folders`, by the scripts that they have all letters for, sorted by name."""
    files = {file.name: file for folder in folders for file in Path(folder).expanduser().rglob("*.[tToO]t[fFcC]")}
    found: Fonts = {}
    for name in sorted(files):
        if name.startswith(tuple(FREE_FONTS)):
            for script in _scripts(files[name]):
                found.setdefault(script, []).append(files[name])
    return found


def _scripts(file: Path) -> list[str]:
    font = ImageFont.truetype(file, 24)
    missing = bytes(font.getmask("\U0010ffff"))  # what the font shows for a letter it lacks
    return [
        script
        for script in WORDS
        if (script not in SHAPED or features.check("raqm"))
        and all(bytes(font.getmask(letter)) != missing for letter in _letters(script))
    ]


def _letters(script: str) -> list[str]:
    """All that `words` may need of a font."""
    text = "".join(WORDS[script].split())
    return sorted(set(text + text.upper() + MARKS + DIGITS if script in MARKED else text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to fill; made when it is not there")
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, help="only this kind")
    parser.add_argument("--fonts", type=Path, action="append", help="look for fonts here, not in the system's folders")
    arguments = parser.parse_args()
    fonts = find_fonts(arguments.fonts or FONT_FOLDERS)
    if "latin" not in fonts:
        sys.exit("no free font found; install some of those that --help names, or name a folder with --fonts")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for index in range(arguments.count):
        kind, image = picture(arguments.seed, index, fonts, kind=arguments.kind)
        image.save(arguments.out / f"drawn-{arguments.seed}-{index:04d}-{kind}.png")
    used = sorted({file.name for files in fonts.values() for file in files})
    about = {"seed": arguments.seed, "count": arguments.count, "kind": arguments.kind, "pillow": PIL.__version__}
    about |= {"numpy": np.__version__, "licence": "CC0-1.0", "fonts": used}
    (arguments.out / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
