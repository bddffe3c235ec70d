"""Output ids back to trace, answer and calls: the same for every chunking, byte for byte."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.base import SpecialTokens

from sgl_small4.prompt.parse import Reply, ReplyParser, Segment, opens_in, parse
from tests.prompt import conversations as given_by
from tests.prompt.conftest import SPECIAL_TOKENS

QUESTION = {"role": "user", "content": "?"}
FIRST_BYTE = SPECIAL_TOKENS  # tekken: the 256 bytes follow the special table


def spell(format, text):
    """Ids of a reply written with `«NAME»` for control tokens; everything else is text."""
    ids = []
    for index, part in enumerate(text.replace("»", "«").split("«")):
        ids += [format.control(SpecialTokens(part))] if index % 2 else format.encode_text(part)
    return ids


def chunked(format, ids, sizes, opens_in="answer"):
    parser = ReplyParser(format, opens_in)
    pieces, position = [], 0
    for size in sizes:
        pieces += parser.feed(ids[position : position + size])
        position += size
    pieces += parser.feed(ids[position:])
    return Reply.of(pieces + parser.finish())


controls = st.sampled_from(
    [
        SpecialTokens.begin_think,
        SpecialTokens.end_think,
        SpecialTokens.tool_calls,
        SpecialTokens.args,
        SpecialTokens.call_id,
        SpecialTokens.eos,
        SpecialTokens.begin_inst,
        SpecialTokens.img,
    ]
)
pieces_of_calls = st.sampled_from(
    ["look", "[", '{"name": "look", "arguments": {', '}}, {"name": "see", "argum', 'ents": "{', '"', "}}]", "\\", " , "]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(controls | given_by.texts | pieces_of_calls), st.lists(st.integers(1, 7)))
def test_chunks_do_not_change_the_reply(either, writing, sizes):
    ids = []
    for part in writing:
        ids += [either.control(part)] if isinstance(part, SpecialTokens) else either.encode_text(part)
    whole = parse(ids, either)
    assert chunked(either, ids, sizes) == whole
    assert chunked(either, ids, [1] * len(ids)) == whole


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 255)), st.lists(st.integers(1, 3)))
def test_bytes_that_are_no_text_are_replaced_alike(either, values, sizes):
    ids = [FIRST_BYTE + value for value in values]
    assert b"".join(either.text_bytes(id) for id in ids) == bytes(values)
    expected = bytes(values).decode("utf-8", "replace")
    assert parse(ids, either).answer == chunked(either, ids, sizes).answer == expected


def test_a_character_waits_for_its_bytes(tekken):
    ids = [FIRST_BYTE + byte for byte in "é🙂".encode()]
    parser = ReplyParser(tekken)
    assert ["".join(piece.text for piece in parser.feed([id])) for id in ids] == ["", "é", "", "", "", "🙂"]
    assert parser.finish() == []
    assert parse(ids[:-1], tekken).answer == "é\N{REPLACEMENT CHARACTER}"


def look(text, name="look"):
    return Segment("call", text, name)


def trace(text):
    return Segment("trace", text)


def answer(text):
    return Segment("answer", text)


CASES = {
    "plain": ("It is Friday.«</s>»", [answer("It is Friday.")]),
    "look-alikes": ("Use the [THINK] tag.«</s>»", [answer("Use the [THINK] tag.")]),
    "brackets": ("As [3] shows, x[7] = y[2].", [answer("As [3] shows, x[7] = y[2].")]),
    "trace": ("«[THINK]»a«[/THINK]»b«</s>»", [trace("a"), answer("b")]),
    "empty trace": ("«[THINK]»«[/THINK]»b", [trace(""), answer("b")]),
    "late trace": ("Sure. «[THINK]»a«[/THINK]»b", [answer("Sure. "), trace("a"), answer("b")]),
    "two traces": ("«[THINK]»a«[/THINK]»«[THINK]»b«[/THINK]»c", [trace("a"), trace("b"), answer("c")]),
    "cut trace": ("«[THINK]»a", [trace("a")]),
    "trace ended by </s>": ("«[THINK]»a«</s>»", [trace("a")]),
    "stray end": ("a«[/THINK]»b", [answer("ab")]),
    "other control tokens": ("a«[INST]»«[IMG]»b", [answer("ab")]),
    "call": ('«[TOOL_CALLS]»look«[ARGS]»{"x": "]"}«</s>»', [look('{"x": "]"}')]),
    "text and call": ("I look.«[TOOL_CALLS]»look«[ARGS]»{}«</s>»", [answer("I look."), look("{}")]),
    "calls": ("«[TOOL_CALLS]»look«[ARGS]»{}«[TOOL_CALLS]»see«[ARGS]»{}", [look("{}"), look("{}", "see")]),
    "same call twice": ("«[TOOL_CALLS]»look«[ARGS]»{}«[TOOL_CALLS]»look«[ARGS]»{}", [look("{}"), look("{}")]),
    "call in an open trace": ("«[THINK]»plan«[TOOL_CALLS]»look«[ARGS]»{}", [trace("plan"), look("{}")]),
    "call with an id": ("«[TOOL_CALLS]»look«[CALL_ID]»abc«[ARGS]»{}", [look("{}")]),
    "spaces around the name": ("«[TOOL_CALLS]» look «[ARGS]»{}", [look("{}")]),
    "call cut in its arguments": ('«[TOOL_CALLS]»look«[ARGS]»{"x": ', [look('{"x": ')]),
    "call cut in its name": ("«[TOOL_CALLS]»lo", [answer("lo")]),
    "no name is as long": ("«[TOOL_CALLS]»" + "look " * 60 + "«[ARGS]»{}", [answer("look " * 60 + "{}")]),
    "marker alone": ("«[TOOL_CALLS]»", []),
    "no call after the marker": ("«[TOOL_CALLS]»I could look it up.«</s>»", [answer("I could look it up.")]),
    "array": (
        '«[TOOL_CALLS]» [{"name": "look", "arguments": {}}, {"name": "see", "arguments": {"x": [1]}}]«</s>»',
        [look("{}"), look('{"x": [1]}', "see")],
    ),
    "array with arguments as text": (
        '«[TOOL_CALLS]»[{"name": "look", "arguments": "{\\"x\\": 1}"}]',
        [look('{"x": 1}')],
    ),
    "array cut": (
        '«[TOOL_CALLS]»[{"name": "look", "arguments": {}}, {"name": "see", "arguments": {"x',
        [look("{}"), look('{"x', "see")],
    ),
    "array cut between calls": ('«[TOOL_CALLS]»[{"name": "look", "arguments": {}}, ', [look("{}")]),
    "array cut between names": (
        '«[TOOL_CALLS]»[{"name": "look", "arguments": {}}, {"na',
        [look("{}"), answer(', {"na')],
    ),
    "array cut in arguments as text": (
        '«[TOOL_CALLS]»[{"name": "look", "arguments": "{\\"x\\": \\"\\u00',
        [look('{"x": "')],
    ),
    "array as it was written": (
        '«[TOOL_CALLS]» [ {"arguments" : {"x":[1,  "]}\\""]}, "id": 7, "name":"look"} ,{"name":"see"}\n] ',
        [look('{"x":[1,  "]}\\""]}'), look("{}", "see")],
    ),
    "array with parameters": ('«[TOOL_CALLS]»[{"name": "look", "parameters": {"x": 1}}]', [look('{"x": 1}')]),
    "array of calls and more": ('«[TOOL_CALLS]»[{"name": "look"}, 5] yes', [look("{}"), answer(", 5] yes")]),
    "text after an array": ('«[TOOL_CALLS]»[{"name": "look"}]\n\nI look. ', [look("{}"), answer("\n\nI look. ")]),
    "two arrays": ('«[TOOL_CALLS]»[{"name": "look"}]«[TOOL_CALLS]»[{"name": "look"}]', [look("{}"), look("{}")]),
    "array in an open trace": ('«[THINK]»plan«[TOOL_CALLS]»[{"name": "look"}]', [trace("plan"), look("{}")]),
    "array with half a character": ('«[TOOL_CALLS]»[{"name": "look", "arguments": "\\ud83d"}]', [look("\ufffd")]),
    "array of something else": ("«[TOOL_CALLS]»[1, 2]", [answer("[1, 2]")]),
    "array of nothing": ("«[TOOL_CALLS]» []", [answer(" []")]),
    "array of the nameless": ('«[TOOL_CALLS]»[{"arguments": {"x": 1}}]', [answer('[{"arguments": {"x": 1}}]')]),
    "array of deep nothing": ("«[TOOL_CALLS]»" + "[" * 3000, [answer("[" * 3000)]),
    "trace between calls": (
        "«[TOOL_CALLS]»look«[ARGS]»{}«[THINK]»b«[/THINK]»c",
        [look("{}"), trace("b"), answer("c")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_reply_is_split_where_the_control_ids_are(tekken, case):
    writing, segments = CASES[case]
    ids = spell(tekken, writing)
    assert list(parse(ids, tekken).segments) == segments
    assert list(chunked(tekken, ids, [1] * len(ids)).segments) == segments


def test_a_padded_row_is_no_text(either):
    padded = either.tokenizer.n_words + 5
    assert parse([*either.encode_text("a"), padded, *either.encode_text("b")], either).answer == "ab"


def test_trace_tokens_are_counted_by_id(tekken):
    parser = ReplyParser(tekken)
    thought = tekken.encode_text("one two three")
    parser.feed(spell(tekken, "«[THINK]»one two three«[/THINK]»four five"))
    assert parser.trace_tokens == len(thought)


def test_a_reply_to_an_open_trace_begins_in_it(tekken):
    thinking = given_by.assistant([{"type": "thinking", "thinking": "2 and", "closed": False}])
    prompt = tekken.encode([QUESTION, thinking], continue_final_message=True)
    assert opens_in(prompt, tekken) == "trace"
    closed = tekken.encode([QUESTION, given_by.assistant("5", "2 and 3")], continue_final_message=True)
    assert opens_in(closed, tekken) == opens_in(tekken.encode([QUESTION]), tekken) == opens_in([], tekken) == "answer"
    ids = spell(tekken, " 3«[/THINK]»5«</s>»")
    assert list(parse(ids, tekken, "trace").segments) == [trace(" 3"), answer("5")]
    assert list(chunked(tekken, ids, [1] * len(ids), "trace").segments) == [trace(" 3"), answer("5")]
    parser = ReplyParser(tekken, "trace")
    parser.feed(ids)
    assert parser.trace_tokens == len(tekken.encode_text(" 3"))
    assert parse(spell(tekken, "«[/THINK]»5"), tekken, "trace").trace == ""
    assert parse(spell(tekken, "«[TOOL_CALLS]»look«[ARGS]»{}"), tekken, "trace").calls == (look("{}"),)
    assert parse([], tekken, "trace").trace == ""


def test_an_array_comes_as_it_is_written(tekken):
    parser = ReplyParser(tekken)
    pieces = parser.feed(spell(tekken, '«[TOOL_CALLS]»[{"name": "look", "arguments": {"x": "on'))
    assert ("".join(piece.text for piece in pieces), {piece.name for piece in pieces}) == ('{"x": "on', {"look"})
    pieces = parser.feed(spell(tekken, 'e"}}, {"name": "see", "arguments": {'))
    assert [(piece.name, piece.text) for piece in pieces if piece.text] == [("look", 'e"}'), ("see", "{")]


def test_a_long_array_is_read_once(tekken):
    """Reading what was read again at each step would take minutes."""
    long = "x y " * 100_000
    for writing in (
        '«[TOOL_CALLS]»[{"name": "look", "arguments": "' + long,
        '«[TOOL_CALLS]»[{"name": "look", "arguments": {"x": "' + long,
        '«[TOOL_CALLS]»[{"arguments": {"x": "' + long,
        "«[TOOL_CALLS]»" + long,
    ):
        ids = spell(tekken, writing)
        began = time.process_time()
        assert chunked(tekken, ids, [1] * len(ids)) == parse(ids, tekken)
        assert time.process_time() - began < 10


def test_arguments_come_as_they_are_written(tekken):
    parser = ReplyParser(tekken)
    pieces = parser.feed(spell(tekken, "«[TOOL_CALLS]»look«[ARGS]»"))
    assert [(piece.kind, piece.name, piece.text) for piece in pieces] == [("call", "look", "")]
    pieces = parser.feed(spell(tekken, '{"x'))
    assert "".join(piece.text for piece in pieces) == '{"x'
