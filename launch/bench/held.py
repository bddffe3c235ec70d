"""Replies that a request holds to something: a budget of trace tokens, or a constraint on the answer.

Budget: sums whose trace nano writes in about 60 tokens, at effort high, each with `max_thinking_tokens` 32.
Constraints: JSON schemas, regexes and choices of several kinds, at both efforts. At high a trace must come first and be
free of the constraint, which shows in that it does not fit it.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx
import jsonschema

from sgl_small4.nano import CHECKPOINT, cases
from sgl_small4.nano.cases import Case
from sgl_small4.nano.tasks import arithmetic
from sgl_small4.prompt.format import Effort, PromptFormat

BUDGET = 32
BOTH: tuple[Effort, ...] = ("none", "high")
USUAL_TRACE = range(50, 76)  # tokens
AT_ONCE = 8
SECONDS = 300


@dataclass(frozen=True)
class Limited:
    """What came of one question with a budget."""

    trace_tokens: int
    answer: str
    right: bool


@dataclass(frozen=True)
class Constraint:
    """A constraint as a chat request states it, and whether an answer fits it."""

    kind: str
    fields: dict[str, Any]
    fits: Callable[[str], bool]


@dataclass(frozen=True)
class Held:
    """What came of one constrained request."""

    kind: str
    effort: Effort
    valid: bool
    free_trace: bool


def ask(url: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The replies to chat requests, several at a time, in their order."""
    with httpx.Client(base_url=url, timeout=SECONDS, trust_env=False) as http, ThreadPoolExecutor(AT_ONCE) as pool:

        def one(request: dict[str, Any]) -> dict[str, Any]:
            response = http.post("/v1/chat/completions", json={"model": "small4", "temperature": 0, **request})
            return response.raise_for_status().json()

        return list(pool.map(one, requests))


def long_sums(random: Random, count: int) -> Iterator[Case]:
    """Held-out sums whose trace has about 60 tokens."""
    format = PromptFormat.from_folder(CHECKPOINT)
    while count:
        case = Case("", arithmetic.plain(random, *arithmetic.draw_long(random, 3, mixed=False, kept=True)))
        if len(format.encode_text(case.turn.trace)) in USUAL_TRACE:
            count -= 1
            yield case


def limited(url: str, count: int) -> list[Limited]:
    """Ask `count` sums, each with a budget of `BUDGET` trace tokens."""
    asked = list(long_sums(Random("budget"), count))
    fields = {"reasoning_effort": "high", "max_thinking_tokens": BUDGET, "max_tokens": 200}
    requests = [{"messages": [{"role": "user", "content": case.turn.question}], **fields} for case in asked]
    found = []
    for case, reply in zip(asked, ask(url, requests), strict=True):
        answer = reply["choices"][0]["message"]["content"] or ""
        found.append(Limited(reply["usage"]["reasoning_tokens"], answer, answer == case.turn.answer))
    return found


def schema(name: str, properties: dict[str, Any]) -> Constraint:
    """An object with exactly these properties."""
    required = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    shape = {"type": "json_schema", "json_schema": {"name": "reply", "schema": required, "strict": True}}

    def fits(answer: str) -> bool:
        try:
            jsonschema.validate(json.loads(answer), required)
        except (json.JSONDecodeError, jsonschema.ValidationError):
            return False
        return True

    return Constraint(f"schema: {name}", {"response_format": shape}, fits)


def regex(name: str, pattern: str) -> Constraint:
    return Constraint(f"regex: {name}", {"regex": pattern}, lambda answer: bool(re.fullmatch(pattern, answer)))


def choice(*choices: str) -> Constraint:
    """One of the given texts, as a grammar."""
    rule = "root ::= " + " | ".join(json.dumps(one) for one in choices)
    return Constraint(f"choice of {len(choices)}", {"ebnf": rule}, lambda answer: answer in choices)


DIGITS = {"type": "integer", "minimum": 0, "maximum": 99}
NUMBER = {"type": "integer", "minimum": 0, "maximum": 999}
NESTED = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
CONSTRAINTS = (
    schema("a number", {"sum": NUMBER}),
    schema("a word and a number", {"right": {"enum": ["yes", "no"]}, "sum": NUMBER}),
    schema("a truth", {"even": {"type": "boolean"}}),
    schema("numbers", {"parts": {"type": "array", "items": DIGITS, "minItems": 1, "maxItems": 3}}),
    schema("an object in it", {"of": NESTED}),
    regex("digits", "[0-9]{2,4}"),
    regex("a sentence", r"The sum is [0-9]{1,4}\."),
    regex("letters", "[a-z]{3,8}"),
    choice("yes", "no"),
    choice("small", "middling", "large"),
)


def constrained(url: str, count: int) -> list[Held]:
    """Ask `count` questions, each with one of the constraints, at both efforts in turn."""
    asked = cases.sums(Random("constraints"), count)
    chosen = [
        (CONSTRAINTS[number // len(BOTH) % len(CONSTRAINTS)], BOTH[number % len(BOTH)]) for number in range(count)
    ]
    requests = [
        {
            "messages": [{"role": "user", "content": case.turn.question}],
            "reasoning_effort": effort,
            "max_tokens": 600,
            **constraint.fields,
        }
        for case, (constraint, effort) in zip(asked, chosen, strict=True)
    ]
    found = []
    for reply, (constraint, effort) in zip(ask(url, requests), chosen, strict=True):
        message = reply["choices"][0]["message"]
        trace = message.get("reasoning_content") or ""
        free = reply["usage"]["reasoning_tokens"] > 0 and not constraint.fits(trace)
        found.append(Held(constraint.kind, effort, constraint.fits(message["content"] or ""), free))
    return found
