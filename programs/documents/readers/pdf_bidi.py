"""Lines with right-to-left script, from how they stand on the page to how they are read.

A page has its glyphs in places, and pdfium's order of them depends on who made the file; so the line is taken from left
to right as it stands and the reordering of Unicode's bidirectional algorithm (UAX 9) is undone. Where two readings
look the same on paper, such as a number between the scripts, one is taken.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ("«", "»"))
_LAM = "\u0644"
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_RTL_WORD = re.compile("[\u05d0-\u05ea\u0620-\u064a]+")
_FINALS = "\u05da\u05dd\u05df\u05e3\u05e5\u0629\u0649"  # the five final letters of Hebrew, ta marbuta, alif maqsura
_ARTICLE = "\u0627\u0644"


def has_rtl(text: str) -> bool:
    return _RTL.search(text) is not None


def is_rtl(text: str) -> bool:
    """Whether most of its letters are written from right to left."""
    classes = [unicodedata.bidirectional(letter) for letter in text]
    return sum(each in ("R", "AL") for each in classes) > classes.count("L")


def unturned(lines: Iterable[str]) -> bool:
    """Whether lines, given from left to right as they stand, have right-to-left words with their first letter at the
    left: what a program writes that does not know their direction, and what a reader sees the wrong way round.

    Told by letters that stand at the end of a Hebrew or Arabic word, and by the Arabic article at its beginning.
    """
    score = 0
    for word in _RTL_WORD.findall(" ".join(lines)):
        if len(word) >= 2:
            score += (word[-1] in _FINALS) - (word[0] in _FINALS)
        if len(word) >= 4:
            score += (word[:2] == _ARTICLE) - (word[:-3:-1] == _ARTICLE)
    return score > 0


def logical(glyphs: Sequence[tuple[float, float, str]], rtl: bool) -> str:
    """Glyphs with their left and right ends, and spaces between them, in reading order; `rtl`: the direction of most
    lines around."""
    clusters = _clusters(glyphs)
    kinds = "".join(_kinds([cluster[0] for cluster in clusters]))
    rtl = _runs_to_the_left(kinds, rtl)
    if rtl and (end := re.match("E+", kinds)) and clusters[end.end() : end.end() + 1] in (["-"], ["\u2010"]):
        kinds = "E" * (end.end() + 1) + kinds[end.end() + 1 :]  # a number broken at the end of the line
    # L: letters read to the right, with neutrals and numbers among them; E: numbers; both keep their order.
    pattern = r"L(?:[LNE]*[LE])?|E+|." if rtl else r"R(?:[RNE]*R)?|."
    runs = [match.span() for match in re.finditer(pattern, kinds)]
    if rtl:
        order = [place for start, end in reversed(runs) for place in range(start, end)]
    else:
        order = [place for start, end in runs for place in _turned(kinds, start, end)]
    return bracketed("".join(clusters[place] for place in order))


def _runs_to_the_left(kinds: str, around: bool) -> bool:
    """The direction of a line: that of its ends where they agree, else that of the lines around it."""
    strong = kinds.replace("N", "").replace("E", "")
    return strong[0] == "R" if strong and strong[0] == strong[-1] else around


def _turned(kinds: str, start: int, end: int) -> list[int]:
    """A run of right-to-left letters from its right end, the numbers in it as they stand."""
    units = [match.span() for match in re.finditer(r"E+|.", kinds[start:end])]
    return [start + place for first, last in reversed(units) for place in range(first, last)]


def _clusters(glyphs: Sequence[tuple[float, float, str]]) -> list[str]:
    """From left to right, marks with the letter on which they stand, and the letters of one ligature together."""
    letters = [glyph for glyph in glyphs if not unicodedata.combining(glyph[2])]
    letters.sort(key=lambda glyph: (glyph[0], glyph[1]))
    made: list[tuple[float, float, str]] = []
    for left, right, text in letters:
        if made and made[-1][:2] == (left, right) and text != " ":
            joined = made[-1][2] + text
            made[-1] = left, right, joined if not joined.endswith(_LAM) else text + made[-1][2]
        else:
            made.append((left, right, text))
    texts = [text for *_, text in made]
    for left, right, mark in glyphs:
        if unicodedata.combining(mark) and made:
            middle = (left + right) / 2
            solid = [place for place, (*_, text) in enumerate(made) if text != " "] or [0]
            nearest = min(solid, key=lambda place: abs((made[place][0] + made[place][1]) / 2 - middle))
            texts[nearest] += mark
    return texts


def _kinds(letters: Sequence[str]) -> list[str]:
    """L, R, E (a number and what belongs to it), or N for what takes the direction around it."""
    table = {"L": "L", "R": "R", "AL": "R", "EN": "E", "AN": "E", "ET": "T", "ES": "S", "CS": "S"}
    kinds = [table.get(unicodedata.bidirectional(letter), "N") for letter in letters]
    for place, kind in enumerate(kinds):
        around = (kinds[place - 1] if place else "N", kinds[place + 1] if place + 1 < len(kinds) else "N")
        if (kind == "S" and around == ("E", "E")) or (kind == "T" and "E" in around):
            kinds[place] = "E"
    return [kind if kind in "LRE" else "N" for kind in kinds]


def bracketed(text: str) -> str:
    """With each kind of bracket opened before it is closed: whether a glyph was mirrored cannot be seen in it."""
    for opening, closing in _PAIRS:
        found = [letter for letter in text if letter in (opening, closing)]
        if len(found) % 2 or found == [opening, closing] * (len(found) // 2) or _nested(found, opening):
            continue
        turn = iter([opening, closing] * (len(found) // 2))
        text = "".join(next(turn) if letter in (opening, closing) else letter for letter in text)
    return text


def _nested(found: Sequence[str], opening: str) -> bool:
    depth = 0
    for letter in found:
        depth += 1 if letter == opening else -1
        if depth < 0:
            return False
    return depth == 0
