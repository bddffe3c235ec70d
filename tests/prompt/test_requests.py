"""What each route's body becomes before the route's own types see it: one effort, one limit, or a refusal."""

import math

import pytest
from sglang.srt.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from sglang.srt.entrypoints.openai.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    ResponsesRequest,
)
from sglang.srt.managers.io_struct import GenerateReqInput
from sglang.srt.runtime_context import get_context

from sgl_small4.prompt import requests
from sgl_small4.prompt.errors import sentence_of
from sgl_small4.prompt.format import EFFORTS, PromptError
from sgl_small4.prompt.requests import settle, take_budget

QUESTION = {"role": "user", "content": "What is 2 + 3?"}
BODIES = {
    ChatCompletionRequest: {"messages": [QUESTION]},
    ResponsesRequest: {"input": "What is 2 + 3?", "model": "small4"},
    AnthropicMessagesRequest: {"messages": [QUESTION], "model": "small4", "max_tokens": 5000},
    CompletionRequest: {"prompt": "2 + 3", "max_tokens": 100},
    GenerateReqInput: {"text": "2 + 3", "sampling_params": {"max_new_tokens": 100}},
}
CHATS = (ChatCompletionRequest, ResponsesRequest, AnthropicMessagesRequest)
RAW = (CompletionRequest, GenerateReqInput)
PLACES = {
    "field": lambda effort: {"reasoning_effort": effort},
    "reasoning": lambda effort: {"reasoning": {"effort": effort}},
    "template": lambda effort: {"chat_template_kwargs": {"reasoning_effort": effort}},
    "extra_body": lambda effort: {"extra_body": {"reasoning_effort": effort}},
}


def name(kind):
    return kind.__name__ if isinstance(kind, type) else None


@pytest.fixture(autouse=True)
def server():
    with get_context().override_server_args(served_model_name="small4", default_chat_template_kwargs=None):
        yield


def settled(kind, **more):
    return settle(kind, {**BODIES[kind], **more})


def effort_in(kind, body):
    """The effort where SGLang looks for it."""
    if kind is ChatCompletionRequest:
        return body["reasoning_effort"]
    if kind is ResponsesRequest:
        return body["reasoning"]["effort"]
    return "none" if body["thinking"]["type"] == "disabled" else "high"


def budget_in(kind, body):
    """The limit where SGLang looks for it, or carries it."""
    if kind is ResponsesRequest:
        return (body.get("chat_template_kwargs") or {}).get("thinking_budget")
    if kind is GenerateReqInput:
        request = GenerateReqInput(**body)
        take_budget(request)
        return (request.sampling_params.get("custom_params") or {}).get("thinking_budget")
    return (body.get("custom_params") or {}).get("thinking_budget")


@pytest.mark.parametrize("kind", CHATS, ids=name)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [None, *EFFORTS])
def test_an_effort_means_the_same_wherever_it_stands(kind, place, value):
    assert effort_in(kind, settled(kind, **PLACES[place](value))) == EFFORTS[value or "none"]


@pytest.mark.parametrize("kind", CHATS, ids=name)
def test_the_servers_default_holds_where_a_request_says_nothing(kind):
    with get_context().override_server_args(default_chat_template_kwargs={"reasoning_effort": "medium"}):
        assert effort_in(kind, settled(kind)) == "high"
        assert effort_in(kind, settled(kind, reasoning_effort="low")) == "none"


@pytest.mark.parametrize("kind", CHATS, ids=name)
def test_efforts_at_two_places_must_agree(kind):
    template = {"chat_template_kwargs": {"reasoning_effort": "high"}}
    assert effort_in(kind, settled(kind, reasoning_effort="medium", **template)) == "high"
    with pytest.raises(
        PromptError, match="Two efforts .*'none' as reasoning_effort and 'high' as chat_template_kwargs"
    ):
        settled(kind, reasoning_effort="none", **template)


def test_extra_body_does_not_contradict_the_top_level():
    with pytest.raises(PromptError, match="n is given twice"):
        settled(ChatCompletionRequest, n=1, extra_body={"n": 2})


@pytest.mark.parametrize("kind", [*CHATS, *RAW], ids=name)
@pytest.mark.parametrize("value", [True, False, "reasoning", {"type": "on"}])
@pytest.mark.parametrize(
    "switch", ["prompt_mode", "enable_thinking", "thinking_budget", "enable_reasoning", "chat_template_kwargs"]
)
def test_the_switches_of_other_families_are_refused_by_name(kind, switch, value):
    if switch == "chat_template_kwargs":
        with pytest.raises(PromptError, match="^chat_template_kwargs.enable_thinking .*reasoning_effort"):
            settled(kind, chat_template_kwargs={"enable_thinking": value})
    else:
        with pytest.raises(PromptError, match=f"^{switch} .*reasoning_effort"):
            settled(kind, **{switch: value})


@pytest.mark.parametrize("kind", [ChatCompletionRequest, ResponsesRequest], ids=name)
def test_thinking_is_anthropics_switch_alone(kind):
    with pytest.raises(PromptError, match="^thinking is no switch of this model: reasoning_effort"):
        settled(kind, thinking={"type": "enabled"})
    with pytest.raises(PromptError, match=r"^reasoning.enabled is no switch"):
        settled(kind, reasoning={"enabled": True})


@pytest.mark.parametrize("kind", CHATS, ids=name)
def test_what_is_null_was_not_said(kind):
    given = {"prompt_mode": None, "enable_thinking": None, "chat_template_kwargs": None, "reasoning": None}
    assert effort_in(kind, settled(kind, **given)) == "none"


@pytest.mark.parametrize(
    ("thinking", "output", "effort"),
    [
        (None, None, "none"),
        ({"type": "enabled", "budget_tokens": 1024}, None, "high"),
        ({"type": "enabled", "budget_tokens": 1024}, "high", "high"),
        ({"type": "disabled"}, None, "none"),
        ({"type": "adaptive"}, None, "high"),
        ({"type": "adaptive"}, "low", "none"),
        ({"type": "adaptive"}, "xhigh", "high"),
        (None, "medium", "high"),
    ],
)
def test_thinking_is_an_effort(thinking, output, effort):
    body = settled(AnthropicMessagesRequest, thinking=thinking, output_config=output and {"effort": output})
    assert effort_in(AnthropicMessagesRequest, body) == effort
    AnthropicMessagesRequest(**body)


def test_thinking_and_an_effort_must_agree():
    with pytest.raises(PromptError, match="Two efforts .*'high' as reasoning_effort and 'none' as thinking.type"):
        settled(AnthropicMessagesRequest, thinking={"type": "disabled"}, reasoning_effort="high")


@pytest.mark.parametrize("kind", [kind for kind in BODIES if kind is not AnthropicMessagesRequest], ids=name)
def test_a_limit_on_trace_tokens_reaches_the_scheduler(kind):
    assert budget_in(kind, settled(kind)) is None
    for limit in (0, 32):
        assert budget_in(kind, settled(kind, max_thinking_tokens=limit)) == limit


@pytest.mark.parametrize("kind", [ChatCompletionRequest, ResponsesRequest], ids=name)
def test_a_limit_beyond_every_context_fits_into_a_message(kind):
    assert budget_in(kind, settled(kind, max_thinking_tokens=2**62)) == 2**31 - 1


@pytest.mark.parametrize("kind", [kind for kind in BODIES if kind is not AnthropicMessagesRequest], ids=name)
@pytest.mark.parametrize("value", ["32", 1.5, -1, True, [1], {}, 2**70])
def test_a_limit_that_is_none_is_refused(kind, value):
    with pytest.raises(PromptError, match="^max_thinking_tokens must be"):
        settled(kind, max_thinking_tokens=value)


@pytest.mark.parametrize(
    ("kind", "all_tokens"),
    [
        (ChatCompletionRequest, {"max_tokens": 20}),
        (ChatCompletionRequest, {"max_completion_tokens": 20, "max_tokens": 90}),
        (ResponsesRequest, {"max_output_tokens": 20}),
        (CompletionRequest, {"max_tokens": 20}),
        (GenerateReqInput, {"sampling_params": {"max_new_tokens": 20}}),
    ],
    ids=name,
)
def test_a_limit_that_leaves_no_answer_is_refused_with_both_numbers(kind, all_tokens):
    settled(kind, max_thinking_tokens=17, **all_tokens)
    field = next(iter(all_tokens.get("sampling_params", all_tokens)))
    with pytest.raises(PromptError, match=f"max_thinking_tokens 18 leaves no answer within {field} 20"):
        settled(kind, max_thinking_tokens=18, **all_tokens)


def test_anthropics_budget_leaves_an_answer_too():
    thinking = {"type": "enabled", "budget_tokens": 5000}
    with pytest.raises(PromptError, match=r"thinking.budget_tokens 5000 leaves no answer within max_tokens 5000"):
        settled(AnthropicMessagesRequest, thinking=thinking)
    with pytest.raises(PromptError, match=r"thinking.budget_tokens must be a whole number"):
        settled(AnthropicMessagesRequest, thinking={"type": "enabled", "budget_tokens": "2000"})


def test_two_limits_must_agree():
    own = {"custom_params": {"thinking_budget": 8}}
    assert budget_in(ChatCompletionRequest, settled(ChatCompletionRequest, max_thinking_tokens=8, **own)) == 8
    with pytest.raises(PromptError, match="Two limits"):
        settled(ChatCompletionRequest, max_thinking_tokens=9, **own)


@pytest.mark.parametrize("kind", RAW, ids=name)
@pytest.mark.parametrize("place", PLACES)
def test_an_effort_beside_a_prompt_is_refused(kind, place):
    with pytest.raises(PromptError, match="the prompt itself carries the reasoning_effort"):
        settled(kind, **PLACES[place]("high"))


def test_ids_of_a_chat_carry_their_effort(twins, monkeypatch):
    monkeypatch.setattr(requests, "served_format", lambda: twins[0])
    for effort in ("none", "high"):
        ids = twins[0].encode([QUESTION], None, effort)
        assert settled(ChatCompletionRequest, input_ids=ids)["reasoning_effort"] == effort
    with pytest.raises(PromptError, match="the input_ids itself carries"):
        settled(ChatCompletionRequest, input_ids=ids, reasoning_effort="high")


@pytest.mark.parametrize("kind", BODIES, ids=name)
@pytest.mark.parametrize("body", [None, [], "x", 3, True])
def test_a_body_that_is_no_object_is_refused(kind, body):
    with pytest.raises(PromptError, match="^The body must be a JSON object"):
        settle(kind, body)


@pytest.mark.parametrize("kind", BODIES, ids=name)
@pytest.mark.parametrize("value", [math.nan, math.inf, 2**63, -(2**70)])
def test_a_number_that_no_type_holds_is_refused(kind, value):
    with pytest.raises(PromptError, match="^temperature must be a finite number"):
        settled(kind, temperature=value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chat_template_kwargs", "high"),
        ("extra_body", [1]),
        ("reasoning", "high"),
        ("response_format", "json"),
        ("messages", [{"role": "robot", "content": "x"}]),
        ("messages", [{"role": 5, "content": "x"}]),
    ],
)
def test_a_field_of_another_shape_is_refused_by_name(field, value):
    with pytest.raises(PromptError, match=f"^{field}"):
        settled(ChatCompletionRequest, **{field: value})


@pytest.mark.parametrize("name", ["guided_json", "guided_choice", "structured_outputs", "grammar"])
@pytest.mark.parametrize("kind", [ChatCompletionRequest, ResponsesRequest, AnthropicMessagesRequest])
def test_a_constraint_that_the_route_would_drop_is_refused_by_name(kind, name):
    with pytest.raises(PromptError, match=f"^{name} is no field of this route"):
        settle(kind, {"messages": [], "model": "nano", name: {"type": "object"}})


def test_other_routes_keep_their_bodies():
    body = {"thinking": True}
    assert settle(EmbeddingRequest, body) is body


def test_what_is_wrong_with_a_body_is_one_sentence():
    wrong = {**BODIES[ChatCompletionRequest], "n": "many", "stop": 5}
    with pytest.raises(ValueError) as refusal:
        ChatCompletionRequest(**wrong)
    sentence = sentence_of(refusal.value.errors())
    assert sentence.startswith("The request is not valid: n: Input should be a valid integer")
    assert "stop: " in sentence and sentence.count(".") == 1 and "\n" not in sentence
