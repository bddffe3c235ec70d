"""PDF: the text that its pages show, in reading order; what is hidden, doubtful or not text is said in remarks.

pdfium reads it, by pypdfium2. pdfium is not thread-safe: every use stands under one lock, for one page at a time, so
that these functions may be called from any number of threads.
"""

import hashlib
import io
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pypdfium2 as pdfium
from numpy.typing import NDArray

from programs.documents.document import Document, Page, ReadError, Remark
from programs.documents.readers.pdf_chars import LOCK, MOST_CHARACTERS, UNKNOWN, PageContent, read_page
from programs.documents.readers.pdf_forms import Said, annotations
from programs.documents.readers.pdf_headings import Bookmark, Placed, headings
from programs.documents.readers.pdf_layout import Layout, Typed, layout
from programs.documents.readers.pdf_objects import displayed
from programs.documents.readers.pdf_open import open_pdf
from programs.documents.readers.pdf_visible import visibility

MOST_TEXT = 100_000_000  # characters of a document
MOST_BOOKMARKS = 20_000
LONGEST_SIDE = 1540  # pixels; what the model's image encoder takes at most
STAMP = 100  # characters: a page that is an image and has fewer is not read by them
PICTURE = 0.05  # of the page: smaller images are logos and rules
BACKGROUND = 0.5  # of the page
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


def read_pdf(content: bytes, name: str, passwords: Sequence[str] = ()) -> Document:
    """Raises ReadError for a file that is empty, too large, damaged, or locked with a password that is not given."""
    with LOCK:
        pdf = open_pdf(content, name, passwords)
    try:
        return _document(pdf, content, name)
    finally:
        with LOCK:
            pdf.close()


def page_image(content: bytes, number: int, passwords: Sequence[str] = (), dpi: int = 150) -> bytes:
    """Page `number`, from 1, as PNG of at most 1540 pixels a side. Raises ReadError as `read_pdf` does, and for a page
    that is not there."""
    with LOCK:
        pdf = open_pdf(content, "the PDF", passwords)
        try:
            if not 1 <= number <= len(pdf):
                raise ReadError(f"There is no page {number}: the PDF has {len(pdf)}.")
            try:
                page = pdf[number - 1]
                scale = min(dpi / 72, LONGEST_SIDE / max(*page.get_size(), 1.0))
                bitmap = page.render(scale=scale)
            except pdfium.PdfiumError as error:
                raise ReadError(f"Page {number} of the PDF is damaged: it cannot be drawn.") from error
            image = bitmap.to_pil().convert("RGB")
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))  # pdfium rounds sides up
            bitmap.close()
            page.close()
        finally:
            pdf.close()
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


def _document(pdf: pdfium.PdfDocument, content: bytes, name: str) -> Document:
    with LOCK:
        count = len(pdf)
        labels = [pdf.get_page_label(index).strip() for index in range(count)]
        bookmarks = list(_bookmarks(pdf))
        remarks = list(_file_remarks(pdf, content))
    parts: list[str] = []
    placed: list[Placed] = []
    pages: list[Page] = []
    notes: dict[str, list[int]] = {}
    at = 0
    for number in range(1, count + 1):
        start = at
        read = _read(pdf, number, at)
        for line in read.layout.lines:
            placed.append(Placed(at, at + len(line.text), number, line.size, line.bold, line.alone))
            parts += line.text, "\n"
            at += len(line.text) + 1
        pages.append(Page(number, labels[number - 1], start, at))
        remarks += read.remarks
        for note in read.notes:
            notes.setdefault(note, []).append(number)
    remarks += [Remark("note", _places(numbers), note, _only(numbers)) for note, numbers in notes.items()]
    text = "".join(parts)
    found = headings(text, placed, bookmarks)
    return Document(name, "pdf", hashlib.sha256(content).hexdigest(), text, tuple(pages), found, tuple(remarks))


def _read(pdf: pdfium.PdfDocument, number: int, before: int) -> Read:
    """A page, or a remark why it is not read."""
    place = f"page {number}"
    if before > MOST_TEXT:
        return Read(remarks=[Remark("unread", place, f"the document has more than {MOST_TEXT:,} characters", number)])
    try:
        with LOCK:
            page = pdf[number - 1]
            try:
                content = read_page(page)
                seen = visibility(page, content)
                said = list(annotations(page, pdf.formenv.raw if pdf.formenv else None))
            finally:
                page.close()
    except pdfium.PdfiumError:
        return Read(remarks=[Remark("unread", place, "it is damaged", number)])
    read = Read(remarks=list(_hidden(content, seen.hidden, number)))
    content.keep(seen.hidden == "")
    content.keep(_once(content))
    read.layout = layout(content, [typed for each in said for typed in _typed(each, content)])
    letters = sum(len("".join(line.text.split())) for line in read.layout.lines)
    read.remarks += _unread(content, letters, seen.ocr, number)
    read.remarks += _doubts(content, read.layout, number)
    read.notes = list(_notes(content, read, letters, seen.ocr, said))
    return read


def _hidden(content: PageContent, hidden: NDArray[Any], number: int) -> Iterable[Remark]:
    """A remark for each kind of hidden text on a page."""
    for why in dict.fromkeys(hidden[hidden != ""]):
        chosen = np.flatnonzero(hidden == why)
        apart = content.spaced[chosen] | (np.diff(content.drawn[chosen], prepend=content.drawn[chosen[0]]) != 0)
        text = "".join(
            (" " if space else "") + chr(code) for code, space in zip(content.codes[chosen], apart, strict=True)
        ).strip()
        yield Remark("hidden", f"page {number}", f"text {why}", number, text[:HIDDEN_TEXT])


def _once(content: PageContent) -> NDArray[np.bool_]:
    """Characters without those that are drawn again in the same place, to look bold or to throw a shadow. The letters
    of one ligature, neighbours in one object, are no such twins."""
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
        kept[np.maximum(first[twice], second[twice])] = False
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
            yield Typed(_clean(line), left, right, top + number * (bottom - top) / len(lines) - 0.2 * size, size)


def _clean(text: str) -> str:
    """Without control characters, which nobody sees."""
    return "".join(letter if unicodedata.category(letter) not in ("Cc", "Cs") else " " for letter in text).strip()


def _unread(content: PageContent, letters: int, ocr: bool, number: int) -> Iterable[Remark]:
    what = ""
    if not letters and content.pictured >= PICTURE:
        what = "no text: an image only"
    elif not letters and len(content.shapes) >= DRAWN_SHAPES:
        what = "no text: drawn shapes only"
    elif 0 < letters < STAMP and not ocr and content.pictured >= BACKGROUND:
        what = "almost no text over an image"
    elif 0 < letters < STAMP and len(content.shapes) >= DRAWN_LETTERS:
        what = "almost no text beside drawn shapes"
    if what:
        yield Remark("unread", f"page {number}", what, number)
    if content.cut:
        what = f"only its first {MOST_CHARACTERS:,} characters are read"
        yield Remark("unread", f"page {number}", what, number)


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


def _bookmarks(pdf: pdfium.PdfDocument) -> Iterable[Bookmark]:
    for count, mark in enumerate(pdf.get_toc()):
        if count >= MOST_BOOKMARKS:
            return
        target = mark.get_dest()
        index = target.get_index() if target else None
        if index is not None and index >= 0:
            yield Bookmark(mark.get_title(), index + 1, mark.level + 1)


def _file_remarks(pdf: pdfium.PdfDocument, content: bytes) -> Iterable[Remark]:
    if content.rfind(b"startxref", -4096) < 0:
        yield Remark("doubtful", "", "the file's end is missing, and pages may be")
    for index in range(min(1_000, pdf.count_attachments())):
        name = _clean(pdf.get_attachment(index).get_name())[:200]
        yield Remark("note", f"attachment {name}", "not read")


def _places(numbers: Sequence[int]) -> str:
    """As in "page 2" and "pages 2, 5-7"."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), key=lambda each: each[1] - each[0])]
    said = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"page {said}" if len(numbers) == 1 else f"pages {said}"


def _only(numbers: Sequence[int]) -> int | None:
    return numbers[0] if len(numbers) == 1 else None
