"""A whole PDF, read in this process: its pages one after the other, its headings, what the file says of itself.

pdfium is not thread-safe, and a bad file can crash it or keep it busy for ever: pdf_worker.py calls this in a process
of its own.
"""

import hashlib
import io
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby

import pypdfium2 as pdfium

from programs.documents.document import Document, Page, ReadError, Remark
from programs.documents.readers.pdf_headings import Bookmark, Placed, headings
from programs.documents.readers.pdf_open import open_pdf
from programs.documents.readers.pdf_page import clean, read_page, unread

MOST_TEXT = 100_000_000  # characters of a document
MOST_BOOKMARKS = 20_000
LONGEST_SIDE = 1540  # pixels; what the model's image encoder takes at most


def read_document(
    content: bytes,
    name: str,
    passwords: Sequence[str] = (),
    skipped: Collection[int] = (),
    reached: Callable[[int], None] = lambda page: None,
) -> Document:
    """Without the pages `skipped`, which are known to fail; tells `reached` each page before it is read. Raises
    ReadError."""
    pdf = open_pdf(content, name, passwords)
    try:
        count = len(pdf)
        labels = [clean(pdf.get_page_label(index)) for index in range(count)]
        bookmarks = list(_bookmarks(pdf))
        remarks = list(_file_remarks(pdf, content))
        parts: list[str] = []
        placed: list[Placed] = []
        pages: list[Page] = []
        notes: dict[str, list[int]] = {}
        at = 0
        for number in range(1, count + 1):
            start = at
            if at > MOST_TEXT:
                read = unread(number, f"the document has more than {MOST_TEXT:,} characters")
            elif number in skipped:
                read = unread(number, "reading it fails or takes too long")
            else:
                reached(number)
                read = read_page(pdf, number)
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
    finally:
        pdf.close()


def draw_page(content: bytes, number: int, passwords: Sequence[str], dpi: int) -> bytes:
    """Page `number`, from 1, as PNG of at most 1540 pixels a side. Raises ReadError."""
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
        name = clean(pdf.get_attachment(index).get_name())[:200]
        yield Remark("note", f"attachment {name}", "not read")


def _places(numbers: Sequence[int]) -> str:
    """As in "page 2" and "pages 2, 5-7"."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), key=lambda each: each[1] - each[0])]
    said = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"page {said}" if len(numbers) == 1 else f"pages {said}"


def _only(numbers: Sequence[int]) -> int | None:
    return numbers[0] if len(numbers) == 1 else None
