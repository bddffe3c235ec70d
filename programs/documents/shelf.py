"""Numbered documents for a system prompt: all where they fit, else the passages that rank best for a question.

A document is numbered when it is first shown and keeps its number, so that a mark such as [3] means the same at every
turn of a conversation.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any
from unicodedata import normalize

from programs.documents.document import Document
from programs.documents.fold import SPACELESS
from programs.documents.plan import Count, parts_of

PASSAGE = 1024  # tokens, and no more than an eighth of the room
BEST = 3  # passages that rank first for a question: a choice that holds them serves it
EARLIER = 3  # questions before it that a question may lean on, as in "and how much is it?"
GAP = "\n(…)\n"  # between two passages of a document that do not follow each other
JOINT = "\n\n"

# Words cut to five characters find "batteries" for "battery" in most languages that use spaces (McNamee, Nicholas and
# Mayfield: Addressing morphological variation in alphabetic languages, SIGIR 2009); others are taken in pairs.
STEM = 5
_WORD = re.compile(rf"[{SPACELESS}]+|[^\W{SPACELESS}]+")
_SPACELESS = re.compile(f"[{SPACELESS}]")


@dataclass(frozen=True)
class Passage:
    """text[start:end] of the document at a place on the shelf."""

    place: int
    start: int
    end: int
    tokens: int


@dataclass(frozen=True)
class Choice:
    """What stands in the prompt, as `text`.

    `shown`: the places of the documents that it holds something of; `numbered`: those of all documents that were shown
    so far, the first being number 1; `whole`: how many are shown from beginning to end; `left_out`: the others, a
    sentence each.
    """

    text: str
    shown: tuple[int, ...]
    numbered: tuple[int, ...]
    whole: int
    left_out: tuple[str, ...]
    passages: frozenset[int]


class Shelf:
    """Documents with a text, for a prompt that has `room` tokens for them."""

    def __init__(self, documents: Sequence[Document], room: int, count: Count) -> None:
        self._documents, self._room = documents, room
        size = min(PASSAGE, max(1, room // 8))
        self._heads = [count(_head(len(documents), document.name) + JOINT) for document in documents]
        self._gap = count(GAP)
        self._passages = [
            Passage(place, part.start, part.end, part.tokens)
            for place, document in enumerate(documents)
            for part in parts_of(document, size, 0, count)
            if part.start < part.end
        ]
        self.tokens = sum(self._heads) + sum(passage.tokens for passage in self._passages)

    @property
    def fits(self) -> bool:
        """Whether all documents go into the prompt whole."""
        return self.tokens <= self._room

    def choose(self, question: str, earlier: Sequence[str] = (), last: Choice | None = None) -> Choice:
        """What to read for a question. `earlier`: the questions before it; `last`: what was chosen for the one before,
        which is kept where it serves, so that the prompt's prefix stays the same."""
        if last is not None and (self.fits or self._serves(last, question)):
            return last
        numbered = last.numbered if last else ()
        if self.fits:
            return self._choice(range(len(self._passages)), numbered)
        best = self._ranked(question)[:BEST]
        others = self._ranked(" ".join([question, *earlier[-EARLIER:]])) or range(len(self._passages))
        return self._choice(self._taken(dict.fromkeys([*best, *others])), numbered)

    def _serves(self, last: Choice, question: str) -> bool:
        return last.passages.issuperset(self._taken(self._ranked(question)[:BEST]))

    def _ranked(self, query: str) -> list[int]:
        """The passages that share a word with the query, the best first."""
        asked = list(_terms(query))
        if not asked:
            return []
        scores = self._index.get_scores(asked)
        return sorted((passage for passage, score in enumerate(scores) if score > 0), key=lambda each: -scores[each])

    def _taken(self, ranked: Iterable[int]) -> Iterator[int]:
        """Passages in their rank's order that find room."""
        room, begun = self._room, set[int]()
        for number in ranked:
            passage = self._passages[number]
            needed = passage.tokens + self._gap + (0 if passage.place in begun else self._heads[passage.place])
            if needed <= room:
                room -= needed
                begun.add(passage.place)
                yield number

    def _choice(self, chosen: Iterable[int], numbered: tuple[int, ...]) -> Choice:
        passages = frozenset(chosen)
        runs = {
            place: list(_runs(of_one))
            for place, of_one in groupby((self._passages[each] for each in sorted(passages)), lambda each: each.place)
        }
        numbers = {place: number for number, place in enumerate(dict.fromkeys([*numbered, *runs]), 1)}
        texts = [
            _head(numbers[place], self._documents[place].name)
            + GAP.join(self._documents[place].text[start:end] for start, end in spans)
            for place, spans in runs.items()
        ]
        left_out = [
            f"{document.name}: {'only in part' if place in runs else 'not'} read for this question, as the documents "
            "do not fit the context together"
            for place, document in enumerate(self._documents)
            if runs.get(place) != [(0, len(document.text))]
        ]
        whole = len(self._documents) - len(left_out)
        return Choice(JOINT.join(texts), tuple(runs), tuple(numbers), whole, tuple(left_out), passages)

    @cached_property
    def _index(self) -> Any:
        import bm25s  # it brings numba, which takes a second that documents that fit need not wait for

        index = bm25s.BM25()
        texts = [(self._documents[each.place], each) for each in self._passages]
        terms = [[*_terms(document.name), *_terms(document.text[each.start : each.end])] for document, each in texts]
        index.index([found or [""] for found in terms], show_progress=False)
        return index


def _runs(passages: Iterable[Passage]) -> Iterator[tuple[int, int]]:
    """Passages of one document, joined where one follows the other."""
    start, end = -1, -1
    for passage in passages:
        if passage.start != end:
            if end >= 0:
                yield start, end
            start = passage.start
        end = passage.end
    yield start, end


def _head(number: int, name: str) -> str:
    return f"[{number}] {name}\n"


def _terms(text: str) -> Iterator[str]:
    """What a text is ranked by."""
    for word in _WORD.findall(normalize("NFKC", text).casefold()):
        if _SPACELESS.match(word):
            yield from (word[start : start + 2] for start in range(max(1, len(word) - 1)))
        else:
            yield word[:STEM]
