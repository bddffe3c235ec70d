"""How a document goes into the model's context: whole where it fits, else in parts that overlap.

Parts end where the text does: before a heading or at a page's end if one is near, else at a paragraph, a line, a
sentence, and only where there is none of these inside of a line.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from programs.documents.document import Document
from programs.documents.question import Question
from programs.errors import ProgramError

FRAME = 512  # tokens around a conversation: its roles, the settings, our own words
EVIDENCE = 1024  # tokens of the reply that quotes the evidence
PIECE = 2000  # characters of a line that are counted at once
WINDOW = 0.3  # the share of a part, at its end, in which the best border is looked for
LEAST = 64  # tokens of a document, below which a part is not worth asking about
HEADING, PAGE, PARAGRAPH, LINE, SENTENCE, INSIDE = 5, 4, 3, 2, 1, 0  # borders, the strongest first

Count = Callable[[str], int]


@dataclass(frozen=True)
class Part:
    """text[start:end] of a document, which is part `number` of `of`, from 1; about `tokens` tokens."""

    start: int
    end: int
    tokens: int
    number: int = 1
    of: int = 1


@dataclass(frozen=True)
class Budget:
    """Tokens: of the model's context, of a trace, of an answer; `part`: most of a document at once, where that is to
    be less than what the context leaves; `overlap`: that two parts share."""

    context: int
    trace: int
    answer: int
    part: int | None = None
    overlap: int = 256

    def room(self, questions: Sequence[Question], count: Count) -> int:
        """What the context leaves for a document beside any of the questions, its trace, answer and evidence. Raises
        ProgramError where that is next to nothing."""
        longest = max((count(question.question) for question in questions), default=0)
        traced = any(question.effort != "none" for question in questions)
        thought = self.trace if traced else 0
        quoted = 3 * EVIDENCE  # quotes, told that they are not there, and quotes again
        beside = longest + self.answer + max(thought, quoted) + FRAME
        room = self.context - beside
        if room < LEAST:
            raise ProgramError(
                f"The context of {self.context:,} tokens leaves no room for a document beside {beside:,} tokens of "
                "question, trace and answer: give less with --budget or --max-tokens."
            )
        if self.part is not None and self.part < LEAST:
            raise ProgramError(f"A part of {self.part} tokens is too small: give at least {LEAST}.")
        return min(room, self.part or room)


def parts_of(document: Document, room: int, overlap: int, count: Count) -> tuple[Part, ...]:
    """The document in parts of at most `room` tokens, each beginning up to `overlap` tokens before the last one's
    end."""
    ends, strengths = _borders(document)
    sums = [0]  # tokens up to each border; pieces counted apart have a few more than together
    begin = 0
    for end in ends:
        sums.append(sums[-1] + count(document.text[begin:end]))
        begin = end
    starts = [0, *ends]
    if sums[-1] <= room:
        return (Part(0, len(document.text), sums[-1]),)
    cuts: list[tuple[int, int]] = []  # of borders
    first = 0
    while True:
        last = max(bisect_right(sums, sums[first] + room) - 1, first + 1)  # a piece above the room goes on its own
        if last >= len(ends):
            cuts.append((first, len(ends)))
            break
        nearest = bisect_left(sums, sums[first] + (1 - WINDOW) * room, first + 1, last)
        last = max(range(nearest, last + 1), key=lambda border: (strengths[border - 1], border))
        cuts.append((first, last))
        back = bisect_left(sums, sums[last] - min(overlap, room // 4), first + 1, last)
        first = back
    return tuple(
        Part(starts[begin], starts[end], sums[end] - sums[begin], number, len(cuts))
        for number, (begin, end) in enumerate(cuts, 1)
    )


def _borders(document: Document) -> tuple[list[int], list[int]]:
    """Where the text may be cut, with how good each place is; the last is its end."""
    text = document.text
    headings = {heading.start for heading in document.headings}
    pages = {page.end for page in document.pages if page.end > page.start}
    ends: list[int] = []
    strengths: list[int] = []

    def add(end: int, strength: int) -> None:
        ends.append(end)
        strengths.append(HEADING if end in headings else PAGE if end in pages else strength)

    for line in re.finditer(r"[^\n]*(?:\n+|\Z)", text):
        if line.end() == line.start():
            continue
        for end in _inside(line[0]):
            add(line.start() + end, SENTENCE if line[0][end - 1].isspace() else INSIDE)
        add(line.end(), PARAGRAPH if line[0].endswith("\n\n") else LINE)
    return ends or [0], strengths or [LINE]


def _inside(line: str) -> Iterator[int]:
    """Cuts inside of a line that is too long to be a piece: behind sentences, or anywhere."""
    begin = 0
    while len(line) - begin > PIECE:
        window = line[begin : begin + PIECE]
        sentences = [match.end() for match in re.finditer(r"[.!?;]\s+|[。！？]", window)]
        spaces = window.rfind(" ") + 1
        begin += sentences[-1] if sentences else spaces or PIECE
        yield begin


@dataclass(frozen=True)
class Planned:
    """One document's share of a job: its parts, and how often one of them is still to be asked a question."""

    name: str
    parts: tuple[Part, ...]
    asks: int

    @property
    def tokens(self) -> int:
        """Of the document, which is read once where anything is to be asked of it."""
        return sum(part.tokens for part in self.parts)

    @property
    def requests(self) -> int:
        """An answer and its evidence for each; not what auto, deliberate, a second try or joining parts may add."""
        return 2 * self.asks

    @property
    def cached_tokens(self) -> int:
        """Of the requests' prompts: the document, which the cache holds by then."""
        return self.requests * self.tokens // len(self.parts)

    @property
    def prompt_tokens(self) -> int:
        return self.cached_tokens + (self.tokens if self.asks else 0)
