"""What holds of finding for every text, and that no text makes it slow."""

import random
import re
import subprocess
import sys
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs.documents.answer import Rule
from programs.documents.find import MOST_PLACES, Finder
from programs.documents.fold import DASHES, Skeleton, pieces

WORDS = st.sampled_from(
    ["the", "The", "o\ufb03ce", "office", "of fi ce", "re-sign", "resign", "respon-\nsibility", "responsibility",
     "can't", "can\u2019t", "10", "10²", "1,000", "-5", "\u22125", "caf\u00e9", "cafe\u0301", "**fee**", "fee", "合同",
     "合\n同", "สัญญา", "Straße", "STRASSE", "\U0001f600", "co\u00adop", "coop", "\u201cfee\u201d", '"fee"',
     "a\u200bb", "ab", "…", "...", "-", "--", "\u2014", "not", "\ufffd", "*", "İ", "\ud800"]
)  # fmt: skip
SPACES = st.sampled_from([" ", "\n", "  ", " \n ", "\u00a0", "\t", "\u3000"])
TEXTS = st.lists(st.tuples(WORDS, SPACES), min_size=1, max_size=25)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.data())
def test_every_run_of_words_is_found_exactly(words: list[tuple[str, str]], data: st.DataObject) -> None:
    text = "".join(word + space for word, space in words)
    starts = [sum(len(word + space) for word, space in words[:place]) for place in range(len(words))]
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    quote = text[starts[first] : starts[last] + len(words[last][0])]
    found = Finder(text).find(quote)
    assert found.grade == ("exact" if quote.strip("\u00ad") else "absent")
    assert text[found.start : found.end] == quote


def plain(text: str, rules: tuple[Rule, ...]) -> str:
    """The text under the rules, told more broadly than the finder may: what is equal by it can still be refused."""
    if "typographic form" in rules:
        text = unicodedata.normalize("NFKD", text.replace("…", "..."))
        text = re.sub("[\u201c\u201d]", '"', re.sub("[\u2018\u2019]", "'", text))
        text = re.sub(r"^\s*([-*]\s+)+(?=\S)", "", re.sub(f"[{DASHES}]+", "-", text)).replace("*", "").strip("\"' \n\t")
    if "hyphen" in rules:
        text = re.sub(r"-\s*\n\s*|-", "", text).replace("\u00ad", "")
    if "ligature" in rules:
        text = re.sub(r" ?(ffi|ffl|ff|fi|fl) ?", r"\1", text.replace("\ufb03", "ffi"))
    if "white space" in rules:
        text = re.sub(r"\s+", "", text).replace("\u200b", "")
    return text.casefold() if "case" in rules else text


@settings(max_examples=600, deadline=None)
@given(TEXTS, TEXTS, st.booleans())
def test_what_is_verified_equals_the_passage_by_the_named_rules_alone(
    words: list[tuple[str, str]], others: list[tuple[str, str]], of_it: bool
) -> None:
    text = "".join(word + space for word, space in words)
    # another text, or the same words in other forms and spaces
    quote = "".join(word + space for word, space in others)
    if of_it:
        quote = "".join(w.swapcase().replace("-\n", "") + s for (w, _), (_, s) in zip(words, others, strict=False))
    found = Finder(text).find(quote)
    if found.grade == "exact":
        assert text[found.start : found.end] == quote
    elif found.grade == "folded":
        passage = text[found.start : found.end]
        assert found.rules and plain(passage, found.rules) == plain(quote, found.rules)
        assert not found.difference
    elif found.grade == "different":
        assert found.start is not None and found.places == 0
    else:
        assert (found.start, found.end, found.difference) == (None, None, ())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_a_skeleton_is_what_each_character_leaves(text: str) -> None:
    skeleton = Skeleton(text)
    assert skeleton.chars == "".join(map(pieces, text))
    assert skeleton.origin.tolist() == [place for place, part in enumerate(text) for _ in pieces(part)]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300), st.text(max_size=80))
def test_no_text_and_no_quote_fail(text: str, quote: str) -> None:
    found = Finder(text).find(quote)
    words = quote.strip()
    if words and words.isascii() and words.isprintable():
        assert found.verified or f" {words} " not in f" {text} "


def prose(chance: random.Random, size: int) -> str:
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(3000)]
    return " ".join(chance.choices(words, k=size // 6))[:size]


def seconds(text: str, quotes: list[str]) -> float:
    """Of this process, whatever else the machine does."""
    started = time.process_time()
    finder = Finder(text)
    for quote in quotes:
        finder.find(quote)
    return time.process_time() - started


def test_two_hundred_quotes_in_two_megabytes() -> None:
    chance = random.Random(5)
    text = prose(chance, 2_000_000)
    real = [text[start : start + chance.randint(30, 2000)] for start in chance.sample(range(1_990_000), 100)]
    absent = ["".join(chance.sample(quote, len(quote))) for quote in real[:99]]
    assert seconds(text, [*real, *absent, "a" * 2000]) < 5


LENGTH = 1_000_000
WORST = {
    "one letter": ("a" * LENGTH, ["a" * 30, "a" * 2000, "a" * 100_000, "a" * 500 + "b"]),
    "two letters": ("ab" * (LENGTH // 2), ["ab" * 1000 + "a", "ba" * 50_000, "b" * 100]),
    "one word": (
        "ab " * (LENGTH // 3),
        ["ab " * 300 + "a", "ab " * 30_000 + "a", "AB " * 300 + "A", "ab  " * 9000 + "b"],
    ),
    "one compound": ("ab-ab " * (LENGTH // 6), ["abab " * 300, "ab- ab " * 300, "ab-ab " * 16_000 + "x"]),
    "white space": ("a" + " " * LENGTH + "b", ["a b", "a  c", " ", "\u00a0" * 100 + "b"]),
    "soft hyphens": ("a\u00ad " * (LENGTH // 3), ["a" * 400, "a a a", "\u00ad" * 50_000 + "a"]),
    "line ends": ("a-\n" * (LENGTH // 3), ["a" * 400, "a-a-a", "-" * 50_000]),
    "numbers": ("1.5 " * (LENGTH // 4), ["1", "5", "1.5 1", "1,5"]),
    "emphasis": ("*a* `b` " * (LENGTH // 8), ["a b", "*a b*", "*a " * 30_000, "`" * 50_000]),
    "combining marks": ("e" + "\u0301" * LENGTH, ["e\u0301", "\u00e9", "\u0301" * 2000]),
    "few ideographs": ("的一是不" * (LENGTH // 4), ["的一" * 200, "不是" * 50_000, "是不的"]),
}


@pytest.mark.parametrize("kind", WORST)
def test_no_text_is_slow(kind: str) -> None:
    text, quotes = WORST[kind]
    assert seconds(text, quotes) < 4


def test_a_quote_that_repeats_for_ever_is_counted_within_bounds() -> None:
    assert Finder("ha " * 50_000).find("ha").places == MOST_PLACES


def test_many_threads_find_the_same() -> None:
    chance = random.Random(2)
    text = prose(chance, 200_000)
    quotes = [text[start : start + 120].upper().strip() for start in chance.sample(range(190_000), 40)]
    alone = [Finder(text).find(quote) for quote in quotes]
    shared = Finder(text)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shared.find, quotes)) == alone


def test_finding_imports_no_model() -> None:
    code = "import sys, programs.documents.cite; sys.exit(bool({'torch', 'sglang'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
