"""The figures of the doors compare what they say they compare."""

import asyncio
import json
from random import Random

import pytest
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest

from launch.bench.clients import Call, Shown
from launch.bench.fuzz import ORDINARY, TOKENS, bounded, graft
from launch.bench.held import CONSTRAINTS, USUAL_TRACE, long_sums
from launch.bench.streams import STREAMS, handlers, median_and_interval, recorded
from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.format import PromptFormat

FORMAT = PromptFormat.from_folder(CHECKPOINT)
REPLY = Shown("12+3", "15", (Call("a", "look", '{"n": 1, "m": 2}'),), 20, 19, 30, 4)


def changed(**fields: object) -> Shown:
    return Shown(**(vars(REPLY) | fields))


def test_ids_and_the_spelling_of_arguments_make_no_difference():
    assert REPLY.differences(changed(calls=(Call("b", "look", '{"m":2,"n":1}'),))) == []


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("trace", ""),
        ("answer", "15 "),
        ("calls", ()),
        ("prompt", 21),
        ("cached", 0),
        ("completion", 1),
        ("reasoning", 0),
    ],
)
def test_each_part_that_differs_is_named(field: str, other: object):
    assert REPLY.differences(changed(**{field: other})) == [field]
    assert changed(**{field: other}).differences(REPLY) == [field]


def test_what_a_door_has_no_place_for_is_no_difference():
    assert REPLY.differences(changed(trace=None, cached=None)) == []


ANSWERS = (
    '{"sum": 168}',
    '{"right": "no", "sum": 7}',
    '{"even": true}',
    '{"parts": [1, 20]}',
    '{"of": {"n": 2}}',
    "168",
    "The sum is 168.",
    "letters",
    "no",
    "small",
)


def test_each_constraint_takes_its_own_answer_and_no_trace():
    for constraint, answer in zip(CONSTRAINTS, ANSWERS, strict=True):
        assert constraint.fits(answer), constraint.kind
        assert not constraint.fits("12+3\n12+3:2+3+0=5,1+0+0=1>15"), constraint.kind
        assert not constraint.fits(answer + "]"), constraint.kind


def test_sums_for_the_budget_need_about_sixty_trace_tokens():
    made = list(long_sums(Random(1), 30))
    assert len(made) == 30
    assert all(len(FORMAT.encode_text(case.turn.trace)) in USUAL_TRACE for case in made)


def test_long_replies_are_made_short_and_impossible_limits_stay():
    assert bounded("/v1/chat/completions", {"max_tokens": 30_000})["max_tokens"] == TOKENS
    assert bounded("/v1/chat/completions", {})["max_tokens"] == TOKENS
    assert bounded("/v1/chat/completions", {"max_tokens": -1})["max_tokens"] == -1
    assert bounded("/v1/chat/completions", {"max_tokens": 10**9})["max_tokens"] == 10**9
    assert bounded("/generate", {"sampling_params": {"max_new_tokens": 999}})["sampling_params"] == {
        "max_new_tokens": TOKENS
    }
    assert bounded("/v1/responses", 7) == 7


def test_a_grafted_body_is_an_ordinary_one_with_generated_fields():
    body = graft("/v1/completions", {"n": 3, "stop": ["x"], "seed": 1}, 2, [], Random(1))
    assert set(ORDINARY["/v1/completions"]) < set(body) and len(body) == len(ORDINARY["/v1/completions"]) + 2
    assert "misfit" in graft("/v1/completions", {"n": 3}, 1, ["misfit"], Random(1)).values()


def test_the_median_of_twenty_lies_within_its_interval():
    assert median_and_interval([float(number) for number in range(20)]) == (9.5, 5.0, 14.0)


def test_both_parsers_that_are_timed_stream_the_same_reply():
    streams = recorded(Random(2), FORMAT)
    assert len(streams) == STREAMS

    async def text(handler: object, number: int) -> dict[str, str]:
        request = ChatCompletionRequest(**streams[number].request)
        said = {"trace": "", "answer": "", "calls": ""}
        async for event in handler._generate_chat_stream(streams[number], request, None):
            for choice in json.loads(event.removeprefix("data: "))["choices"] if event.startswith("data: {") else ():
                delta = choice["delta"]
                said["trace"] += delta.get("reasoning_content") or ""
                said["answer"] += delta.get("content") or ""
                for call in delta.get("tool_calls") or ():
                    said["calls"] += (call["function"]["name"] or "") + call["function"]["arguments"]
        return said

    with handlers() as (ours, stock):
        for number in range(4):  # one of each kind
            mine = asyncio.run(text(ours, number))
            assert mine == asyncio.run(text(stock, number))
            assert len(mine["trace"] + mine["answer"] + mine["calls"]) > 100
