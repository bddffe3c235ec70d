"""Questions and their forms, and files of them, whole and broken."""

import json
import re

import pytest

from programs.documents.question import NOT_THERE, Question, from_file, from_texts, numbered
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


def nested(levels: int) -> str:
    schema = '{"properties": {"a": ' * levels + "{}" + "}}" * levels
    return f'{{"question": "a", "output": "json", "schema": {schema}}}'


def enormous() -> str:
    return json.dumps({"question": "a", "output": "json", "schema": {"enum": [f"choice {n}" for n in range(10_000)]}})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", '{"question": "a"}\n{"question": ', "Line 2 of"),
        ("q.jsonl", '{"question": "a"}\n\n{"questoin": "b"}\n', "Line 3 of"),
        ("q.jsonl", '{"question": "  "}', "the question is empty"),
        ("q.jsonl", '{"question": "a", "output": "choice"}', "choices belong"),
        ("q.jsonl", '{"question": "a", "output": "json", "schema": {"type": "objekt"}}', "the schema is none"),
        (
            "q.jsonl",
            '{"question": "a"}\n{"question": "\\ud800"}',
            "Line 2 of .*: question: it holds what is no character",
        ),
        ("q.jsonl", '{"question": "a", "id": "\\udfff"}', "id: Input should be a valid string"),
        ("q.jsonl", nested(150), "the schema is nested too deep"),
        ("q.jsonl", nested(20_000), "is not JSON"),
        ("q.jsonl", enormous(), "the schema has 1[0-9]{2},[0-9]{3} characters, and 100,000 at most"),
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


def test_bytes_that_are_not_utf8_in_a_question_are_named():
    with pytest.raises(ProgramError, match="it holds what is no character"):
        from_texts(["What is \udcff?"])


def test_two_questions_of_one_id_are_refused():
    with pytest.raises(ProgramError, match="the id 'x'"):
        numbered([Question(question="a", id="x"), Question(question="b", id="x")])


def test_questions_without_an_id_take_one_that_is_free():
    ids = ["", "q1", "", "fee", "q6", "", ""]
    named = numbered([Question(question="?", id=id) for id in ids])
    assert [question.id for question in named] == ["q2", "q1", "q3", "fee", "q6", "q7", "q8"]


def test_an_answer_in_json_holds_whole_characters_only():
    question = Question(question="?", output="list")
    assert question.value('["\\ud800a", "\\ud83d\\ude00"]') == ["?a", "\U0001f600"]


@pytest.mark.parametrize("reference", ["#", "#/$defs/nowhere", "http://127.0.0.1:9/schema.json"])
def test_a_schema_whose_references_lead_nowhere_is_met_by_nothing(reference):
    question = Question(question="?", output="json", schema={"$ref": reference})
    with pytest.raises(ValueError, match="reference"):
        question.value("1")


def test_the_three_kinds_of_files_say_the_same(tmp_path):
    (tmp_path / "q.txt").write_text("# of the contract\nWhat is the fee?\n\nWho signs?\n")
    (tmp_path / "q.toml").write_text(
        '[[questions]]\nquestion = "What is the fee?"\n[[questions]]\nquestion="Who signs?"'
    )
    lines = [json.dumps({"question": text}) for text in ("What is the fee?", "Who signs?")]
    (tmp_path / "q.jsonl").write_text("\n".join(lines), encoding="utf-8-sig")
    read = [from_file(tmp_path / name) for name in ("q.txt", "q.toml", "q.jsonl")]
    assert read[0] == read[1] == read[2]
    assert [question.question for question in read[0]] == ["What is the fee?", "Who signs?"]


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ('[{"fee": 1}, {"fee": 2}', [{"fee": 1}, {"fee": 2}]),
        (' [ {"fee": 1} , {"fee": 2} ,', [{"fee": 1}, {"fee": 2}]),
        ('[{"fee": 1}, {"fee": 2}, {"fe', [{"fee": 1}, {"fee": 2}]),
        ('[{"fee": 1}, {"fee": "no"}, {"fe', []),
        ('[{"fe', []),
        ('{"fee": 1', []),
        ("", []),
    ],
)
def test_of_a_list_that_breaks_off_the_complete_items_are_whole(reply, items):
    fee = {"type": "object", "properties": {"fee": {"type": "integer"}}, "required": ["fee"]}
    question = Question(question="?", output="json", schema={"type": "array", "items": fee})
    assert question.whole_items(reply) == items


def test_a_number_at_the_cut_is_not_whole():
    question = Question(question="?", output="json", schema={"type": "array", "items": {"type": "integer"}})
    assert question.whole_items("[12, 3") == [12] and question.whole_items("[12, 3 ") == [12]
    assert question.whole_items("[12, 3,") == [12, 3]
