"""PDF: the text that its pages show, in reading order; what is hidden, doubtful or not text is said in remarks.

pdfium reads it, by pypdfium2, in a process of its own: it is not thread-safe, a bad file can crash it, and a page can
keep it busy for ever. Any number of threads may call these functions; they take turns.
"""

from collections.abc import Sequence

from programs.documents.document import Document, ReadError
from programs.documents.readers.pdf_worker import Failed, ask

MOST_BAD_PAGES = 5  # that make the reader's process end before the file is given up


def read_pdf(content: bytes, name: str, passwords: Sequence[str] = ()) -> Document:
    """Raises ReadError for a file that is empty, too large, damaged, or locked with a password that is not given."""
    skipped: list[int] = []
    while True:
        try:
            document: Document = ask("read", content, name, tuple(passwords), tuple(skipped))
            return document
        except Failed as failed:
            if failed.page is None:
                raise ReadError(f"{name!r} cannot be read: opening it fails or takes too long.") from failed
            if len(skipped) >= MOST_BAD_PAGES:
                raise ReadError(f"{name!r} cannot be read: too many of its pages fail or take too long.") from failed
            skipped.append(failed.page)


def page_image(content: bytes, number: int, passwords: Sequence[str] = (), dpi: int = 150) -> bytes:
    """Page `number`, from 1, as PNG of at most 1540 pixels a side. Raises ReadError as `read_pdf` does, and for a page
    that is not there."""
    try:
        image: bytes = ask("draw", content, number, tuple(passwords), dpi)
        return image
    except Failed as failed:
        raise ReadError(f"Page {number} of the PDF cannot be drawn: it fails or takes too long.") from failed
