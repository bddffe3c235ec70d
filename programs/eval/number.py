"""The last number of a text, read as people write numbers."""

import re
from dataclasses import dataclass
from decimal import Context, Decimal

_MOST_DIGITS = 400
_EXACT = Context(prec=4 * _MOST_DIGITS + 2000)  # room for every digit of a product of two numbers with exponents
_MINUS = "\u2212\u2013\\-"  # inside a character class
_GROUPING = "\u00a0\u202f\u2009'\u2019"  # no-break, narrow and thin spaces, apostrophes
_NUMBER = re.compile(
    rf"""
    (?P<sign>[+{_MINUS}])?(?P<gap>[ ])?(?:[$€£¥][ ]?)?
    (?P<body>\d+(?:[.,{_GROUPING}]\d+)*|[.,]\d+)
    (?:[eE](?P<exponent>[+-]?\d+)(?!\w)|\s?[x×*]\s?10\^(?P<power>[+\-\u2212]?\d+))?
    (?P<slashed>(?:\s?[/⁄]\s?\d+)+)?
    (?P<percent>\s?%)?
    """,
    re.VERBOSE,
)
_SPACED = re.compile(rf"[+{_MINUS}]?\s?[$€£¥]?\s?\d{{1,3}}(?: \d{{3}})+(?:[.,]\d+)?\s?[%$€£¥]?\.?")


@dataclass(frozen=True)
class Number:
    """`above / below`, and whether a percent sign follows it."""

    above: Decimal
    below: Decimal = Decimal(1)
    percent: bool = False

    def equals(self, other: "Number") -> bool:
        """Equal in value: 1, 1.0 and 2/2 are. Where one has a percent sign, the other may be in per cent or be the
        fraction: 12.5 % equals 12.5 and 0.125, but 12.5 does not equal 0.125."""
        if _equal(self, other):
            return True
        if self.percent == other.percent:
            return False
        return _equal(self, other, 100) if self.percent else _equal(other, self, 100)


def last_number(text: str) -> Number | None:
    """The last number in `text`, None where there is none.

    Signs, decimals, exponents, fractions such as 3/4 (two slashes make a date, whose last part is read), percent signs.
    A hyphen between words or numbers is no sign. Commas, apostrophes and no-break spaces before groups of three digits
    stand for thousands, and so do two or more dots; a single comma before any other count of digits is a decimal one;
    where dots and commas are mixed, the last is the decimal one; a single dot is always decimal. Ordinary spaces are
    thousands only where the whole text is that number. Separators that fit none of these separate numbers.
    """
    if _SPACED.fullmatch(text.strip()):
        text = text.strip().replace(" ", "\u202f")
    found = None
    for match in _NUMBER.finditer(text):
        found = _read(match) or found
    return found


def _read(match: re.Match[str]) -> Number | None:
    body, below = _plain(match["body"]), Decimal(1)
    power = (match["exponent"] or match["power"] or "0").replace("\u2212", "-")
    slashed = re.findall(r"\d+", match["slashed"] or "")
    if max(len(body), *map(len, slashed), 0) > _MOST_DIGITS or len(power) > len("-999"):
        return None
    if len(slashed) > 1:
        return Number(Decimal(slashed[-1]))
    if slashed:
        below = Decimal(slashed[0])
        if not below:
            return None
    above = Decimal(f"{body}e{power}")
    return Number(-above if _negative(match) else above, below, match["percent"] is not None)


def _negative(match: re.Match[str]) -> bool:
    """A minus that touches its number counts unless a word or number touches it on the left; one with a space to its
    right also stands for a difference after a word."""
    if not match["sign"] or match["sign"] == "+":
        return False
    before = match.string[max(0, match.start() - 40) : match.start()]
    return not re.search(r"[\w)\]]\s*$" if match["gap"] else r"[\w)\]]$", before)


def _plain(body: str) -> str:
    """`1.234,5` as `1234.5`."""
    for mark in _GROUPING:
        body = body.replace(mark, "'")
    *whole, last = re.split(r"[.,']", body)
    marks = re.findall(r"[.,']", body)
    if not marks:
        return body
    grouped = 0 < len(whole[0]) <= 3 and whole[0].lstrip("0") != "" and all(len(part) == 3 for part in whole[1:])
    if len(set(marks)) == 1 and grouped and len(last) == 3 and marks != ["."]:
        return "".join(whole) + last
    if len(marks) == 1 and marks[0] != "'":
        return f"{whole[0]}.{last}"
    if grouped and marks[-1] != "'" and len(set(marks[:-1])) == 1 and marks[-1] != marks[0]:
        return f"{''.join(whole)}.{last}"
    return last


def _equal(one: Number, other: Number, times: int = 1) -> bool:
    """Whether `one` is `times` `other`, exactly."""
    left = _EXACT.multiply(one.above, other.below)
    return left == _EXACT.multiply(Decimal(times), _EXACT.multiply(other.above, one.below))
