"""Results as JSON lines and as a table: whole, valid alone, and harmless in a terminal or a spreadsheet."""

import csv
import io
import json

import pytest

from programs.documents.answer import Citation
from programs.documents.document import Document, Unreadable
from programs.documents.question import NOT_THERE, Question
from programs.documents.results import LONGEST, Results, Row, csv_table, jsonl
from tests.documents.make_results import CONTRACT, FEE, NOTICE, answered, cited, contract, made, manual, not_found, one

HOSTILE = "\x1b[31mred\x9b0m \x00\x07\x7f \u202eesrever \ud800 \u2028 \ufeff </script> \"' \r\n"


def records(results: Results) -> list[dict]:
    return [json.loads(line) for line in jsonl(results).decode("ascii").splitlines()]


def table(results: Results) -> list[dict]:
    return list(csv.DictReader(io.StringIO(csv_table(results).decode("utf-8-sig"), newline="")))


def test_every_row_and_every_unreadable_file_is_one_object_with_the_same_keys():
    read = records(made())
    assert [record["state"] for record in read] == [
        *("answered", "answered", "not found", "answered", "not found", "failed", "answered", "cut", "unreadable")
    ]
    assert len({tuple(sorted(record)) for record in read}) == 1
    assert read[5]["failure"] == "The server answered 400 (Bad Request)." and read[5]["answer"] is None
    assert (read[8]["document"], read[8]["failure"]) == ("locked.pdf", "'locked.pdf' needs a password.")


def test_a_citation_carries_its_source_its_line_and_all_its_fields():
    first, folded = records(made())[0]["citations"]
    assert set(Citation.model_fields) < set(first)
    assert first["source"] == "The monthly fee is 2,150 euros" == CONTRACT[first["start"] : first["end"]]
    assert (first["page"], first["label"], first["line"]) == (2, "ii", contract().line_at(first["start"]))
    assert folded["source"] == "payable in ad-\nvance" and folded["quote"] == "payable in advance"


def test_a_quote_that_is_nowhere_has_no_source():
    absent = records(made())[1]["citations"][1]
    assert (absent["grade"], absent["source"], absent["line"], absent["start"]) == ("absent", None, None, None)


@pytest.mark.parametrize("text", ["a", "\na", "a\n\nb\nc", "\n", "a\r\nb", "\U0001f600\n\U0001f600"])
def test_a_line_number_is_the_documents_at_every_character(text: str):
    document = Document("a.txt", "text", "", text)
    for start in range(len(text)):
        quote = Citation(quote="", grade="exact", start=start, end=start + 1)
        [record] = records(one(document, answered("x", None, quote)))
        assert record["citations"][0]["line"] == document.line_at(start)


def test_only_an_answer_with_a_verified_quote_is_supported():
    assert [record["supported"] for record in records(made())[:4]] == [True, False, False, True]
    assert [(record["citations_verified"], record["citations_total"]) for record in records(made())[:2]] == [
        (2, 2),
        (0, 2),
    ]


def test_not_found_is_qualified_by_what_was_not_read():
    read = records(made())
    assert read[2]["qualified_by"] == ["page 3: no text: an image only"]
    assert "page 3: no text: an image only" in read[2]["coverage"]
    assert read[4]["qualified_by"] == []  # of a document that was read to its end
    assert read[0]["qualified_by"] == []  # of an answer
    assert table(made())[2]["not_read"] == "page 3: no text: an image only"
    assert table(made())[4]["not_read"] == "" == table(made())[0]["not_read"]


def test_a_question_that_was_not_asked_yet_is_not_a_failure():
    [record] = records(one(manual(), None))
    assert (record["state"], record["failure"]) == ("not asked", None)


def test_any_text_is_ascii_and_comes_back_as_it_was():
    document = Document(f"{HOSTILE}.txt", "text", "", HOSTILE)
    content = jsonl(one(document, answered(HOSTILE, None, cited(document, "red"), trace=HOSTILE)))
    assert content.count(b"\n") == 1
    assert all(byte == 10 or 32 <= byte < 127 for byte in content)
    record = json.loads(content)
    assert record["answer"] == record["trace"] == HOSTILE and record["document"] == f"{HOSTILE}.txt"


def test_numbers_that_json_does_not_have_are_null():
    answer = answered('{"a": NaN}', {"a": float("nan"), "b": [1.5, float("-inf")]}, confidence=float("nan"))
    [record] = [json.loads(line, parse_constant=pytest.fail) for line in jsonl(one(manual(), answer)).splitlines()]
    assert record["value"] == {"a": None, "b": [1.5, None]} and record["confidence"] is None


def test_the_table_opens_as_utf_8_in_a_spreadsheet_and_has_a_line_for_each_row():
    content = csv_table(made())
    assert content.startswith(b"\xef\xbb\xbf")
    assert content.count(b"\r\n") == content.count(b"\n") == 1 + 8 + 1
    assert table(made())[0]["document"] == "contracts/Müller & Söhne.pdf"
    assert table(made())[0]["pages"] == "2 (ii)"
    assert table(made())[0]["evidence"] == "The monthly fee is 2,150 euros | payable in ad- vance"
    assert [row["standing"] for row in table(made())][-2:] == ["incomplete", "unreadable"]


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1+1", "\n=1+1", " =1+1", "=cmd|' /C calc'!A0", "＝1", "-"],
)
def test_no_text_is_a_formula(text: str):
    question = Question(id=text, question=f"{text}?")
    document = Document(text, "text", text, "a")
    results = one(document, answered(text, None, cited(document, "a"), effort=text), question)
    results = made(
        documents=(document,), questions=(question,), rows=results.rows, unreadable=(Unreadable(text, text, text),)
    )
    rows = table(results)
    assert len(rows) == 2
    for row in rows:
        assert not [cell for cell in row.values() if cell.startswith(tuple("=+-@\t\r＝"))]
    assert rows[0]["answer"] == "'" + text.strip()


@pytest.mark.parametrize(("value", "cell"), [(-2150, "-2150"), (-0.5, "-0.5"), (0, "0"), (3, "3")])
def test_a_number_stays_a_number(value: float, cell: str):
    [row] = table(one(manual(), answered(cell, value), FEE))
    assert (row["value"], row["answer"]) == (cell, cell)


def test_a_text_with_line_breaks_and_escapes_is_one_harmless_line():
    content = csv_table(one(manual(), answered(HOSTILE)))
    assert content.count(b"\n") == 2
    text = content.decode("utf-8-sig")
    assert not [character for character in "\x1b\x9b\x00\u202e\u2028\ufeff" if character in text]


def test_a_text_longer_than_a_cell_is_cut_visibly_and_one_that_fits_is_not():
    [row] = table(one(manual(), answered("a" * 100_000)))
    assert row["answer"] == "a" * LONGEST + "…"
    [row] = table(one(manual(), answered("a" * LONGEST)))
    assert row["answer"] == "a" * LONGEST


def test_lists_objects_and_truth_values_have_cells():
    cells = [table(one(manual(), answered("x", value)))[0]["value"] for value in (["a", "b"], {"ä": [1]}, True)]
    assert cells == ["a; b", '{"ä": [1]}', "true"]


def test_the_cost_is_the_sum_of_the_rows_and_a_failure_costs_nothing():
    assert (made().cost.prompt_tokens, made().cost.requests) == (7000, 14)
    assert made(rows=()).cost.prompt_tokens == 0


def test_standings_tell_what_a_reader_may_make_of_a_row():
    assert made().standings == {"supported": 3, "unsupported": 1, "not found": 2, "incomplete": 1, "failed": 1}
    pdf = contract()
    quoted = cited(pdf, "The monthly fee")
    assert Row(pdf.name, NOTICE, answered("x", None, quoted, state="empty")).standing == "incomplete"
    assert Row(pdf.name, NOTICE, not_found(citations=(quoted,))).standing == "not found"
    assert records(one(pdf, not_found()))[0]["answer"] == NOT_THERE
