"""One reply through every door: the raw routes with our parser, and five clients on the chat routes.

`doors(url)` gives each door by name as a function from a question to what that door shows of the reply, whole or
streamed. What a door has no place for is None: mistralai's own classes hold no trace and count no stream, langchain's
chat class holds no trace, its stream of responses takes summaries of one alone, and Anthropic's route counts both parts
of a reply as one.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import asks the internet for prices

import anthropic
import httpx
import litellm
import openai
from langchain_openai import ChatOpenAI
from litellm.llms.custom_httpx.http_handler import HTTPHandler
from mistralai.client import Mistral

from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.format import Effort, PromptFormat
from sgl_small4.prompt.parse import ReplyParser, parse

KEY = "none"
litellm.suppress_debug_info = True  # else it prints a list of providers for each name that it does not know
SECONDS = 120
LEAST_ANTHROPIC_BUDGET = 1024


@dataclass(frozen=True)
class Question:
    """A conversation in OpenAI's form, its tools in the same, and how to answer, greedily."""

    messages: tuple[Mapping[str, Any], ...]
    effort: Effort = "none"
    tools: tuple[Mapping[str, Any], ...] = ()
    max_tokens: int = 1200  # more than the least budget that Anthropic's form of the effort takes


@dataclass(frozen=True)
class Call:
    """A tool call; `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Shown:
    """What a door shows of a reply, and of its counts of tokens; None where it has no place for it."""

    trace: str | None
    answer: str
    calls: tuple[Call, ...]
    prompt: int | None
    cached: int | None
    completion: int | None
    reasoning: int | None

    def differences(self, other: "Shown") -> list[str]:
        """The parts, call ids aside, that both show and show differently."""
        mine, theirs = self._comparable(), other._comparable()
        return [name for name in mine if None not in (mine[name], theirs[name]) and mine[name] != theirs[name]]

    def _comparable(self) -> dict[str, Any]:
        return vars(self) | {"calls": [(call.name, json.loads(call.arguments)) for call in self.calls]}


Door = Callable[[Question, bool], Shown]


def served_model(url: str) -> str:
    """The name that the server answers to; /v1/responses takes no other."""
    models = httpx.get(f"{url}/v1/models", timeout=SECONDS, trust_env=False).raise_for_status()
    return str(models.json()["data"][0]["id"])


def doors(url: str) -> dict[str, Door]:
    """Every door of the server at `url`, by name."""
    model = served_model(url)
    native = httpx.Client(base_url=url, timeout=SECONDS, trust_env=False)
    openai_client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=SECONDS)
    anthropic_client = anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0, timeout=SECONDS)
    mistral = Mistral(api_key=KEY, server_url=url, timeout_ms=1000 * SECONDS)
    format = PromptFormat.from_folder(CHECKPOINT)
    return {
        "/generate": lambda question, stream: _generate(native, format, question, stream),
        "/v1/completions": lambda question, stream: _completions(native, format, question, stream),
        "openai chat": lambda question, stream: _openai_chat(openai_client, model, question, stream),
        "openai responses": lambda question, stream: _openai_responses(openai_client, model, question, stream),
        "anthropic": lambda question, stream: _anthropic(anthropic_client, model, question, stream),
        "litellm openai": lambda question, stream: _litellm_openai(url, model, question, stream),
        "litellm anthropic": lambda question, stream: _litellm_anthropic(url, model, question, stream),
        "langchain-openai chat": lambda question, stream: _langchain(url, model, question, stream, responses=False),
        "langchain-openai responses": lambda question, stream: _langchain(url, model, question, stream, responses=True),
        "mistralai": lambda question, stream: _mistralai(mistral, model, question, stream),
    }


def events(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    """The JSON of each server-sent event."""
    for line in lines:
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def _generate(http: httpx.Client, format: PromptFormat, question: Question, stream: bool) -> Shown:
    ids = format.encode(list(question.messages), list(question.tools) or None, question.effort)
    sampling = {"temperature": 0, "max_new_tokens": question.max_tokens}
    request = {"input_ids": ids, "sampling_params": sampling, "stream": stream}
    if stream:
        with http.stream("POST", "/generate", json=request) as response:
            *_, last = events(response.iter_lines())
    else:
        last = http.post("/generate", json=request).raise_for_status().json()
    meta = last["meta_info"]
    counts = (meta["prompt_tokens"], meta["cached_tokens"], meta["completion_tokens"], meta["reasoning_tokens"])
    return _parsed(format, last["output_ids"], counts)


def _completions(http: httpx.Client, format: PromptFormat, question: Question, stream: bool) -> Shown:
    ids = format.encode(list(question.messages), list(question.tools) or None, question.effort)
    request: dict[str, Any] = {"model": "small4", "prompt": ids, "temperature": 0, "max_tokens": question.max_tokens}
    request |= {"return_token_ids": True}
    if stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
        with http.stream("POST", "/v1/completions", json=request) as response:
            chunks = list(events(response.iter_lines()))
        output = [id for chunk in chunks for choice in chunk["choices"] for id in choice["token_ids"]]
        usage = chunks[-1]["usage"]
    else:
        body = http.post("/v1/completions", json=request).raise_for_status().json()
        output, usage = body["choices"][0]["token_ids"], body["usage"]
    return _parsed(format, output, _openai_counts(usage))


def _parsed(format: PromptFormat, output_ids: list[int], counts: tuple[Any, ...]) -> Shown:
    reply = parse(output_ids, format)
    parser = ReplyParser(format)
    parser.feed(output_ids)
    if parser.trace_tokens != counts[3]:
        raise ValueError(f"the server counts {counts[3]} trace tokens where the ids have {parser.trace_tokens}")
    return Shown(
        reply.trace or "", reply.answer, tuple(Call("", call.name, call.text) for call in reply.calls), *counts
    )


def _chat_request(model: str, question: Question) -> dict[str, Any]:
    request = {"model": model, "messages": list(question.messages), "max_tokens": question.max_tokens}
    request |= {"temperature": 0, "reasoning_effort": question.effort}
    return request | ({"tools": list(question.tools)} if question.tools else {})


def _openai_counts(usage: Mapping[str, Any] | None) -> tuple[int | None, int | None, int | None, int | None]:
    """Prompt, cached, completion and reasoning tokens of a `usage` in OpenAI's form."""
    if usage is None:
        return None, None, None, None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0)
    return usage["prompt_tokens"], cached, usage["completion_tokens"], reasoning


class _ChatStream:
    """Collects deltas in OpenAI's chat form."""

    def __init__(self) -> None:
        self.trace, self.answer, self.usage = "", "", None
        self.calls: dict[int, dict[str, str]] = {}

    def take(self, chunk: Mapping[str, Any]) -> None:
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices") or ():
            delta = choice["delta"]
            self.trace += delta.get("reasoning_content") or ""
            self.answer += delta.get("content") or ""
            for part in delta.get("tool_calls") or ():
                call = self.calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += part.get("id") or ""
                call["name"] += part["function"].get("name") or ""
                call["arguments"] += part["function"].get("arguments") or ""

    def shown(self, *, has_trace: bool = True) -> Shown:
        calls = tuple(Call(**call) for call in self.calls.values())
        return Shown(self.trace if has_trace else None, self.answer, calls, *_openai_counts(self.usage))


def _chat_shown(body: Mapping[str, Any], *, has_trace: bool = True) -> Shown:
    message = body["choices"][0]["message"]
    calls = tuple(Call(call["id"], **_function(call)) for call in message.get("tool_calls") or ())
    trace = (message.get("reasoning_content") or "") if has_trace else None
    return Shown(trace, message.get("content") or "", calls, *_openai_counts(body["usage"]))


def _function(call: Mapping[str, Any]) -> dict[str, str]:
    return {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}


def _openai_chat(client: openai.OpenAI, model: str, question: Question, stream: bool) -> Shown:
    request = _chat_request(model, question)
    if not stream:
        return _chat_shown(client.chat.completions.create(**request).model_dump())
    collected = _ChatStream()
    for chunk in client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        collected.take(chunk.model_dump())
    return collected.shown()


def _litellm_openai(url: str, model: str, question: Question, stream: bool) -> Shown:
    request = _chat_request(f"openai/{model}", question) | {"api_base": f"{url}/v1", "api_key": KEY}
    # It knows which models of OpenAI's reason, and ours is none of them.
    return _litellm(request | {"allowed_openai_params": ["reasoning_effort"]}, stream)


def _litellm_anthropic(url: str, model: str, question: Question, stream: bool) -> Shown:
    request = _chat_request(f"anthropic/{model}", question) | {"api_base": url, "api_key": KEY}
    del request["reasoning_effort"]
    request |= {"thinking": _thinking(question.effort), "allowed_openai_params": ["thinking"]}
    # Its shared client leaves a stream open; collected inside that client's lock, it waits for the lock forever.
    shown = _litellm(request | {"client": HTTPHandler(timeout=60)}, stream)
    # Its count of the trace is an estimate of its own where the route reports none.
    return Shown(shown.trace, shown.answer, shown.calls, shown.prompt, shown.cached, shown.completion, None)


def _litellm(request: dict[str, Any], stream: bool) -> Shown:
    if not stream:
        return _chat_shown(litellm.completion(**request, num_retries=0).model_dump())
    collected = _ChatStream()
    for chunk in litellm.completion(**request, num_retries=0, stream=True, stream_options={"include_usage": True}):
        collected.take(chunk.model_dump())
    return collected.shown()


def _mistralai(client: Mistral, model: str, question: Question, stream: bool) -> Shown:
    request = _chat_request(model, question)
    if not stream:
        return _chat_shown(client.chat.complete(**request).model_dump(), has_trace=False)
    collected = _ChatStream()
    with client.chat.stream(**request) as chunks:
        for chunk in chunks:
            collected.take(chunk.data.model_dump())
    return collected.shown(has_trace=False)


def _responses_input(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages in OpenAI's chat form as the input of /v1/responses."""
    items: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            output = {"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}
            items.append(output)
            continue
        if trace := message.get("reasoning_content"):
            content = [{"type": "reasoning_text", "text": trace}]
            items.append({"type": "reasoning", "id": f"rs_{len(items)}", "summary": [], "content": content})
        if message.get("content"):
            items.append({"role": message["role"], "content": message["content"]})
        for call in message.get("tool_calls") or ():
            items.append({"type": "function_call", "call_id": call["id"], **_function(call)})
    return items


def _openai_responses(client: openai.OpenAI, model: str, question: Question, stream: bool) -> Shown:
    request: dict[str, Any] = {"model": model, "input": _responses_input(question.messages), "temperature": 0}
    request |= {"max_output_tokens": question.max_tokens, "reasoning": {"effort": question.effort}}
    request["tools"] = [{"type": "function", **tool["function"]} for tool in question.tools]
    if not stream:
        return _response_shown(client.responses.create(**request).model_dump())
    trace, answer, arguments = "", "", ""
    for event in client.responses.create(**request, stream=True):
        match event.type:
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
                trace += event.delta
            case "response.output_text.delta":
                answer += event.delta
            case "response.function_call_arguments.delta":
                arguments += event.delta
            case "response.completed" | "response.incomplete":
                shown = _response_shown(event.response.model_dump())
    if (trace, answer, arguments) != (shown.trace, shown.answer, "".join(call.arguments for call in shown.calls)):
        raise ValueError(f"the deltas of a response are not its end: {(trace, answer, arguments)} and {shown}")
    return shown


def _response_shown(body: Mapping[str, Any]) -> Shown:
    trace, answer, calls = "", "", []
    for item in body["output"]:
        if item["type"] == "reasoning":
            trace += "".join(part["text"] for part in item["content"] or ())
        elif item["type"] == "message":
            answer += "".join(part["text"] for part in item["content"])
        elif item["type"] == "function_call":
            calls.append(Call(item["call_id"], item["name"], item["arguments"]))
    usage = body["usage"]
    cached, reasoning = usage["input_tokens_details"], usage["output_tokens_details"]
    counts = (usage["input_tokens"], cached["cached_tokens"], usage["output_tokens"], reasoning["reasoning_tokens"])
    return Shown(trace, answer, tuple(calls), *counts)


def _thinking(effort: Effort) -> dict[str, Any]:
    """The effort in Anthropic's form."""
    return {"type": "enabled", "budget_tokens": LEAST_ANTHROPIC_BUDGET} if effort == "high" else {"type": "disabled"}


def _anthropic_messages(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages in OpenAI's chat form as those of /v1/messages."""
    turned: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            block = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}
            turned.append({"role": "user", "content": [block]})
            continue
        blocks: list[dict[str, Any]] = []
        if trace := message.get("reasoning_content"):
            blocks.append({"type": "thinking", "thinking": trace, "signature": ""})
        if message.get("content"):
            blocks.append({"type": "text", "text": message["content"]})
        for call in message.get("tool_calls") or ():
            given = json.loads(call["function"]["arguments"])
            blocks.append({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": given})
        turned.append({"role": message["role"], "content": blocks})
    return turned


def _anthropic(client: anthropic.Anthropic, model: str, question: Question, stream: bool) -> Shown:
    request: dict[str, Any] = {"model": model, "messages": _anthropic_messages(question.messages)}
    request |= {"max_tokens": question.max_tokens, "thinking": _thinking(question.effort)}
    request["extra_body"] = {"temperature": 0}  # the client itself no longer has the field
    if question.tools:
        functions = [tool["function"] for tool in question.tools]
        request["tools"] = [
            {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
            for one in functions
        ]
    if not stream:
        body = client.messages.create(**request).model_dump()
        blocks, usage = body["content"], body["usage"]
    else:
        blocks, usage = _anthropic_stream(client.messages.create(**request, stream=True))
    calls = [Call(block["id"], block["name"], _json(block["input"])) for block in blocks if block["type"] == "tool_use"]
    cached = usage.get("cache_read_input_tokens") or 0
    prompt = usage["input_tokens"] + cached + (usage.get("cache_creation_input_tokens") or 0)
    return Shown(
        trace="".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        answer="".join(block["text"] for block in blocks if block["type"] == "text"),
        calls=tuple(calls),
        prompt=prompt,
        cached=cached,
        completion=usage["output_tokens"],
        reasoning=None,
    )


def _anthropic_stream(stream: Iterable[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The blocks and the usage that a stream of Anthropic's events adds up to."""
    blocks: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    for event in stream:
        match event.type:
            case "message_start":
                usage = event.message.usage.model_dump()
            case "content_block_start":
                blocks[event.index] = event.content_block.model_dump()
                if event.content_block.type == "tool_use":
                    blocks[event.index]["input"] = ""
            case "content_block_delta":
                delta = event.delta.model_dump()
                field = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
                if (name := field.get(delta["type"])) is not None:
                    blocks[event.index][{"partial_json": "input"}.get(name, name)] += delta[name]
            case "message_delta":
                usage |= {name: count for name, count in event.usage.model_dump().items() if count is not None}
    return list(blocks.values()), usage


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _langchain(url: str, model: str, question: Question, stream: bool, *, responses: bool) -> Shown:
    settings: dict[str, Any] = {"model": model, "base_url": f"{url}/v1", "api_key": KEY, "use_responses_api": responses}
    settings |= {"temperature": 0, "max_tokens": question.max_tokens, "max_retries": 0, "timeout": SECONDS}
    settings |= {"reasoning": {"effort": question.effort}} if responses else {"reasoning_effort": question.effort}
    chat: Any = ChatOpenAI(**settings, stream_usage=True)
    asked = chat.bind_tools(question.tools) if question.tools else chat
    if stream:
        first, *rest = asked.stream(list(question.messages))
        message = sum(rest, first)
    else:
        message = asked.invoke(list(question.messages))
    has_trace = responses and not stream
    trace, answer = "", message.content if isinstance(message.content, str) else ""
    for block in message.content if isinstance(message.content, list) else ():
        if block["type"] == "reasoning" and has_trace:
            trace = "".join(part["text"] for part in block.get("content") or ())
        elif block["type"] == "text":
            answer += block["text"]
    calls = tuple(Call(call["id"], call["name"], _json(call["args"])) for call in message.tool_calls)
    usage = message.usage_metadata
    counts = (usage["input_tokens"], usage["input_token_details"]["cache_read"], usage["output_tokens"])
    reasoning = usage["output_token_details"].get("reasoning", 0)
    return Shown(trace if has_trace else None, answer, calls, *counts, reasoning)
