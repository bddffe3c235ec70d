"""A document as it was read: one canonical text, where its pages and headings stand in it, and what is not in it.

Every position is a number of characters (Python's `str`) from the beginning of the text.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Literal, get_args

from programs.errors import ProgramError

RemarkKind = Literal["unread", "hidden", "doubtful", "note"]


class ReadError(ProgramError):
    """Why a file could not be read at all, in one sentence that names it."""


@dataclass(frozen=True)
class Page:
    """Page `number` of the file, from 1, at text[start:end]; `label` is the number printed on it, "" without one."""

    number: int
    label: str
    start: int
    end: int


@dataclass(frozen=True)
class Heading:
    """A heading at text[start:end]; level 1 is the highest."""

    level: int
    start: int
    end: int


@dataclass(frozen=True)
class Remark:
    """What a reader of the text must know about the file.

    `unread`: a part that is not in the text, such as a scanned page. `hidden`: `text`, which nobody sees on the page
    and which is left out. `doubtful`: text that is there but whose order or characters may be wrong. `note`: anything
    else, such as tracked changes, or an encoding that was guessed. `place` is "page 3", "attachment plan.pdf" or "";
    `what` completes the sentence "page 3: ..".
    """

    kind: RemarkKind
    place: str
    what: str
    page: int | None = None
    text: str = ""


@dataclass(frozen=True)
class Document:
    """`name`: its path below the folder that was given; `format`: "pdf", "docx", ..; `sha256`: of the file's bytes;
    `pages`: in order, none for formats without pages."""

    name: str
    format: str
    sha256: str
    text: str
    pages: tuple[Page, ...] = ()
    headings: tuple[Heading, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @cached_property
    def text_sha256(self) -> str:
        """What answers are kept by: the same text is the same document, whatever its file is called."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def _page_starts(self) -> list[int]:
        return [page.start for page in self.pages]

    def page_at(self, position: int) -> Page | None:
        """The page that holds a character of the text."""
        index = bisect_right(self._page_starts, position) - 1
        return self.pages[index] if index >= 0 else None

    def line_at(self, position: int) -> int:
        """The number, from 1, of the text's line that holds a character."""
        return self.text.count("\n", 0, position) + 1

    def slice(self, start: int, end: int) -> "Document":
        """text[start:end] as a document: its positions are this one's less `start`, its pages keep their numbers."""
        if (start, end) == (0, len(self.text)):
            return self
        pages = [page for page in self.pages if page.start < end and start < page.end]
        numbers = {page.number for page in pages}
        return replace(
            self,
            text=self.text[start:end],
            pages=tuple(
                replace(page, start=max(page.start, start) - start, end=min(page.end, end) - start) for page in pages
            ),
            headings=tuple(
                replace(heading, start=heading.start - start, end=heading.end - start)
                for heading in self.headings
                if start <= heading.start and heading.end <= end
            ),
            remarks=tuple(remark for remark in self.remarks if remark.page is None or remark.page in numbers),
        )

    def of_kind(self, kind: RemarkKind) -> tuple[Remark, ...]:
        return tuple(remark for remark in self.remarks if remark.kind == kind)

    @property
    def unread(self) -> tuple[Remark, ...]:
        """What "not in the document" must be qualified by."""
        return self.of_kind("unread")

    @property
    def coverage(self) -> str:
        """What was read and what was not, and why, in one line."""
        size = f"{len(self.pages)} pages" if self.pages else f"{len(self.text):,} characters"
        read = f"{size} read" if not self.unread else f"{size}, not all of them read"
        said = [sentence for kind in get_args(RemarkKind) for sentence in sentences(self.of_kind(kind))]
        return "; ".join([read, *said]) + "."


def sentences(remarks: Sequence[Remark]) -> list[str]:
    """What remarks say, as in "pages 3-9: no text: an image only": the same of neighbouring pages is said once."""
    said: list[str] = []
    for _, run in groupby(enumerate(remarks), key=_alike):
        first, *more = [remark for _, remark in run]
        place = f"pages {first.page}-{more[-1].page}" if more else first.place
        said.append(f"{place}: {first.what}" if place else first.what)
    return said


def _alike(placed: tuple[int, Remark]) -> object:
    """Equal for neighbours in a list that say the same of one page after the other, and for no others."""
    place, remark = placed
    return place if remark.page is None else (remark.kind, remark.what, remark.text, remark.page - place)


@dataclass(frozen=True)
class Unreadable:
    """A file that gave no document; `why` is a sentence that names it."""

    name: str
    why: str
    sha256: str = ""
