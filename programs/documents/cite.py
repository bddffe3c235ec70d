"""What a model claims as evidence, checked: its quotes become citations, its marks [1] name sources that exist."""

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from pydantic_core import from_json

from programs.documents.answer import Citation
from programs.documents.document import Document
from programs.documents.find import Finder

DAMAGED_PASSAGE = "the text is damaged there: some of its characters could not be read"
DAMAGED_TEXT = "some characters of the text could not be read, so that it may stand there in part"
NOT_SHOWN = "text that the page does not show"
NO_TEXT = "the document has no text to find it in"

# U+FFFD, what fonts without Unicode leave (private use), and control characters that no text has
_DAMAGED = re.compile(r"[\ufffd\ue000-\uf8ff\x00\x01\x03-\x08\x0e-\x1b]")
MOST_STARTS = 50  # places of a reply at which a list may begin

_DECODER = json.JSONDecoder(strict=False)  # models write line breaks into strings
_LIST_START = re.compile(r"[\[{]")
_TEXTS_START = re.compile(r'\[\s*"')
_BARE_QUOTE = re.compile(r'\\.|"', re.DOTALL)
_ITEM_END = re.compile(r'\s*+(?:,\s*+"|,?\s*+(\][^\S\n]*+(?:\Z|[\n}`])|\Z))')

# [1], [2, 9], [1-3], and the brackets that some models write
_MARK = re.compile(r"(?:\[|\u3010)\s*([0-9]{1,3}(?:\s*[,;\u2013-]\s*[0-9]{1,3}){0,50})\s*(?:\]|\u3011)(?!\()")
_NUMBERS = re.compile(r"([0-9]+)(?:\s*[\u2013-]\s*([0-9]+))?")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_BACKTICKS = re.compile(r"`+")


def cite(document: Document, finder: Finder, quote: str) -> Citation:
    """A quote as a citation of the document, whose text the finder was made of."""
    found = finder.find(quote)
    hints = [found.hint]
    if not document.text:
        hints.append(NO_TEXT)
    if quote.strip() and not found.verified:
        hints.append(_hidden_hint(document, quote))
    if found.start is not None and found.end is not None:
        if _DAMAGED.search(document.text, found.start, found.end):
            hints.append(DAMAGED_PASSAGE)
    elif quote.strip() and _DAMAGED.search(document.text):
        hints.append(DAMAGED_TEXT)
    page = document.page_at(found.start) if found.start is not None else None
    return Citation(
        quote=quote,
        grade=found.grade,
        rules=found.rules,
        start=found.start,
        end=found.end,
        page=page.number if page else None,
        label=page.label if page else "",
        places=found.places,
        difference=found.difference,
        hint="; ".join(filter(None, hints)),
    )


def _hidden_hint(document: Document, quote: str) -> str:
    for remark in document.of_kind("hidden"):
        if _hidden(remark.text).find(quote).verified:
            where = f"{remark.place}: {remark.what}" if remark.place else remark.what
            return f"stands only in {where}" if NOT_SHOWN in where else f"stands only in {NOT_SHOWN} ({where})"
    return ""


@lru_cache(maxsize=64)
def _hidden(text: str) -> Finder:
    return Finder(text)


def quotes_of(reply: str) -> tuple[list[str], str]:
    """The quotes of a reply that was to be a JSON list of strings, and what was wrong with it in one sentence, "" for
    nothing. Of a list that is cut or broken the complete strings are kept."""
    if not reply.strip():
        return [], "The reply is empty."
    listed = sorted(_lists(reply), key=lambda items: not any(map(_said, items)))  # one with texts before an empty one
    if listed and (any(map(_said, listed[0])) or [] in listed):
        quotes = [said for said in map(_said, listed[0]) if said]
        lost = len(listed[0]) - len(quotes)
        return quotes, f"{lost} of {len(listed[0])} items of the reply's list were no text." if lost else ""
    if start := _TEXTS_START.search(reply):
        quotes, whole = _salvaged(reply[start.end() :])
    else:
        quotes, whole = _cut(reply), False
        if not quotes:
            return [], "The reply holds no list of quotes."
    if whole:
        return quotes, f"The reply's list is not JSON, as by a quotation mark in a quote: {len(quotes)} were read."
    return quotes, f"The reply was cut within its list of quotes: {len(quotes)} complete ones were kept."


def _lists(reply: str) -> Iterator[list[Any]]:
    """The JSON lists of a reply, or those in its objects, each from where it begins, up to a broken list of texts."""
    end = 0
    for start in _starts(reply):
        if start < end:
            continue
        try:
            value, end = _DECODER.raw_decode(reply, start)
        except (ValueError, RecursionError):
            if _TEXTS_START.match(reply, start):
                return
            continue
        if isinstance(value, dict):
            value = _list_in(value)
        if isinstance(value, list):
            yield value


def _cut(reply: str) -> list[str]:
    """The complete texts of a list of objects that the reply's end cuts."""
    for start in _starts(reply):
        try:
            value = from_json(reply[start:], allow_partial=True)
        except ValueError:
            continue
        items = _list_in(value) if isinstance(value, dict) else value
        if isinstance(items, list) and (quotes := [said for said in map(_said, items) if said]):
            return quotes
    return []


def _list_in(value: dict[str, Any]) -> Any:
    return value.get("quotes", next((part for part in value.values() if isinstance(part, list)), None))


def _starts(reply: str) -> list[int]:
    return [match.start() for match in islice(_LIST_START.finditer(reply), MOST_STARTS)]


def _said(item: Any) -> str:
    """An item's text, "" where it is none. Some models write {"quote": ".."} for each."""
    if isinstance(item, dict):
        item = item.get("quote", item.get("text"))
    return _sound(item) if isinstance(item, str) and item.strip() else ""


def _sound(text: str) -> str:
    """Half of an escaped surrogate pair becomes U+FFFD, since no file could hold it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _salvaged(reply: str) -> tuple[list[str], bool]:
    """The complete strings of a list from behind its first quotation mark, and whether the list's end is there.

    A quotation mark ends a string where a comma and another string, or the list's end, follow it. Others belong to it.
    """
    quotes: list[str] = []
    begin: int | None = 0
    for mark in _BARE_QUOTE.finditer(reply):
        if mark[0] != '"':
            continue
        if begin is None:
            begin = mark.end()
        elif ending := _ITEM_END.match(reply, mark.end()):
            if said := _said(_string(reply[begin : mark.start()])):
                quotes.append(said)
            if ending[1]:
                return quotes, True
            begin = None  # until the next one's first quotation mark
    return quotes, False


def _string(written: str) -> str:
    """The string that was written between quotation marks, with those within it that should have been escaped."""
    escaped = _BARE_QUOTE.sub(lambda part: '\\"' if part[0] == '"' else part[0], written)
    try:
        return str(json.loads(f'"{escaped}"', strict=False))
    except ValueError:  # an escape that JSON does not have
        return written


@dataclass(frozen=True)
class References:
    """`text`: the answer with the marks that are left, renumbered; `used`: the source of each new number, in order, as
    it was numbered; `removed`: how many numbers named no source."""

    text: str
    used: tuple[int, ...]
    removed: int


def references(answer: str, sources: int) -> References:
    """An answer over sources numbered from 1 with its citation marks checked and renumbered by first mention.

    A mark is a bracket with numbers of up to three digits, lists and ranges of them: a year is none. Left as they are:
    code, links, brackets behind a backslash, an index [0] directly behind a word, and lists that hold 0, which are
    intervals. Numbers without a source are removed and counted, with the space before a mark that is left empty.
    """
    code = deque(_code_spans(answer))
    used: dict[int, int] = {}
    removed, last, emptied = 0, 0, False
    parts: list[str] = []
    for mark in _MARK.finditer(answer):
        start, end = mark.span()
        while code and code[0][1] <= start:
            code.popleft()
        if (code and code[0][0] <= start) or _is_no_mark(answer[max(0, start - 1) : start], mark[1]):
            continue
        real, missing = _named(mark[1], sources)
        removed += missing
        before, after = answer[last:start], answer[end : end + 1]
        listed = bool(parts) and before.strip(" ") in (",", ";")  # one of several marks: [1], [4]
        if real:
            new = dict.fromkeys(used.setdefault(number, len(used) + 1) for number in real)
            parts += [" " if listed and emptied else before, f"[{', '.join(map(str, new))}]"]
        elif listed:
            parts.append("")
        elif after == " " and (before.endswith("\n") or (not before.strip(" ") and not parts)):
            parts.append(before)
            end += 1  # it began the line
        else:
            closes = not after or after.isspace() or after in ".,;:!?)[\u3010"
            parts.append(before.rstrip(" ") if closes else before)
        last, emptied = end, not real
    return References("".join([*parts, answer[last:]]), tuple(used), removed)


def _named(written: str, sources: int) -> tuple[list[int], int]:
    """The sources that a mark names, and how many of its numbers name none."""
    real: list[int] = []
    count = 0
    for first, last in _NUMBERS.findall(written):
        low, high = sorted((int(first), int(last or first)))
        real += range(max(low, 1), min(high, sources) + 1)
        count += high - low + 1
    return real, count - len(real)


def _is_no_mark(before: str, written: str) -> bool:
    """Whether a bracket with numbers is an index, an interval, or was written to be shown as it is."""
    numbers = [int(number) for found in _NUMBERS.findall(written) for number in found if number]
    if 0 in numbers:
        return len(numbers) > 1 or before.isalnum() or before in ("_", ")")
    return before == "\\"


def _code_spans(text: str) -> list[tuple[int, int]]:
    """Where Markdown's fenced blocks and code between equal runs of backticks stand, in order."""
    blocks = [match.span() for match in _FENCE.finditer(text)]
    spans = list(blocks)
    for start, end in zip([0, *(end for _, end in blocks)], [*(start for start, _ in blocks), len(text)], strict=True):
        runs = [match.span() for match in _BACKTICKS.finditer(text, start, end)]
        following: dict[int, list[int]] = {}  # by length, where runs stand, the last first
        for place in range(len(runs) - 1, -1, -1):
            following.setdefault(runs[place][1] - runs[place][0], []).append(place)
        done = -1
        for place, (opening, opened) in enumerate(runs):
            following[opened - opening].pop()
            if place > done and (same := following[opened - opening]):
                done = same[-1]
                spans.append((opening, runs[done][1]))
    return sorted(spans)
