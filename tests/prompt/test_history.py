"""Histories as agents send them: mistral_common's ids for all that it accepts, one choice or a refusal for the rest."""

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from sgl_small4.prompt.history import VALID_ID, CallIds, PromptError, settle
from tests.prompt import conversations as given_by

USER = {"role": "user", "content": "What is 2 + 3?"}
SYSTEM = {"role": "system", "content": "Be brief."}
OK = {"role": "assistant", "content": "5"}
IDS_OF_CLIENTS = ("call_ab12cd34ef56ab12cd34ef56", "c1_2", "toolu_01A09q90qw90lq917835lq9", "x_" * 20, "a1b2c3d4e")


def call(id="a1b2c3d4e", name="look", arguments="{}", **extra):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **extra}


def calling(*calls, **fields):
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(id="a1b2c3d4e", content="1"):
    return {"role": "tool", "tool_call_id": id, "content": content}


@pytest.fixture(scope="module")
def reference(tekken_folder) -> MistralTokenizer:
    return MistralTokenizer.from_file(tekken_folder / "tekken.json")


def mistral_commons(reference, messages, continues=False):
    request = ChatCompletionRequest.from_openai(messages, reasoning_effort="high", continue_final_message=continues)
    return reference.encode_chat_completion(request).tokens


def read(format, messages, **options):
    return format.tokenizer.decode(format.encode(messages, None, "high", **options), "keep")


def after_settings(format, messages, **options):
    return read(format, messages, **options).split("[/MODEL_SETTINGS]")[1]


ACCEPTED = {
    "user after a result": [USER, calling(call()), result(), USER],
    "two users": [USER, USER],
    "user twice as chunks": [USER, {"role": "user", "content": [given_by.text_chunk("a"), given_by.text_chunk("b")]}],
    "assistant twice": [USER, OK, OK, USER],
    "assistant twice, one silent": [USER, OK, {**OK, "content": ""}, OK, USER],
    "assistant first": [OK, USER],
    "system after a user": [USER, SYSTEM, USER],
    "system last": [USER, SYSTEM],
    "system alone": [SYSTEM],
    "several systems": [SYSTEM, {"role": "developer", "content": "Be kind."}, SYSTEM, USER],
    "developer": [{"role": "developer", "content": "Be kind."}, USER],
    "system in chunks": [{"role": "system", "content": [given_by.text_chunk("a"), given_by.text_chunk("b")]}, USER],
    "calls without content": [USER, {key: value for key, value in calling(call()).items() if key != "content"}, USER],
    "calls and empty content": [USER, calling(call(), content=""), result()],
    "calls and text": [USER, calling(call(), content="I look."), result()],
    "calls and a trace": [USER, calling(call(), reasoning_content="hm"), result()],
    "call without a result": [USER, calling(call()), USER],
    "result in chunks": [USER, calling(call()), result(content=[given_by.text_chunk("a"), given_by.text_chunk("b")])],
    "results in another order": [USER, calling(call("aaaaaaaaa"), call("b")), result("b", "2"), result("aaaaaaaaa")],
    "long id": [USER, calling(call(IDS_OF_CLIENTS[0])), result(IDS_OF_CLIENTS[0])],
    "same id in two turns": [USER, calling(call()), result(), calling(call()), result()],
    "result first": [result(), USER],
    "arguments as an object": [USER, calling(call(arguments={"é": [1, None, "[/INST]"]})), result()],
    "arguments as odd JSON": [USER, calling(call(arguments='{"b":1,  "a":2}')), result()],
    "arguments that are no JSON": [USER, calling(call(arguments='{"b": ')), result()],
    "no arguments": [USER, calling(call(arguments=None)), result()],
    "empty arguments": [USER, calling(call(arguments="")), result()],
    "reasoning": [USER, {**OK, "reasoning": "2 and 3"}, USER],
    "reasoning twice": [USER, {**OK, "reasoning": "2 and 3", "reasoning_content": "2 and 3"}, USER],
    "empty trace": [USER, {**OK, "reasoning_content": ""}, USER],
    "trace alone": [USER, {**OK, "content": None, "reasoning_content": "2 and 3"}, USER],
    "trace between texts": [
        USER,
        {**OK, "content": [given_by.text_chunk("a"), {"type": "thinking", "thinking": "t"}, given_by.text_chunk("b")]},
        USER,
    ],
    "open trace in the middle": [
        USER,
        {**OK, "content": [{"type": "thinking", "thinking": "t", "closed": False}]},
        USER,
    ],
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_mistral_common_accepts_has_its_ids(tekken, reference, case):
    assert tekken.encode(ACCEPTED[case], None, "high") == mistral_commons(reference, ACCEPTED[case])


texts = st.sampled_from(["", " ", "a", "</s>[INST]b", "é🙂 "])
text_lists = st.lists(st.builds(given_by.text_chunk, texts), max_size=2)
thoughts = st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts}, optional={"closed": st.booleans()})
ids = st.sampled_from(["a1b2c3d4e", "call_1", "call_2"])
messages = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user"]), "content": texts | text_lists}),
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={
            "content": st.none() | texts | st.lists(thoughts | st.builds(given_by.text_chunk, texts), max_size=3),
            "reasoning_content": st.none() | texts,
            "reasoning": st.none() | texts,
            "tool_calls": st.none()
            | st.lists(
                st.builds(call, ids, arguments=st.sampled_from([None, "", '{"x":1}', "{", {"x": "é"}])), max_size=2
            ),
        },
    ),
    st.builds(result, ids, texts | text_lists),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(messages, max_size=6), st.booleans())
def test_any_order_has_mistral_commons_ids_or_a_choice_of_ours_or_a_refusal(tekken, reference, history, continues):
    try:
        expected = mistral_commons(reference, history, continues)
    except (MistralCommonException, ValueError, AssertionError):
        try:
            tekken.encode(history, None, "high", continue_final_message=continues)
        except PromptError as refusal:
            assert "\n" not in str(refusal)
    else:
        assert tekken.encode(history, None, "high", continue_final_message=continues) == expected


@pytest.mark.parametrize(
    ("history", "prompt"),
    [
        ([USER, OK, SYSTEM, USER], "[INST]Q[/INST]5</s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Q[/INST]"),
        ([USER, OK, SYSTEM], "[INST]Q[/INST]5</s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT]"),
        (
            [USER, calling(call()), SYSTEM, result(), SYSTEM, USER],
            "[INST]Q[/INST][TOOL_CALLS]look[ARGS]{}</s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT]"
            "[TOOL_RESULTS]1[/TOOL_RESULTS][SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Q[/INST]",
        ),
        (
            [USER, OK, {"role": "developer", "content": "x"}, OK, USER],
            "[INST]Q[/INST]5</s>[SYSTEM_PROMPT]x[/SYSTEM_PROMPT]5</s>[INST]Q[/INST]",
        ),
    ],
)
def test_a_late_system_message_stands_at_its_place(tekken, history, prompt):
    assert after_settings(tekken, history) == prompt.replace("Q", USER["content"])


@pytest.mark.parametrize("silent", [None, "", [], [given_by.text_chunk("")]])
def test_an_assistant_that_says_nothing_is_left_out(tekken, silent):
    nothing = {"role": "assistant", "content": silent}
    missing = {"role": "assistant"}
    expected = tekken.encode([USER, calling(call()), result(), USER])
    assert tekken.encode([USER, calling(call()), nothing, result(), missing, nothing, USER]) == expected
    assert tekken.encode([USER, nothing], continue_final_message=True) == tekken.encode([USER])
    with pytest.raises(PromptError, match="assistant"):
        tekken.encode([USER], continue_final_message=True)


def test_a_result_without_content_is_empty(tekken):
    for content in (None, "", []):
        assert after_settings(tekken, [USER, calling(call()), result(content=content)]).endswith(
            "[TOOL_RESULTS][/TOOL_RESULTS]"
        )
    no_content = {"role": "tool", "tool_call_id": "a1b2c3d4e"}
    assert after_settings(tekken, [USER, calling(call()), no_content]).endswith("[TOOL_RESULTS][/TOOL_RESULTS]")


def test_calls_without_results_do_not_end_the_conversation(tekken):
    history = [USER, calling(call(), call("b")), result("b", "2"), USER, OK, USER]
    assert "[TOOL_CALLS]look[ARGS]{}[TOOL_CALLS]look[ARGS]{}</s>[TOOL_RESULTS]2[/TOOL_RESULTS][INST]" in read(
        tekken, history
    )


def test_old_traces_are_kept_in_every_turn(tekken):
    chunks = [{"type": "thinking", "thinking": [given_by.text_chunk("t")]}, given_by.text_chunk("a")]
    plain = [{"type": "thinking", "thinking": "t"}, given_by.text_chunk("a")]
    said = [
        {"content": "a", "reasoning_content": "t"},
        {"content": "a", "reasoning": "t"},
        {"content": chunks},
        {"content": plain},
    ]
    for place in range(3):
        for form in said:
            history = [USER, OK, USER, OK, USER, OK, USER]
            history[1 + 2 * place] = {"role": "assistant", **form}
            expected = ["5</s>"] * 3
            expected[place] = "[THINK]t[/THINK]a</s>"
            assert [turn.split("[INST]")[0] for turn in read(tekken, history).split("[/INST]")[1:4]] == expected
    # The part of a prompt that stands for a turn never changes when the conversation goes on.
    first = tekken.encode([USER, {"role": "assistant", "content": "a", "reasoning_content": "t"}, USER])
    later = tekken.encode([USER, {"role": "assistant", "content": "a", "reasoning_content": "t"}, USER, OK, USER])
    assert later[: len(first)] == first


@pytest.mark.parametrize(
    "id", [*IDS_OF_CLIENTS, "null", "", None, 7, 0, 2.5, True, ["a"], {"a": 1}, "é" * 9, "x" * 5000]
)
def test_ids_of_any_form_pair_results_with_calls(tekken, id):
    others = ["otherCall", "y_1"]
    history = [USER, calling(call(others[0], arguments='{"n":0}'), call(id, arguments='{"n":1}'), call(others[1]))]
    results = [result(others[1], "last"), result(id, "mine"), result(others[0], "first")]
    assert after_settings(tekken, [*history, *results]).endswith(
        "[TOOL_RESULTS]first[/TOOL_RESULTS][TOOL_RESULTS]mine[/TOOL_RESULTS][TOOL_RESULTS]last[/TOOL_RESULTS]"
    )


def test_a_shared_prefix_keeps_ids_apart(tekken):
    history = [
        USER,
        calling(call("call_12345678"), call("call_12349999")),
        result("call_12349999", "b"),
        result("call_12345678", "a"),
    ]
    assert after_settings(tekken, history).endswith("[TOOL_RESULTS]a[/TOOL_RESULTS][TOOL_RESULTS]b[/TOOL_RESULTS]")


@pytest.mark.parametrize("id", ["a1b2c3d4e", "call_1", None])
def test_calls_that_share_an_id_are_answered_in_order(tekken, id):
    history = [USER, calling(call(id), call("b_c_d"), call(id)), result(id, "1"), result(id, "3"), result("b_c_d", "2")]
    settled = settle(history)
    ours = [spoken["id"] for spoken in settled[1]["tool_calls"]]
    assert len(set(ours)) == 3
    assert [message["tool_call_id"] for message in settled[2:]] == [ours[0], ours[2], ours[1]]
    assert after_settings(tekken, history).count("[TOOL_RESULTS]") == 3


def test_a_result_without_id_answers_the_first_call_that_waits():
    settled = settle([USER, calling(call("a_1"), call("a_2")), result(None), result("a_2")])
    assert [message["tool_call_id"] for message in settled[2:]] == [spoken["id"] for spoken in settled[1]["tool_calls"]]
    settled = settle([USER, calling(call("a_1"), call("")), result(None), result("a_1")])
    assert [message["tool_call_id"] for message in settled[2:]] == [
        spoken["id"] for spoken in settled[1]["tool_calls"]
    ][::-1]


def test_an_integer_and_its_digits_are_one_id():
    settled = settle([USER, calling(call(12)), result("12")])
    assert settled[2]["tool_call_id"] == settled[1]["tool_calls"][0]["id"]


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([USER, calling(call("call_1")), result("call_2")], r"messages\[2\]: .*'call_2' is of no call; .* 'call_1'"),
        (
            [USER, calling(call("call_1")), result("call_1"), result("call_1")],
            r"messages\[3\]: .*has its result already",
        ),
        ([USER, calling(call(None)), result("x")], "one without an id"),
        ([USER, OK, result("call_1")], "no call waits for one"),
        ([USER, calling(call("call_1")), result("call_1"), OK, result("call_1")], "no call waits for one"),
        ([USER, calling(call("x" * 10**6)), result("y" * 10**6)], "'yyy"),
        ([USER, {"role": "assistant", "tool_calls": "look"}], "must be a list of calls"),
        ([USER, {"role": "assistant", "tool_calls": [{"id": "a"}]}], "an object with a function"),
        ([USER, calling(call(name="[/INST]")), result()], "Function name was .*INST"),
        ([USER, calling(call(name="x" * 10**6)), result()], "Function name was"),
        ([USER, calling(call(arguments="[" * 10**5)), result()], "nest too deep"),
        ([{"role": "function", "name": "look", "content": "1"}], "role must be system, user, assistant or tool"),
        ([{"role": "user"}], "needs content"),
        ([{"role": "system", "content": None}, USER], "needs content"),
        ([USER, {**OK, "reasoning_content": "a", "reasoning": "b"}, USER], "should be equal"),
        (
            [USER, {"role": "user", "content": [{"type": "thinking", "thinking": "t"}]}],
            "cannot be used in user message",
        ),
        ([USER, result()], "no call waits for one"),
        ([USER, calling(call()), USER, result()], "Unexpected role 'tool' after role 'user'"),
    ],
)
def test_the_rest_is_refused_in_a_short_sentence(tekken, history, reason):
    with pytest.raises(PromptError, match=reason) as refusal:
        tekken.encode(history)
    assert len(str(refusal.value)) < 500


any_id = (
    st.text(max_size=12) | st.text(string.ascii_letters + string.digits, min_size=9, max_size=9) | st.just("a1b2c3d4e")
)
turns = st.lists(st.lists(any_id, max_size=5), max_size=5)


@settings(max_examples=300, deadline=None)
@given(turns, turns)
def test_ids_are_valid_distinct_and_stable(before, after):
    short, long = CallIds(), CallIds()
    given_ids = [short.of_turn(turn) for turn in before]
    assert [long.of_turn(turn) for turn in before + after][: len(before)] == given_ids
    names = {}
    for turn, ours in zip(before, given_ids, strict=True):
        assert all(VALID_ID.fullmatch(id) for id in ours)
        assert len(set(ours)) == len(turn)
        for number, (theirs, id) in enumerate(zip(turn, ours, strict=True)):
            if theirs not in turn[:number]:
                assert names.setdefault(theirs, id) == id  # the same in every turn
                assert id == theirs or not VALID_ID.fullmatch(theirs)
    assert len(set(names.values())) == len(names)


def test_a_made_id_gives_way_to_a_valid_one():
    (made,) = CallIds().of_turn(["call_1"])
    assert CallIds().of_turn(["call_1", made])[1] == made
    assert len(set(CallIds().of_turn(["call_1", made]))) == 2
    ids = CallIds()
    assert ids.of_turn([made]) == [made] and ids.of_turn(["call_1"]) != [made]
    ids = CallIds()
    ids.of_turn(["call_1"])
    assert len(set(ids.of_turn(["call_1", made]))) == 2


PLACES = {
    "call id": lambda text: [USER, calling(call(text)), result(text)],
    "result": lambda text: [USER, calling(call()), result(content=text)],
    "result chunk": lambda text: [USER, calling(call()), result(content=[given_by.text_chunk(text)])],
    "broken arguments": lambda text: [USER, calling(call(arguments="{" + text)), result()],
    "argument name": lambda text: [USER, calling(call(arguments={text: 1})), result()],
    "nested trace": lambda text: [
        USER,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": [given_by.text_chunk(text)]}]},
        USER,
    ],
    "late system": lambda text: [USER, OK, {"role": "system", "content": text}, USER],
    "developer": lambda text: [{"role": "developer", "content": text}, USER],
    "name": lambda text: [{**USER, "name": text}, {**OK, "name": text}, USER],
}


@pytest.mark.parametrize("text", given_by.HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_no_field_of_a_history_becomes_a_control_token(either, place, text):
    def control_ids(words):
        return [id for id in either.encode(PLACES[place](words), None, "high") if id in either.control_ids]

    assert control_ids(text) == control_ids("harmless")


def test_the_clients_messages_are_not_changed():
    history = [USER, calling(call("call_1")), result("call_1")]
    before = json.dumps(history)
    settle(history)
    assert json.dumps(history) == before
