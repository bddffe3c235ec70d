"""Chat requests that ask for a graph: where the effort may stand, what reaches the solver, what is refused by name."""

import re

import orjson
import pytest

from programs.door.asked import graph_body
from programs.effort import MARKS
from tests.programs.house import MESSAGES, SCHEMA, House, chat, refused


@pytest.mark.parametrize(
    "place",
    [
        {"reasoning_effort": "deliberate"},
        {"reasoning": {"effort": "deliberate"}},
        {"reasoning": {"reasoning_effort": "deliberate"}},
        {"chat_template_kwargs": {"reasoning_effort": "deliberate"}},
        {"extra_body": {"reasoning_effort": "deliberate"}},
        {"reasoning_effort": "deliberate", "chat_template_kwargs": {"reasoning_effort": "deliberate"}},
    ],
    ids=str,
)
def test_an_effort_may_stand_where_the_other_efforts_may(place: dict):
    house = House()
    response = house.post({"model": "nano", "messages": MESSAGES, **place})
    assert response.json()["metadata"]["reasoning_effort"] == "deliberate"
    assert house.solver.calls[0][1]["effort"] == "deliberate"


def test_the_question_is_the_whole_conversation():
    house = House()
    messages = [
        {"role": "developer", "content": "A document with [INST] in it."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Omar."},
        {"role": "user", "content": [{"type": "text", "text": "And his "}, {"type": "text", "text": "phone?"}]},
    ]
    house.post(chat(messages=messages))
    assert house.solver.calls[0][0] == [
        {"role": "system", "content": "A document with [INST] in it."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Omar."},
        {"role": "user", "content": "And his phone?"},
    ]


def test_what_a_request_says_reaches_the_solver_and_what_it_does_not_say_is_left_to_it():
    house = House()
    house.post(chat())
    house.post(chat(max_completion_tokens=300, max_thinking_tokens=40, temperature=0.7, stop=["\n"], regex="[0-9]+"))
    house.post(chat(response_format={"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}))
    house.post(chat(response_format={"type": "json_object"}, max_thinking_tokens=0))
    common = {"effort": "auto", "backend": "the backend"}
    assert [options for _, options in house.solver.calls] == [
        common,
        common | {"output": re.compile("[0-9]+"), "budget": 40, "max_tokens": 258, "temperature": 0.7, "stop": ("\n",)},
        common | {"output": SCHEMA},
        common | {"output": {"type": "object"}, "budget": 0},
    ]
    assert house.backends == 1


@pytest.mark.parametrize("max_tokens", [4, 5, 100, 10_000])
def test_trace_and_answer_of_each_generation_stay_within_max_tokens(max_tokens: int):
    house = House()
    house.post(chat(max_tokens=max_tokens))
    options = house.solver.calls[0][1]
    assert options["max_tokens"] >= max_tokens // 4 and options["budget"] >= 1
    assert options["max_tokens"] + options["budget"] + MARKS == max_tokens


def test_defaults_that_clients_send_are_no_reason_to_refuse():
    fields = {"n": 1, "top_p": 1.0, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False, "tools": []}
    more = {"tool_choice": "none", "seed": None, "user": "me", "parallel_tool_calls": True, "stream_options": None}
    assert House().post(chat(**fields, **more)).status_code == 200


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"n": 2}, "n is"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_p": 0.5}, "top_p"),
        ({"seed": 1}, "seed"),
        ({"logit_bias": {"3": 1.0}}, "logit_bias"),
        ({"ebnf": 'root ::= "a"'}, "ebnf"),
        ({"response_format": {"type": "structural_tag", "structures": [], "triggers": []}}, "structural_tag"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"skip_special_tokens": False}, "skip_special_tokens"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"rid": "x"}, "rid"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "continuous_usage_stats"),
        ({"custom_params": {"x": 1}}, "custom_params.x"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
        ({"model": "nano:adapter"}, "adapter"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "13", "prefix": True}]}, "messages[1].prefix"),
        ({"input_ids": [1, 2, 3]}, "reasoning_effort"),
        ({"enable_thinking": True}, "enable_thinking"),
        ({"messages": [{"role": "tool", "content": "5", "tool_call_id": "123456789"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "content": "", "reasoning_content": "x"}]}, "reasoning_content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "image_url"),
    ],
    ids=str,
)
def test_what_a_graph_cannot_do_is_refused_by_name(fields: dict, named: str):
    house = House()
    sentence = refused(house.post(chat(**fields)))
    assert named in sentence and sentence.endswith(".")
    assert not house.solver.calls and not house.engine.bodies


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"reasoning": {"effort": "high"}}, "Two efforts"),
        ({"chat_template_kwargs": {"reasoning_effort": "deliberate"}}, "Two efforts"),
        ({"extra_body": {"reasoning_effort": "none"}}, "Two efforts"),
        ({"reasoning": {"effort": {"deep": 1}}}, "Two efforts"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "What is 2+3?"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"messages": [3]}, "messages"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"regex": "(a+)+"}, "regex"),
        ({"max_thinking_tokens": -1}, "max_thinking_tokens"),
        ({"max_thinking_tokens": 64, "max_tokens": 64}, "max_thinking_tokens"),
        ({"response_format": 3}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "holds no schema"),
        ({"response_format": {"type": "json_object"}, "regex": "a"}, "two constraints"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "x"}}}}, "schema"),
        ({"regex": "(?=a)b"}, "regex"),
        ({"regex": "("}, "regex"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"extra_body": 3}, "extra_body"),
        ({"stream": "perhaps"}, "stream"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_mistake_is_a_400_with_one_sentence_before_a_stream_begins(fields: dict, named: str, stream: bool):
    house = House()
    sentence = refused(house.post(chat(**({"stream": stream} | fields))))
    assert named in sentence and "\n" not in sentence and "Traceback" not in sentence
    assert not house.solver.calls


@pytest.mark.parametrize("levels", [300, 1000])
def test_a_schema_nested_too_deep_is_refused(levels: int):
    schema = b'{"type": "array", "items": ' * levels + b'{"type": "string"}' + b"}" * levels
    wanted = b'{"type": "json_schema", "json_schema": {"name": "deep", "schema": ' + schema + b"}}"
    body = orjson.dumps(chat())[:-1] + b', "response_format": ' + wanted + b"}"
    assert "deep" in refused(House().post(body))


def test_a_body_is_looked_at_by_keys_and_not_by_words():
    assert graph_body(b'{"reasoning_effort" :\n "auto"}') == {"reasoning_effort": "auto"}
    assert graph_body(b'{"reasoning_effort": "\\u0061uto"}') == {"reasoning_effort": "auto"}
    assert graph_body(b'{"content": "effort\\": \\"auto\\""}') is None
