"""What a job came to, question by question and document by document, and its two files: JSON lines and a table."""

import csv
import io
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from programs.documents.answer import Answer, Citation, Cost
from programs.documents.document import Document, Unreadable, sentences
from programs.documents.question import NUMBER, Question
from programs.picture import visible

Standing = Literal["supported", "unsupported", "not found", "incomplete", "failed", "not asked"]


@dataclass(frozen=True)
class Row:
    """One question on one document; `failure` says in a sentence why there is no answer, and is empty where the
    question was not asked yet."""

    document: str
    question: Question
    answer: Answer | None
    failure: str = ""

    @property
    def standing(self) -> Standing:
        """What a reader may make of it. "incomplete": the reply was cut or empty, whatever it quotes."""
        if self.answer is None:
            return "failed" if self.failure else "not asked"
        if self.answer.state in ("cut", "empty"):
            return "incomplete"
        if self.answer.state == "not found":
            return "not found"
        return "supported" if self.answer.supported else "unsupported"

    @property
    def verified(self) -> int:
        """How many of its quotes stand in the document."""
        return sum(citation.verified for citation in self.answer.citations) if self.answer else 0


@dataclass(frozen=True)
class Results:
    """All of a job, document by document in the questions' order. `created`: ISO 8601; `seconds`: of the wall clock,
    over all runs; `page_images`: by a document's name, the paths of its unread pages' images, seen from the report."""

    title: str
    model: str
    created: str
    documents: tuple[Document, ...]
    unreadable: tuple[Unreadable, ...]
    questions: tuple[Question, ...]
    rows: tuple[Row, ...]
    seconds: float
    page_images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def cost(self) -> Cost:
        return sum((row.answer.cost for row in self.rows if row.answer), Cost())

    @property
    def standings(self) -> Counter[Standing]:
        return Counter(row.standing for row in self.rows)

    @cached_property
    def sources(self) -> Mapping[str, "Source"]:
        return {document.name: Source(document) for document in self.documents}


class Source:
    """A document with its line ends counted once, for the many citations into it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._line_ends = [match.start() for match in re.finditer("\n", document.text)]

    def line(self, citation: Citation) -> int | None:
        """The line, from 1, that its passage begins in; `Document.line_at` counts anew each time."""
        return None if citation.start is None else bisect_right(self._line_ends, citation.start - 1) + 1

    def passage(self, citation: Citation) -> str | None:
        if citation.start is None or citation.end is None:
            return None
        return self.document.text[citation.start : citation.end]

    @property
    def unread(self) -> list[str]:
        """The parts that "not in the document" must be qualified by, such as "page 3: no text: an image only"."""
        return sentences(self.document.unread)


def jsonl(results: Results) -> bytes:
    """One JSON object a line, in ASCII, with the same keys in each: the rows, then the files that could not be read.
    Positions are characters of the document's text, line numbers are the text's."""
    records = [*(_record(row, results) for row in results.rows), *_unreadable_records(results)]
    return "".join(_json(record) + "\n" for record in records).encode("ascii")


def _record(row: Row, results: Results) -> dict[str, Any]:
    source, answer = results.sources[row.document], row.answer
    record = {
        "document": row.document,
        "sha256": source.document.sha256,
        "question_id": row.question.id,
        "question": row.question.question,
        "output": row.question.output,
        "effort": row.question.effort,
        "state": "failed" if row.failure else "not asked",
        "standing": row.standing,
        "coverage": source.document.coverage,
        "qualified_by": source.unread if row.standing == "not found" else [],
        "failure": row.failure or None,
    }
    if answer is None:
        return {**dict.fromkeys(_ANSWERED), **record}
    return {
        **record,
        "effort": answer.effort,
        "state": answer.state,
        "answer": answer.answer,
        "value": answer.value,
        "confidence": answer.confidence,
        "supported": answer.supported,
        "citations_verified": row.verified,
        "citations_total": len(answer.citations),
        "citations": [
            {**citation.model_dump(), "source": source.passage(citation), "line": source.line(citation)}
            for citation in answer.citations
        ],
        "trace": answer.trace,
        "parts": answer.parts,
        "remarks": answer.remarks,
        "cost": answer.cost.model_dump(),
    }


_ANSWERED = (
    *("answer", "value", "confidence", "supported", "citations_verified", "citations_total", "citations"),
    *("trace", "parts", "remarks", "cost"),
)


def _unreadable_records(results: Results) -> Iterator[dict[str, Any]]:
    asked = ("question_id", "question", "output", "effort", "coverage")
    for file in results.unreadable:
        yield {
            **dict.fromkeys((*asked, *_ANSWERED)),
            "document": file.name,
            "sha256": file.sha256 or None,
            "state": "unreadable",
            "standing": "unreadable",
            "qualified_by": [],
            "failure": file.why,
        }


def _json(record: Mapping[str, Any]) -> str:
    try:
        line = json.dumps(record, allow_nan=False)
    except ValueError:  # JSON has no NaN; what the model wrote stands in "answer"
        line = json.dumps(json.loads(json.dumps(record), parse_constant=lambda _: None))
    return line.replace("\x7f", "\\u007f")


COLUMNS = (
    *("document", "question_id", "question", "answer", "value", "standing", "quotes_verified", "quotes", "evidence"),
    *("pages", "not_read", "confidence", "effort", "failure", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *("trace_tokens", "requests", "seconds", "coverage", "sha256"),
)
LONGEST = 32_000  # characters; a cell of Excel holds 32,767


def csv_table(results: Results) -> bytes:
    """One line a row, in UTF-8 with the mark by which Excel knows it. No text can be a formula: one that begins like
    one has an apostrophe before it. A text is one line of at most `LONGEST` characters; `jsonl` has it as it was."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    for row in results.rows:
        writer.writerow({name: _cell(value) for name, value in _table_row(row, results).items()})
    for file in results.unreadable:
        told = {"document": file.name, "standing": "unreadable", "failure": file.why, "sha256": file.sha256}
        writer.writerow({name: _cell(value) for name, value in told.items()})
    return text.getvalue().encode("utf-8-sig")


def _table_row(row: Row, results: Results) -> dict[str, Any]:
    source, answer = results.sources[row.document], row.answer
    told = {
        "document": row.document,
        "question_id": row.question.id,
        "question": row.question.question,
        "standing": row.standing,
        "not_read": "; ".join(source.unread) if row.standing == "not found" else "",
        "effort": row.question.effort,
        "failure": row.failure,
        "coverage": source.document.coverage,
        "sha256": source.document.sha256,
    }
    if answer is None:
        return told
    verified = [citation for citation in answer.citations if citation.verified]
    return {
        **told,
        "answer": answer.answer,
        "value": answer.value,
        "quotes_verified": row.verified,
        "quotes": len(answer.citations),
        "evidence": " | ".join(source.passage(citation) or "" for citation in verified),
        "pages": "; ".join(dict.fromkeys(page_of(citation) for citation in verified if citation.page is not None)),
        "confidence": answer.confidence,
        "effort": answer.effort,
        **answer.cost.model_dump(),
    }


def page_of(citation: Citation) -> str:
    """The page's number in the file, and the one printed on it where that is another: "5 (iii)"."""
    label = citation.label if citation.label != str(citation.page) else ""
    return f"{citation.page} ({label})" if label else f"{citation.page}"


def _cell(value: Any) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "; ".join(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = visible(" ".join(text[: LONGEST + 1].split()))
    if len(line) > LONGEST or len(text) > LONGEST:
        line = line[:LONGEST] + "…"
    if line[:1] in _FORMULA and not re.fullmatch(NUMBER, line):
        return "'" + line
    return line


_FORMULA = {*"=+-@", *"＝＋－＠"}  # the wide forms too: a Japanese Excel reads them alike
