"""The passage of a text that comes nearest to a quote, and where the two differ, word by word.

Runs of characters that the quote shares with the text vote for where it may stand; the few places with most votes are
aligned in windows of the quote's length. So the work depends on the quote, not on the text, once the runs are sorted.
"""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq

from programs.documents.answer import Side
from programs.documents.border import is_border
from programs.documents.fold import DASHES, HYPHENS, SOFT, SPACELESS, Skeleton, pieces

SHORT = 48  # quotes of fewer characters share only short runs with what they come from
SHORT_RUN, LONG_RUN = 4, 8  # characters
MOST_RUNS = 2000  # of a quote, evenly spread
MOST_VOTES = 20_000
WINDOWS = 3  # aligned
MOST_WORDS = 3000  # aligned; an alignment takes their square in bits
LONGEST_WORD = 48  # characters
MOST_REPLACED = 3  # words at a passage's end that are taken for what the quote has instead
LEAST_SHARED = 0.4  # of a quote's letters, in words in the same order; unrelated English prose shares up to 0.25

_WORD = rf"[^\W{SPACELESS}]+"
_TOKEN = re.compile(
    rf"[{SPACELESS}]|{_WORD}(?:(?:[{HYPHENS}'\u2019.,:/{SOFT}]|[{HYPHENS}{SOFT}][^\S\n]*\n\s*){_WORD})*|[.]{{2,}}|\S"
)
_LINE_END_HYPHEN = re.compile(rf"(?<=[^\W\d])[{HYPHENS}{SOFT}][^\S\n]*\n\s*(?=[^\W\d])")

Codes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Near:
    """A passage text[start:end]; `difference`: pieces of both, of the quote alone, of the source alone, in order;
    `whole`: whether all of the quote was compared."""

    start: int
    end: int
    difference: tuple[tuple[Side, str], ...]
    whole: bool


class _Token(NamedTuple):
    """`key` is equal for words that differ by form alone; the word and what follows it are text[start:next]."""

    key: str
    start: int
    end: int


class _Piece(NamedTuple):
    """Words of the quote, of the source, or of both."""

    side: Side
    said: Sequence[_Token]
    words: Sequence[_Token]


class Nearest:
    """Finds the passage nearest to a quote in one text. Sorts the text's runs at the first quote of each length."""

    def __init__(self, source: Skeleton) -> None:
        self.source = source
        self._lock = threading.Lock()
        self._sorted: dict[int, Codes] = {}

    def passage(self, quote: str, known: tuple[int, int] | None = None) -> Near | None:
        """The nearest passage, None where too little of the quote stands anywhere. `known`: where the quote's
        characters are known to stand, within longer words."""
        all_said = _tokens(quote, 0, len(quote))
        said = all_said[:MOST_WORDS]
        places = [known] if known else self._places(Skeleton(quote))
        aligned = []
        for start, end in places:
            words = _tokens(self.source.text, *self._whole_words(start, end))
            align = _aligned if known else _narrowed
            aligned.append(align(said, words[: 2 * MOST_WORDS]))
        best = max(aligned, key=_shared, default=None)
        if not best or (not known and _shared(best) < max(1, LEAST_SHARED * _letters(said))):
            return None
        return _near(quote, self.source.text, best, whole=len(said) == len(all_said))

    def _places(self, quote: Skeleton) -> list[tuple[int, int]]:
        """Windows of the text in which most of the quote's rarest runs stand in the quote's order."""
        length = len(quote)
        size = SHORT_RUN if length < SHORT else LONG_RUN
        runs = _hashes(quote, size)
        if not len(runs):
            return []
        indexed = self._index(size)
        where = np.unique(np.linspace(0, len(runs) - 1, min(MOST_RUNS, len(runs)), dtype=np.int64))
        low = np.searchsorted(indexed, runs[where] << np.uint64(32))
        high = np.searchsorted(indexed, (runs[where] << np.uint64(32)) | np.uint64(0xFFFFFFFF), side="right")
        counts = np.minimum(high - low, MOST_VOTES)
        rarest = np.argsort(counts, kind="stable")
        rarest = rarest[counts[rarest] > 0]
        rarest = rarest[: max(1, int(np.searchsorted(np.cumsum(counts[rarest]), MOST_VOTES, side="right")))]
        if not len(rarest):
            return []
        counts, low = counts[rarest], low[rarest]
        votes = int(counts.sum())
        taken = np.repeat(low - (np.cumsum(counts) - counts), counts) + np.arange(votes)
        at = (indexed[taken] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        begins = at - np.repeat(where[rarest], counts)  # where the quote would begin
        width = max(8, length // 4)
        bins, cast = np.unique(begins // width, return_counts=True)
        following = np.where(np.diff(bins, append=bins[-1]) == 1, np.append(cast[1:], 0), 0)
        slack = 16 + length // 8
        windows = []
        for best in np.argsort(-(cast + following), kind="stable")[:WINDOWS]:
            inside = begins[(begins >= bins[best] * width) & (begins < (bins[best] + 2) * width)]
            first = max(0, int(inside.min()) - slack)
            last = min(len(self.source), int(inside.max()) + length + slack) - 1
            windows.append((int(self.source.origin[first]), int(self.source.origin[last]) + 1))
        return windows

    def _index(self, size: int) -> Codes:
        """The text's runs of a size, sorted: the hash in the upper 32 bits, the place in the lower."""
        with self._lock:
            if size not in self._sorted:
                runs = _hashes(self.source, size)
                self._sorted[size] = np.sort((runs << np.uint64(32)) | np.arange(len(runs), dtype=np.uint64))
            return self._sorted[size]

    def _whole_words(self, start: int, end: int) -> tuple[int, int]:
        """The passage without half words at its ends, within reason."""
        text = self.source.text
        for _ in range(LONGEST_WORD):
            start -= not is_border(text, start)
            end += not is_border(text, end)
        return start, end


def _hashes(skeleton: Skeleton, size: int) -> Codes:
    """Of every run of `size` characters 32 bits, [characters - size + 1]."""
    count = len(skeleton) - size + 1
    if count < 1:
        return np.empty(0, np.uint64)
    codes = skeleton.codes.astype(np.uint64)
    hashes = np.zeros(count, np.uint64)
    for offset in range(size):
        hashes = hashes * np.uint64(0x100000001B3) + codes[offset : offset + count]
    return (hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


def _tokens(text: str, start: int, end: int) -> list[_Token]:
    """The words, numbers and signs of text[start:end]; of scripts without spaces each character."""
    found = ((_key(match[0]), *match.span()) for match in _TOKEN.finditer(text, start, end))
    return [_Token(*token) for token in found if token[0]]


@lru_cache(maxsize=65536)
def _key(token: str) -> str:
    joined = _LINE_END_HYPHEN.sub("", token)
    return "".join("-" if character in DASHES else pieces(character) for character in joined)


def _letters(tokens: Sequence[_Token]) -> int:
    return sum(len(token.key) for token in tokens)


def _shared(aligned: Sequence[_Piece]) -> int:
    return sum(_letters(piece.said) for piece in aligned if piece.side == "both")


def _aligned(said: list[_Token], words: list[_Token]) -> list[_Piece]:
    """Both in the order of their longest common subsequence."""
    numbers: dict[str, int] = {}
    first = [numbers.setdefault(token.key, len(numbers)) for token in said]
    second = [numbers.setdefault(token.key, len(numbers)) for token in words]
    found: list[_Piece] = []
    for step in LCSseq.opcodes(first, second):
        mine, theirs = said[step.src_start : step.src_end], words[step.dest_start : step.dest_end]
        if step.tag == "equal":
            found.append(_Piece("both", mine, theirs))
            continue
        behind_source = bool(found) and found[-1].side == "source"
        if mine:  # the quote's words first
            found.insert(len(found) - behind_source, _Piece("quote", mine, ()))
        if theirs:
            found.append(_Piece("source", (), theirs))
    return found


def _narrowed(said: list[_Token], words: list[_Token]) -> list[_Piece]:
    """Aligned without the words at the window's ends, some of which the quote shares by chance."""
    wide = _aligned(said, words)
    shared = [place for place, piece in enumerate(wide) if piece.side == "both"]
    if not shared:
        return wide
    first, last = _outermost(wide, shared), _outermost(wide, shared[::-1])
    if first > last:
        first = last = max(shared, key=lambda place: _letters(wide[place].said))
    start = sum(len(piece.words) for piece in wide[:first])
    end = start + sum(len(piece.words) for piece in wide[first : last + 1])
    before = sum(len(piece.said) for piece in wide[:first])
    behind = sum(len(piece.said) for piece in wide[last + 1 :])
    near = _aligned(said, words[max(0, start - before) : end + behind])
    shared = [place for place, piece in enumerate(near) if piece.side == "both"] or [0]
    return [*_edge(near[: shared[0]]), *near[shared[0] : shared[-1] + 1], *_edge(near[shared[-1] + 1 :])]


def _outermost(aligned: list[_Piece], shared: list[int]) -> int:
    """The first of the shared pieces that is not far from the next, for so few words."""
    for place, following in pairwise(shared):
        between = aligned[min(place, following) + 1 : max(place, following)]
        inserted = sum(_letters(piece.words) - _letters(piece.said) for piece in between)
        if 2 * _letters(aligned[place].said) >= inserted:
            return place
    return shared[-1]


def _edge(pieces: list[_Piece]) -> list[_Piece]:
    """The source's words only where the quote has a few others in their place."""
    mine = sum(len(piece.said) for piece in pieces)
    return [piece for piece in pieces if piece.side == "quote" or 0 < mine <= MOST_REPLACED]


def _near(quote: str, text: str, aligned: list[_Piece], whole: bool) -> Near | None:
    found = [piece for piece in aligned if piece.words]
    if not found:
        return None
    difference: list[tuple[Side, str]] = []
    for piece in aligned:
        side = piece.side
        shown = _text(text, piece.words) if side == "source" else _text(quote, piece.said)
        if difference and difference[-1][0] == side:
            shown = difference.pop()[1] + shown
        difference.append((side, shown))
    return Near(found[0].words[0].start, found[-1].words[-1].end, tuple(difference), whole)


def _text(text: str, tokens: Sequence[_Token]) -> str:
    """The tokens with the white space after them, as one space."""
    end = tokens[-1].end
    space = " " if text[end : end + 1].isspace() else ""
    return " ".join(text[tokens[0].start : end].split()) + space
