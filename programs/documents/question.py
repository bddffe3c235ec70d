"""What a job asks: a question, the form its answer is wanted in, and the effort it is given; and files of them.

Every form has a way to say that the document does not: the sentence `NOT_THERE`, an empty list, or null.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Literal

import jsonschema
import referencing
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from programs.errors import ProgramError

NOT_THERE = "That is not in the document."
NUMBER = r"-?[0-9]{1,18}(\.[0-9]{1,18})?"
DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"  # ISO 8601
SCHEMA_LIMIT = 100_000  # characters; a server takes a minute to make a grammar of ten times as many
LIST = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 100}

Output = Literal["text", "number", "date", "choice", "list", "json"]


class Question(BaseModel):
    """`id`: how results name it, by default its place, as in q3. `choices` belong to the output "choice", `schema` (a
    JSON schema) to "json". `effort`: none, high, auto or deliberate; by default the job's."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: str = Field(default="", max_length=200)
    question: str
    output: Output = "text"
    choices: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    effort: Literal["none", "high", "auto", "deliberate"] | None = None

    @field_validator("json_schema", mode="before")
    @classmethod
    def _written(cls, schema: Any) -> Any:
        """A schema may be given as text, which is how TOML, where there is no null, keeps it."""
        try:
            return json.loads(schema) if isinstance(schema, str) else schema
        except (ValueError, RecursionError):
            raise ValueError("the schema is not JSON") from None

    @field_validator("question", "choices")
    @classmethod
    def _written_in_whole_characters(cls, said: Any) -> Any:
        if re.search("[\ud800-\udfff]", said if isinstance(said, str) else "".join(said)):
            raise ValueError("it holds what is no character, as of bytes that are not UTF-8")
        return said

    @field_serializer("json_schema", when_used="json")
    def _as_text(self, schema: dict[str, Any] | None) -> str | None:
        return None if schema is None else json.dumps(schema, sort_keys=True)

    @model_validator(mode="after")
    def _fits_together(self) -> "Question":
        if not self.question.strip():
            raise ValueError("the question is empty")
        if (self.output == "choice") != bool(self.choices):
            raise ValueError('choices belong to the output "choice", which needs them')
        if len(set(self.choices)) < len(self.choices) or not all(choice.strip() for choice in self.choices):
            raise ValueError("the choices must differ, and none may be empty")
        if (self.output == "json") != (self.json_schema is not None):
            raise ValueError('a schema belongs to the output "json", which needs one')
        if self.json_schema is not None:
            try:
                size = len(json.dumps(self.json_schema))
                if size > SCHEMA_LIMIT:
                    raise ValueError(
                        f"the schema has {size:,} characters, and {SCHEMA_LIMIT:,} at most can be asked for"
                    )
                jsonschema.Draft202012Validator.check_schema(self.json_schema)
            except jsonschema.SchemaError as error:
                raise ValueError(f"the schema is none: {error.message[:200]}") from None
            except RecursionError:
                raise ValueError("the schema is nested too deep") from None
        return self

    @cached_property
    def form(self) -> Any:
        """The `output` that `programs.effort.solve` takes for it."""
        absent = re.escape(NOT_THERE).replace(r"\ ", " ")
        match self.output:
            case "number":
                return re.compile(f"({NUMBER}|{absent})")
            case "date":
                return re.compile(f"({DATE}|{absent})")
            case "choice":
                return [*self.choices, NOT_THERE]
            case "list":
                return LIST
            case "json":
                return _or_null(self.json_schema or {})
        return None

    def value(self, text: str) -> Any:
        """An answer's text in its form: str, int or float, an ISO date, a choice, a list, JSON; None where it says that
        the document does not. Raises ValueError for a text that is none of these."""
        said = text.strip()
        if said == NOT_THERE or (self.output == "text" and said.rstrip(".").lower() == NOT_THERE.rstrip(".").lower()):
            return None
        match self.output:
            case "number":
                return float(said) if "." in said else int(said)
            case "date":
                if not re.fullmatch(DATE, said):
                    raise ValueError(f"{said[:40]!r} is no date")
                return said
            case "choice":
                if said not in self.choices:
                    raise ValueError(f"{said[:40]!r} is none of the choices")
                return said
            case "list" | "json":
                value = _loaded(said)
                if value is None or value == []:
                    return None
                if problem := _problem(value, LIST if self.output == "list" else self.json_schema or {}):
                    raise ValueError(f"it does not meet the schema: {problem}")
                return value
        return said

    def whole_items(self, text: str) -> list[Any]:
        """The complete items of a JSON list that breaks off; none where they alone do not meet the schema."""
        items = _items(text.strip())
        return items if items and not _problem(items, self.json_schema or {}) else []


def from_texts(texts: Sequence[str]) -> tuple[Question, ...]:
    """Questions of the output "text", as they come from a command line."""
    return tuple(_checked({"question": text}, f"The question {text[:40]!r}") for text in texts)


def from_file(path: Path) -> tuple[Question, ...]:
    """The questions of a file: `.txt` has one a line (# begins a remark), `.jsonl` an object a line, `.toml` a
    `[[questions]]` table each. Raises ProgramError that names the line or the question which cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ProgramError(f"The question file {str(path)!r} cannot be read: {reason}.") from error
    readers = {".txt": _lines, ".jsonl": _json_lines, ".toml": _toml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ProgramError(f"The question file {str(path)!r} must be one of {', '.join(readers)}.")
    questions = tuple(reader(text, path))
    if not questions:
        raise ProgramError(f"The question file {str(path)!r} holds no question.")
    return questions


def numbered(questions: Sequence[Question]) -> tuple[Question, ...]:
    """With an id each: those that have none by their place, or by the next number that is free. Raises ProgramError
    where two have the same."""
    given = Counter(question.id for question in questions if question.id)
    if twice := next((id for id, times in given.items() if times > 1), None):
        raise ProgramError(f"Two questions have the id {twice!r}: give each its own.")
    named = []
    for place, question in enumerate(questions, 1):
        if not question.id:
            id = next(name for number in count(place) if (name := f"q{number}") not in given)
            given[id] += 1
            question = question.model_copy(update={"id": id})
        named.append(question)
    return tuple(named)


def _lines(text: str, path: Path) -> Iterator[Question]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield _checked({"question": line.strip()}, f"Line {number} of {str(path)!r}")


def _json_lines(text: str, path: Path) -> Iterator[Question]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"Line {number} of {str(path)!r}"
            try:
                given = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ProgramError(f"{place} is not JSON: correct or remove it.") from error
            yield _checked(given, place)


def _toml(text: str, path: Path) -> Iterator[Question]:
    try:
        read = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProgramError(f"The question file {str(path)!r} is not TOML: {error}.") from error
    if set(read) != {"questions"} or not isinstance(read["questions"], list):
        raise ProgramError(f"The question file {str(path)!r} must hold [[questions]] and nothing else.")
    for number, given in enumerate(read["questions"], 1):
        yield _checked(given, f"Question {number} of {str(path)!r}")


def _checked(given: Any, place: str) -> Question:
    try:
        return Question.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ProgramError(f"{place} is no question: {field + ': ' if field else ''}{said}.") from None


def _loaded(said: str) -> Any:
    """JSON whose texts are whole characters, whatever its escapes say. Raises ValueError."""
    try:
        return json.loads(json.dumps(json.loads(said), ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _items(text: str) -> list[Any]:
    items: list[Any] = []
    place = 0
    while text[place : place + 1] == ("," if items else "["):
        try:
            item, place = json.JSONDecoder().raw_decode(text, _behind_space(text, place + 1))
        except (ValueError, RecursionError):
            break
        if place == len(text) and type(item) in (int, float):
            break  # its other digits may be what is missing
        items.append(item)
        place = _behind_space(text, place)
    return _loaded(json.dumps(items))


def _behind_space(text: str, place: int) -> int:
    while text[place : place + 1].isspace():
        place += 1
    return place


def _problem(value: Any, schema: dict[str, Any]) -> str:
    """Where a value does not meet a schema, "" where it does. Nothing is fetched for a reference."""
    problems = jsonschema.Draft202012Validator(schema, registry=referencing.Registry()).iter_errors(value)
    try:
        problem = next(problems, None)
    except referencing.exceptions.Unresolvable as error:
        return f"its reference {error.ref!r} leads nowhere"
    except RecursionError:
        return "its references have no end"
    return problem.message[:200] if problem else ""


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, or null; its definitions stay where its references look for them, at the top."""
    top: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in (*top, "$schema", "$id")}
    return {"anyOf": [rest, {"type": "null"}], **top}
