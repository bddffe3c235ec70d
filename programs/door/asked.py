"""What a chat request asks of a graph: one that says `auto` or `deliberate` where the other efforts may stand.

The request goes through the same checks as at effort high, and through SGLang's own type. What is left is either
something that a graph does, or refused by name.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest, StructuralTagResponseFormat

from programs.effort import BUDGET as DEFAULT_BUDGET
from programs.effort import MARKS
from sgl_small4.admission import RequestError, check_pattern
from sgl_small4.prompt import passage
from sgl_small4.prompt.constraint import check_constraint
from sgl_small4.prompt.errors import sentence_of
from sgl_small4.prompt.format import PromptError
from sgl_small4.prompt.requests import BUDGET, settle

EFFORTS = ("auto", "deliberate")
STANDS_IN = "high"  # the effort that the other checks see in their place

# A key that ends in `effort`, with one of ours as its value. Within a text the quotes would be escaped.
KEY_END = b'effort"'
# One that is written with escapes is looked at too.
KEY_AND_VALUE = re.compile(rb'effort"[ \t\r\n]*:[ \t\r\n]*"(?:auto"|deliberate"|[^"\\]{0,10}\\u)')

# Fields of SGLang's type that a graph has a place for, or that change nothing where there are no tools.
READ = frozenset(
    "messages model max_tokens max_completion_tokens temperature stop response_format regex stream stream_options "
    "reasoning_effort separate_reasoning stream_reasoning chat_template_kwargs custom_params user "
    "parallel_tool_calls".split()
)
NEUTRAL: dict[str, Any] = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "tools": [],
    "tool_choice": "none",
    "logit_bias": {},
    "stop_token_ids": [],
    "top_logprobs": 0,
}
# What may stand in chat_template_kwargs once the effort was taken out: our own bookkeeping, and SGLang's.
TEMPLATE_KEYS = frozenset({passage.OPEN_TRACES, "thinking", "enable_thinking"})

ANSWER_SHARE = 4  # the part of max_tokens, one in this many, that is the answer's where traces have no limit
LEAST_TOKENS = MARKS + 2


def may_ask(raw: bytes) -> bool:
    """Whether a body has to be looked at more closely: microseconds, whatever its size."""
    at = raw.find(KEY_END)
    while at >= 0:
        if KEY_AND_VALUE.match(raw, at):
            return True
        at = raw.find(KEY_END, at + len(KEY_END))
    return False


def graph_body(raw: bytes) -> dict[str, Any] | None:
    """The request's JSON when its effort is one of ours; None for all that SGLang is to judge, broken JSON included."""
    if not may_ask(raw):
        return None
    try:
        body = orjson.loads(raw)  # as SGLang's routes read it; refuses what is nested too deep
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    return body if any(value in EFFORTS for _, _, _, value in _places(body)) else None


@dataclass(frozen=True)
class Asked:
    """One question for a graph, and how its answer is to be shown."""

    effort: str
    model: str
    messages: list[dict[str, Any]]
    options: dict[str, Any]  # of `programs.effort.solve`, those that the request gives
    stream: bool
    include_usage: bool
    separate_trace: bool

    @classmethod
    def of(cls, body: dict[str, Any], served_model: str) -> "Asked":
        """Raises PromptError, with a sentence for the client, for what is wrong or what a graph cannot do."""
        effort = _take_effort(body)
        settled = settle(ChatCompletionRequest, body)
        try:
            request = ChatCompletionRequest.model_validate(settled)
        except ValidationError as error:
            raise PromptError(sentence_of([dict(one) for one in error.errors()])) from None
        _refuse_more(request, effort, served_model)
        messages = [_message(index, message.model_dump(), effort) for index, message in enumerate(request.messages)]
        if not messages:
            raise PromptError("messages is empty: give at least the question.")
        streaming = request.stream_options if request.stream else None
        return cls(
            effort,
            request.model,
            messages,
            _options(request),
            request.stream,
            bool(streaming and streaming.include_usage),
            request.separate_reasoning,
        )


def _places(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """Where a request may say its effort: the place's name, the object, the key in it, and what stands there."""
    extra = body.get("extra_body")
    for level in (body, extra if isinstance(extra, dict) else {}):
        for name, key in (
            ("", "reasoning_effort"),
            ("reasoning", "effort"),
            ("reasoning", "reasoning_effort"),
            ("chat_template_kwargs", "reasoning_effort"),
        ):
            holder = level.get(name) if name else level
            if isinstance(holder, dict) and holder.get(key) is not None:
                yield f"{name}.{key}" if name else key, holder, key, holder[key]


def _take_effort(body: dict[str, Any]) -> str:
    """The one effort of a body that holds one of ours; in its places stands then what the other checks know."""
    given = list(_places(body))
    first_place, _, _, effort = given[0]
    for place, _, _, value in given[1:]:
        if value != effort:
            raise PromptError(
                f"Two efforts are given, {effort!r:.80} as {first_place} and {value!r:.80} as {place}; give one "
                f"reasoning_effort."
            )
    for _, holder, key, _ in given:
        holder[key] = STANDS_IN
    return effort


def _refuse_more(request: ChatCompletionRequest, effort: str, served_model: str) -> None:
    """Refuse, by name, every field that would have no effect on a graph."""
    given = dict(request)
    for name, field in ChatCompletionRequest.model_fields.items():
        value = given[name]
        unset = value is None or value == field.get_default() or (name in NEUTRAL and value == NEUTRAL[name])
        if name not in READ and not unset:
            raise PromptError(_cannot(name, effort))
    if request.model != served_model and ":" in request.model:
        raise PromptError(_cannot(f"an adapter (model {request.model!r:.80})", effort))
    if isinstance(request.response_format, StructuralTagResponseFormat):
        raise PromptError(_cannot("response_format of type structural_tag", effort))
    if request.stream_options is not None and request.stream_options.continuous_usage_stats:
        raise PromptError(_cannot("stream_options.continuous_usage_stats", effort))
    for key in request.chat_template_kwargs or {}:
        if key not in TEMPLATE_KEYS:
            raise PromptError(_cannot(f"chat_template_kwargs.{key}"[:80], effort))
    for key in request.custom_params or {}:
        if key != BUDGET:
            raise PromptError(_cannot(f"custom_params.{key}"[:80], effort))


def _message(index: int, message: dict[str, Any], effort: str) -> dict[str, Any]:
    """A message as the graphs take it: a role and a text. What it says beside them is refused, never left out."""
    for name in ("prefix", "tools", "tool_calls", "tool_call_id", "reasoning_content"):
        if message.get(name):
            raise PromptError(_cannot(f"messages[{index}].{name}", effort))
    role, content = message["role"], message.get("content")
    if isinstance(content, list):
        for number, chunk in enumerate(content):
            if chunk.get("type") != "text":
                raise PromptError(_cannot(f"messages[{index}].content[{number}] of type {chunk.get('type')}", effort))
        content = "".join(chunk["text"] for chunk in content)
    return {"role": "system" if role == "developer" else role, "content": content}


def _cannot(name: str, effort: str) -> str:
    return (
        f"{name} is not supported at reasoning_effort {effort}, which runs several generations for one answer; leave "
        f"it out, or use none or high."
    )


def _options(request: ChatCompletionRequest) -> dict[str, Any]:
    """What `solve` is given; what the request says nothing about is left to its defaults."""
    if request.temperature is not None and request.temperature < 0:
        raise PromptError(f"temperature must not be negative, got {request.temperature}.")
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    if "" in stop:
        raise PromptError("stop holds an empty string, which ends every answer before it begins: leave it out.")
    options = {"output": _output(request), "temperature": request.temperature, "stop": stop, **_limits(request)}
    return {name: value for name, value in options.items() if value not in (None, ())}


def _limits(request: ChatCompletionRequest) -> dict[str, int | None]:
    """The limits on a trace and on an answer. `max_tokens` holds for both together, as on this route at effort high,
    in each generation of the graph; where no limit for traces is given, a quarter of it is kept for the answer."""
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    whole = dict(request)[name]
    budget = (request.custom_params or {}).get(BUDGET)
    if whole is None:
        return {"budget": budget}
    if whole < LEAST_TOKENS:
        raise PromptError(
            f"{name} must be at least {LEAST_TOKENS}, got {whole}: a trace's two marks and its answer are part of it."
        )
    if budget is None:
        budget = min(DEFAULT_BUDGET, whole - MARKS - max(1, whole // ANSWER_SHARE))
    return {"budget": budget, "max_tokens": whole - MARKS - budget}


def _output(request: ChatCompletionRequest) -> Any:
    """The constraint of the answer, known to compile."""
    wanted = request.response_format
    kind = wanted.type if wanted is not None else "text"
    if kind != "text" and request.regex is not None:
        raise PromptError("response_format and regex are two constraints of one answer; give one.")
    if request.regex is not None:
        check_constraint({"regex": request.regex})
        try:
            check_pattern(request.regex)  # the graph matches answers with it too
        except RequestError as error:
            raise PromptError(str(error).replace("stop_regex", "regex", 1)) from None
        return re.compile(request.regex)
    if kind == "text":
        return None
    schema: Any = {"type": "object"}
    if kind == "json_schema":
        schema = wanted.json_schema.schema_ if wanted.json_schema is not None else None
        if schema is None:
            raise PromptError("response_format is of type json_schema and holds no schema; give json_schema.schema.")
    check_constraint({"json_schema": json.dumps(schema)})
    return schema
