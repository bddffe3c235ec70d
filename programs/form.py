"""The form that an answer is asked for in, how the server holds it to it, and how it is read."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from sglang.lang.ir import REGEX_BOOL

from programs.errors import ProgramError

INTEGER = r"[-+]?[0-9]{1,18}"
NUMBER = r"[-+]?[0-9]{1,18}(\.[0-9]{1,18})?"


@dataclass(frozen=True)
class Form:
    """`constraint`: the keyword of `gen` (regex or json_schema) and its value; `choices`: options to select among;
    `read`: from the answer's text to its value, raising ValueError where it is none."""

    constraint: Mapping[str, str]
    read: Callable[[str], Any]
    choices: tuple[str, ...] = ()

    def key(self, text: str) -> str:
        """Equal for answers that say the same: what votes are counted by."""
        try:
            return json.dumps(self.read(text), sort_keys=True, default=repr)
        except ValueError:
            return text.strip()


def form_of(output: Any) -> Form:
    """The form for `solve`'s `output`: None (text), int, float, bool, a list of choices, a compiled regex, a JSON
    schema as a dictionary, or any type that pydantic knows. Raises ProgramError for anything else."""
    if output is None or output is str:
        return Form({}, str.strip)
    if output is bool:
        return Form({"regex": REGEX_BOOL}, lambda text: _one_of(text, ("True", "False")) == "True")
    if output is int:
        return Form({"regex": INTEGER}, int)
    if output is float:
        return Form({"regex": NUMBER}, float)
    if isinstance(output, re.Pattern):
        if not isinstance(output.pattern, str) or output.flags & ~re.UNICODE:
            raise ProgramError(
                f"output {output!r:.80} has flags or bytes, which the server cannot hold: write them out."
            )
        return Form({"regex": output.pattern}, str)  # held by the server; Python's engine may take for ever
    if isinstance(output, Mapping):
        return Form({"json_schema": _as_json(output)}, json.loads)
    if isinstance(output, Sequence) and not isinstance(output, str | bytes):
        return _choices(output)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(output)
        return Form({"json_schema": _as_json(adapter.json_schema())}, lambda text: _validated(adapter, text))
    except (PydanticUserError, TypeError) as error:
        raise ProgramError(
            f"output {output!r:.80} is no form of an answer: give int, float, bool, a list of choices, a compiled "
            "regex, a JSON schema or a pydantic type."
        ) from error


def _choices(options: Sequence[Any]) -> Form:
    choices = tuple(options)
    if not choices or not all(isinstance(choice, str) and choice for choice in choices):
        raise ProgramError("output is a list of choices: give at least one, each a text that is not empty.")
    if len(set(choices)) < len(choices):
        raise ProgramError(f"output has the same choice twice: {list(choices)!r:.120}.")
    pattern = "(" + "|".join(re.escape(choice) for choice in choices) + ")"
    return Form({"regex": pattern}, lambda text: _one_of(text, choices), choices)


def _as_json(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise ProgramError(f"output is no JSON schema ({error}): give one that JSON can hold.") from error


def _one_of(text: str, choices: Sequence[str]) -> str:
    if text.strip() not in choices and text not in choices:
        raise ValueError(f"{text!r} is none of {list(choices)!r}")
    return text if text in choices else text.strip()


def _validated(adapter: TypeAdapter[Any], text: str) -> Any:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        raise ValueError(str(error)) from error
