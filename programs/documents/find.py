"""Where a quote stands in a text, and how exactly: the same characters, the same but for named rules, something near,
or nothing.

A quote is found only between borders of words and numbers: 94 does not stand in 940, nor 5 in -5, nor refundable in
non-refundable. Whatever the input, the work on one quote is bounded by the length of the text.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, get_args

from programs.documents.answer import Grade, Rule, Side
from programs.documents.border import is_border, next_start, within_ascii_word
from programs.documents.fold import DIRECTION, SOFT, ZERO_WIDTH, Skeleton, gap_rules, rules_between
from programs.documents.nearest import Nearest

MOST_PLACES = 1000
WORK = 2_000_000  # spent on passages that turn out to be cut or not to match: their characters, and
TRY = 64  # for each of them, or
LOOK_AROUND = 500  # where its neighbours do not tell at once
LOOKED_THROUGH = 200_000  # characters compared one by one
FEWEST_TRIES = 4  # passages compared at least, however long
ONLY_LETTERS = "its letters stand there, but not as these words and signs"
NOT_WHOLE = "so long that only its beginning was compared"
WITHIN_A_WORD = "stands there only within a longer word or number"

BESIDE = 1000  # characters beside a passage in which signs at the quote's edge are looked for, at least
FEW_SIGNS = 8  # at a quote's edge, tried in every number

_BULLET = re.compile(r"\s*(?:[-*+\u2022\u2023\u25aa\u25e6\u2013]|#{1,6}|>)\s+(?=[^\s\d.,])")
_EMPHASISED = re.compile(r"(?<![\w*`])(\*\*|\*|`)(?=\S)([^*`]+)(?<=\S)\1(?![\w*`])")
_PAIRS = [("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ("`", "`"), ('"', '"'), ("'", "'")]
_PAIRS += [("\u201c", "\u201d"), ("\u201e", "\u201c"), ("\u2018", "\u2019"), ("\u00ab", "\u00bb"), ("\u300c", "\u300d")]


@dataclass(frozen=True)
class Found:
    """A quote at text[start:end], its first place, or what comes nearest to it. `rules`: those that a folded one needs,
    the fewest. `places`: how many passages of this grade do not overlap, up to MOST_PLACES. `difference`: pieces that
    stand in both, in the quote alone or in the source alone. `hint`: what the reader should know."""

    grade: Grade
    rules: tuple[Rule, ...] = ()
    start: int | None = None
    end: int | None = None
    places: int = 0
    difference: tuple[tuple[Side, str], ...] = ()
    hint: str = ""

    @property
    def verified(self) -> bool:
        return self.grade in ("exact", "folded")


class _Reading(NamedTuple):
    """A quote as it was given, or without what the model put around it, which takes rules."""

    text: str
    rules: frozenset[Rule]


class _Passage(NamedTuple):
    start: int
    end: int
    rules: frozenset[Rule]


class Finder:
    """Finds quotes in one text. What takes time is built at the first quote that does not stand there as it is; any
    number of threads may ask."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._lock = threading.Lock()

    def find(self, quote: str) -> Found:
        """Where the quote stands. Of several folded passages the first with the fewest rules; white space alone is
        absent everywhere."""
        readings = list(_readings(quote))
        if not readings or not self.text:
            return Found("absent")
        cut: tuple[int, int] | None = None
        unlike: tuple[int, int] | None = None
        for reading in readings:
            places, first_cut = self._exact(reading.text)
            cut = cut or first_cut
            if places:
                return _found(places, reading.rules)
        with self._lock:  # built once, however many ask
            source, nearest = self._skeleton, self._nearest
        for reading in readings:
            if reading.text != reading.text.strip():
                continue
            places, first_unlike = _folded(source, Skeleton(reading.text))
            unlike = unlike or first_unlike
            if places:
                return _found(places, reading.rules)
        near = nearest.passage(readings[-1].text, cut or unlike)
        if near is None:
            return Found("absent")
        hint = WITHIN_A_WORD if cut else ONLY_LETTERS if unlike else "" if near.whole else NOT_WHOLE
        return Found("different", (), near.start, near.end, 0, near.difference, hint)

    @cached_property
    def _skeleton(self) -> Skeleton:
        return Skeleton(self.text)

    @cached_property
    def _nearest(self) -> Nearest:
        return Nearest(self._skeleton)

    def _exact(self, quote: str) -> tuple[list[_Passage], tuple[int, int] | None]:
        """The passages that equal the quote; and the first that does but is cut from a longer word or number."""
        places: list[_Passage] = []
        cut = None
        work, at = WORK, 0
        while work > 0 and len(places) < MOST_PLACES and (start := self.text.find(quote, at)) >= 0:
            end = start + len(quote)
            begins = not within_ascii_word(self.text, start) and is_border(self.text, start)
            if begins and is_border(self.text, end):
                places.append(_Passage(start, end, frozenset()))
                at = end
                continue
            cut = cut or (start, end)
            work -= len(quote) + (LOOK_AROUND if begins else TRY)
            at = next_start(self.text, start, begins)
        return places, cut


def _folded(source: Skeleton, quote: Skeleton) -> tuple[list[_Passage], tuple[int, int] | None]:
    """The passages that equal the quote under some rules; and the first whose letters do, but which does not, or which
    is cut from a longer word."""
    places: list[_Passage] = []
    unlike = None
    work, looked, tries, at = WORK, LOOKED_THROUGH, 0, 0
    while len(quote) and work > 0 and (looked > 0 or tries < FEWEST_TRIES) and len(places) < MOST_PLACES:
        place = source.chars.find(quote.chars, at)
        if place < 0:
            break
        at = place + 1
        work -= len(quote) + TRY
        after = place + len(quote)
        if not source.starts_at(place) or not source.starts_at(after):
            continue
        start, end = int(source.origin[place]), int(source.origin[after - 1]) + 1
        unlike = unlike or (start, end)
        # Dashes around the quote move its ends.
        bare = quote.origin[0] == 0 and quote.origin[-1] == len(quote.text) - 1
        if bare and (within_ascii_word(source.text, start) or within_ascii_word(source.text, end)):
            continue
        work -= LOOK_AROUND
        if bare and not (is_border(source.text, start) and is_border(source.text, end)):
            continue
        looked -= len(quote.text) + end - start
        tries += 1
        passage = _passage(source, place, quote)
        if passage and is_border(source.text, passage.start) and is_border(source.text, passage.end):
            places.append(passage)
            at = after
    return places, unlike


def _passage(source: Skeleton, place: int, quote: Skeleton) -> _Passage | None:
    """The passage that equals the quote, with the dashes that the quote begins or ends with."""
    rules = rules_between(source, place, quote)
    if rules is None:
        return None
    text, after = source.text, place + len(quote)
    start, end = int(source.origin[place]), int(source.origin[after - 1]) + 1
    lead, trail = quote.text[: quote.origin[0]], quote.text[quote.origin[-1] + 1 :]
    if lead:
        before = text[int(source.origin[place - 1]) + 1 if place else 0 : start]
        edge = _edge(before[::-1][: 2 * len(lead) + BESIDE], lead, backwards=True)
        if edge is None:
            return None
        start -= edge[1]
        rules |= edge[2]
    if trail:
        behind = text[end : int(source.origin[after]) if after < len(source) else len(text)]
        edge = _edge(behind[: 2 * len(trail) + BESIDE], trail)
        if edge is None:
            return None
        end += edge[1]
        rules |= edge[2]
    return _Passage(start, end, frozenset(rules))


def _edge(around: str, signs: str, backwards: bool = False) -> tuple[int, int, frozenset[Rule]] | None:
    """How many of the signs around a passage, the nearest first, equal those at the quote's edge, by the fewest rules:
    (how many rules, how many characters, which rules)."""
    ends = [0, *(place for place, sign in enumerate(around, 1) if not sign.isspace())]
    wanted = len("".join(signs.split()))
    if wanted > FEW_SIGNS:  # a ruled line: as many as the quote has, or none
        ends = [0, *ends[wanted : wanted + 1]]
    found = []
    for end in ends[: 2 * FEW_SIGNS]:
        piece = around[:end][::-1] if backwards else around[:end]
        rules = gap_rules(piece, signs, " ", " ")
        if rules is not None:
            found.append((len(rules), end, rules))
    return min(found, default=None, key=lambda edge: edge[:2])


def _found(places: list[_Passage], rules: frozenset[Rule]) -> Found:
    best = min(places, key=lambda passage: len(passage.rules))
    needed = best.rules | rules
    grade: Grade = "folded" if needed else "exact"
    named = tuple(rule for rule in get_args(Rule) if rule in needed)
    return Found(grade, named, best.start, best.end, len(places))


def _readings(quote: str) -> Iterator[_Reading]:
    """The quote, and what is left of it without the white space, bullet, quotation marks and emphasis around it, and
    without emphasis within. A bullet before a digit may be a sign, and underscores around one word part of it."""
    inner = quote.strip()
    if not inner.translate(dict.fromkeys(map(ord, SOFT + ZERO_WIDTH + DIRECTION))):
        return
    yield _Reading(quote, frozenset())
    rules: frozenset[Rule] = frozenset()
    if inner != quote:
        rules = frozenset({"white space"})
        yield _Reading(inner, rules)
    rules |= {"typographic form"}
    for _ in range(4):
        bare = _unwrapped(inner)
        if bare == inner or not bare:
            break
        inner = bare
        yield _Reading(inner, rules)
    plain = _EMPHASISED.sub(r"\2", inner)
    if plain != inner:
        yield _Reading(plain, rules)


def _unwrapped(quote: str) -> str:
    if bullet := _BULLET.match(quote):
        return quote[bullet.end() :]
    for opening, closing in _PAIRS:
        if len(quote) > len(opening + closing) and quote.startswith(opening) and quote.endswith(closing):
            inner = quote[len(opening) : -len(closing)]
            if "_" not in opening or " " in inner:
                return inner.strip()
    return quote
