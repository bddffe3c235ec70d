"""Labelled cases: what is read of a file, and what is said of what is not."""

import json
from pathlib import Path

import pytest

from programs.errors import ProgramError
from programs.eval import nano
from programs.eval.cases import NANO, read_cases
from programs.eval.scorers import SCORERS

GOOD = '{"question": "2+2?", "answer": "4"}'


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b"\xff{}", "not UTF-8 (byte 1"),
        (b"[1]", "not a JSON object"),
        (b'{"question": "a"}', "it has no `answer`"),
        (b'{"q": 1}', "it has no `question` and no `answer`"),
        (b'{"question": " ", "answer": "4"}', "`question` is not usable: it is blank"),
        (b'{"question": 7, "answer": "4"}', "`question` is not usable"),
        (b'{"question": "a", "answer": null}', "`answer` is not usable"),
        (b'{"question": "a", "answer": " "}', "`answer` is not usable"),
        (b'{"question": "\\ud83d", "answer": "4"}', "`question` is not usable"),
        (b'{"question": "a", "answer": "4", "document": 5}', "`document` is not usable"),
        (b'{"question": "a", "answer": "4", "choices": {"x": "1"}}', "`choices` is not usable"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"question": "a", "answer": ' + b"9" * 5000 + b"}", "too long a number"),
    ],
)
def test_a_broken_line_is_named_and_the_others_are_kept(tmp_path: Path, line: bytes, why: str):
    read = read_cases(written(tmp_path, GOOD.encode() + b"\n\n" + line + b"\r\n" + GOOD.encode()))
    assert [case.number for case in read.cases] == [1, 4]
    (said,) = read.broken
    assert said.startswith("cases.jsonl, line 3: ") and why in said


@pytest.mark.parametrize(
    ("content", "why"), [("", "it is empty"), ("\n \n", "it is empty"), ("{\n", "line 1: not JSON")]
)
def test_a_file_without_a_case_is_one_sentence(tmp_path: Path, content: str, why: str):
    with pytest.raises(ProgramError, match=why) as error:
        read_cases(written(tmp_path, content))
    assert str(error.value).count("\n") == 0


def test_a_file_that_is_not_there_and_a_folder_are_one_sentence_each(tmp_path: Path):
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(ProgramError, match="cannot be read"):
            read_cases(path)


def test_a_byte_order_mark_and_line_separators_within_strings_are_no_trouble(tmp_path: Path):
    line = '{"question": "a\u2028b\x85c", "answer": "4"}'
    (case,) = read_cases(written(tmp_path, "\ufeff" + line + "\n")).cases
    assert case.question == "a\u2028b\x85c"


def test_extra_fields_are_kept(tmp_path: Path):
    (case,) = read_cases(written(tmp_path, '{"question": "a", "answer": 4, "source": {"page": 3}}')).cases
    assert case.extra == {"source": {"page": 3}} and case.fields["answer"] == 4


def test_the_limit_is_of_cases_not_of_lines(tmp_path: Path):
    read = read_cases(written(tmp_path, "\n".join(["{", GOOD, GOOD, GOOD])), limit=2)
    assert len(read.cases) == 2 and len(read.broken) == 1


def test_cases_are_clustered_by_document_id_else_by_document_else_by_question(tmp_path: Path):
    lines = [
        {"question": "a", "answer": "1", "document": "D", "document_id": 7},
        {"question": "b", "answer": "1", "document": "E", "document_id": "7"},
        {"question": "c", "answer": "1", "document": "D"},
        {"question": "d", "answer": "1", "document": "D"},
        {"question": "e", "answer": "1"},
        {"question": "f", "answer": "1"},
        {"question": "e", "answer": "1"},
    ]
    cases = read_cases(written(tmp_path, "\n".join(map(json.dumps, lines)))).cases
    by_id, same_id, by_text, same_text, alone, other, again = (case.cluster for case in cases)
    assert by_id == same_id and by_text == same_text and alone == again
    assert len({by_id, by_text, alone, other}) == 4


def test_the_bundled_tasks_are_what_their_generator_makes_and_all_of_them_can_be_used():
    read = read_cases(NANO)
    assert len(read.cases) == 200 and not read.broken
    assert NANO.read_text(encoding="utf-8").splitlines() == nano.lines()
    for case in read.cases:
        assert case.scorer and SCORERS[case.scorer](str(case.answer), case) == 1
    assert {case.kind for case in read.cases[:40]} == set(nano.COUNTS)
