"""The tasks' answers are right, and what is held out is never generated in training."""

import random
import re
from zlib import crc32

import pytest

from sgl_small4.nano import CHECKPOINT, cases
from sgl_small4.nano.conversation import COPYING, Format
from sgl_small4.nano.mixture import Mixture
from sgl_small4.nano.tasks import arithmetic, tools
from sgl_small4.nano.tasks.documents import MISSING, Document, held_out
from sgl_small4.nano.tokenizer import CONTROL, Coder

SHARE = arithmetic.Share(checks=0.3, easy=0.3, pairs=0.5, near=0.5)


def value(expression: str) -> int:
    """Independent of the tasks: signed integers, added; or two multiplied."""
    if "*" in expression:
        a, b = expression.split("*")
        return int(a) * int(b)
    return sum(int(part) for part in re.findall(r"[+-]?\d+", expression.replace(" ", "")))


@pytest.mark.parametrize("high", [True, False])
def test_every_step_of_a_trace_is_right(high: bool) -> None:
    source = random.Random(0)
    for _ in range(2000):
        numbers, operators = arithmetic.draw(source, high, arithmetic.Share())
        trace, result = arithmetic.work(numbers, operators)
        whole, *steps = trace.split("\n")
        assert whole == arithmetic.expression(numbers, operators) and value(whole) == int(result)
        for step in steps:
            asked, digits, rest = re.fullmatch(r"([\d+-]+):(.*)>(.*)", step).groups()
            assert value(rest) == int(result)
            assert int(re.match(r"\d+", rest).group()) == value(asked)
            for digit in digits.split(","):
                left, right = digit.split("=")
                assert value(left) == int(right)


def test_half_of_the_answers_to_check_are_wrong() -> None:
    source = random.Random(0)
    said = [arithmetic.check(source, *arithmetic.draw_long(source, 3)).answer for _ in range(1000)]
    assert 430 < said.count("yes") < 570 and set(said) == {"yes", "no"}


def test_a_comparison_names_one_of_its_numbers() -> None:
    source = random.Random(0)
    for _ in range(500):
        turn = arithmetic.comparison(source)
        numbers = [int(n) for n in re.findall(r"\d+", turn.question)]
        larger = any(word in turn.question.lower() for word in ("larger", "bigger", "greater"))
        assert int(turn.answer) == (max(numbers) if larger else min(numbers))


def test_the_document_holds_every_answer_but_the_missing() -> None:
    for seed in range(200):
        document = Document(seed, 100, lambda text: len(text.split()))
        for _ in range(5):
            turn = document.question(missing=0)
            quote = turn.trace.split("\n")[0]
            assert quote in document.text and turn.answer in quote
            absent = document.question(missing=1)
            assert absent.answer == MISSING
            subject = re.fullmatch(r"No line about (.*)\.", absent.trace).group(1)
            assert subject in absent.question
            assert not any(fact.subject == subject for fact in document.facts)


def test_nothing_held_out_is_generated_in_training(monkeypatch) -> None:
    """Every expression and document of a few thousand training conversations, caught where it is made."""
    seen: dict[str, list] = {"sums": [], "calls": [], "seeds": []}
    work, init, call = arithmetic.work, Document.__init__, tools.call

    def catch_work(numbers, operators):
        seen["sums"].append((numbers, operators))
        return work(numbers, operators)

    def catch_document(self, seed, *rest):
        seen["seeds"].append(seed)
        init(self, seed, *rest)

    def catch_call(*arguments):
        seen["calls"].append(made := call(*arguments))
        return made

    monkeypatch.setattr(arithmetic, "work", catch_work)
    monkeypatch.setattr(Document, "__init__", catch_document)
    monkeypatch.setattr(tools, "call", catch_call)
    mixture = Mixture(random.Random(0), Format(Coder(CHECKPOINT / "tekken.json")), SHARE)
    for _ in range(40):
        mixture.rows(32, 256, (1, 3, 6, 3))
    assert min(map(len, seen.values())) > 300
    assert not any(arithmetic.held_out(numbers, operators) for numbers, operators in seen["sums"])
    assert not any(held_out(seed) for seed in seen["seeds"])
    easy = {frozenset(n) for n, o in seen["sums"] if len(n) == 2 and o == "+" and max(n) < arithmetic.EASY}
    kept = {
        frozenset((a, b)) for a in range(20) for b in range(20) if crc32(f"{min(a, b)}+{max(a, b)}".encode()) % 7 == 0
    }
    assert len(easy) > 150 and not easy & kept
    assert not any(tools.held_out(made.expression) for made in seen["calls"])


def test_cases_are_held_out() -> None:
    source = random.Random(0)
    for case in cases.sums(source, 200):
        expression = case.turn.trace.split("\n")[0]
        assert 3 <= len(expression.split("+")) <= 5 and crc32(expression.encode()) % 10 == 0
    for case in cases.easy_sums(source, 200):
        a, b = sorted(int(n) for n in case.turn.trace.split("\n")[0].split("+"))
        assert b < 20 and crc32(f"{a}+{b}".encode()) % 7 == 0
    for made in cases.calculations(source, 200):
        assert crc32(made.expression.encode()) % 10 == 0 and str(value(made.expression)) == made.answer


@pytest.mark.parametrize("length", [256, 1024])
def test_rows_mark_replies_and_nothing_else(length: int) -> None:
    """A loss is never on padding, on a question or on a document; conversations do not see each other."""
    mixture = Mixture(random.Random(0), Format(Coder(CHECKPOINT / "tekken.json")), SHARE)
    rows = mixture.rows(16, length, (0, 3, 3, 3))
    inside = {
        CONTROL[f"[{name}]"]: CONTROL[f"[/{name}]"]
        for name in ("INST", "SYSTEM_PROMPT", "AVAILABLE_TOOLS", "TOOL_RESULTS")
    }
    for ids, marks, start in zip(rows.ids.tolist(), rows.marks.tolist(), rows.start.tolist(), strict=True):
        closing = None
        for at, (token, mark) in enumerate(zip(ids, marks, strict=True)):
            closing = inside.get(token, closing)
            assert not (mark and closing) and not (mark and token == CONTROL["<pad>"]) and mark != COPYING
            if token == closing:
                closing = None
            begins = token in (CONTROL["<s>"], CONTROL["<pad>"])
            assert start[at] == (at if begins else start[at - 1])
