"""One reply on every route: same trace, answer, calls, counts and finish, whole and streamed; refusals in each form."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.format import Effort, PromptFormat
from sgl_small4.prompt.parse import parse
from tests.serve.conftest import Nano

FORMAT = PromptFormat.from_folder(CHECKPOINT)
SUM = [{"role": "user", "content": "What is 387+150+12?"}]
PRODUCT = [{"role": "user", "content": "What is 387*150?"}]
PARAMETERS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
CALCULATOR = {"name": "calculator", "description": "A calculator.", "parameters": PARAMETERS}
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
COMPLETIONS, GENERATE = "/v1/completions", "/generate"
ROUTES = (CHAT, RESPONSES, MESSAGES, COMPLETIONS, GENERATE)
CHATS = ROUTES[:3]

STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
EFFORTS = pytest.mark.parametrize("effort", ["none", "high"])


class Shown(NamedTuple):
    """What a route shows of a reply; calls as name and arguments."""

    trace: str
    answer: str
    calls: tuple[tuple[str, str], ...]
    finish: str
    prompt_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    completion_tokens: int
    effort: str | None


FINISHES = {  # each route's words for chat's
    CHAT: {"stop": "stop", "length": "length", "tool_calls": "tool_calls"},
    RESPONSES: {"completed": "stop", "incomplete": "length"},
    MESSAGES: {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"},
}


def body_of(
    route: str,
    messages: list[dict[str, Any]],
    effort: Effort,
    tools: bool = False,
    max_tokens: int = 1100,
    budget: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The request of a route for the same prompt and the same limits."""
    if route in (COMPLETIONS, GENERATE):
        function = [{"type": "function", "function": CALCULATOR}] if tools else None
        ids = FORMAT.encode(messages, function, effort)
        limit = {} if budget is None else {"max_thinking_tokens": budget}
        if route == GENERATE:
            sampling = {"temperature": 0, "max_new_tokens": max_tokens}
            return {"input_ids": ids, "sampling_params": sampling, **limit, **more}
        fields = {"prompt": ids, "temperature": 0, "max_tokens": max_tokens, "return_token_ids": True}
        return {"model": "nano", **fields, **limit, **more}
    fields = {"temperature": 0, "max_output_tokens" if route == RESPONSES else "max_tokens": max_tokens}
    if route == MESSAGES:
        thinking = {"type": "enabled", "budget_tokens": budget or 1024} if effort == "high" else {"type": "disabled"}
        schema = {"name": "calculator", "description": "A calculator.", "input_schema": PARAMETERS}
        return {
            "model": "nano",
            "messages": messages,
            "thinking": thinking,
            **({"tools": [schema]} if tools else {}),
            **fields,
            **more,
        }
    limit = {} if budget is None else {"max_thinking_tokens": budget}
    if route == RESPONSES:
        tool = [{"type": "function", **CALCULATOR}]
        body = {"input": messages, "reasoning": {"effort": effort}}
    else:
        tool = [{"type": "function", "function": CALCULATOR}]
        body = {"model": "nano", "messages": messages, "reasoning_effort": effort}
    return {**body, **({"tools": tool} if tools else {}), **fields, **limit, **more}


def ask(nano: Nano, route: str, body: dict[str, Any], stream: bool = False) -> Shown:
    if not stream:
        response = nano.http.post(route, json=body)
        assert response.status_code == 200, response.text
        return WHOLE[route](response.json())
    more = {"stream_options": {"include_usage": True}} if route in (CHAT, COMPLETIONS) else {}
    with nano.http.stream("POST", route, json={**body, "stream": True, **more}) as response:
        assert response.status_code == 200, response.read()
        events = [json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line[:7] == "data: {"]
    return STREAMED[route](iter(events))


def split(ids: list[int], finish: str, counts: tuple[int, ...]) -> Shown:
    """A raw route's ids by our parser."""
    reply = parse(ids, FORMAT)
    calls = tuple((call.name, call.text) for call in reply.calls)
    finish = "tool_calls" if calls and finish == "stop" else finish
    return Shown(reply.trace or "", reply.answer, calls, finish, *counts, None)


def openai_counts(usage: dict[str, Any]) -> tuple[int, ...]:
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return usage["prompt_tokens"], cached, usage["reasoning_tokens"], usage["completion_tokens"]


def whole_chat(response: dict[str, Any]) -> Shown:
    [choice] = response["choices"]
    message = choice["message"]
    calls = tuple((call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ())
    trace = message.get("reasoning_content") or ""
    effort = response["metadata"]["reasoning_effort"]
    counts = openai_counts(response["usage"])
    return Shown(trace, message["content"], calls, choice["finish_reason"], *counts, effort)


def streamed_chat(events: Iterator[dict[str, Any]]) -> Shown:
    trace = answer = finish = ""
    effort: str | None = None
    calls: dict[int, list[str]] = {}
    for event in events:
        effort = event.get("metadata", {}).get("reasoning_effort") or effort
        usage = event.get("usage")
        for choice in event["choices"]:
            trace += choice["delta"].get("reasoning_content") or ""
            answer += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
            for call in choice["delta"].get("tool_calls") or ():
                parts = calls.setdefault(call["index"], ["", ""])
                parts[0] += call["function"].get("name") or ""
                parts[1] += call["function"]["arguments"]
    told = tuple((name, arguments) for name, arguments in calls.values())
    return Shown(trace, answer, told, finish, *openai_counts(usage), effort)


def whole_response(response: dict[str, Any]) -> Shown:
    items = response["output"]
    trace = "".join(part["text"] for item in items if item["type"] == "reasoning" for part in item["content"])
    answer = "".join(part["text"] for item in items if item["type"] == "message" for part in item["content"])
    calls = tuple((item["name"], item["arguments"]) for item in items if item["type"] == "function_call")
    finish = FINISHES[RESPONSES][response["status"]]
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    return Shown(
        trace,
        answer,
        calls,
        "tool_calls" if calls and finish == "stop" else finish,
        usage["input_tokens"],
        usage["input_tokens_details"]["cached_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
        usage["output_tokens"],
        response["metadata"]["reasoning_effort"],
    )


def streamed_response(events: Iterator[dict[str, Any]]) -> Shown:
    trace = answer = ""
    arguments: dict[int, str] = {}
    for event in events:
        trace += event["delta"] if event["type"] == "response.reasoning_text.delta" else ""
        answer += event["delta"] if event["type"] == "response.output_text.delta" else ""
        if event["type"] == "response.function_call_arguments.delta":
            arguments[event["output_index"]] = arguments.get(event["output_index"], "") + event["delta"]
        last = event
    shown = whole_response(last["response"])
    assert (shown.trace, shown.answer) == (trace, answer)
    assert [call[1] for call in shown.calls] == list(arguments.values())
    return shown


def message_counts(usage: dict[str, Any]) -> tuple[int, ...]:
    cached = usage.get("cache_read_input_tokens", 0)
    return usage["input_tokens"] + cached, cached, usage["reasoning_tokens"], usage["output_tokens"]


def whole_message(message: dict[str, Any]) -> Shown:
    blocks = message["content"]
    trace = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    answer = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = tuple((block["name"], json.dumps(block["input"])) for block in blocks if block["type"] == "tool_use")
    finish = FINISHES[MESSAGES][message["stop_reason"]]
    return Shown(
        trace, answer, calls, finish, *message_counts(message["usage"]), message["metadata"]["reasoning_effort"]
    )


def streamed_message(events: Iterator[dict[str, Any]]) -> Shown:
    message = next(events)["message"]
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            for part in ("thinking", "text"):
                if part in delta:
                    block[part] += delta[part]
            block["json"] += delta.get("partial_json", "")
        elif event["type"] == "message_delta":
            message["stop_reason"] = event["delta"]["stop_reason"]
            message["usage"] |= event["usage"]
    for block in message["content"]:
        block["input"] = json.loads(block["json"] or "{}")
    return whole_message(message)


def whole_completion(response: dict[str, Any]) -> Shown:
    [choice] = response["choices"]
    return split(choice["token_ids"], choice["finish_reason"], openai_counts(response["usage"]))


def streamed_completion(events: Iterator[dict[str, Any]]) -> Shown:
    ids: list[int] = []
    finish = ""
    for event in events:
        usage = event.get("usage")
        for choice in event["choices"]:
            ids += choice["token_ids"] or ()
            finish = choice["finish_reason"] or finish
    return split(ids, finish, openai_counts(usage))


def generated(response: dict[str, Any]) -> Shown:
    meta = response["meta_info"]
    counts = ("prompt_tokens", "cached_tokens", "reasoning_tokens", "completion_tokens")
    return split(response["output_ids"], meta["finish_reason"]["type"], tuple(meta[count] for count in counts))


def last_generated(events: Iterator[dict[str, Any]]) -> Shown:
    return generated(list(events)[-1])


WHOLE = {
    CHAT: whole_chat,
    RESPONSES: whole_response,
    MESSAGES: whole_message,
    COMPLETIONS: whole_completion,
    GENERATE: generated,
}
STREAMED = {
    CHAT: streamed_chat,
    RESPONSES: streamed_response,
    MESSAGES: streamed_message,
    COMPLETIONS: streamed_completion,
    GENERATE: last_generated,
}


KNOWN: dict[str, Shown] = {}


def expected(nano: Nano, body: dict[str, Any], effort: Effort) -> Shown:
    """What the model wrote to a chat, from `/generate` on its ids; asked twice once, so that the prompt is cached."""
    key = json.dumps(body)
    if key not in KNOWN:
        ask(nano, GENERATE, body)
        KNOWN[key] = ask(nano, GENERATE, body)
    return KNOWN[key]._replace(effort=effort)


@STREAM
@EFFORTS
@pytest.mark.parametrize("route", ROUTES)
def test_a_reply_is_the_same_on_every_route(nano: Nano, route: str, effort: Effort, stream: bool):
    reply = expected(nano, body_of(GENERATE, SUM, effort), effort)
    assert reply.answer == "549" or effort == "none"
    assert bool(reply.trace) == (effort == "high")
    assert reply.reasoning_tokens == len(FORMAT.encode_text(reply.trace))
    assert reply.cached_tokens == reply.prompt_tokens - 1
    shown = ask(nano, route, body_of(route, SUM, effort), stream)
    assert shown == reply._replace(effort=effort if route in CHATS else None)


@STREAM
@EFFORTS
@pytest.mark.parametrize("route", ROUTES)
def test_a_call_is_the_same_on_every_route(nano: Nano, route: str, effort: Effort, stream: bool):
    reply = expected(nano, body_of(GENERATE, PRODUCT, effort, tools=True), effort)
    assert reply.calls == (("calculator", '{"expression": "387*150"}'),) and reply.finish == "tool_calls"
    shown = ask(nano, route, body_of(route, PRODUCT, effort, tools=True), stream)
    assert shown == reply._replace(effort=effort if route in CHATS else None)


@STREAM
@pytest.mark.parametrize("route", [route for route in ROUTES if route != MESSAGES])  # whose least budget is 1,024
def test_a_reply_that_the_limit_cut_is_the_same_on_every_route(nano: Nano, route: str, stream: bool):
    reply = expected(nano, body_of(GENERATE, SUM, "high", max_tokens=20), "high")
    assert reply.trace and not reply.answer and reply.finish == "length" and reply.completion_tokens == 20
    shown = ask(nano, route, body_of(route, SUM, "high", max_tokens=20), stream)
    assert shown == reply._replace(effort="high" if route in CHATS else None)


@STREAM
@pytest.mark.parametrize("limit", [0, 8])
@pytest.mark.parametrize("route", [route for route in ROUTES if route != MESSAGES])
def test_a_limit_on_trace_tokens_holds_on_every_route(nano: Nano, route: str, limit: int, stream: bool):
    reply = expected(nano, body_of(GENERATE, SUM, "high", budget=limit), "high")
    assert reply.reasoning_tokens == limit and reply.answer and reply.finish == "stop"
    shown = ask(nano, route, body_of(route, SUM, "high", budget=limit), stream)
    assert shown == reply._replace(effort="high" if route in CHATS else None)


@pytest.mark.parametrize("route", [route for route in ROUTES if route != MESSAGES])
def test_a_limit_at_effort_none_changes_nothing(nano: Nano, route: str):
    unlimited, limited = (ask(nano, route, body_of(route, SUM, "none", budget=budget)) for budget in (None, 8))
    assert limited._replace(cached_tokens=0) == unlimited._replace(cached_tokens=0)


@STREAM
@EFFORTS
@pytest.mark.parametrize("route", CHATS)
def test_a_forced_call_is_a_call(nano: Nano, route: str, effort: Effort, stream: bool):
    choice = {CHAT: "required", RESPONSES: "required", MESSAGES: {"type": "any", "disable_parallel_tool_use": True}}
    alone = {} if route == MESSAGES else {"parallel_tool_calls": False}
    shown = ask(nano, route, body_of(route, SUM, effort, tools=True, tool_choice=choice[route], **alone), stream)
    [(name, arguments)] = shown.calls
    assert name == "calculator" and json.loads(arguments).keys() == {"expression"}
    assert shown.finish == "tool_calls" and shown.effort == effort and not shown.answer.strip()


@STREAM
@pytest.mark.parametrize(
    "wish",
    [
        {"skip_special_tokens": True},
        {"skip_special_tokens": False},
        {"stream_reasoning": False},
        {"include_reasoning": False},
        {"separate_reasoning": True},
        {"logprobs": True, "top_logprobs": 3},
    ],
    ids=lambda wish: next(iter(wish)),
)
def test_what_a_client_says_about_the_form_changes_no_text(nano: Nano, wish: dict[str, Any], stream: bool):
    plain = expected(nano, body_of(GENERATE, SUM, "high"), "high")
    assert ask(nano, CHAT, body_of(CHAT, SUM, "high", **wish), stream) == plain


@STREAM
def test_several_choices_are_counted_together(nano: Nano, stream: bool):
    one = expected(nano, body_of(GENERATE, SUM, "high"), "high")
    body = body_of(CHAT, SUM, "high", n=3)
    if stream:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        with nano.http.stream("POST", CHAT, json={**body, **options}) as response:
            lines = [line for line in response.iter_lines() if '"usage":{' in line]
        usage = json.loads(lines[-1].removeprefix("data: "))["usage"]
    else:
        usage = nano.http.post(CHAT, json=body).json()["usage"]
    prompt, cached, reasoning, completion = openai_counts(usage)
    assert (prompt, cached) == (one.prompt_tokens, one.cached_tokens)
    assert (reasoning, completion) == (3 * one.reasoning_tokens, 3 * one.completion_tokens)


def test_logprobs_of_a_chat_are_one_for_each_token(nano: Nano):
    body = body_of(CHAT, SUM, "high", logprobs=True, top_logprobs=2)
    response = nano.http.post(CHAT, json=body).json()
    told = response["choices"][0]["logprobs"]["content"]
    assert len(told) == response["usage"]["completion_tokens"]
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in told)


def test_a_message_that_begins_the_reply_is_continued(nano: Nano):
    begun = [*SUM, {"role": "assistant", "content": "5"}]
    shown = ask(nano, MESSAGES, body_of(MESSAGES, begun, "none"))
    ids = FORMAT.encode(begun, None, "none", continue_final_message=True)
    assert shown.prompt_tokens == len(ids)


def test_the_effort_of_counted_tokens_is_the_requests(nano: Nano):
    for effort, thinking in (("high", {"type": "enabled", "budget_tokens": 1024}), ("none", None)):
        body = {"model": "nano", "messages": SUM, "thinking": thinking}
        counted = nano.http.post("/v1/messages/count_tokens", json=body).json()["input_tokens"]
        assert counted == len(FORMAT.encode(SUM, None, effort))
        body = {"model": "nano", "messages": SUM, "reasoning_effort": effort}
        assert nano.http.post("/v1/tokenize", json=body).json()["tokens"] == FORMAT.encode(SUM, None, effort)


def sentence(route: str, refusal: Any) -> str:
    """The message of a refusal, in the route's own form."""
    error = refusal.json()["error"]
    if route == MESSAGES:
        assert refusal.json()["type"] == "error" and error["type"] == "invalid_request_error"
    return error["message"]


@STREAM
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt_mode": "reasoning"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "reasoning_effort"),
        ({"reasoning_effort": "HIGH"}, "reasoning_effort"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": 10**40}, "temperature"),
    ],
)
def test_bad_input_is_a_400_in_one_sentence(nano: Nano, route: str, wrong: dict[str, Any], said: str, stream: bool):
    if route == GENERATE and "temperature" in wrong:
        wrong = {"sampling_params": {**wrong, "max_new_tokens": 4}}
    refusal = nano.http.post(route, json={**body_of(route, SUM, "none"), **wrong, "stream": stream})
    assert refusal.status_code == 400
    assert said in sentence(route, refusal) and "\n" not in sentence(route, refusal)
    assert "/" not in sentence(route, refusal).replace("/v1/chat/completions", "").replace("[/MODEL_SETTINGS]", "")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", ["[]", "null", "7", "{", "", '"text"', "{}", '{"a": NaN}', "[" * 3000])
def test_a_body_that_is_no_request_is_a_400(nano: Nano, route: str, body: str):
    refusal = nano.http.post(route, content=body, headers={"content-type": "application/json"})
    assert refusal.status_code == 400
    assert refusal.json()["error"]


@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
def test_ollamas_routes_say_that_they_are_not_served(nano: Nano, route: str):
    refusal = nano.http.post(route, json={"model": "nano", "messages": SUM, "prompt": "17+25"})
    assert refusal.status_code == 501
    assert "/v1/chat/completions" in refusal.json()["error"]["message"]
