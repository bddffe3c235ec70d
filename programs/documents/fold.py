"""What a quote and a passage may differ in and still say the same, by named rules.

`Skeleton` is a text with everything gone that any rule may change: white space, hyphens and dashes, marks of emphasis,
ligatures, forms of characters, case. Equal skeletons make a candidate; `rules_between` then looks at every difference
that the skeletons hide and names the rules it takes, or says that it changes the meaning, as that between re-sign and
resign does.

Superscripts, fractions, letters of other alphabets and digits of other scripts stay as they are, so that 10² is not
102, β not beta, and ٣ not 3: only fullwidth digits, which are a form of the same ones, are equal to them.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import combinations

import numpy as np

from programs.documents.answer import Rule

SOFT = "\u00ad\x02\ufffe"  # soft hyphens; the last two are what pdfium writes for a hyphen at a line's end
HYPHENS = "-\u2010\u2011"
LONG_DASHES = "\u2013\u2014\u2015"
DASHES = HYPHENS + "\u2012\u2212\ufe58\ufe63\uff0d" + LONG_DASHES
ZERO_WIDTH = "\u200b\u2060\ufeff\u180e"
DIRECTION = "\u200c\u200e\u200f\u061c\u0640" + "".join(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
EMPHASIS = "*`"

# Scripts that put no space between words: Thai, Lao, Myanmar, Khmer, kana, bopomofo, Han. Their digits are left out.
SPACELESS = (
    "\u0e01-\u0e4f\u0e81-\u0ecf\u1000-\u103f\u104a-\u109f\u1780-\u17d3\u3005-\u3007\u3041-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U000323af"
)
_JOINED = re.compile(rf"[{SPACELESS}\u3001-\u3003\u3008-\u3011\u3014-\u301f\uff01-\uff60]")

_LIGATURES = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
_LIGATURE_BEFORE_SPACE = re.compile(r"(?:ff[il]?|f[il]|[\ufb00-\ufb04])(?=[^\S\n])", re.IGNORECASE)
_LIGATURE_AFTER_SPACE = re.compile(r"(?:^|\s)(?:ff[il]?|f[il]|[\ufb00-\ufb04])\Z", re.IGNORECASE)
_THIN = ("\u00a0", "\u2009", "\u202f")
_SPACES = re.compile(r"[^\S\n]+")
_LINE_END = re.compile(rf"([{HYPHENS}{SOFT}])[^\S\n]*\n\s*")
# Signs of units that mean something else in the other case: megawatts and milliwatts, bytes and bits, kelvins and
# thousands. They follow a number.
_CASED_UNIT = re.compile(
    r"\d[^\S\n]*((?:m(?:g|w|v|a|s|m|l|j|n|f|hz|pa|ev|wh|va|mol)|[kmgt]?(?:b|bps|bit|bits)|[mkgs])(?![^\W_]))",
    re.IGNORECASE,
)
_SOFT_BREAK = re.compile(rf"[{SOFT}][^\S\n]*\n\s*")


def _forms() -> dict[int, str]:
    """Characters that are a typographic form of others."""
    forms = dict.fromkeys("\u2018\u2019\u201a\u201b\u2039\u203a\u02bc\u2032\u00b4", "'")
    forms |= dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"')
    forms |= {"\u2026": "...", "\u2025": ".."}
    ranges = ((0xFB13, 0xFB18), (0xFB1D, 0xFDFA), (0xFE70, 0xFEFD), (0xFF01, 0xFFEF))  # Armenian to fullwidth
    for code in (code for first, end in ranges for code in range(first, end)):
        plain = unicodedata.normalize("NFKC", chr(code))
        if plain != chr(code) and not any(_is_dropped(part) for part in plain):
            forms[chr(code)] = plain
    return str.maketrans(forms)


def _is_dropped(character: str) -> bool:
    return character.isspace() or character in SOFT + DASHES + ZERO_WIDTH + DIRECTION + EMPHASIS


_FORMS = _forms()


def _decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text.translate(_FORMS)).translate(_FORMS)


@lru_cache(maxsize=65536)
def pieces(character: str) -> str:
    """What a character leaves in the skeleton."""
    if _is_dropped(character):
        return ""
    plain = _decomposed(_decomposed(_LIGATURES.get(character, character)).casefold()).casefold()
    return character if not plain or any(map(_is_dropped, plain)) else plain


class Skeleton:
    """`chars`, and for each of them `origin`: the number of the text's character that it comes from."""

    def __init__(self, text: str) -> None:
        self.text = text
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        present, index = np.unique(codes, return_inverse=True)
        parts = [pieces(chr(code)) for code in present.tolist()]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        pool = np.frombuffer("".join(parts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        counts = lengths[index]
        self.origin = np.repeat(np.arange(len(codes), dtype=np.int32), counts)
        # Each character's pieces stand one after the other in the pool: its first one, and how far into them we are.
        within = np.arange(len(self.origin)) - np.repeat(np.cumsum(counts) - counts, counts)
        first = np.cumsum(lengths) - lengths
        self.codes = pool[np.repeat(first[index], counts) + within]

    @cached_property
    def chars(self) -> str:
        return self.codes.tobytes().decode("utf-32-le", "surrogatepass")

    def __len__(self) -> int:
        return len(self.origin)

    def starts_at(self, place: int) -> bool:
        """Whether one of the text's characters begins here, rather than being cut, as ﬁ before its i."""
        return place in (0, len(self)) or bool(self.origin[place - 1] != self.origin[place])


def rules_between(source: Skeleton, place: int, quote: Skeleton) -> set[Rule] | None:
    """The rules under which the passage that begins at `place` of the skeleton equals the quote, None where they do
    not make it equal. Both begin and end with a character of the skeleton."""
    text, said = source.text, quote.text
    rules: set[Rule] = set()
    balance = 0  # marks of emphasis that open less those that close
    positions = zip(source.origin[place : place + len(quote)].tolist(), quote.origin.tolist(), strict=True)
    first, other_first = last, other_last = next(positions)
    for at, other_at in positions:
        if at != last and other_at != other_last:
            rules |= _form_rules(text[first : last + 1], said[other_first : other_last + 1])
            if at - last > 1 or other_at - other_last > 1:
                gap, other_gap = text[last + 1 : at], said[other_last + 1 : other_at]
                if gap != other_gap:
                    sides = text[last], text[at]
                    found = gap_rules(gap, other_gap, *sides)
                    if not found and not other_gap and _splits_ligature(text, last + 1, at):
                        found = frozenset({"ligature"})
                    if not found:
                        return None
                    rules |= found
                    balance += _balance(gap, *sides) - _balance(other_gap, *sides)
            first, other_first = at, other_at
        elif at - last > 1 or other_at - other_last > 1:
            return None  # something stands inside what is one character on the other side
        last, other_last = at, other_at
    rules |= _form_rules(text[first : last + 1], said[other_first : other_last + 1])
    start, end = int(source.origin[place]), last + 1
    if "case" in rules and _CASED_UNIT.findall(text, start, end) != _CASED_UNIT.findall(said):
        return None
    opened_before = balance == -1 and text[:start].endswith(tuple(EMPHASIS))
    closed_after = balance == 1 and text[end : end + 1] in tuple(EMPHASIS)
    return rules if balance == 0 or opened_before or closed_after else None


def gap_rules(gap: str, other: str, left: str, right: str) -> frozenset[Rule] | None:
    """The fewest rules that make what stands between the characters `left` and `right` equal to `other`: white space,
    hyphens, dashes. None where they do not."""
    if gap == other:
        return frozenset()
    if len(gap) + len(other) > 200:  # rows of blanks: not worth keeping
        return _gap_rules.__wrapped__(gap, other, left, right)
    return _gap_rules(gap, other, left, right)


@lru_cache(maxsize=8192)
def _gap_rules(gap: str, other: str, left: str, right: str) -> frozenset[Rule] | None:
    for rules in _subsets(("white space", "hyphen", "typographic form")):
        if not _gap_forms(gap, rules, left, right).isdisjoint(_gap_forms(other, rules, left, right)):
            return frozenset(rules)
    return None


def _gap_forms(gap: str, rules: tuple[Rule, ...], left: str, right: str) -> set[str]:
    """All that a gap may be written as under the rules."""
    forms = {gap}
    if "typographic form" in rules:
        plain = "".join("-" if part in DASHES and part not in LONG_DASHES else part for part in gap)
        plain = _without(plain, DIRECTION)
        plain = _without_emphasis(plain, left, right)
        # "--" is a dash typed by hand; it is not a hyphen, so only a dash of the other side equals it
        forms = {"".join(dash if part in LONG_DASHES else part for part in plain) for dash in ("-", "--", "---")}
    if "hyphen" in rules:
        forms = set().union(*(_joined_lines(form, left, right) for form in forms))
    if "white space" in rules:
        forms = set().union(*(_one_space(form, left, right) for form in forms))
    return forms


def _joined_lines(gap: str, left: str, right: str) -> set[str]:
    """With the hyphen that ends a line kept, and, between letters, dropped; soft hyphens dropped."""
    letters = is_letter(left) and is_letter(right)
    forms = {gap, _without(_SOFT_BREAK.sub("", gap) if letters else gap, SOFT)}
    if (line_end := _LINE_END.fullmatch(gap)) and is_word(left) and is_word(right):
        forms.add("-" if line_end[1] in SOFT else line_end[1])
        if letters:
            forms.add("")
    return forms


def _one_space(gap: str, left: str, right: str) -> set[str]:
    """With every run of white space as one space. A line break may also be nothing where words have no spaces, and so
    may the no-break space that some languages set within quotation marks, before signs, and before a percent sign."""
    visible = _without(gap, ZERO_WIDTH)
    forms = {re.sub(r"\s+", " ", visible)}
    if visible in _THIN and (left in "\u00ab\u2039" or right in "\u00bb\u203a:;!?%"):
        forms.add("")
    if "\n" in visible and (_JOINED.match(left) or _JOINED.match(right)):
        forms.add(re.sub(r"\s+", lambda run: "" if "\n" in run[0] else " ", visible))
    return forms


def _without(text: str, characters: str) -> str:
    return text.translate(dict.fromkeys(map(ord, characters)))


def _without_emphasis(gap: str, left: str, right: str) -> str:
    """Without Markdown's stars and backticks where they touch a word on one side and none on the other."""
    bare = gap.strip(EMPHASIS)
    if bare == gap or (bare and not re.search(r"\s", bare)):
        return gap
    if not bare and (is_word(left) == is_word(right)) and (is_word(left) or gap == "*"):
        return gap  # 2*3, and )*(
    return bare


def _balance(gap: str, left: str, right: str) -> int:
    """How many marks of emphasis open here, less those that close: `a **b` opens, `a** b` closes."""
    spaced = bool(re.search(r"\s", gap))
    opening = gap.endswith(tuple(EMPHASIS)) and (spaced or (not is_word(left) and right not in ".,;:!?)]}"))
    closing = gap.startswith(tuple(EMPHASIS)) and (spaced or not is_word(right))
    return opening - closing if spaced or not opening else 1


def _splits_ligature(text: str, start: int, end: int) -> bool:
    """Whether the spaces at text[start:end] set a ligature off from its word, as in "of fi ce": ` fi ` alone, or at
    the word's beginning or end."""
    if not _SPACES.fullmatch(text, start, end):
        return False
    return bool(
        _LIGATURE_BEFORE_SPACE.match(text, end) or _LIGATURE_AFTER_SPACE.search(text[max(0, start - 4) : start])
    )


@lru_cache(maxsize=8192)
def _form_rules(source: str, quote: str) -> frozenset[Rule]:
    """The fewest rules that make two pieces equal whose skeletons are."""
    if source == quote:
        return frozenset()
    for rules in _subsets(("ligature", "typographic form", "case")):
        if _formed(source, rules) == _formed(quote, rules):
            return frozenset(rules)
    return frozenset({"ligature", "typographic form", "case"})


def _formed(piece: str, rules: tuple[Rule, ...]) -> str:
    if "ligature" in rules:
        piece = "".join(_LIGATURES.get(part, part) for part in piece)
    if "typographic form" in rules:
        piece = _decomposed(piece)
    if "case" in rules:
        piece = piece.casefold()
        if "typographic form" in rules:
            piece = _decomposed(piece).casefold()
    return piece


def _subsets(rules: Iterable[Rule]) -> Iterator[tuple[Rule, ...]]:
    rules = tuple(rules)
    for size in range(1, len(rules) + 1):
        yield from combinations(rules, size)


def is_mark(character: str) -> bool:
    """A combining character, which belongs to the one before it."""
    return unicodedata.category(character)[0] == "M"


def is_letter(character: str) -> bool:
    return character.isalpha() or is_mark(character)


def is_word(character: str) -> bool:
    return character.isalnum() or character == "_" or is_mark(character)
