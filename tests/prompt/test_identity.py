"""Encoding and parsing are two directions of one description: what was encoded is parsed back, turn by turn."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.base import SpecialTokens

from sgl_small4.prompt.parse import opens_in, parse
from tests.prompt import conversations as given_by
from tests.prompt.test_parse import chunked

QUESTION = {"role": "user", "content": "?"}


@st.composite
def replies(draw):
    """An assistant message as our server may return it: a trace, an answer, calls, at least one of them."""
    trace = draw(st.none() | given_by.texts)
    calls = [(f"call{index:05}", *call) for index, call in enumerate(draw(st.just([]) | given_by.calls()))]
    content = draw(given_by.texts if not calls else st.none() | given_by.texts)
    return given_by.assistant(content, trace, calls)


def turn_of(message):
    """The message, a result for each of its calls, and the next question."""
    results = [result_of(call["id"]) for call in message.get("tool_calls", [])]
    return [message, *results, QUESTION]


def result_of(id):
    return {"role": "tool", "tool_call_id": id, "content": "</s>[THINK]1"}


def assistant_turns(format, ids):
    """The ids of each assistant turn of a prompt, from where the model spoke to its </s>."""
    begins = (format.control(SpecialTokens.end_inst), format.control(SpecialTokens.end_tool_results))
    turn, turns = None, []
    for id in ids:
        if id in begins:
            turn = []
        elif turn is not None:
            turn.append(id)
            if id == format.control(SpecialTokens.eos):
                turns.append(turn)
                turn = None
    return turns


@settings(max_examples=150, deadline=None)
@given(st.lists(replies(), min_size=1, max_size=3), st.lists(st.integers(1, 5), max_size=30))
def test_what_was_encoded_is_parsed_back(either, said, sizes):
    history = [QUESTION, *(message for reply in said for message in turn_of(reply))]
    turns = assistant_turns(either, either.encode(history))
    assert len(turns) == len(said)
    for message, ids in zip(said, turns, strict=True):
        reply = parse(ids, either)
        assert chunked(either, ids, sizes) == chunked(either, ids, [1] * len(ids)) == reply
        assert reply.trace == message.get("reasoning_content")
        # mistral_common drops the spaces at the end of an answer that has no trace.
        content = message["content"] or ""
        assert reply.answer == (content if "reasoning_content" in message else content.rstrip(" "))
        assert [(call.name, json.loads(call.text)) for call in reply.calls] == [
            (call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in message.get("tool_calls", [])
        ]


@settings(max_examples=150, deadline=None)
@given(st.lists(replies(), min_size=1, max_size=3))
def test_what_was_parsed_is_encoded_to_the_same_prompt(either, said):
    """A client that sends back what it was given keeps its cached prefix; a turn of spaces alone is left out then."""
    assume(all(len(message) > 2 or message["content"].strip(" ") for message in said))
    history = [QUESTION, *(message for reply in said for message in turn_of(reply))]
    ids = either.encode(history)
    again = [QUESTION]
    for turn in assistant_turns(either, ids):
        reply = parse(turn, either)
        calls = [
            {"id": f"c_{number}", "type": "function", "function": {"name": call.name, "arguments": call.text}}
            for number, call in enumerate(reply.calls)
        ]
        message = {"role": "assistant", "content": reply.answer or None, "reasoning_content": reply.trace}
        again += turn_of({**message, "tool_calls": calls})
    assert either.encode(again) == ids


@settings(max_examples=80, deadline=None)
@given(given_by.texts, given_by.texts, given_by.texts)
def test_a_trace_cut_in_two_is_continued(either, begun, rest, content):
    """The prompt that ends in a trace and the reply that goes on there are together the turn."""
    chunk = {"type": "thinking", "thinking": begun, "closed": False}
    prompt = either.encode([QUESTION, given_by.assistant([chunk])], continue_final_message=True)
    assert opens_in(prompt, either) == "trace"
    ids = [*either.encode_text(rest), either.control(SpecialTokens.end_think), *either.encode_text(content)]
    reply = parse(ids, either, opens_in(prompt, either))
    assert (reply.trace, reply.answer) == (rest, content)
    whole = parse([either.control(SpecialTokens.begin_think), *either.encode_text(begun), *ids], either)
    assert (whole.trace, whole.answer) == (begun + rest, content)


@pytest.mark.parametrize("content", ["I look. ", "  ", "\n", "I look.\n\n"])
def test_only_spaces_at_the_end_of_an_answer_without_trace_are_dropped(tekken, content):
    (turn,) = assistant_turns(tekken, tekken.encode([QUESTION, given_by.assistant(content), QUESTION]))
    assert parse(turn, tekken).answer == content.rstrip(" ")
    (turn,) = assistant_turns(tekken, tekken.encode([QUESTION, given_by.assistant(content, "t"), QUESTION]))
    assert parse(turn, tekken).answer == content
