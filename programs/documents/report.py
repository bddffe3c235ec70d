"""Results as one HTML page that loads nothing: a table of all answers, and every quote at its place in its document.

What documents and models say gets into the page in two ways only: through the template, which escapes it, and as JSON
in blocks that are no scripts, from which report.js makes text nodes. The page's policy forbids everything else, also
HTML made from strings (Trusted Types).
"""

import base64
import hashlib
import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from programs.documents.answer import Answer, Citation, Cost
from programs.documents.document import Document, Remark
from programs.documents.question import Question
from programs.documents.results import Results, Row, Source, Standing
from programs.picture import fit

HERE = Path(__file__).parent
SHORT = 160  # columns of an answer in its cell
SIGNS: dict[Standing, tuple[str, str]] = {  # a sign and a word each: nothing is said by colour alone
    "supported": ("✓", "supported"),
    "unsupported": ("!", "unsupported"),
    "not found": ("∅", "not in the document"),
    "incomplete": ("…", "incomplete"),
    "failed": ("✕", "failed"),
    "not asked": ("–", "not asked"),
}


def render(results: Results) -> str:
    """The page. It holds each document's text once and draws it when a reader opens it."""
    style, script = (HERE / "report.css").read_text("utf-8"), (HERE / "report.js").read_text("utf-8")
    images = " img-src 'self';" if any(results.page_images.values()) else ""
    answers = {(row.document, row.question.id): row for row in results.rows}
    return _PAGES.get_template("report.html.jinja").render(
        results=results,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)};{images} base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        style=Markup(style),
        script=Markup(script),
        signs=SIGNS,
        created=_moment(results.created),
        cost=results.cost,
        cached=_share(results.cost.cached_tokens, results.cost.prompt_tokens),
        duration=_duration(results.seconds),
        standings=_standings(results, answers),
        answer=lambda document, question: answers.get((document.name, question.id)),
        support=_support,
        short=lambda row: fit(row.answer.answer if row.answer else row.failure, SHORT),
        read=_read,
        unread=_unread,
        key=_key,
        line=lambda text: fit(text, 400),
        data=Markup(_json(_data(results, answers))),
        texts=(Markup(_json(document.text)) for document in results.documents),
    )


def _standings(results: Results, answers: Mapping[tuple[str, str], Row]) -> Mapping[Standing, int]:
    """How many cells of the table stand how; one without a row was not asked yet."""
    missing = len(results.documents) * len(results.questions) - len(answers)
    return results.standings + Counter({"not asked": missing})


def _data(results: Results, answers: Mapping[tuple[str, str], Row]) -> dict[str, Any]:
    """What report.js shows, all but the texts. Its positions count as JavaScript does, in UTF-16 units."""
    questions = results.questions
    documents, rows = [], []
    for document in results.documents:
        source, units = results.sources[document.name], _Units(document.text)
        documents.append(_document(source, units, results.page_images.get(document.name, ())))
        known = (answers.get((document.name, question.id)) for question in questions)
        rows.append([_row(row, source, units) if row else None for row in known])
    return {"signs": SIGNS, "questions": [_question(each) for each in questions], "documents": documents, "rows": rows}


def _question(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "key": _key(question.id),
        "text": question.question,
        "output": question.output,
    }


def _document(source: Source, units: "_Units", images: Sequence[str]) -> dict[str, Any]:
    document = source.document
    return {
        "name": document.name,
        "key": _key(document.name),
        "format": document.format,
        "sha256": document.sha256,
        "coverage": document.coverage,
        "unread": source.unread,
        "remarks": [
            {"kind": remark.kind, "place": remark.place, "what": remark.what, "page": remark.page, "text": remark.text}
            for remark in document.remarks
        ],
        "blocks": [
            {"start": units.at(start), "end": units.at(end), "page": page, "label": label}
            for start, end, page, label in _blocks(document)
        ],
        "headings": [[units.at(heading.start), units.at(heading.end)] for heading in document.headings],
        "images": _images(document.unread, images),
    }


def _blocks(document: Document) -> Iterator[tuple[int, int, int | None, str]]:
    """The text from its beginning to its end: pages as (start, end, number, label), what is on none with number None,
    and in their order the pages that remarks name and the text knows nothing of."""
    known = {page.number for page in document.pages}
    missing = sorted({remark.page for remark in document.remarks if remark.page is not None} - known, reverse=True)
    place = 0
    for page in document.pages:
        while missing and missing[-1] < page.number:
            yield page.start, page.start, missing.pop(), ""
        if place < page.start:
            yield place, page.start, None, ""
        yield page.start, page.end, page.number, page.label
        place = max(place, page.end)
    if place < len(document.text):
        yield place, len(document.text), None, ""
    for number in reversed(missing):
        yield len(document.text), len(document.text), number, ""


def _images(unread: Sequence[Remark], images: Sequence[str]) -> dict[str, list[str]]:
    """Links to the images by their page, where there is one for each page that was not read; else all under ""."""
    links = ["./" + quote(path.lstrip("/"), safe="/", errors="surrogatepass") for path in images]
    pages = [remark.page for remark in unread if remark.page is not None]
    if len(pages) != len(links):
        return {"": links}
    return {str(page): [link] for page, link in zip(pages, links, strict=True)}


def _row(row: Row, source: Source, units: "_Units") -> dict[str, Any]:
    return {
        "standing": row.standing,
        "failure": row.failure,
        "support": _support(row),
        "answer": _answer(row.answer, source, units) if row.answer else None,
    }


def _answer(answer: Answer, source: Source, units: "_Units") -> dict[str, Any]:
    shown = json.dumps(answer.value, ensure_ascii=False, indent=1)
    return {
        "text": answer.answer,
        "value": shown if answer.value is not None and not isinstance(answer.value, str) else None,
        "state": answer.state,
        "effort": answer.effort,
        "confidence": f"{answer.confidence:.2f}" if answer.confidence is not None else None,
        "trace": answer.trace,
        "parts": answer.parts,
        "remarks": answer.remarks,
        "cost": _cost(answer.cost),
        "citations": [_citation(citation, source, units) for citation in answer.citations],
    }


def _citation(citation: Citation, source: Source, units: "_Units") -> dict[str, Any]:
    found = citation.start is not None and citation.end is not None
    return {
        "quote": citation.quote,
        "grade": citation.grade,
        "rules": citation.rules,
        "start": units.at(citation.start) if citation.start is not None and found else None,
        "end": units.at(citation.end) if citation.end is not None and found else None,
        "page": citation.page,
        "label": citation.label,
        "line": source.line(citation),
        "places": citation.places,
        "difference": citation.difference,
        "hint": citation.hint,
    }


def _cost(cost: Cost) -> list[tuple[str, str]]:
    return [
        ("prompt tokens", f"{cost.prompt_tokens:,}"),
        ("of them cached", f"{cost.cached_tokens:,} ({_share(cost.cached_tokens, cost.prompt_tokens)})"),
        ("completion tokens", f"{cost.completion_tokens:,}"),
        ("of them in the trace", f"{cost.trace_tokens:,}"),
        ("requests", f"{cost.requests:,}"),
        ("time", _duration(cost.seconds)),
    ]


class _Units:
    """Positions in a text as JavaScript counts them, where a character beyond U+FFFF is two."""

    def __init__(self, text: str) -> None:
        self._long = [] if text.isascii() else [match.start() for match in re.finditer("[\U00010000-\U0010ffff]", text)]

    def at(self, position: int) -> int:
        return position + bisect_left(self._long, position)


def _support(row: Row) -> str:
    """What stands behind an answer, in a word or two."""
    quotes = len(row.answer.citations) if row.answer else 0
    match row.standing:
        case "supported":
            return f"{row.verified} of {_count(quotes, 'quote')}"
        case "unsupported":
            return f"0 of {_count(quotes, 'quote')}" if quotes else "no quote"
        case "incomplete":
            return "cut at its limit" if row.answer and row.answer.state == "cut" else "empty"
    return ""


def _read(document: Document) -> str:
    """How much of a document was read, for a narrow column."""
    size = _count(len(document.pages), "page") if document.pages else _count(len(document.text), "character")
    return f"{size}, {_unread(document)}" if document.unread else size


def _unread(document: Document) -> str:
    return f"{_count(len(document.unread), 'part')} not read"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _moment(created: str) -> str:
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return created


def _key(name: str) -> str:
    """A name as it stands in the address of a row; a name that no encoding takes has one too."""
    return quote(name, safe="", errors="surrogatepass")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


# What HTML could take for its end, an editor for a line's, or a terminal obey; lone surrogates, which UTF-8 lacks.
_DANGEROUS = re.compile(r"[<>&\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")


def _json(value: Any) -> str:
    return _DANGEROUS.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


_PAGES = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
