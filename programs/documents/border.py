"""Where a quote may begin and end: between words and numbers, not within them.

94 does not stand in 940, nor 5 in -5 or 1.5, nor can in can't, nor refundable in non-refundable. Scripts without spaces
between words have a border between any two characters.
"""

import re

from programs.documents.fold import DASHES, DIRECTION, HYPHENS, SOFT, SPACELESS, is_letter, is_mark, is_word

_SPACELESS = re.compile(f"[{SPACELESS}]")
_WHERE_WORDS_MAY_BEGIN = re.compile(rf"\W|[{SPACELESS}]")
_INVISIBLE = dict.fromkeys(map(ord, SOFT + DIRECTION + "\u2060\ufeff"))
_LINE_END_HYPHEN = re.compile(rf"\w[{HYPHENS}{SOFT}][^\S\n]*\n\s*\Z")
_HYPHEN_LINE_END = re.compile(rf"[{HYPHENS}{SOFT}][^\S\n]*\n\s*\w")
_APOSTROPHES = "'\u2019\u02bc"
_WITHIN_NUMBERS = ".,:/\u066b\u066c" + _APOSTROPHES
_NUMBER_SPACES = "[\u00a0\u2009\u202f]"  # 10 000: before three digits, they are part of the number
_GROUP = re.compile(r"\d{3}(?!\d)")
_GROUPED = re.compile(rf"\d{_NUMBER_SPACES}\Z")
_SPACED_GROUP = re.compile(rf"{_NUMBER_SPACES}\d{{3}}(?!\d)")
_SIGNS = "-+\u00b1\u2010\u2011\u2012\u2013\u2212"
_VOICED = "\u3099\u309a"  # they make another kana of the one before
_AROUND = 48  # characters in which a border's neighbours are looked for


def is_border(text: str, place: int) -> bool:
    """Whether a quote may begin or end before text[place]: not within a word, a number, a compound with hyphens, or
    before the apostrophe of can't, or before a combining mark; anywhere in scripts without spaces."""
    all_before, all_after = text[max(0, place - _AROUND) : place], text[place : place + _AROUND]
    before, after = all_before.translate(_INVISIBLE), all_after.translate(_INVISIBLE)
    if not before or not after:
        return True
    left, right = before[-1], after[0]
    if left.isspace() and right.isspace():
        return True
    if (is_mark(right) and not _SPACELESS.match(right)) or "\u200d" in (left, right) or right in _VOICED:
        return left.isspace()
    if _SPACELESS.match(left) or _SPACELESS.match(right):
        return True
    if (_GROUPED.search(before) and _GROUP.match(after)) or (left.isdecimal() and _SPACED_GROUP.match(after)):
        return False
    if is_word(left):
        if is_word(right):
            return False
        return not _goes_on(left, right, after[1:2]) and not _HYPHEN_LINE_END.match(all_after)
    if is_word(right):
        return not _goes_on(before[-2:-1], left, right, begins=True) and not _LINE_END_HYPHEN.search(all_before)
    return True


def within_ascii_word(text: str, place: int) -> bool:
    """What most cut passages are told by, quickly."""
    around = text[place - 1 : place + 1] if place else ""
    return len(around) == 2 and around.isascii() and around.isalnum()


def _goes_on(left: str, joint: str, right: str, begins: bool = False) -> bool:
    """Whether a word or number goes on over the character between two others. `begins`: the quote would begin after
    the joint; what begins after an apostrophe, as in l'homme, is a word."""
    numbers = left.isdecimal() and right.isdecimal()
    if joint in HYPHENS and left and right:
        return (is_word(left) and is_word(right)) or (begins and right.isdecimal())
    if joint in _WITHIN_NUMBERS + DASHES and numbers:
        return True
    if joint in _APOSTROPHES:
        return not begins and bool(left and right) and is_letter(left) and is_letter(right)
    if begins and right.isdecimal():
        return joint in _SIGNS or (joint == "." and not is_word(left or " "))
    return False


def next_start(text: str, start: int, begins: bool) -> int:
    """From where on the quote may begin again after a cut passage: within a word it does not."""
    if begins:
        return start + 1
    following = _WHERE_WORDS_MAY_BEGIN.search(text, start + 1)
    return following.start() if following else len(text)
