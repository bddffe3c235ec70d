"""A Python function as a tool: its schema, its arguments checked, its result as text, its time limited.

A call runs in a thread of this process. A process of its own could be killed, but most functions that people register
(methods, closures, functions over an open connection) cannot be sent to one, and what they change would be lost with
it. So a function that takes too long is left behind: its thread is a daemon, nobody waits for it, and it ends with the
program at the latest. One that holds Python's lock for all that time (a runaway regular expression) cannot be left:
wrap such work in a subprocess of its own.
"""

import asyncio
import inspect
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NotRequired, get_type_hints

import pydantic
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from programs.errors import ProgramError

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # mistral_common's rule for a function's name
RESULT_LIMIT = 8000  # characters of a result that the model is given
REMARK_LIMIT = 300  # characters of an exception's own words

State = Literal["done", "invalid", "unknown", "failed", "timeout", "repeated", "not run"]


@dataclass(frozen=True)
class Outcome:
    """What a call came to: `text` is what the model is told, `state` says whether it is the function's own result."""

    state: State
    text: str


@dataclass(frozen=True)
class Tool:
    """A function that a model may call: `definition` is what the model is told of it, in OpenAI's form."""

    name: str
    definition: dict[str, Any]
    function: Callable[..., Any]
    arguments: pydantic.TypeAdapter[Any]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Tool":
        """The tool that a function is: its name, its docstring as the description, its annotated parameters.

        Raises ProgramError where a model could not call it: a name outside [A-Za-z0-9_-], parameters without a name of
        their own, or a type that JSON has no form for.
        """
        name = getattr(function, "__name__", type(function).__name__)
        if not NAME.fullmatch(name):
            raise ProgramError(f"{name!r} cannot be a tool: its name must be 1 to 64 of A-Z, a-z, 0-9, _ and -.")
        try:
            signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
            fields: dict[str, Any] = {}
            for parameter in signature.parameters.values():
                if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    raise ProgramError(f"{name!r} cannot be a tool: {str(parameter)!r} cannot be given by name.")
                kind: Any = hints.get(parameter.name, Any)
                fields[parameter.name] = kind if parameter.default is parameter.empty else NotRequired[kind]
            # A TypedDict takes parameters of any name, and leaves what is not given to the function's own defaults.
            typed_dict: Any = TypedDict
            arguments = typed_dict(name, fields)
            arguments.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
            adapter = pydantic.TypeAdapter(arguments)
            schema = _plain(adapter.json_schema())
        except (pydantic.errors.PydanticUserError, NameError, TypeError, ValueError) as error:
            said = str(error).splitlines()[0].split(". ")[0].rstrip(".")  # pydantic goes on with advice and a link
            raise ProgramError(f"{name!r} cannot be a tool: {said}.") from error
        # The model is told what it may give; that nothing else may be given is checked here.
        parameters = {"type": "object", "properties": schema.get("properties", {})}
        parameters |= {key: schema[key] for key in ("required", "$defs") if key in schema}
        description = inspect.getdoc(function) or ""
        definition = {"name": name, "description": description, "parameters": parameters}
        return cls(name, {"type": "function", "function": definition}, function, adapter)

    def call(self, arguments: str, timeout: float) -> Outcome:
        """Check `arguments`, JSON as the model wrote it, and run the function for at most `timeout` seconds.

        Types are strict: what the schema does not allow is refused, not converted. Nothing is raised: a refusal, an
        exception and a spent limit are outcomes of one sentence.
        """
        try:
            given = self.arguments.validate_json(arguments.encode(errors="replace"), strict=True)
        except pydantic.ValidationError as error:
            return Outcome("invalid", f"The arguments of {self.name} are not valid: {_faults(error)}.")
        outcomes: list[Outcome] = []
        work = threading.Thread(
            target=copy_context().run,
            args=(lambda: outcomes.append(self._run(given)),),
            name=f"tool {self.name}",
            daemon=True,
        )
        work.start()
        work.join(timeout)
        if outcomes:
            return outcomes[0]
        return Outcome("timeout", f"{self.name} gave no result within {timeout:g} seconds and was left behind.")

    def _run(self, given: dict[str, Any]) -> Outcome:
        try:
            result = self.function(**given)
            if inspect.isawaitable(result):
                result = asyncio.run(_awaited(result))
            text = result if isinstance(result, str) else json.dumps(result, default=_form, ensure_ascii=False)
            return Outcome("done", cut(text))
        except BaseException as error:  # noqa: BLE001 - whatever a function raises, sys.exit() too, is the call's outcome
            said = _one_line(error)
            return Outcome("failed", f"{self.name} failed: {type(error).__name__}{said and f': {said}'}.")


async def _awaited(result: Any) -> Any:
    return await result


def _form(value: Any) -> Any:
    """What JSON has no form for. Of what may never end no more is taken than could be shown."""
    return list(islice(value, RESULT_LIMIT)) if isinstance(value, Iterator) else to_jsonable_python(value, fallback=str)


def cut(text: str, limit: int = RESULT_LIMIT) -> str:
    """A text as the model is given it: at most `limit` characters of it, and a note of what is missing."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate has no bytes and so no tokens
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: the first {limit} of {len(text)} characters]"


def _plain(schema: Any) -> Any:
    """A schema without the titles that pydantic makes of names; a property may be called title."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _plain(value) for name, value in item.items()} if key in ("properties", "$defs") else _plain(item)
        for key, item in schema.items()
        if key != "title"
    }


def _faults(error: pydantic.ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    places = [(".".join(str(part) for part in fault["loc"]), fault["msg"]) for fault in faults[:5]]
    said = "; ".join(f"{place}: {message}" if place else message for place, message in places)
    return cut(said, REMARK_LIMIT) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")


def _one_line(error: BaseException) -> str:
    try:
        said = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - an exception of a caller's own may fail to say what it is
        return ""
    return said.removesuffix(".") if len(said) <= REMARK_LIMIT else f"{said[:REMARK_LIMIT]}.."
