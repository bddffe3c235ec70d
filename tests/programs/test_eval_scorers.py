"""Scorers: what is right, what is not, and what cannot be told."""

import time
from pathlib import Path
from typing import Any

import pytest

from programs.errors import ProgramError
from programs.eval.cases import Case
from programs.eval.scorers import SCORERS, CannotScore, chooser, scorer
from programs.eval.tags import take_out_trace


def case(answer: Any, choices: tuple[str, ...] = (), name: str | None = None) -> Case:
    return Case(1, "?", answer, None, None, choices, name, None, {"answer": answer})


def score(name: str, answer: str, expected: Any, choices: tuple[str, ...] = ()) -> float:
    return scorer(name)(answer, case(expected, choices))


@pytest.mark.parametrize(
    ("content", "answer", "trace"),
    [
        ("[THINK]maybe 7[/THINK]9", "9", "maybe 7"),
        ("[THINK]maybe 7", "", "maybe 7"),
        ("9", "9", ""),
        ("<think>maybe 7</think>\n\n9", "9", "maybe 7"),
        ("<think>maybe 7", "", "maybe 7"),
        ("maybe 7</think>9", "9", "maybe 7"),
        ("<think>a<think>b</think>c</think>9", "9", "abc"),
        ("<THINKING>7</Thinking> 9", "9", "7"),
        ("9 <think>7", "9", "7"),
        ("<think></think>9", "9", ""),
        ("a < think > b", "a < think > b", ""),
    ],
)
def test_a_trace_between_tags_is_taken_out_and_never_graded(content: str, answer: str, trace: str):
    given, taken, _ = take_out_trace(content)
    assert (given, taken) == (answer, trace)


def test_exact_strips_and_composes():
    assert score("exact", " caf\u00e9\n", "cafe\u0301") == 1
    assert score("exact", "Cafe", "cafe") == 0
    assert score("exact", "42", 42) == 1
    assert score("exact", "true", True) == 1
    assert score("exact", "b", ["a", "b"]) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The sum is 1,234.", "1234"),
        ("$1,234.50", "1234.5"),
        ("1.234,50 Euro", "1234.5"),
        ("1.234.567", "1234567"),
        ("1'234'567", "1234567"),
        ("10\u202f000 people", "10000"),
        ("1 234 567", "1234567"),
        ("first 3, then 7", "7"),
        ("\u22127", "-7"),
        ("5-3", "3"),
        ("x = -3", "-3"),
        ("3,5", "3.5"),
        ("0,125", "1/8"),
        ("3/4", "0.75"),
        ("1.5e3", "1500"),
        ("1.5 × 10^3", 1500),
        ("12.5 %", "12.5"),
        ("12.5%", "0.125"),
        ("0.125", "12.5 %"),
        (".5", "0.50"),
        ("**42**", "42"),
        ("42.", 42.0),
        ("12/05/2024", "2024"),
        ("٣٤", "34"),
        ("it is 7 of 9", ["3", "9"]),
    ],
)
def test_numbers_are_read_as_people_write_them(answer: str, expected: Any):
    assert score("number", answer, expected) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("1.234", "1234"),
        ("0.125", "12.5"),
        ("7", "-7"),
        ("seven", "7"),
        ("9 or 7", "9"),
        ("1e999999999", "1"),
        ("9" * 5000, "9"),
        ("0.30000000000000004", "0.3"),
        ("4/0", "4"),
    ],
)
def test_other_numbers_are_not_equal(answer: str, expected: str):
    assert score("number", answer, expected) == 0


@pytest.mark.parametrize("text", ["1 " * 50_000, "1," * 50_000, "1/" * 50_000, "-" * 50_000, "9" * 100_000 + "x"])
def test_a_long_answer_is_read_in_no_time(text: str):
    began = time.perf_counter()
    score("number", text, "7")
    score("choice", text + " A" * 5000, "B", ("Paris", "Rome"))
    assert time.perf_counter() - began < 3


@pytest.mark.parametrize(
    ("answer", "expected", "choices"),
    [
        ("B", "B", ()),
        ("b", "B", ()),
        ("(B)", "B", ()),
        ("**B.**", "B", ()),
        ("The answer is B.", "B", ()),
        ("Answer: b", "B", ()),
        ("A good answer is B", "B", ()),
        ("I think it is B", "B", ()),
        ("It is not A but B", "B", ()),
        ("B. Because A is wrong", "B", ()),
        ("B\n\nA is wrong.", "B", ()),
        ("\\boxed{C}", "C", ()),
        ("B: Rome", "B", ("Paris", "Rome")),
        ("It is Rome.", "B", ("Paris", "Rome")),
        ("rome", "Rome", ("Paris", "Rome")),
        ("B", "Rome", ("Paris", "Rome")),
        ("Rome, not Paris", "B", ("Paris", "Rome")),
        ("vitamin C", "A", ("Vitamin C", "Vitamin D", "Iron")),
        ("Not guilty.", "not guilty", ("guilty", "not guilty")),
        ("Yes, it is.", "yes", ()),
        ("False", False, ()),
    ],
)
def test_an_answer_that_settles_on_the_option_is_right(answer: str, expected: Any, choices: tuple[str, ...]):
    assert score("choice", answer, expected, choices) == 1


@pytest.mark.parametrize(
    ("answer", "expected", "choices"),
    [
        ("A or B", "B", ()),
        ("The answer is A or B", "A", ()),
        ("A) this\nB) that", "A", ()),
        ("A. Paris or B. Rome", "A", ()),
        ("A good guess", "A", ()),
        ("Because", "B", ()),
        ("It is not B", "B", ()),
        ("C", "B", ()),
        ("B) Paris", "B", ("Paris", "Rome")),
        ("Romeo", "Rome", ("Paris", "Rome")),
        ("not guilty", "guilty", ("guilty", "not guilty")),
        ("Yes and no", "yes", ()),
        ("No", "yes", ()),
        ("That is not in the document.", "no", ()),
    ],
)
def test_an_answer_that_settles_on_another_or_on_none_is_wrong(answer: str, expected: str, choices: tuple[str, ...]):
    assert score("choice", answer, expected, choices) == 0


def test_a_pattern_matches_the_whole_answer():
    assert score("regex", " 2024-05-01\n", r"\d{4}-\d\d-\d\d") == 1
    assert score("regex", "on 2024-05-01", r"\d{4}-\d\d-\d\d") == 0


def test_a_pattern_that_runs_away_or_is_not_valid_cannot_score_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("programs.eval.scorers.REGEX_SECONDS", 0.1)
    began = time.perf_counter()
    with pytest.raises(CannotScore, match="took longer"):
        score("regex", "a" * 60 + "b", r"(a|a)*c|(a|aa)+$")
    assert time.perf_counter() - began < 5
    with pytest.raises(CannotScore, match="not valid"):
        score("regex", "a", "(")


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ('{"b": 1.0, "a": [1, 2]}', {"a": [1, 2], "b": 1}, 1),
        ('```json\n{"a": 1}\n```', '{"a": 1}', 1),
        ("1", "1.0", 1),
        ("0.1", 0.1, 1),
        ("true", 1, 0),
        ("1", True, 0),
        ("[1, 2]", [2, 1], 0),
        ('{"a": 1, "a": 1}', {"a": 1}, 0),
        ('The JSON: {"a": 1}', {"a": 1}, 0),
        ("NaN", 1, 0),
        ('{"a": 1', {"a": 1}, 0),
        ("[" * 100_000, [1], 0),
        ("1e999999999999999999999", 1, 0),
        ("null", {"a": None}, 0),
        ('"a"', '"a"', 1),
    ],
)
def test_json_is_compared_after_reading(answer: str, expected: Any, right: int):
    assert score("json", answer, expected) == right


def test_a_label_that_its_scorer_cannot_read_is_said_not_counted_as_wrong():
    with pytest.raises(CannotScore, match="holds no number"):
        score("number", "7", "seven")
    with pytest.raises(CannotScore, match="is not JSON"):
        score("json", "7", "{")


USERS = """
def length(answer, case):
    return len(answer) == case["answer"]

def half(answer, case):
    return 0.5

def broken(answer, case):
    raise KeyError("page")

def odd(answer, case):
    return "maybe"

def huge(answer, case):
    return 7

def nothing(answer, case):
    return float("nan")
"""


def test_a_users_function_is_given_the_answer_and_the_fields(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(USERS, encoding="utf-8")
    assert score(f"{path}:length", "abc", 3) == 1
    assert score(f"{path}:half", "abc", 3) == 0.5
    for name, why in (("broken", "raised KeyError"), ("odd", "'maybe'"), ("huge", "not from 0"), ("nothing", "nan")):
        with pytest.raises(CannotScore, match=why):
            score(f"{path}:{name}", "abc", 3)


def test_a_scorer_that_is_not_there_is_one_sentence(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text("length = 3\n", encoding="utf-8")
    bad = tmp_path / "bad.py"
    bad.write_text("def f(:\n", encoding="utf-8")
    for name in ("rouge", f"{path}:length", f"{path}:other", f"{tmp_path / 'absent.py'}:f", f"{bad}:f", "", ":"):
        with pytest.raises(ProgramError) as error:
            scorer(name)
        assert "\n" not in str(error.value)


def test_a_line_chooses_among_our_scorers_and_can_run_no_file(tmp_path: Path):
    cases = [case("1", name="number"), case("1")]
    assert [chooser(None, cases)(one) for one in cases] == [SCORERS["number"], SCORERS["exact"]]
    assert chooser("contains", cases)(cases[0]) is SCORERS["contains"]
    marker = tmp_path / "ran"
    path = tmp_path / "evil.py"
    path.write_text(f"open({str(marker)!r}, 'w')\ndef f(a, c): return True\n", encoding="utf-8")
    with pytest.raises(ProgramError, match="Line 1 names the scorer"):
        chooser(None, [case("1", name=f"{path}:f")])
    assert not marker.exists()


@pytest.mark.parametrize("name", ["exact", "number", "contains"])
def test_the_three_outputs_score_right_no_answer_and_right(name: str):
    answers = [take_out_trace(text)[0] for text in ("[THINK]maybe 7[/THINK]9", "[THINK]maybe 7", "9")]
    assert answers[1] == "" and [score(name, answers[at], "9") for at in (0, 2)] == [1, 1]
