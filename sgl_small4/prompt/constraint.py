"""Whether a request's constraint can be compiled, said before the request is scheduled.

The scheduler compiles constraints too, but what it finds reaches a stream after its 200. Here a constraint is only
parsed, without the vocabulary, which takes milliseconds; xgrammar accepts and refuses alike in both.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import xgrammar
from sglang.srt.constrained.json_schema_validation import UnsupportedJSONSchemaFeature, validate_xgrammar_json_schema

from sgl_small4.prompt.format import PromptError

KINDS = ("json_schema", "regex", "ebnf", "structural_tag")
MAX_DEPTH = 100  # xgrammar's own bound for tags; a schema of 1,000 levels takes it 40 s
ANY_JSON = "$$ANY$$"  # SGLang's word for a schema that admits every JSON value

# Where xgrammar's sources say which of their lines raised an error.
SOURCE_PLACE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ")


def check_constraint(sampling_params: Mapping[str, Any]) -> None:
    """Raise PromptError, naming the constraint and what is wrong with it, when it cannot be compiled."""
    for kind in KINDS:
        text = sampling_params.get(kind)
        if isinstance(text, str) and (reason := _refusal(kind, text)):
            raise PromptError(f"The {kind} cannot be compiled: {reason}")


@lru_cache(maxsize=1024)
def _refusal(kind: str, text: str) -> str | None:
    try:
        _parse(kind, text)
    except (ValueError, RuntimeError, RecursionError, UnsupportedJSONSchemaFeature) as error:
        reason = SOURCE_PLACE.sub("", str(error)).strip()
        return reason if reason.endswith(".") else f"{reason}."
    return None


def _parse(kind: str, text: str) -> None:
    if "\0" in text:
        raise ValueError("a NUL character cannot be constrained to")  # xgrammar 0.2.7 crashes on it
    if kind == "regex":
        xgrammar.Grammar.from_regex(text)
    elif kind == "ebnf":
        xgrammar.Grammar.from_ebnf(text)
    elif text != ANY_JSON:
        parsed = json.loads(text)
        _check_json(parsed)
        if kind == "json_schema":
            validate_xgrammar_json_schema(parsed)
            xgrammar.Grammar.from_json_schema(text)
        elif not isinstance(parsed, dict):
            raise ValueError("a structural tag is an object")
        elif parsed.get("structures") is None:
            xgrammar.Grammar.from_structural_tag(text)


def _check_json(parsed: object) -> None:
    """What xgrammar lets pass, takes too long for, or crashes on."""
    for depth, key, value in _nodes(parsed):
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if "\0" in key or (isinstance(value, str) and "\0" in value):
            raise ValueError("a NUL character cannot be constrained to")
        if key == "$ref" and isinstance(value, str) and not value.startswith("#"):
            raise ValueError(
                f"$ref {value!r:.80} points outside the schema; only references within it (#/..) are known"
            )


def _nodes(parsed: object) -> Iterator[tuple[int, str, object]]:
    """Every value of a JSON document, with its depth and the key that it stands under."""
    stack: list[tuple[int, str, object]] = [(0, "", parsed)]
    while stack:
        depth, key, value = node = stack.pop()
        yield node
        if isinstance(value, dict):
            stack += ((depth + 1, str(name), child) for name, child in value.items())
        elif isinstance(value, list):
            stack += ((depth + 1, "", child) for child in value)
