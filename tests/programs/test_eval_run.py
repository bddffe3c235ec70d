"""Runs with a fake solver and a fake OpenAI server: outcomes, ends, costs, and what is written."""

import csv
import io
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import stamina
from rich.console import Console

from programs.errors import ProgramError
from programs.eval import files
from programs.eval.cases import Case
from programs.eval.endpoint import ATTEMPTS, Endpoint, Server, answers
from programs.eval.graphs import Graphs
from programs.eval.notes import as_json, notes
from programs.eval.reply import Arm
from programs.eval.run import Run, run
from programs.eval.scorers import CannotScore, Scorer, scorer
from programs.eval.summary import Summary, summarise
from programs.eval.table import show
from programs.eval.usage import Prices
from programs.graph import Graph
from programs.result import Result
from sgl_small4.prompt.node import Node
from tests.fake_http import FakeHTTPServer, JSONHandler, running

PRICES = Prices(0.15, 0.015, 0.6)
USAGE = {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37}


def cases(*pairs: tuple[str, Any], document: Callable[[int], str | None] = lambda at: None) -> list[Case]:
    return [
        Case(at, question, answer, document(at), None, (), None, None, {"question": question, "answer": answer})
        for at, (question, answer) in enumerate(pairs, 1)
    ]


def result(answer: str, state: Any = "answered", finish: str = "stop", error: str | None = None, **more: Any) -> Result:
    graph = Graph("none", "?")
    node = Node(0, None, "generate", "answer", "?", answer, None, 500, 400, 500, 200, 0.0, 1.0, finish)
    graph.record(node)
    return Result("?", answer, answer, more.get("trace"), None, "none", state, graph, error)


def graphs(solve: Callable[..., Result], effort: str = "none", alive: bool = True, **options: Any) -> Graphs:
    return Graphs(solve, effort, options, lambda: alive)


def exactly(case: Case) -> Scorer:
    return scorer("exact")


def summary_of(finished: Run, prices: Prices | None = None) -> Summary:
    return summarise(finished, [prices] * len(finished.arms))


def printed(finished: Run, broken: tuple[str, ...] = (), prices: Prices | None = None) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(console, finished, summary_of(finished, prices), broken, [])
    return console.file.getvalue()  # type: ignore[attr-defined]


# Outcomes


def test_empty_cut_and_failed_replies_are_counted_apart_and_the_denominator_is_stated():
    replies = [
        *[result("4")] * 4,
        *[result("5")] * 2,
        *[result("", "empty", "length")] * 3,
        result("", "failed", error="The server stopped."),
    ]
    asked = cases(*[(str(at), "4") for at in range(10)])
    finished = run(asked, [graphs(lambda question, **options: replies[int(question)])], exactly)
    (column,) = summary_of(finished).columns
    assert column.outcomes == {
        "right": 4, "partial": 0, "wrong": 2, "empty": 3, "cut": 0, "failed": 1, "unscored": 0,
    }  # fmt: skip
    assert column.of_asked and column.of_asked.estimate == pytest.approx(0.4)
    assert column.of_answered and column.of_answered.estimate == pytest.approx(4 / 6)
    text = printed(finished)
    assert "40.0 % of 10" in text and "66.7 % of 6" in text
    assert "3 of 3 empty replies ended at a limit" in text and "1 × failed: The server stopped." in text


def test_an_answer_that_was_cut_is_not_scored_even_where_it_would_be_right():
    finished = run(cases(("?", "4")), [graphs(lambda *a, **o: result("4", "cut", "length"))], exactly)
    assert [(row.outcome, row.score) for row in finished.rows] == [("cut", None)]


def test_no_scorer_sees_the_trace():
    seen: list[str] = []

    def watching(answer: str, case: Case) -> float:
        seen.append(answer)
        return 1.0

    run(cases(("?", "9")), [graphs(lambda *a, **o: result("9", trace="maybe 7"))], lambda case: watching)
    assert seen == ["9"]


def test_an_answer_that_cannot_be_scored_is_counted_with_its_reason_and_the_run_goes_on():
    def scored(answer: str, case: Case) -> float:
        if answer == "b":
            raise CannotScore("mine raised KeyError: 'page'")
        return 1.0

    finished = run(
        cases(*[(c, "?") for c in "abc"]), [graphs(lambda question, **o: result(question))], lambda case: scored
    )
    assert [row.outcome for row in finished.rows] == ["right", "unscored", "right"]
    assert "1 × unscored: mine raised KeyError: 'page'" in printed(finished)


def test_points_between_are_partial_and_their_mean_is_the_accuracy():
    finished = run(
        cases(*[(c, "?") for c in "ab"]),
        [graphs(lambda question, **o: result(question))],
        lambda case: lambda answer, case: 0.5 if answer == "a" else 1.0,
    )
    (column,) = summary_of(finished).columns
    assert column.outcomes["partial"] == 1 and column.of_asked and column.of_asked.estimate == 0.75


def test_each_case_is_asked_at_its_effort_below_its_document_as_often_as_repeats_say():
    asked: list[tuple[str, Any, Any, Any]] = []
    lock = threading.Lock()

    def solve(question: str, *, effort: str, document: str | None, temperature: float, cancel: Any) -> Result:
        with lock:
            asked.append((question, effort, document, temperature))
        return result("4")

    arms = [graphs(solve, effort, temperature=0.7) for effort in ("none", "auto")]
    finished = run(cases(("a", "4"), ("b", "4"), document=lambda at: f"D{at}"), arms, exactly, repeats=2)
    assert sorted(asked) == sorted(
        (question, effort, document, 0.7)
        for effort in ("none", "auto")
        for question, document in (("a", "D1"), ("b", "D2"))
        for _ in range(2)
    )
    assert [(row.arm, row.repeat, row.case.question) for row in finished.rows] == [
        (arm, repeat, question) for arm in (0, 1) for repeat in (0, 1) for question in "ab"
    ]
    assert not any(finished.missing)


def test_a_question_that_raises_does_not_lose_the_others():
    def solve(question: str, **options: Any) -> Result:
        if question == "b":
            raise ProgramError("The budget is too small.")
        return result("4")

    finished = run(cases(*[(c, "4") for c in "abc"]), [graphs(solve)], exactly)
    assert [row.outcome for row in finished.rows] == ["right", "failed", "right"]
    assert finished.rows[1].reason == "The budget is too small."


# Ends


def test_a_server_that_dies_keeps_what_is_finished_and_says_what_is_missing():
    given_up = threading.Event()

    def solve(question: str, *, cancel: Any, **options: Any) -> Result:
        if int(question) > 3:
            with cancel.covers(given_up.set):
                given_up.wait(20)
        return result("4") if int(question) < 3 else result("", "failed", error="The server went away")

    arms = [graphs(solve, alive=False), graphs(lambda *a, **o: result("4"), "high")]
    finished = run(cases(*[(str(at), "4") for at in range(10)]), arms, exactly, concurrency=1)
    assert [row.outcome for row in finished.rows if row.arm == 0][:4] == ["right"] * 3 + ["failed"]
    assert finished.missing[0] >= 5 and finished.missing[1] == 0
    text = printed(finished)
    assert "small4 at effort none no longer answers: The server went away." in text
    assert f"{finished.missing[0]} of 10 questions have no reply" in text
    assert as_json(finished, summary_of(finished), ())["complete"] is False


def test_an_interrupt_keeps_what_is_finished_and_gives_up_the_rest():
    given_up = threading.Event()
    waiting = threading.Event()

    def solve(question: str, *, cancel: Any, **options: Any) -> Result:
        if question != "0":
            waiting.set()
            with cancel.covers(given_up.set):
                given_up.wait(20)
        return result("4")

    def advance() -> None:
        waiting.wait(20)
        raise KeyboardInterrupt

    finished = run(
        cases(*[(str(at), "4") for at in range(5)]),
        [graphs(solve), graphs(solve, "high")],
        exactly,
        concurrency=2,
        advance=advance,
    )
    assert isinstance(finished.ended_by, KeyboardInterrupt) and given_up.is_set()
    assert finished.rows[0].case.question == "0" and finished.rows[0].outcome == "right"
    assert finished.missing[1] == 5 and "The run was interrupted." in printed(finished)


# Comparisons


def by_effort(**answers_of: Callable[[int], str]) -> list[Arm]:
    return [
        graphs(lambda question, effort, **o: result(answers_of[effort](int(question))), effort) for effort in answers_of
    ]


def test_efforts_are_compared_item_by_item_with_the_documents_as_clusters():
    arms = by_effort(none=lambda at: "4" if at % 5 == 0 else "5", high=lambda at: "4" if at % 7 else "5")
    asked = cases(*[(str(at), "4") for at in range(30)], document=lambda at: f"D{at % 6}")
    (pair,) = summary_of(run(asked, arms, exactly)).differences
    assert pair.interval and pair.interval.clusters == 6 and pair.interval.items == 30
    assert pair.interval.estimate == pytest.approx((25 - 6) / 30)
    assert pair.interval.low is not None and 0 < pair.interval.low < 0.6


def test_a_servers_errors_are_left_out_of_the_difference_on_both_sides():
    def solve(question: str, effort: str, **options: Any) -> Result:
        broke = effort == "high" and int(question) >= 5
        return result("", "failed", error="HTTP 500") if broke else result("4")

    finished = run(cases(*[(str(at), "4") for at in range(10)]), [graphs(solve), graphs(solve, "high")], exactly)
    (pair,) = summary_of(finished).differences
    assert pair.interval and pair.interval.estimate == 0 and pair.interval.items == 5 and pair.left_out == 5


def test_few_documents_are_said_to_carry_no_interval():
    asked = cases(*[(str(at), "4") for at in range(8)], document=lambda at: f"D{at % 2}")
    text = printed(run(asked, by_effort(none=lambda at: "4" if at % 3 else "5"), exactly))
    assert "2 clusters" in text and "cannot be trusted" in text


# Another server


class FakeOpenAI(FakeHTTPServer):
    """Answers chat requests with what `reply(request, count)` gives: a body, or a status, headers and a body."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Any]) -> None:
        super().__init__(_Handler)
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()


class _Handler(JSONHandler):
    server: FakeOpenAI

    def do_GET(self) -> None:
        self.send(200, {"object": "list", "data": [{"id": "other"}]})

    def do_POST(self) -> None:
        self.server.requests.append(self.read())
        self.server.keys.add(self.headers.get("Authorization"))
        reply = self.server.reply(self.server.requests[-1], len(self.server.requests))
        status, headers, body = reply if isinstance(reply, tuple) else (200, {}, reply)
        self.send(status, body, headers)


def fake_openai(reply: Callable[[dict[str, Any], int], Any]) -> AbstractContextManager[FakeOpenAI]:
    return running(FakeOpenAI(reply))


def said(content: Any, finish: str = "stop", usage: Any = USAGE, **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": usage}


def against(replies: Sequence[Any], effort: str = "high", answer: str = "9") -> tuple[Run, FakeOpenAI]:
    """One case for each reply, asked one after the other."""
    with fake_openai(lambda request, count: replies[min(count, len(replies)) - 1]) as server:
        asked = cases(*[(str(at), answer) for at in range(len(replies))])
        return run(asked, [Endpoint(Server(server.url + "/v1"), effort)], exactly, concurrency=1), server


def test_the_other_server_is_asked_the_same_with_the_effort_and_the_document():
    with fake_openai(lambda request, count: said("9")) as server:
        arm = Endpoint(Server(server.url, key="secret"), "high", temperature=0.7, max_tokens=64)
        run(cases(("What?", "9"), document=lambda at: "A document."), [arm], exactly)
    assert server.requests == [
        {
            "model": "other",
            "messages": [{"role": "system", "content": "A document."}, {"role": "user", "content": "What?"}],
            "reasoning_effort": "high",
            "temperature": 0.7,
            "max_tokens": 64,
            "stream": False,
        }
    ]
    assert server.keys == {"Bearer secret"}


def test_the_graphs_of_small4_cannot_be_asked_of_another_server():
    with fake_openai(lambda request, count: said("9")) as server:
        for effort in ("auto", "deliberate"):
            with pytest.raises(ProgramError, match=f"Effort '{effort}' is a graph of small4's"):
                Endpoint(Server(server.url), effort)


@pytest.mark.parametrize(
    ("reply", "outcome", "answer", "trace"),
    [
        (said("9", reasoning_content="maybe 7"), "right", "9", "maybe 7"),
        (said("9", reasoning="maybe 7"), "right", "9", "maybe 7"),
        (said("[THINK]maybe 7[/THINK]9"), "right", "9", "maybe 7"),
        (said("[THINK]maybe 9"), "empty", "", "maybe 9"),
        (said("<think>maybe 9", "length"), "empty", "", "maybe 9"),
        (said(None, "length", reasoning_content="9"), "empty", "", "9"),
        (said("", "length"), "empty", "", ""),
        (said("9", "length"), "cut", "9", ""),
        (
            said([{"type": "thinking", "thinking": [{"type": "text", "text": "7"}]}, {"type": "text", "text": "9"}]),
            "right",
            "9",
            "7",
        ),
        (said(None, refusal="I will not."), "wrong", "I will not.", ""),
        (said("9", "abort"), "failed", "", ""),
        ({"choices": []}, "failed", "", ""),
        (b"<html>", "failed", "", ""),
        ((400, {}, {"error": {"message": "too long"}}), "failed", "", ""),
    ],
)
def test_what_another_server_sends_is_sorted_into_trace_answer_and_outcome(
    reply: Any, outcome: str, answer: str, trace: str
):
    finished, _ = against([reply])
    (row,) = finished.rows
    assert (row.outcome, row.reply.answer, row.reply.trace) == (outcome, answer, trace)


def test_that_a_trace_was_taken_out_of_the_text_is_said():
    finished, _ = against([said("<think>7</think>9"), said("9")])
    assert [row.outcome for row in finished.rows] == ["right", "right"]
    assert "of 1 replies a trace between tags was taken out" in printed(finished)


@pytest.mark.parametrize(
    ("total", "rule", "output", "sentence"),
    [
        (1000, "inclusive", 500, "billed once"),
        (1200, "exclusive", 700, "added once"),
        (1111, "unknown", 500, "no single"),
    ],
)
def test_the_counting_rule_of_another_server_is_seen_said_and_billed_by(
    total: int, rule: str, output: int, sentence: str
):
    usage = {
        "prompt_tokens": 500,
        "completion_tokens": 500,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 200},
    }
    finished, _ = against([said("9", usage=usage)])
    summary = summary_of(finished, PRICES)
    (column,), (counting,) = summary.columns, summary.counting
    assert counting.rule == rule and column.lengths and column.lengths.output_tokens == output
    assert column.cost == pytest.approx((100 * 0.15 + 400 * 0.015 + output * 0.6) / 1e6)
    assert column.cached_share == pytest.approx(0.8)
    text = printed(finished)
    assert f"(rule {rule};" in text and sentence in text


def test_a_reply_that_shows_no_rule_is_billed_by_the_one_its_server_shows_at_another_effort():
    exclusive = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 30, "reasoning_tokens": 20}
    silent = {"prompt_tokens": 5, "completion_tokens": 5, "reasoning_tokens": 4}
    with fake_openai(
        lambda request, count: said("9", usage=exclusive if request["reasoning_effort"] == "high" else silent)
    ) as server:
        other = Server(server.url)
        finished = run(cases(("?", "9")), [Endpoint(other, effort) for effort in ("none", "high")], exactly)
    none, high = summary_of(finished).columns
    assert none.lengths and high.lengths
    assert (none.lengths.output_tokens, high.lengths.output_tokens) == (9, 25)


def test_a_reply_without_usage_is_scored_and_said_to_be_without():
    finished, _ = against([said("9", usage=None), said("9", usage={"prompt_tokens": "many"}), said("9")])
    summary = summary_of(finished, PRICES)
    assert summary.columns[0].outcomes["right"] == 3 and summary.counting[0].without_usage == 2
    assert "2 replies came without usage" in printed(finished)
    nothing, _ = against([said("9", usage=None)])
    assert summary_of(nothing, PRICES).columns[0].cost is None
    assert "no reply reports its usage" in printed(nothing)


def test_a_busy_server_is_asked_again_and_a_refusal_is_not():
    busy = (429, {"Retry-After": "0"}, {"error": {"message": "slow down"}})
    with fake_openai(lambda request, count: busy if count < 3 else said("9")) as server:
        finished = run(cases(("?", "9")), [Endpoint(Server(server.url), "none")], exactly)
    assert finished.rows[0].outcome == "right" and len(server.requests) == 3
    refused, server = against([(400, {}, {"message": "no such effort"})])
    assert refused.rows[0].reason == "HTTP 400: no such effort" and len(server.requests) == 1


def test_another_server_that_is_not_there_or_is_something_else_is_one_sentence():
    with fake_openai(lambda request, count: said("9")) as server:
        url = server.url
        assert answers(url)
    assert not answers(url)
    for wrong in (url, "http://[", "ftp://127.0.0.1", "http://127.0.0.1:99999"):
        with pytest.raises(ProgramError, match="No server answers"):
            Server(wrong)


def test_another_server_that_goes_away_ends_its_part():
    with fake_openai(lambda request, count: said("9")) as server:
        arm = Endpoint(Server(server.url), "none")
    with stamina.set_testing(True, attempts=ATTEMPTS):  # without the waits between them
        finished = run(cases(*[(str(at), "9") for at in range(1000)]), [arm], exactly, concurrency=1)
    assert finished.missing[0] >= 2 and "no longer answers" in finished.stopped[0]


# Files


def hostile() -> Run:
    dangerous = ["=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", " =1", "-5", "\x1b[2J<script>", "\uff1d1"]
    asked = cases(*[(text, 4) for text in dangerous])
    finished = run(asked, [graphs(lambda question, **o: result(question))], exactly)
    return finished


def test_no_cell_of_the_results_is_a_formula_and_numbers_stay_numbers(tmp_path: Path):
    finished = hostile()
    files.write(tmp_path, finished, summary_of(finished), [None], ())
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and list(rows[0]) == list(files.COLUMNS)
    for row in rows:
        for name, cell in row.items():
            assert (
                name == "answer"
                and cell == "-5"
                or name == "question"
                and cell == "-5"
                or not cell.strip().startswith(("=", "+", "-", "@", "\uff1d"))
            )
    assert rows[6]["answer"] == "-5" and rows[0]["answer"] == "'=cmd|'/C calc'!A0"


def test_the_files_agree_with_each_other_and_replace_what_was_there(tmp_path: Path):
    (tmp_path / "summary.json").write_text("old", encoding="utf-8")
    arms = by_effort(none=lambda at: "5", high=lambda at: "4")
    finished = run(cases(*[(str(at), "4") for at in range(6)]), arms, exactly, repeats=2)
    files.prepare(tmp_path)
    files.write(tmp_path, finished, summary_of(finished, PRICES), [PRICES, PRICES], ("cases.jsonl, line 3: not JSON",))
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    stored = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert len(rows) == 2 * 6 * 2
    assert sum(row["outcome"] == "right" for row in rows) == stored["columns"][1]["outcomes"]["right"] == 12
    assert sum(float(row["cost"]) for row in rows if row["effort"] == "high") == pytest.approx(
        stored["columns"][1]["cost"]
    )
    assert stored["broken_lines"] == ["cases.jsonl, line 3: not JSON"] and stored["complete"] is True
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.png", "results.csv", "summary.json"]


def test_a_model_may_be_named_anything(tmp_path: Path):
    arm = graphs(lambda *a, **o: result("4"))
    arm.name = "_$\\frac{[bold]\x1b[31m{x}$\n"
    finished = run(cases(("?", "4")), [arm], exactly)
    files.write(tmp_path, finished, summary_of(finished), [None], ())
    assert "\x1b" not in printed(finished) and "[bold]" in printed(finished)


def test_nothing_asked_is_still_a_whole_report(tmp_path: Path):
    finished = Run(tuple(cases(("?", "4"))), (graphs(lambda *a, **o: result("4")),), 1, (), (1,), ("It ended.",))
    files.write(tmp_path, finished, summary_of(finished), [None], ())
    assert "1 of 1 questions have no reply" in printed(finished)
    assert notes(finished, summary_of(finished), ())


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_asked(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(ProgramError, match="Nothing can be written"):
        files.prepare(file)


def test_broken_lines_are_named_in_the_report():
    finished = run(cases(("?", "4")), [graphs(lambda *a, **o: result("4"))], exactly)
    broken = tuple(f"cases.jsonl, line {number}: not JSON" for number in range(1, 9))
    text = printed(finished, broken)
    assert "skipped: cases.jsonl, line 1: not JSON" in text and "skipped: 3 more lines." in text
