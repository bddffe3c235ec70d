"""Questions and their forms, and files of them, whole and broken."""

import json
import re

import pytest

from programs.documents.question import NOT_THERE, Question, from_file
from programs.errors import ProgramError


@pytest.mark.parametrize(
    ("given", "text", "value"),
    [
        ({}, " Oslo. ", "Oslo."),
        ({"output": "number"}, "1200", 1200),
        ({"output": "number"}, "-3.5", -3.5),
        ({"output": "date"}, "2026-02-28", "2026-02-28"),
        ({"output": "choice", "choices": ["yes", "no"]}, "no", "no"),
        ({"output": "list"}, '["a", "b"]', ["a", "b"]),
        ({"output": "json", "schema": {"type": "object", "required": ["fee"]}}, '{"fee": 7}', {"fee": 7}),
    ],
)
def test_an_answer_is_read_in_its_form(given, text, value):
    assert Question(question="?", **given).value(text) == value


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, NOT_THERE),
        ({}, "that is not in the document"),
        ({"output": "number"}, NOT_THERE),
        ({"output": "choice", "choices": ["yes", "no"]}, NOT_THERE),
        ({"output": "list"}, "[]"),
        ({"output": "json", "schema": {"type": "object"}}, "null"),
    ],
)
def test_every_form_can_say_that_it_is_not_there(given, text):
    assert Question(question="?", **given).value(text) is None


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"output": "number"}, "seven"),
        ({"output": "date"}, "28.2.2026"),
        ({"output": "choice", "choices": ["yes", "no"]}, "maybe"),
        ({"output": "list"}, '["a", 3]'),
        ({"output": "json", "schema": {"type": "object", "required": ["fee"]}}, "{}"),
    ],
)
def test_a_reply_in_another_form_is_none(given, text):
    with pytest.raises(ValueError):
        Question(question="?", **given).value(text)


def test_the_server_may_write_each_form_and_its_absence():
    number = Question(question="?", output="number").form
    assert all(re.fullmatch(number, text) for text in ("12", "-0.5", NOT_THERE)) and not re.fullmatch(number, "12 ")
    assert NOT_THERE in Question(question="?", output="choice", choices=("a",)).form


def test_a_schema_with_references_keeps_them_where_they_look():
    schema = {"$defs": {"fee": {"type": "integer"}}, "properties": {"fee": {"$ref": "#/$defs/fee"}}, "type": "object"}
    form = Question(question="?", output="json", schema=schema).form
    assert form["$defs"] == schema["$defs"] and {"type": "null"} in form["anyOf"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", '{"question": "a"}\n{"question": ', "Line 2 of"),
        ("q.jsonl", '{"question": "a"}\n\n{"questoin": "b"}\n', "Line 3 of"),
        ("q.jsonl", '{"question": "  "}', "the question is empty"),
        ("q.jsonl", '{"question": "a", "output": "choice"}', "choices belong"),
        ("q.jsonl", '{"question": "a", "output": "json", "schema": {"type": "objekt"}}', "the schema is none"),
        ("q.jsonl", '{"question": "a", "id": "x"}\n{"question": "b", "id": "x"}', "the id 'x'"),
        ("q.jsonl", "", "holds no question"),
        ("q.jsonl", "[" * 100_000, "is not JSON"),
        ("q.toml", "[[questions]\n", "is not TOML"),
        ("q.toml", 'question = "a"\n', r"must hold \[\[questions\]\]"),
        ("q.csv", "a\n", "must be one of"),
    ],
)
def test_a_broken_question_file_is_named_by_its_place(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ProgramError, match=said) as error:
        from_file(path)
    assert "\n" not in str(error.value)


def test_the_three_kinds_of_files_say_the_same(tmp_path):
    (tmp_path / "q.txt").write_text("# of the contract\nWhat is the fee?\n\nWho signs?\n")
    (tmp_path / "q.toml").write_text(
        '[[questions]]\nquestion = "What is the fee?"\n[[questions]]\nquestion="Who signs?"'
    )
    lines = [json.dumps({"question": text}) for text in ("What is the fee?", "Who signs?")]
    (tmp_path / "q.jsonl").write_text("\n".join(lines), encoding="utf-8-sig")
    read = [from_file(tmp_path / name) for name in ("q.txt", "q.toml", "q.jsonl")]
    assert read[0] == read[1] == read[2] and [question.id for question in read[0]] == ["q1", "q2"]
