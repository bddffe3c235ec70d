"""`small4 support` against a scripted server: what is printed where, and what ends a conversation."""

import io
import json
import sys
from pathlib import Path

import pytest

from launch.errors import LaunchError
from launch.support import support
from programs.errors import ProgramError
from sgl_small4.prompt.transport import BackendError
from tests.documents.reader import reading_model, turns
from tests.programs.scripted import prompts, served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "contract.txt").write_text("Contract\n\nfee: 700\n")
    (shop / "prices.txt").write_text("Prices\n\nlamp: 30\n")
    return shop


def talk(folder: Path, *questions: str, script=None, as_json: bool = False) -> int:
    with served(script or reading_model()) as server:
        return support(folder, questions, "none", (), server.url, as_json)


def test_an_answer_is_printed_with_its_source_and_its_quote(folder, capsys):
    assert talk(folder, "What is the fee?") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["700", "  [1] contract.txt", "      “fee: 700”, line 3"]
    assert "2 documents" in err and "2 requests" in err


def test_questions_are_turns_of_one_conversation_and_json_is_a_line_each(folder, capsys):
    script = reading_model()
    assert talk(folder, "What is the fee?", "What is the lamp?", script=script, as_json=True) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["answer"], first["found"], second["answer"]) == ("700", True, "30")
    assert second["sources"] == [{"number": 1, "name": "prices.txt", "quoted": True}]
    assert second["citations"][0]["document"] == "prices.txt" and second["citations"][0]["grade"] == "exact"
    assert "[INST]What is the fee?[/INST]700</s>[INST]What is the lamp?" in prompts(script)[-1]


def test_questions_are_piped_in_one_a_line(folder, capsys, monkeypatch):
    piped = io.TextIOWrapper(io.BytesIO("\ufeffWhat is the fee?\r\n\n  What is the lamp?".encode()))
    monkeypatch.setattr(sys, "stdin", piped)
    script = reading_model()
    assert talk(folder, script=script, as_json=True) == 0
    read = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [turn["question"] for turn in read] == ["What is the fee?", "What is the lamp?"]


def test_nothing_piped_in_is_said(folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(LaunchError, match="No question is given"):
        talk(folder)


def test_questions_are_typed_until_the_end_of_input(folder, capsys, monkeypatch):
    typed = iter(["", "What is the fee?"])

    def line(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", line)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert talk(folder) == 0
    assert capsys.readouterr().out.startswith("700\n")


def test_what_is_not_there_is_said_with_what_was_not_read(folder, capsys):
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    assert talk(folder, "What is the boat?", "What is the fee?") == 0
    out, err = capsys.readouterr()
    said, _, rest = out.partition("\n700\n")
    first, *unread = said.splitlines()
    assert first == "The documents do not hold the answer."
    assert len(unread) == 1 and unread[0].startswith("  not read: ") and "broken.pdf" in unread[0]
    assert "not read" not in rest
    assert "broken.pdf" in err.splitlines()[0]  # at the start


def test_a_request_that_fails_is_one_sentence_and_the_conversation_goes_on(folder, capsys):
    script = reading_model()
    usual = script._reply
    script._reply = lambda ids, fields: BackendError("No.") if "boom" in turns(ids)[-1] else usual(ids, fields)
    assert talk(folder, "boom", "What is the fee?", script=script) == 2
    out, err = capsys.readouterr()
    assert out.startswith("700\n")
    (sentence,) = [line for line in err.splitlines() if line.startswith("small4: ")]
    assert "No." in sentence and "Traceback" not in err


@pytest.mark.parametrize("question", ["", "  ", "a\udcff"])
def test_what_is_no_question_is_one_sentence_and_the_conversation_goes_on(folder, capsys, question):
    assert talk(folder, question, "What is the fee?") == 2
    out, err = capsys.readouterr()
    assert out.startswith("700\n") and "is no question" in err and "Traceback" not in err


def test_a_failed_question_is_an_object_too(folder, capsys):
    script = reading_model()
    script._reply = lambda ids, fields: BackendError("No.")
    assert talk(folder, "boom", script=script, as_json=True) == 2
    (line,) = capsys.readouterr().out.splitlines()
    read = json.loads(line)
    assert read["question"] == "boom" and "No." in read["error"]


def test_what_would_steer_the_terminal_is_shown(folder, capsys):
    (folder / "evil\x1b[2J.txt").write_text("name: \x1b]0;owned\x07\u202eabc\n")
    assert talk(folder, "What is the name?", "\x1b[31mWhat is the fee?") == 0
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x07", "\u202e"} & set(out + err)
    assert "owned" in out and "<U+202E>" in out


def test_a_quote_that_is_in_no_document_is_marked(folder, capsys):
    script = reading_model(lambda question, document: '["the fee is waived"]' if "uote" in question else "None [1].")
    assert talk(folder, "What is the fee?", script=script) == 0
    out = capsys.readouterr().out
    assert "[1] contract.txt (not quoted)" in out
    assert "not verified: “the fee is waived”: it is in none of the documents" in out


def test_a_folder_without_a_text_is_refused_before_any_server_starts(tmp_path):
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    with pytest.raises(LaunchError, match="gave a text: .*broken.pdf"):
        support(tmp_path, ["What?"], "none", (), None, False)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ProgramError, match="nowhere"):
        support(tmp_path / "nowhere", ["What?"], "none", (), None, False)
