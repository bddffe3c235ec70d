"""`small4 eval` as a whole, against a scripted server of ours and a fake other one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina

import launch.eval
from launch.errors import LaunchError
from launch.eval import evaluate
from programs.errors import ProgramError
from sgl_small4.prompt.backend import ATTEMPTS, BackendError
from tests.programs.scripted import ScriptServer, in_turn, served
from tests.programs.test_eval_run import fake_openai, result, said


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptServer]:
    """A server of which only the model's information is asked: the solver is a fake, right at every effort but none."""

    def solve(question: str, *, effort: str, **options: Any) -> Any:
        return result("5" if effort == "none" else "4")

    monkeypatch.setattr(launch.eval, "solve", solve)
    with served(in_turn()) as running:
        yield running


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    lines = [json.dumps({"question": f"{at}?", "answer": "4", "kind": "abc"[at % 3]}) for at in range(12)]
    path.write_text("\n".join([*lines, "{"]), encoding="utf-8")
    return path


def test_efforts_and_another_server_stand_side_by_side(
    server: ScriptServer, cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with fake_openai(lambda request, count: said("<think>7</think>4")) as other:
        code = evaluate(
            cases, "none,high,auto", server.url, other.url, prices="0.15,0.015,0.6", out=tmp_path / "out", repeats=2
        )
    shown = capsys.readouterr().out
    assert code == 0
    assert {request["reasoning_effort"] for request in other.requests} == {"none", "high"}
    assert "was not asked at auto: graphs of small4's own" in shown
    assert "skipped: cases.jsonl, line 13: not JSON" in shown
    stored = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    columns = {(column["name"], column["effort"]): column for column in stored["columns"]}
    assert {key: column["of_asked"]["estimate"] for key, column in columns.items()} == {
        ("small4", "none"): 0, ("small4", "high"): 1, ("small4", "auto"): 1, ("other", "none"): 1, ("other", "high"): 1,
    }  # fmt: skip
    pairs = {(pair["first"], pair["second"]) for pair in stored["differences"]}
    assert pairs == {(0, 1), (0, 2), (1, 2), (3, 4), (0, 3), (1, 4)}


def test_both_servers_may_write_as_much(server: ScriptServer, cases: Path):
    with fake_openai(lambda request, count: said("4")) as other:
        evaluate(cases, "none,high", server.url, other.url, max_tokens=64, limit=1, as_json=True)
    room = {request["reasoning_effort"]: request["max_tokens"] for request in other.requests}
    assert room == {"none": 64, "high": 64 + 4096 + 2}


def test_json_is_exactly_one_object_and_nothing_else(
    server: ScriptServer, cases: Path, capsys: pytest.CaptureFixture[str]
):
    assert evaluate(cases, "none,high", server.url, limit=5, as_json=True) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and len(captured.out.splitlines()) == 1
    assert [column["asked"] for column in json.loads(captured.out)["columns"]] == [5, 5]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"efforts": "none,medium"}, "there is no effort 'medium'"),
        ({"efforts": ","}, "none is given"),
        ({"repeats": 0}, "--repeats is 0"),
        ({"limit": 0}, "--limit is 0"),
        ({"concurrency": 0}, "--concurrency is 0"),
        ({"prices": "1,2"}, "not three numbers"),
        ({"scorer": "rouge"}, "There is no scorer 'rouge'"),
        ({"efforts": "auto", "against": "127.0.0.1:1"}, "--against asks at effort none and high"),
        ({"against": "127.0.0.1:1"}, "No server answers at http://127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    server: ScriptServer, cases: Path, wrong: dict[str, Any], why: str
):
    with pytest.raises((LaunchError, ProgramError), match=why) as error:
        evaluate(cases, server=server.url, **wrong)
    assert "\n" not in str(error.value) and not server.script.asked


def test_a_server_that_is_not_there_is_one_sentence(cases: Path):
    with stamina.set_testing(True, attempts=ATTEMPTS), pytest.raises(BackendError) as error:  # no waits between tries
        evaluate(cases, "none", "http://127.0.0.1:1", as_json=True)
    assert "\n" not in str(error.value)


def test_an_interrupt_writes_what_is_finished(
    server: ScriptServer, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def scored(answer: str, case: Any) -> float:
        if case.question == "3?":
            raise SystemExit(143)
        return 1.0

    monkeypatch.setattr(launch.eval, "chooser", lambda name, cases: lambda case: scored)
    code = evaluate(cases, "high", server.url, out=tmp_path / "out", concurrency=1, as_json=True)
    stored = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert code == 143 and stored["complete"] is False and stored["columns"][0]["outcomes"]["right"] >= 3
