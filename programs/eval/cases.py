"""Labelled cases, read from a JSONL file: one object a line, with `question` and `answer`."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from programs.errors import ProgramError

NANO = Path(__file__).with_name("nano.jsonl")  # the bundled task set


@dataclass(frozen=True)
class Case:
    """One labelled question. `answer` is any JSON value; `fields` is the whole object of the line, for a user's own
    scorer. `number` is the line's, from 1."""

    number: int
    question: str
    answer: Any
    document: str | None
    document_id: str | None
    choices: tuple[str, ...]
    scorer: str | None
    kind: str | None
    fields: dict[str, Any]

    @property
    def extra(self) -> dict[str, Any]:
        """The fields of the line that have no meaning here."""
        return {name: value for name, value in self.fields.items() if name not in _Line.model_fields}

    @property
    def cluster(self) -> str:
        """What cases that are not independent share: the document, by its id or else its text; without one, the
        question, so that a line that stands twice in a file is not two observations."""
        if self.document_id is not None:
            return f"id:{self.document_id}"
        kind, text = ("question", self.question) if self.document is None else ("document", self.document)
        return f"{kind}:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True)
class CaseFile:
    """The cases of a file, and one sentence for each line that is none."""

    path: Path
    cases: tuple[Case, ...]
    broken: tuple[str, ...]


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)

    question: str
    answer: Any
    document: str | None = None
    document_id: str | int | None = None
    choices: list[str | int | float] | dict[str, str | int | float] | None = None
    scorer: str | None = None
    kind: str | None = None

    @field_validator("question", "document")
    @classmethod
    def sendable(cls, text: str | None) -> str | None:
        if text is not None:
            text.encode()  # half a surrogate pair, as in "\ud83d", cannot be sent to any server
        return text

    @field_validator("question")
    @classmethod
    def said(cls, question: str) -> str:
        if not question.strip():
            raise ValueError("it is blank")
        return question

    @field_validator("answer")
    @classmethod
    def given(cls, answer: Any) -> Any:
        if answer is None or answer == [] or (isinstance(answer, str) and not answer.strip()):
            raise ValueError("it is empty, so that no reply could be right")
        return answer

    @field_validator("document")
    @classmethod
    def written(cls, document: str | None) -> str | None:
        return document if document and document.strip() else None


def read_cases(path: Path, limit: int | None = None) -> CaseFile:
    """The first `limit` cases of `path` (all when None), in the file's order; extra fields are kept.

    Blank lines are skipped; a broken line is named, and the others are kept. Raises ProgramError where the file cannot
    be read or holds no case.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ProgramError(f"The cases {str(path)!r} cannot be read: {error.strerror or error}.") from error
    cases: list[Case] = []
    broken: list[str] = []
    # Lines end at a line feed alone: JSON strings may hold the other characters at which Python splits.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if limit is not None and len(cases) >= limit:
            break
        if not line.strip():
            continue
        try:
            cases.append(_case(number, line))
        except _BrokenLine as error:
            broken.append(f"{path.name}, line {number}: {error}")
    if not cases:
        why = f"none of its lines is a case ({broken[0]})" if broken else "it is empty"
        raise ProgramError(
            f"The cases {str(path)!r} cannot be used: {why}; write one JSON object a line, such as "
            '{"question": "2+2?", "answer": "4"}.'
        )
    return CaseFile(path, tuple(cases), tuple(broken))


class _BrokenLine(Exception):
    """Why a line is no case."""


def _no_number(name: str) -> None:
    raise _BrokenLine(f"{name} is no JSON")


def _case(number: int, line: bytes) -> Case:
    try:
        fields = json.loads(line.decode(), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise _BrokenLine(f"not UTF-8 (byte {error.start + 1} of the line)") from error
    except json.JSONDecodeError as error:
        raise _BrokenLine(f"not JSON ({error.msg}, column {error.colno})") from error
    except (RecursionError, ValueError) as error:  # too deep; a number of more digits than Python reads
        raise _BrokenLine("JSON that is nested too deep or holds too long a number") from error
    if not isinstance(fields, dict):
        raise _BrokenLine("not a JSON object")
    if missing := [f"`{name}`" for name in ("question", "answer") if name not in fields]:
        raise _BrokenLine(f"it has no {' and no '.join(missing)}")
    try:
        checked = _Line.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ").lower()
        raise _BrokenLine(f"`{first['loc'][0]}` is not usable: {message}") from error
    listed = checked.choices
    if isinstance(listed, dict):
        # {"A": "Paris", "B": "Rome"}: the letters must be those that a list of the texts would have.
        if [key.upper() for key in listed] != [chr(ord("A") + at) for at in range(len(listed))]:
            raise _BrokenLine("`choices` is not usable: name the options A, B, C and so on, or give a list")
        listed = list(listed.values())
    return Case(
        number=number,
        question=checked.question,
        answer=checked.answer,
        document=checked.document,
        document_id=None if checked.document_id is None else str(checked.document_id),
        choices=tuple(str(choice) for choice in listed or ()),
        scorer=checked.scorer,
        kind=checked.kind,
        fields=fields,
    )
