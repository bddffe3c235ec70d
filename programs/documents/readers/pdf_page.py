"""One page of a PDF as it was read: its lines, and what must be said of it."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pypdfium2 as pdfium
from numpy.typing import NDArray

from programs.documents.document import Remark
from programs.documents.readers.pdf_chars import MOST_CHARACTERS, UNKNOWN, PageContent, characters
from programs.documents.readers.pdf_forms import Said, annotations
from programs.documents.readers.pdf_layout import SPACE, Layout, Typed, layout
from programs.documents.readers.pdf_objects import displayed
from programs.documents.readers.pdf_visible import visibility

STAMP = 100  # characters: a page that is an image and has fewer is not read by them
PICTURE = 0.05  # of the page: smaller images are logos and rules
BACKGROUND = 0.5  # of the page
SCAN = 0.9  # of the page
MARGIN = 0.1  # of the page
SLANTED = 5  # degrees
DRAWN_SHAPES = 10  # a page without text that has fewer is blank: a frame, a rule
DRAWN_LETTERS = 500
MOST_IN_LIGATURE = 4  # letters
HIDDEN_TEXT = 10_000  # characters of it that a remark keeps


@dataclass
class Read:
    """A page as it was read."""

    layout: Layout = field(default_factory=Layout)
    remarks: list[Remark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_page(pdf: pdfium.PdfDocument, number: int) -> Read:
    """Page `number`, from 1, or a remark why it is not read."""
    try:
        page = pdf[number - 1]
        try:
            content = characters(page)
            seen = visibility(page, content)
            said = list(annotations(page, pdf.formenv.raw if pdf.formenv else None))
        finally:
            page.close()
    except pdfium.PdfiumError:
        return unread(number, "it is damaged")
    except MemoryError:
        return unread(number, "it needs too much memory")
    once = _once(content, seen.hidden != "")
    content.keep(once)
    hidden = seen.hidden[once]
    read = Read(remarks=list(_hidden(content, hidden, number)))
    content.keep(hidden == "")
    read.layout = layout(content, [typed for each in said for typed in _typed(each, content)])
    letters = sum(len("".join(line.text.split())) for line in read.layout.lines)
    read.remarks += _unread(content, letters, seen.ocr, number)
    read.remarks += _doubts(content, read.layout, number)
    read.notes = list(_notes(content, read, letters, seen.ocr, said))
    return read


def unread(number: int, why: str) -> Read:
    return Read(remarks=[Remark("unread", f"page {number}", why, number)])


def _hidden(content: PageContent, hidden: NDArray[Any], number: int) -> Iterable[Remark]:
    """A remark for each kind of hidden text on a page."""
    for why in dict.fromkeys(hidden[hidden != ""]):
        chosen = np.flatnonzero(hidden == why)
        step = np.diff(content.boxes[chosen], axis=0)
        gap = content.boxes[chosen[1:], 0] - content.boxes[chosen[:-1], 2]
        apart = content.spaced[chosen]
        apart[1:] |= (gap > SPACE * content.sizes[chosen[1:]]) | (np.abs(step[:, 3]) > 0.6 * content.sizes[chosen[1:]])
        text = "".join(
            (" " if space else "") + chr(code) for code, space in zip(content.codes[chosen], apart, strict=True)
        ).strip()
        yield Remark("hidden", f"page {number}", f"text {why}", number, text[:HIDDEN_TEXT])


def _once(content: PageContent, hidden: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Characters without those that are drawn again in the same place, to look bold or to throw a shadow: of a hidden
    one and one that is seen, the latter. The letters of one ligature, neighbours in one object, are no such twins."""
    kept = np.ones(len(content.codes), bool)
    x, y = content.origin.T
    near = 0.12 * content.sizes
    for shift in (0.0, 0.5):
        rows = np.floor(y / 2 + shift)
        order = np.lexsort((x, rows, content.codes))
        first, second = order[:-1], order[1:]
        twice = (
            (content.codes[first] == content.codes[second])
            & (np.abs(x[first] - x[second]) < near[first])
            & (np.abs(y[first] - y[second]) < near[first])
            & ((content.drawn[first] != content.drawn[second]) | (np.abs(first - second) > MOST_IN_LIGATURE))
        )
        first, second = first[twice], second[twice]
        later = np.maximum(first, second)
        kept[np.where(hidden[first] == hidden[second], later, np.where(hidden[first], first, second))] = False
    return kept


def _typed(said: Said, content: PageContent) -> Iterable[Typed]:
    """The lines of a form field's value, or of text typed on to the page, where they stand."""
    if said.kind == "comment":
        return
    left, top, right, bottom = map(float, displayed(np.array([said.box]), content.to_display)[0])
    lines = said.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    size = max(1.0, min(12.0, (bottom - top) / len(lines)))
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Typed(clean(line), left, right, top + number * (bottom - top) / len(lines) - 0.2 * size, size)


def clean(text: str) -> str:
    """Without control characters, which nobody sees."""
    return "".join(letter if unicodedata.category(letter) not in ("Cc", "Cs") else " " for letter in text).strip()


def _unread(content: PageContent, letters: int, ocr: bool, number: int) -> Iterable[Remark]:
    slanted, inner = _stamped(content)
    what = ""
    if not letters and content.pictured >= PICTURE:
        what = "no text: an image only"
    elif not letters and len(content.shapes) >= DRAWN_SHAPES:
        what = "no text: drawn shapes only"
    elif letters and not ocr and content.pictured >= (BACKGROUND if letters < STAMP else SCAN) and inner < STAMP:
        what = "almost no text over an image"
    elif 0 < letters < STAMP and len(content.shapes) >= DRAWN_LETTERS:
        what = "almost no text beside drawn shapes"
    elif slanted and letters <= len(content.codes):
        what = "no text but a slanted stamp"
    if what:
        yield Remark("unread", f"page {number}", what, number)
    if content.cut:
        what = f"only its first {MOST_CHARACTERS:,} characters are read"
        yield Remark("unread", f"page {number}", what, number)


def _stamped(content: PageContent) -> tuple[bool, int]:
    """Whether all that is drawn is slanted, as watermarks are, and how many letters are upright and not in the page's
    margins, where archives say who has fetched a scan, and when."""
    slanted = np.array([drawn.angle % 90 for drawn in content.objects])[content.drawn]
    slanted = (slanted > SLANTED) & (slanted < 90 - SLANTED)
    (x, y), size = content.origin.T, (content.width, content.height)
    inner = (np.abs(x / size[0] - 0.5) < 0.5 - MARGIN) & (np.abs(y / size[1] - 0.5) < 0.5 - MARGIN) & ~slanted
    return bool(len(slanted) and slanted.all()), int(inner.sum())


def _doubts(content: PageContent, made: Layout, number: int) -> Iterable[Remark]:
    for doubt in made.doubts:
        yield Remark("doubtful", f"page {number}", doubt, number)
    if unknown := int((content.codes == UNKNOWN).sum()):
        signs = "a sign has" if unknown == 1 else f"{unknown:,} signs have"
        what = f"{signs} no letter in the file, damaged text, and \ufffd stands for each"
        yield Remark("doubtful", f"page {number}", what, number)


def _notes(content: PageContent, read: Read, letters: int, ocr: bool, said: Sequence[Said]) -> Iterable[str]:
    yield from read.layout.notes
    unread = any(remark.kind == "unread" for remark in read.remarks)
    if ocr and letters:
        yield "the text is an OCR layer over a scan"
    elif letters and not unread and content.pictured >= PICTURE:
        yield "a picture on it is not read"
    if any(each.kind == "comment" for each in said):
        yield "comments on it are not read"
    if any(each.kind == "field" for each in said):
        yield "values of form fields stand in the text"
