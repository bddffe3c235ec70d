"""Quotes out of a model's reply, whole or broken; and the marks [1] of an answer over numbered sources."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from programs.documents.cite import quotes_of, references


@pytest.mark.parametrize(
    ("reply", "quotes"),
    [
        ('["The rent is due.", "It is 940 euro."]', ["The rent is due.", "It is 940 euro."]),
        ("[]", []),
        ('```json\n["a b",\n "c"]\n```', ["a b", "c"]),
        ('Of source [1] I quote: ["a b"]. That is all [2].', ["a b"]),
        ('{"quotes": ["a b", "c"]}', ["a b", "c"]),
        ('[{"quote": "a b"}, {"quote": "c"}]', ["a b", "c"]),
        ('["two\nlines", "an \\"inner\\" one", "[/INST]"]', ["two\nlines", 'an "inner" one', "[/INST]"]),
        ('["half a pair \\ud83d"]', ["half a pair \ufffd"]),
    ],
)
def test_a_list_is_read_with_nothing_to_say(reply: str, quotes: list[str]) -> None:
    assert quotes_of(reply) == (quotes, "")


@pytest.mark.parametrize(
    ("reply", "quotes", "said"),
    [
        ('["one", "two", "thr', ["one", "two"], "2 complete"),
        ('["one", "two",', ["one", "two"], "2 complete"),
        ('["one', [], "0 complete"),
        ('{"quotes": ["one", "tw', ["one"], "1 complete"),
        ('[{"quote": "one"}, {"quote": "tw', ["one"], "1 complete"),
        ('["He said "no" to it", "second"]', ['He said "no" to it', "second"], "not JSON"),
        ('["see ["a"] here", "b"]', ['see ["a"] here', "b"], "not JSON"),
        ('["He said "no" to it", "second", "thi', ['He said "no" to it', "second"], "2 complete"),
        ('["one", "two",]', ["one", "two"], "not JSON"),
        ('["C:\\path", "b"]', ["C:\\path", "b"], "not JSON"),
        ('["a", 5, null, " "]', ["a"], "3 of 4"),
        ("I cannot help with that.", [], "no list"),
        ("I will not quote [1] or [2].", [], "no list"),
        ('{"answer": "none"}', [], "no list"),
        ("", [], "empty"),
        (" \n", [], "empty"),
    ],
)
def test_what_is_complete_is_kept_and_the_rest_is_told(reply: str, quotes: list[str], said: str) -> None:
    found, wrong = quotes_of(reply)
    assert found == quotes
    assert said in wrong and wrong.endswith(".") and wrong.count(". ") == 0


@given(st.text(alphabet='[]{}",\\ \nab1', max_size=60))
def test_no_reply_fails(reply: str) -> None:
    quotes, wrong = quotes_of(reply)
    assert all(quote.strip() for quote in quotes)
    assert wrong or "[" in reply


@pytest.mark.parametrize(
    "reply", ["[" * 100_000, '"' * 100_000, '["' + " " * 100_000 + "x", '["' + '" ' * 50_000, '{"a":' * 50_000]
)
def test_no_reply_is_slow(reply: str) -> None:
    started = time.process_time()
    quotes_of(reply)
    assert time.process_time() - started < 3


def test_marks_are_renumbered_by_first_mention() -> None:
    found = references("The rent [3] is due [1]. It rises [3]; see [1][2].", 3)
    assert found.text == "The rent [1] is due [2]. It rises [1]; see [2][3]."
    assert (found.used, found.removed) == ((3, 1, 2), 0)


def test_lists_and_ranges_keep_what_exists() -> None:
    found = references("Rent [2, 9], deposit [1-3], end [7; 8].", 3)
    assert found.text == "Rent [1], deposit [2, 1, 3], end."
    assert (found.used, found.removed) == ((2, 1, 3), 3)


def test_marks_of_no_source_go_with_their_space() -> None:
    found = references("Rent [1], due [4]. Zero [0] here [5][6]. [7] End[8].\n[9] Line", 3)
    assert found.text == "Rent [1], due. Zero here. End.\nLine"
    assert (found.used, found.removed) == ((1,), 7)


def test_a_row_of_marks_leaves_no_stray_comma() -> None:
    assert references("see [4], [5]. And [1], [4]. Or [4], [1].", 3).text == "see. And [1]. Or [1]."


def test_without_sources_every_mark_names_nothing() -> None:
    found = references("Rent [1].", 0)
    assert (found.text, found.used, found.removed) == ("Rent.", (), 1)


@pytest.mark.parametrize(
    "text",
    [
        "In [2020] it was so, and 【2021】.",
        "Take array[0] and f(x)[0].",
        "Code `x[1]` and ``y[2] ` z[7]`` stay.",
        "```python\nx[1] = y[9]\n```\nend",
        "~~~\nx[9]\n",
        "A share in [0, 1] and [0-9].",
        "See [1](https://example.org/) and \\[1\\].",
        "A list [a, 1], a note [^1], a box [ ] and [x].",
    ],
)
def test_what_is_no_citation_stays(text: str) -> None:
    found = references(text, 3)
    assert (found.text, found.used, found.removed) == (text, (), 0)


def test_a_backtick_that_opens_nothing_hides_no_mark() -> None:
    assert references("the ` key [4] and [1]", 3).text == "the ` key and [1]"


@given(st.text(alphabet="[]0123456789,-; .a`\n\\", max_size=60), st.integers(0, 12))
def test_every_mark_that_is_left_names_a_used_source(answer: str, sources: int) -> None:
    found = references(answer, sources)
    assert all(1 <= number <= sources for number in found.used)
    assert len(set(found.used)) == len(found.used)
    assert found.removed or found.used or found.text == answer


def test_no_answer_is_slow() -> None:
    started = time.process_time()
    for answer in (
        "[1] " * 50_000,
        "`" * 100_000,
        "` `` " * 20_000,
        "[1" + " " * 100_000,
        "```\n" * 30_000,
        "[9]" * 50_000,
    ):
        references(answer, 3)
    assert time.process_time() - started < 5
