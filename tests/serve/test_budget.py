"""Traces, budgets and constraints on the served nano: what the model emitted, id by id."""

import json
import random

import pytest
from mistral_common.tokens.tokenizers.base import SpecialTokens

from sgl_small4.prompt.parse import parse

SUM = "What is 47+86+35+29?"  # nano's trace for it has over a hundred tokens
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
BOUNDED = {**SCHEMA, "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 9999}}}
BUDGET = 32


def constrained(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def question(text):
    return [{"role": "user", "content": text}]


def budgeted(nano, ids, budget, max_new_tokens=200, **sampling):
    sampling = {"custom_params": {"thinking_budget": budget}, **sampling}
    out = nano.generate(ids, max_new_tokens, sampling=sampling)
    return parse(out["output_ids"], nano.format), out


@pytest.mark.parametrize("budget", [0, 1, BUDGET])
def test_a_spent_budget_still_gives_an_answer(nano, budget):
    reply, out = budgeted(nano, nano.prompt(SUM, "high"), budget)
    assert out["meta_info"]["reasoning_tokens"] == budget
    assert reply.trace is not None and reply.answer.strip()
    assert out["meta_info"]["finish_reason"]["type"] == "stop"


def test_a_budget_that_is_not_spent_changes_nothing(nano):
    ids = nano.prompt(SUM, "high")
    reply, out = budgeted(nano, ids, 190)
    assert out["output_ids"] == nano.generate(ids, 200)["output_ids"]
    assert reply.answer == "197"


def test_budgets_of_a_batch_are_each_its_own(nano):
    """Under the overlap scheduler, with requests that have a budget, a constraint, or neither."""
    ids = nano.prompt(SUM, "high")
    budgets = [None, 0, 7, 8, 9, 30, None, 31]
    sampling = [
        {"temperature": 0, "max_new_tokens": 200, **({} if b is None else {"custom_params": {"thinking_budget": b}})}
        for b in budgets
    ]
    response = nano.http.post("/generate", json={"input_ids": [ids] * len(budgets), "sampling_params": sampling})
    replies = response.json()
    for budget, out in zip(budgets, replies, strict=True):
        assert parse(out["output_ids"], nano.format).answer
        assert out["meta_info"]["reasoning_tokens"] == budget if budget is not None else 100 < len(out["output_ids"])


def test_a_schema_at_effort_high_leaves_the_trace_free(nano):
    whole = nano.chat(question(SUM), reasoning_effort="high", response_format=constrained(BOUNDED), max_tokens=300)
    message = whole["choices"][0]["message"]
    assert json.loads(message["content"]).keys() == {"sum"}
    assert "=" in message["reasoning_content"]
    assert whole["usage"]["reasoning_tokens"] > 60


def test_a_schema_at_effort_none_holds_from_the_first_token(nano):
    whole = nano.chat(question(SUM), response_format=constrained(BOUNDED))
    message = whole["choices"][0]["message"]
    assert 0 <= json.loads(message["content"])["sum"] <= 9999
    assert message["reasoning_content"] is None


def test_a_budget_and_a_schema_hold_together(nano):
    whole = nano.chat(
        question(SUM),
        reasoning_effort="high",
        response_format=constrained(BOUNDED),
        max_tokens=100,
        custom_params={"thinking_budget": BUDGET},
    )
    assert json.loads(whole["choices"][0]["message"]["content"]).keys() == {"sum"}
    assert whole["usage"]["reasoning_tokens"] == BUDGET


@pytest.mark.parametrize("effort", ["none", "high"])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "calculator"}}], ids=["required", "named"]
)
def test_a_forced_call_comes_after_a_free_trace(nano, effort, choice):
    parameters = {"type": "object", "properties": {"expression": {"type": "string", "maxLength": 20}}}
    parameters |= {"required": ["expression"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "calculator", "parameters": parameters}}
    whole = nano.chat(
        question("What is 2+3?"), reasoning_effort=effort, tools=[tool], tool_choice=choice, max_tokens=200
    )
    choice = whole["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"]).keys()) == ("calculator", {"expression"})
    assert (whole["usage"]["reasoning_tokens"] > 0) == (effort == "high")


def test_a_stop_string_does_not_end_a_trace(nano):
    free = nano.chat(question(SUM), reasoning_effort="high", max_tokens=300)["choices"][0]["message"]
    assert "+" in free["reasoning_content"] and free["content"] == "197"
    stop = nano.chat(question(SUM), reasoning_effort="high", max_tokens=300, stop=["+", "]", "7"])
    message = stop["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == (free["reasoning_content"], "19")
    assert stop["choices"][0]["matched_stop"] == "7"


def test_the_text_of_a_raw_route_is_cut_at_the_stop_that_ended_it(nano):
    ids = nano.prompt(SUM, "high")
    out = nano.generate(ids, 300, sampling={"stop": ["7"], "skip_special_tokens": False})
    trace = parse(out["output_ids"], nano.format).trace
    assert "7" in trace
    assert out["text"] == f"[THINK]{trace}[/THINK]19"


@pytest.mark.parametrize(
    ("constraint", "named"),
    [
        ({"regex": "("}, "regex"),
        ({"regex": "(?<=a)b"}, "regex"),
        ({"response_format": constrained({"type": "strng"})}, "json_schema"),
        ({"response_format": constrained({"$ref": "#/$defs/nowhere"})}, "json_schema"),
        ({"ebnf": "root ::= nothing"}, "ebnf"),
    ],
)
@pytest.mark.parametrize("effort", ["none", "high"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_constraint_that_does_not_compile_is_a_400_that_names_it(nano, constraint, named, effort, stream):
    request = {"model": "nano", "messages": question(SUM), "reasoning_effort": effort, "stream": stream, **constraint}
    for _ in range(2):  # the second time the failure is known
        response = nano.http.post("/v1/chat/completions", json=request)
        assert response.status_code == 400, response.text
        assert f"The {named} cannot be compiled" in response.text
    assert nano.chat(question("What is 2+3?"))["choices"][0]["message"]["content"]


@pytest.mark.parametrize("budget", [-1, "many", 1.5])
def test_a_budget_that_is_no_count_is_refused_by_the_scheduler(nano, budget):
    request = {"input_ids": nano.prompt(SUM, "high"), "sampling_params": {"custom_params": {"thinking_budget": budget}}}
    response = nano.http.post("/generate", json=request)
    assert response.status_code == 400
    assert "whole number" in response.text


def test_random_budgets_and_limits_never_leave_a_reply_without_an_answer(nano):
    choose = random.Random(1)
    for _ in range(8):
        numbers = "+".join(str(choose.randrange(10, 100)) for _ in range(4))
        budget = choose.randrange(0, 40)
        reply, out = budgeted(nano, nano.prompt(f"What is {numbers}?", "high"), budget, 80, temperature=0.7)
        assert out["meta_info"]["reasoning_tokens"] <= budget
        assert reply.answer
        assert nano.format.control(SpecialTokens.end_think) in out["output_ids"]
