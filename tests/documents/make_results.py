"""Made-up results: of each kind of answer, quote and remark one, in documents that are short enough to read."""

from typing import Any

from programs.documents.answer import Answer, Citation, Cost
from programs.documents.document import Document, Heading, Page, Remark, Unreadable
from programs.documents.question import NOT_THERE, Question
from programs.documents.results import Results, Row

FIRST = "Service contract \U0001f600\U00020000\n\nThe supplier keeps the backup for ninety days.\n"
SECOND = "The monthly fee is 2,150 euros, payable in ad-\nvance by the customer.\nThe fee is 2,150 euros.\n"
FOURTH = "Either party may end this contract with three months' notice.\n"
CONTRACT = FIRST + SECOND + FOURTH

FEE = Question(id="fee", question="What is the monthly fee?", output="number")
NOTICE = Question(id="notice", question="How long is the notice period?")
COURT = Question(id="court", question="Which court is competent?", effort="high")
DUTIES = Question(id="duties", question="Which duties does the supplier have?", output="list")
QUESTIONS = (FEE, NOTICE, COURT, DUTIES)
COST = Cost(prompt_tokens=1000, cached_tokens=900, completion_tokens=50, trace_tokens=20, requests=2, seconds=1.5)


def contract() -> Document:
    """Three pages with text and the third, a scan, without; emoji before all that is quoted."""
    second, fourth = len(FIRST), len(FIRST + SECOND)
    return Document(
        "contracts/Müller & Söhne.pdf",
        "pdf",
        "ab" * 32,
        CONTRACT,
        (
            Page(1, "i", 0, second),
            Page(2, "ii", second, fourth),
            Page(3, "", fourth, fourth),
            Page(4, "1", fourth, len(CONTRACT)),
        ),
        (Heading(1, 0, FIRST.index("\n")),),
        (
            Remark("unread", "page 3", "no text: an image only", 3),
            Remark("hidden", "page 2", "white text is left out", 2, "the true fee is 9"),
            Remark("note", "", "the file holds tracked changes"),
        ),
    )


def manual() -> Document:
    return Document("manual.md", "markdown", "cd" * 32, "# Manual\n\nPress the red button.\nCourt: Hamburg.\n")


def cited(document: Document, passage: str, quote: str | None = None, **more: Any) -> Citation:
    """A citation of the first place where `passage` stands, exact but for what is said."""
    start = document.text.index(passage)
    page = document.page_at(start)
    given = dict(grade="exact", page=page.number if page else None, label=page.label if page else "")
    return Citation(
        quote=passage if quote is None else quote,
        start=start,
        end=start + len(passage),
        places=document.text.count(passage),
        **{**given, **more},
    )


def answered(text: str, value: Any = None, *citations: Citation, **more: Any) -> Answer:
    given = dict(state="answered", effort="none", confidence=0.93, cost=COST)
    return Answer(answer=text, value=text if value is None else value, citations=citations, **{**given, **more})


def not_found(**more: Any) -> Answer:
    return Answer(answer=NOT_THERE, value=None, state="not found", effort="high", cost=COST, **more)


def rows() -> tuple[Row, ...]:
    pdf, text = contract(), manual()
    advance = cited(pdf, "payable in ad-\nvance", "payable in advance", grade="folded", rules=("hyphen", "white space"))
    altered = cited(
        pdf,
        "with three months' notice",
        "with six months' notice",
        grade="different",
        difference=(("both", "with "), ("quote", "six"), ("source", "three"), ("both", " months' notice")),
    )
    invented = Citation(quote="The supplier answers within one hour.", grade="absent", hint="It was asked for twice.")
    return (
        Row(pdf.name, FEE, answered("2150", 2150, cited(pdf, "The monthly fee is 2,150 euros"), advance)),
        Row(pdf.name, NOTICE, answered("Six months.", None, altered, invented, trace="Six or three?")),
        Row(pdf.name, COURT, not_found(trace="I have seen no court.")),
        Row(
            pdf.name,
            DUTIES,
            answered(
                '["Keep the backup for ninety days"]',
                ["Keep the backup for ninety days"],
                cited(pdf, "keeps the backup for ninety days"),
                cited(pdf, "the backup for ninety days.\nThe monthly"),
                parts=2,
                remarks=("The first reply was no JSON; it was asked again.",),
            ),
        ),
        Row(text.name, FEE, not_found()),
        Row(text.name, NOTICE, None, "The server answered 400 (Bad Request)."),
        Row(text.name, COURT, answered("Hamburg", None, cited(text, "Court: Hamburg."), confidence=None)),
        Row(text.name, DUTIES, answered('["Press', None, state="cut")),
    )


def made(**more: Any) -> Results:
    """The results; what is given replaces a field."""
    given: dict[str, Any] = dict(
        title="Contracts of March",
        model="nano",
        created="2026-03-01T12:00:00+00:00",
        documents=(contract(), manual()),
        unreadable=(Unreadable("locked.pdf", "'locked.pdf' needs a password.", "ef" * 32),),
        questions=QUESTIONS,
        rows=rows(),
        seconds=75.0,
    )
    return Results(**{**given, **more})


def one(document: Document, answer: Answer | None, question: Question = NOTICE, failure: str = "") -> Results:
    """One question on one document."""
    return made(
        documents=(document,),
        unreadable=(),
        questions=(question,),
        rows=(Row(document.name, question, answer, failure),),
    )
