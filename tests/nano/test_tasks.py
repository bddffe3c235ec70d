"""The tasks' answers are right, and what is held out is never generated in training."""

import json
import random
import re
from collections import Counter
from zlib import crc32

import pytest

from sgl_small4.nano import CHECKPOINT, cases
from sgl_small4.nano.conversation import COPYING, Format
from sgl_small4.nano.mixture import Mixture
from sgl_small4.nano.tasks import arithmetic, tools
from sgl_small4.nano.tasks.documents import MISSING, OTHER_QUOTES, QUOTE, Document, held_out, quote
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


def test_a_quote_is_the_whole_line_of_the_last_question() -> None:
    for seed in range(200):
        document = Document(seed, 100, lambda text: len(text.split()))
        for check in (0, 1):
            turn = document.question(missing=0, check=check)
            (line,) = json.loads(quote(turn).answer)
            fact = next(fact for fact in document.facts if fact.line == line)
            assert any(turn.question.startswith(asked.text) or asked.text in turn.question for asked in fact.questions)
            assert fact.line in document.text
        assert json.loads(quote(document.question(missing=1)).answer) == []


def test_evidence_is_asked_for_in_the_words_of_the_document_jobs() -> None:
    """Mostly, and only after an answer about a document; the reply is JSON at either effort."""
    coder = Coder(CHECKPOINT / "tekken.json")
    mixture = Mixture(random.Random(2), Format(coder), SHARE, 0.5)
    asked: Counter[str] = Counter()
    for row in mixture.rows(120, 512, (0, 1, 0, 0)).ids.tolist():
        turns = coder.decode(row).split("[INST]")
        for before, turn in zip(turns[1:], turns[2:], strict=False):
            question, reply = turn.split("[/INST]")
            if question not in (QUOTE, *OTHER_QUOTES):
                continue
            answer = reply.split("</s>")[0].split("[/THINK]")[-1]
            quoted = json.loads(answer)
            asked[question] += 1
            assert (quoted == []) == before.endswith(f"{MISSING}</s>")
            assert all(line in turns[0] or line in turns[1] for line in quoted)
    assert sum(asked.values()) > 60 and 0.7 < asked[QUOTE] / sum(asked.values()) < 1


def test_without_quotes_no_evidence_is_asked_for() -> None:
    coder = Coder(CHECKPOINT / "tekken.json")
    rows = Mixture(random.Random(2), Format(coder), SHARE, 0.0).rows(60, 512, (0, 1, 0, 0))
    assert not any(asked in coder.decode(row) for row in rows.ids.tolist() for asked in (QUOTE, *OTHER_QUOTES))


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
    mixture = Mixture(random.Random(0), Format(Coder(CHECKPOINT / "tekken.json")), SHARE, 0.3)
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
    about = cases.documents(source, 20, 2000, 5, len)
    for case, later in zip(cases.quotes(about, 5), cases.quotes(about, 5, 3), strict=True):
        answered = case.history[-1]
        assert case.turn == later.turn == quote(answered) and later.history[-1] == answered
        assert len(case.history) == 1 and len(set(later.history)) >= 3 and len(later.history) == 4
        assert all(turn.answer in case.system for turn in later.history)
    for made in cases.calculations(source, 200):
        assert crc32(made.expression.encode()) % 10 == 0 and str(value(made.expression)) == made.answer


@pytest.mark.parametrize("length", [256, 1024])
def test_rows_mark_replies_and_nothing_else(length: int) -> None:
    """A loss is never on padding, on a question or on a document; conversations do not see each other."""
    mixture = Mixture(random.Random(0), Format(Coder(CHECKPOINT / "tekken.json")), SHARE, 0.3)
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
