"""`small4 analyze` against a scripted server: what is printed where, what is stored, and how it ends."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch import analyze as command
from launch.analyze import analyze
from launch.errors import LaunchError
from programs.documents import run
from programs.documents.job import Job
from programs.errors import ProgramError
from sgl_small4.prompt.backend import BackendError
from tests.documents.reader import asked_questions, reading_model, system, turns
from tests.fake_http import FakeHTTPServer, JSONHandler, running
from tests.programs.scripted import ScriptServer, served

FEE, TERM, BOAT = "What is the fee?", "What is the term?", "What is the boat?"
WRITTEN = {"job.toml", "journal.sqlite", "results.jsonl", "results.csv", "report.html"}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("Contract\n\nfee: 700\nterm: 12 months\n")
    (folder / "b.txt").write_text("Contract\n\nfee: 800\nterm: 24 months\n")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "job"


def ask(docs, *questions, out, script=None, **more) -> int:
    """The exit code of a command against a server of `script`."""
    documents = docs if isinstance(docs, list) else [docs]
    with served(script or reading_model()) as server:
        return analyze(documents, questions, out, servers=[server.url], **more)


def stored(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name in WRITTEN - {"journal.sqlite"}}


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def refusing(at: str):
    """A model whose server refuses questions that hold `at`."""
    script = reading_model()
    usual = script._reply
    script._reply = lambda ids, fields: BackendError("No.") if at in turns(ids)[-1] else usual(ids, fields)
    return script


def test_a_job_writes_its_results_and_says_where(docs, out, capsys):
    assert ask(docs, FEE, BOAT, out=out) == 0
    said, remarks = capsys.readouterr()
    assert said == f"2 supported, 2 not found: {out}/report.html\n"
    assert remarks.endswith("s in all\n") and " requests, " in remarks
    assert {path.name for path in out.iterdir()} >= WRITTEN
    assert [row["answer"] for row in rows(out)][::2] == ["700", "800"]


def test_the_same_command_again_asks_nothing(docs, out, capsys):
    ask(docs, FEE, out=out)
    again = reading_model()
    assert ask(docs, FEE, out=out, script=again) == 0
    assert not again.asked and "everything was answered already" in capsys.readouterr().err


def test_what_was_answered_needs_no_server(docs, out, monkeypatch):
    monkeypatch.setattr(command, "_model", lambda servers, model: ("model", 32_768, len))
    ask(docs, FEE, out=out)
    monkeypatch.setattr(command, "serving", lambda *_: pytest.fail("a server was started"))
    assert analyze([], [], out) == 0


def test_json_is_one_object_and_nothing_else(docs, out, capsys):
    (docs / "empty.txt").touch()
    assert ask(docs, FEE, BOAT, out=out, as_json=True) == 2
    said, remarks = capsys.readouterr()
    read = json.loads(said)
    assert said.count("\n") == 1 and remarks == ""
    assert read["standings"] == {"supported": 2, "not found": 2} and read["questions"] == 2 and read["requests"] >= 6
    assert read["unreadable"] == [{"document": "empty.txt", "why": "'empty.txt' is empty."}]


@pytest.mark.parametrize("plan_only", [False, True])
def test_quiet_prints_nothing(docs, out, capsys, plan_only):
    (docs / "empty.txt").touch()
    assert ask(docs, FEE, out=out, quiet=True, plan_only=plan_only) == (0 if plan_only else 2)
    assert capsys.readouterr() == ("", "")


def test_no_library_speaks_beside_the_one_object(docs, out, tmp_path, capfd):
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question": FEE, "output": "choice", "choices": ["700 coins", "700"]}))
    ask(docs, out=out, question_file=file, as_json=True)
    said, remarks = capfd.readouterr()
    assert said.count("\n") == 1 and remarks == ""


def test_a_plan_asks_nothing_and_leaves_nothing_behind(docs, out, capsys):
    script = reading_model()
    assert ask(docs, FEE, BOAT, out=out, script=script, plan_only=True, as_json=True) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not script.asked and not out.exists()
    assert [(each["document"], each["asks"], len(each["parts"])) for each in plan["documents"]] == [
        ("a.txt", 2, 1),
        ("b.txt", 2, 1),
    ]
    assert plan["requests"] == 8 and plan["prefill_tokens"] == sum(each["tokens"] for each in plan["documents"])


def test_a_plan_for_a_job_counts_what_is_left_and_changes_nothing_of_it(docs, out, capsys):
    ask(docs, FEE, out=out, quiet=True)
    before = stored(out)
    assert ask(docs, FEE, TERM, out=out, plan_only=True, as_json=True) == 0
    assert [each["asks"] for each in json.loads(capsys.readouterr().out)["documents"]] == [1, 1]
    assert stored(out) == before


def test_a_plan_is_shown_as_a_table(docs, capsys):
    assert ask(docs, FEE, out=None, plan_only=True) == 0
    said = capsys.readouterr().out
    assert re.search(r"a\.txt +\d+ +1 +1 ", said) and "4 requests: " in said


def test_a_plan_needs_no_server(docs, capsys):
    assert analyze([docs], [FEE], None, plan_only=True, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == 4


def test_what_failed_is_named_ends_with_2_and_alone_is_asked_again(docs, out, capsys):
    assert ask(docs, FEE, TERM, out=out, script=refusing("term")) == 2
    said, remarks = capsys.readouterr()
    assert said.startswith("2 supported, 2 failed: ")
    assert "failed: a.txt, q2: " in remarks and "No." in remarks
    assert [row["standing"] for row in rows(out)] == ["supported", "failed"] * 2
    again = reading_model()
    assert ask(docs, FEE, TERM, out=out, script=again) == 0
    assert {each for each in asked_questions(again) if each.startswith("What")} == {TERM}


def test_questions_of_the_command_and_of_a_file_go_together(docs, out, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question": TERM}) + "\n" + json.dumps({"question": BOAT, "id": "q1"}))
    assert ask(docs, FEE, out=out, question_file=file) == 0
    assert [(row["question_id"], row["question"]) for row in rows(out)[:3]] == [("q2", FEE), ("q3", TERM), ("q1", BOAT)]


def test_a_question_may_be_inserted_into_the_job_file_by_hand(docs, out):
    ask(docs, FEE, BOAT, out=out)
    job = out / "job.toml"
    at = '    { id = "q2"'
    job.write_text(job.read_text().replace(at, f'    {{ question = "{TERM}" }},\n{at}'))
    script = reading_model()
    assert ask([], out=out, script=script) == 0
    assert [row["question"] for row in rows(out)[:3]] == [FEE, TERM, BOAT]
    assert {each for each in asked_questions(script) if each.startswith("What")} == {TERM}


@pytest.mark.parametrize(
    ("questions", "more", "said"),
    [
        ([], {}, "No question is given"),
        ([" "], {}, "the question is empty"),
        (["\udcff"], {}, "no character"),
        ([FEE], {"concurrency": 0}, "--concurrency is 0"),
        ([FEE], {"patience": -1.0}, "--wait is -1"),
        ([FEE], {"patience": float("nan")}, "--wait is nan"),
        ([FEE], {"settings": {"temperature": 9}}, "--temperature cannot be so"),
        ([FEE], {"settings": {"part_tokens": 3}}, "--part-tokens cannot be so"),
        ([FEE], {"servers": ["http://127.0.0.1:1", "http://127.0.0.1:2"]}, "Several servers"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence_and_makes_no_folder(docs, out, questions, more, said):
    with pytest.raises((LaunchError, ProgramError), match=said) as error:
        analyze([docs], questions, out, **more)
    assert "\n" not in str(error.value) and not out.exists()


def test_a_schema_that_cannot_be_met_is_named_and_the_job_stays_as_it_was(docs, out, tmp_path):
    ask(docs, FEE, out=out)
    before = stored(out)
    file = tmp_path / "q.jsonl"
    schema = {"type": "integer", "minimum": 5, "maximum": 3}
    file.write_text(json.dumps({"question": TERM, "id": "term", "output": "json", "schema": schema}))
    script = reading_model()
    with pytest.raises(ProgramError, match="The question 'term' cannot be asked"):
        ask(docs, out=out, script=script, question_file=file)
    assert stored(out) == before and not script.asked


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_documents_that_are_not_there_are_named(tmp_path, out, place):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProgramError, match=place):
        ask(tmp_path / place, FEE, out=out)


def test_a_server_that_is_not_there_is_said_before_anything_is_read(docs, out, monkeypatch):
    monkeypatch.setattr(Job, "read", lambda *_: pytest.fail("documents were read"))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(BackendError, match="cannot be reached"):
        analyze([docs], [FEE], out, servers=[f"http://127.0.0.1:{port}"])


class Garbage(JSONHandler):
    def do_GET(self) -> None:
        self.send(200, b"<html>")


def test_a_server_of_another_kind_is_said(docs, out):
    with running(FakeHTTPServer(Garbage)) as server, pytest.raises(BackendError, match="is no SGLang server"):
        analyze([docs], [FEE], out, servers=[server.url])


def test_another_model_is_asked_anew(docs, out):
    ask(docs, FEE, out=out)
    other = reading_model()
    info = {**other.model_info(), "model_path": "/models/other"}
    other.model_info = lambda: info
    assert ask(docs, FEE, out=out, script=other) == 0
    assert asked_questions(other)


def test_a_job_that_comes_to_no_end_says_why_keeps_what_it_has_and_ends_with_2(docs, out, monkeypatch, capsys):
    monkeypatch.setattr(run, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(run, "IN_A_ROW", 3)
    ask(docs, FEE, out=out)
    broken = reading_model()
    broken.generate = lambda fields, rid: {"text": "?"}
    capsys.readouterr()
    questions = [FEE, *[f"What is the {name}?" for name in "xyz"]]
    assert ask(docs, *questions, out=out, script=broken, as_json=True) == 2
    said, remarks = capsys.readouterr()
    assert json.loads(said)["standings"]["supported"] == 2
    assert remarks.startswith("small4: 3 questions in a row failed") and remarks.count("\n") == 1
    assert {row["standing"] for row in rows(out)} == {"supported", "failed", "not asked"}
    assert ask([], out=out) == 0


def test_what_a_name_or_a_model_says_does_not_steer_the_terminal(docs, tmp_path, capsys):
    (docs / "evil\x1b[2J.txt").touch()
    out = tmp_path / "job\x1b[31m"
    assert ask(docs, "What is the \x1b[2Jfee?", out=out, script=refusing("fee")) == 2
    said, remarks = capsys.readouterr()
    assert "\x1b" not in said + remarks and "No." in remarks


class Hanging(ScriptServer):
    """Answers of the first document; what is asked of the second hangs, whoever gives it up."""

    def __init__(self) -> None:
        script = reading_model()
        usual, self.freed = script._reply, threading.Event()
        script._reply = lambda ids, fields: self.freed.wait(100) if "800" in system(ids) else usual(ids, fields)
        super().__init__(script)


def test_a_job_that_is_ended_keeps_what_it_has_and_goes_on_with_the_rest(docs, out):
    signals = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}
    with running(Hanging()) as server:
        jobs = {sent: started(docs, out / sent.name, server.url) for sent in signals}
        for sent, process in jobs.items():
            until(lambda sent=sent: answered(out / sent.name) == 1)
            process.send_signal(sent)
        said = {sent: process.communicate(timeout=20) for sent, process in jobs.items()}
        server.freed.set()
    assert {sent: process.returncode for sent, process in jobs.items()} == signals
    assert all(not stdout and "Traceback" not in stderr for stdout, stderr in said.values())
    assert not any(members(process.pid) for process in jobs.values())
    for sent in (signal.SIGTERM, signal.SIGINT):
        assert [row["standing"] for row in rows(out / sent.name)] == ["supported", "not asked"]
    for sent in signals:
        script = reading_model()
        assert ask(docs, FEE, out=out / sent.name, script=script) == 0
        assert len(asked_questions(script)) == 2 and all("800" in system(f["input_ids"]) for f in script.asked)


def started(docs: Path, out: Path, url: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "analyze", str(docs), "-q", FEE, "--out", str(out), "--server", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answered(out: Path) -> int:
    if not (out / "journal.sqlite").exists():
        return 0
    with sqlite3.connect(out / "journal.sqlite") as db:
        tables = db.execute("SELECT name FROM sqlite_master WHERE name = 'answers'").fetchall()
        return db.execute("SELECT count(*) FROM answers").fetchone()[0] if tables else 0


def members(group: int) -> list[str]:
    """The processes of a group."""
    listed = subprocess.run(["ps", "-e", "-o", "pgid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group)]
