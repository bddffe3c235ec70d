"""Real clients on the served routes: all show the same reply, and take a tool call through its second turn."""

from typing import Any

import pytest

from launch.bench.clients import Call, Door, Question, Shown, doors, events
from launch.server import Server
from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.format import Effort, PromptFormat
from tests.serve.conftest import Nano

FORMAT = PromptFormat.from_folder(CHECKPOINT)
SUM = {"role": "user", "content": "What is 47+86+35?"}
PRODUCT = {"role": "user", "content": "What is 387*150?"}
PARAMETERS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
CALCULATOR = {"name": "calculator", "description": "A calculator.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": CALCULATOR}

NAMES = (
    "/generate",
    "/v1/completions",
    "openai chat",
    "openai responses",
    "anthropic",
    "litellm openai",
    "litellm anthropic",
    "langchain-openai chat",
    "langchain-openai responses",
    "mistralai",
)
TALKING = tuple(name for name in NAMES if not name.startswith("/"))  # those that take histories

EFFORTS = pytest.mark.parametrize("effort", ["none", "high"])
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def all_doors(nano_server: Server) -> dict[str, Door]:
    return doors(nano_server.url)


def reply_itself(nano: Nano, question: Question) -> Shown:
    """What the model wrote, split by hand: the ids of `/generate` around [THINK], [/THINK], [TOOL_CALLS] and [ARGS]."""
    ids = FORMAT.encode(list(question.messages), list(question.tools) or None, question.effort)
    nano.generate(ids, question.max_tokens)  # so that every door finds the same prompt in the cache
    reply = nano.generate(ids, question.max_tokens, sampling={"skip_special_tokens": False})
    text, meta = reply["text"].removesuffix("</s>"), reply["meta_info"]
    trace = ""
    if text.startswith("[THINK]"):
        trace, _, text = text.removeprefix("[THINK]").partition("[/THINK]")
    answer, _, call = text.partition("[TOOL_CALLS]")
    name, _, arguments = call.partition("[ARGS]")
    calls = (Call("", name, arguments),) if call else ()
    trace_tokens = len(FORMAT.encode_text(trace))
    return Shown(trace, answer, calls, len(ids), len(ids) - 1, meta["completion_tokens"], trace_tokens)


@STREAM
@EFFORTS
@pytest.mark.parametrize("name", NAMES)
def test_every_door_shows_the_reply_as_it_was_written(
    nano: Nano, all_doors: dict[str, Door], name: str, effort: Effort, stream: bool
):
    question = Question((SUM,), effort)
    expected = reply_itself(nano, question)
    assert expected.answer.isdigit() and bool(expected.trace) == (effort == "high")
    shown = all_doors[name](question, stream)
    assert shown.differences(expected) == [], f"{shown}\n{expected}"


@STREAM
@EFFORTS
@pytest.mark.parametrize("name", NAMES)
def test_every_door_shows_a_call(nano: Nano, all_doors: dict[str, Door], name: str, effort: Effort, stream: bool):
    question = Question((PRODUCT,), effort, (TOOL,))
    expected = reply_itself(nano, question)
    assert expected.calls == (Call("", "calculator", '{"expression": "387*150"}'),)
    shown = all_doors[name](question, stream)
    assert shown.differences(expected) == [], f"{shown}\n{expected}"


@STREAM
@EFFORTS
@pytest.mark.parametrize("name", TALKING)
def test_a_result_comes_back_under_the_id_that_the_server_gave(
    nano: Nano, all_doors: dict[str, Door], name: str, effort: Effort, stream: bool
):
    [call] = all_doors[name](Question((PRODUCT,), effort, (TOOL,)), stream).calls
    question = Question((PRODUCT, called(call.id), result(call.id)), effort, (TOOL,))
    expected = reply_itself(nano, Question((PRODUCT, called("000000000"), result("000000000")), effort, (TOOL,)))
    assert expected.answer.strip() == "58050"
    shown = all_doors[name](question, stream)
    assert shown.differences(expected) == [], f"{shown}\n{expected}"


def called(id: str) -> dict[str, Any]:
    function = {"name": "calculator", "arguments": '{"expression": "387*150"}'}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": id, "type": "function", "function": function}]}


def result(id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": "58050"}


@pytest.mark.parametrize("name", ["openai chat", "openai responses", "anthropic", "litellm openai"])
def test_a_trace_that_a_client_sends_back_is_part_of_the_next_prompt(all_doors: dict[str, Door], name: str):
    first = all_doors[name](Question((SUM,), "high"), False)
    assert first.trace
    said = {"role": "assistant", "content": first.answer, "reasoning_content": first.trace}
    history = (SUM, said, {"role": "user", "content": "What is 7+5?"})
    second = all_doors[name](Question(history, "high"), False)
    assert second.prompt == len(FORMAT.encode(list(history), None, "high"))


@EFFORTS
@pytest.mark.parametrize("tools", [(), (TOOL,)], ids=["answer", "call"])
def test_a_raw_reader_of_the_stream_may_add_up_what_it_sees(nano: Nano, effort: Effort, tools: tuple):
    question = Question((PRODUCT if tools else SUM,), effort, tools)
    expected = reply_itself(nano, question)
    request = {"model": "nano", "messages": list(question.messages), "stream": True, "temperature": 0}
    request |= {"reasoning_effort": effort, "max_tokens": 200} | ({"tools": list(tools)} if tools else {})
    with nano.http.stream("POST", "/v1/chat/completions", json=request) as response:
        choices = [choice for chunk in events(response.iter_lines()) for choice in chunk["choices"]]
    deltas = [choice["delta"] for choice in choices]
    contents = [delta["content"] for delta in deltas if delta.get("content") is not None]
    assert all(isinstance(content, str) for content in contents)
    assert "".join(contents) == expected.answer
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == expected.trace
    assert [delta["role"] for delta in deltas if delta.get("role")] == ["assistant"]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == [
        "tool_calls" if tools else "stop"
    ]


def test_a_switch_of_the_effort_that_a_client_puts_into_the_body_is_the_same_switch(nano: Nano):
    by_field = nano.chat([SUM], reasoning_effort="high", max_tokens=200)
    by_template = nano.chat([SUM], chat_template_kwargs={"reasoning_effort": "high"}, max_tokens=200)
    for reply in (by_field, by_template):
        reply["message"] = reply["choices"][0]["message"]
    assert by_field["message"] == by_template["message"]
    assert by_field["message"]["reasoning_content"]
    assert by_field["usage"]["completion_tokens"] == by_template["usage"]["completion_tokens"]
