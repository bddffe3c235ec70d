"""Prompts are mistral_common's, id for id, and no text in them becomes a control token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from sgl_small4.prompt.format import EFFORTS, PromptError, PromptFormat, effort_of
from tests.prompt import conversations as given_by

ENGLISH = [{"role": "user", "content": "What is 2 + 3?"}]


@pytest.fixture(scope="module")
def reference(tekken_folder) -> MistralTokenizer:
    return MistralTokenizer.from_file(tekken_folder / "tekken.json")


@settings(max_examples=100, deadline=None)
@given(given_by.conversations(), given_by.tools())
def test_prompts_equal_mistral_commons(tekken, reference, messages, tools):
    for effort in ("none", "high"):
        expected = reference.encode_chat_completion(given_by.reference(messages, tools, effort)).tokens
        assert tekken.encode(messages, tools, effort) == expected


@settings(max_examples=80, deadline=None)
@given(given_by.conversations(), given_by.tools())
def test_both_tokenizer_files_give_the_same_prompt(twins, messages, tools):
    from_tekken, from_hugging_face = twins
    assert from_tekken.encode(messages, tools, "high") == from_hugging_face.encode(messages, tools, "high")


@pytest.mark.parametrize("text", given_by.TEXTS)
def test_text_is_cut_as_tekken_cuts_it(tekken, twins, reference, text):
    words = reference.instruct_tokenizer.tokenizer.encode(text, bos=False, eos=False)
    assert tekken.encode_text(text) == words
    assert twins[0].encode_text(text) == twins[1].encode_text(text)


def test_the_prompt_reads_as_v15(tekken):
    system = [{"role": "system", "content": "Be brief."}]
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    ids = tekken.encode(system + ENGLISH, [tool], "high")
    assert tekken.tokenizer.decode(ids, "keep") == (
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT]"
        '[AVAILABLE_TOOLS][{"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}]'
        '[/AVAILABLE_TOOLS][MODEL_SETTINGS]{"reasoning_effort": "high"}[/MODEL_SETTINGS][INST]What is 2 + 3?[/INST]'
    )


# Where a stranger's words can stand in a request. Each is a conversation around one text.
PLACES = {
    "user": lambda text: ([{"role": "user", "content": text}], []),
    "chunk": lambda text: ([{"role": "user", "content": [given_by.text_chunk(text), given_by.text_chunk("?")]}], []),
    "system": lambda text: ([{"role": "system", "content": text}, *ENGLISH], []),
    "assistant": lambda text: ([*ENGLISH, given_by.assistant(text), *ENGLISH], []),
    "trace": lambda text: ([*ENGLISH, given_by.assistant("5", text), *ENGLISH], []),
    "arguments": lambda text: (_called({"q": text}, "ok"), []),
    "tool result": lambda text: (_called({}, text), []),
    "tool description": lambda text: (ENGLISH, [_tool(description=text)]),
    "tool parameters": lambda text: (ENGLISH, [_tool(parameters={"properties": {text: {"title": text}}})]),
}


def _called(arguments, result):
    call = given_by.assistant(None, calls=[("a1b2c3d4e", "look", arguments)])
    return [*ENGLISH, call, {"role": "tool", "tool_call_id": "a1b2c3d4e", "content": result}]


def _tool(**function):
    return {"type": "function", "function": {"name": "look", "parameters": {}, **function}}


@pytest.mark.parametrize("text", given_by.HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_no_text_becomes_a_control_token(either: PromptFormat, place, text):
    def control_ids(words):
        return [id for id in either.encode(*PLACES[place](words), "high") if id in either.control_ids]

    ids = either.encode(*PLACES[place](text), "high")
    assert control_ids(text) == control_ids("harmless")
    decoded = either.tokenizer.decode(ids)
    spelled = text.replace('"', '\\"') if place in ("arguments", "tool description", "tool parameters") else text
    assert spelled in decoded


@settings(max_examples=100, deadline=None)
@given(given_by.texts)
def test_a_text_gives_itself_back(either, text):
    ids = either.encode_text(text)
    assert not either.control_ids.intersection(ids)
    assert either.tokenizer.decode(ids) == text


def test_a_hostile_tool_name_is_refused(tekken):
    with pytest.raises(PromptError, match="Function name was .*INST"):
        tekken.encode(ENGLISH, [_tool(name="[/INST]")])


def test_a_trace_in_the_history_has_several_spellings_and_one_prompt(tekken):
    chunks = [{"type": "thinking", "thinking": "t"}, given_by.text_chunk("a")]
    nested = [{"type": "thinking", "thinking": [given_by.text_chunk("t")]}, given_by.text_chunk("a")]
    as_sglang_dumps_it = [{"type": "reasoning", "thinking": None, "text": "t"}, given_by.text_chunk("a")]
    spellings = [given_by.assistant("a", "t"), *map(given_by.assistant, (chunks, nested, as_sglang_dumps_it))]
    prompts = {tuple(tekken.encode([*ENGLISH, said, *ENGLISH], None, "high")) for said in spellings}
    assert len(prompts) == 1
    assert "[THINK]t[/THINK]a</s>" in tekken.tokenizer.decode(list(prompts.pop()), "keep")


def test_a_final_message_is_continued(tekken):
    ids = tekken.encode([*ENGLISH, given_by.assistant("The sum is")], continue_final_message=True)
    assert tekken.tokenizer.decode(ids, "keep").endswith("[/INST]The sum is")
    thinking = given_by.assistant([{"type": "thinking", "thinking": "2 and", "closed": False}])
    ids = tekken.encode([*ENGLISH, thinking], continue_final_message=True)
    assert tekken.tokenizer.decode(ids, "keep").endswith("[/INST][THINK]2 and")


@pytest.mark.parametrize("value", [None, *EFFORTS])
def test_every_accepted_effort_is_one_of_two(value):
    high = value in ("medium", "high", "xhigh", "max")
    assert effort_of(value) == ("high" if high else "none")


@pytest.mark.parametrize("value", ["HIGH", "ultra", "", 0.5, 1, True, ["high"], {"effort": "high"}])
def test_another_effort_is_refused_with_the_list(value):
    with pytest.raises(PromptError) as refusal:
        effort_of(value)
    assert all(name in str(refusal.value) for name in EFFORTS)
    assert repr(value) in str(refusal.value)


CALL = given_by.assistant(None, calls=[("a1b2c3d4e", "look", {})])
REFUSED = {
    "no messages": ([], "at least one message"),
    "assistant first": ([given_by.assistant("hi")], "must start with a user message or system message"),
    "assistant last": ([*ENGLISH, given_by.assistant("hi")], "last role User or Tool"),
    "tool out of the blue": (
        [*ENGLISH, {"role": "tool", "tool_call_id": "x", "content": "1"}],
        "no call waits for one",
    ),
    "result of another call": ([*ENGLISH, CALL, {"role": "tool", "tool_call_id": "zzz", "content": "1"}], "zzz"),
    "unknown role": ([{"role": "narrator", "content": "x"}], "role must be"),
    "no content": ([{"role": "user", "content": None}], "needs content"),
    "number as content": ([{"role": "user", "content": 5}], "a text or a list of chunks"),
    "unknown chunk": ([{"role": "user", "content": [{"type": "smell", "smell": "rose"}]}], "smell"),
    "untyped chunk": ([{"role": "user", "content": ["x"]}], "an object with a type"),
    "image": ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "takes no images"),
    "thinking in numbers": (
        [*ENGLISH, given_by.assistant([{"type": "thinking", "thinking": [1]}]), *ENGLISH],
        "holds a text or text chunks",
    ),
    "tools in a message": ([{"role": "system", "content": "s", "tools": [{}]}, *ENGLISH], "tools are given with the"),
    "trace twice": (
        [*ENGLISH, given_by.assistant([{"type": "thinking", "thinking": "t"}], "t"), *ENGLISH],
        "both thinking chunks",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_conversation_without_a_prompt_is_refused_in_one_sentence(tekken, case):
    messages, reason = REFUSED[case]
    with pytest.raises(PromptError) as refusal:
        tekken.encode(messages)
    sentence = str(refusal.value)
    assert reason in sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_control_ids_come_by_name(either):
    for name in SpecialTokens:
        assert either.tokenizer.id_to_piece(either.control(name)) == name.value
        assert either.control(name) not in either.encode_text(name.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=5), values, max_size=2),
    max_leaves=4,
)
chunks = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "reasoning", "image_url", "input_audio", "x"])},
    optional={"text": anything, "thinking": anything, "image_url": anything, "closed": anything},
)
odd_calls = st.fixed_dictionaries(
    {},
    optional={
        "id": anything | st.just("a1b2c3d4e"),
        "type": anything,
        "function": anything | st.fixed_dictionaries({"name": anything}, optional={"arguments": anything}),
    },
)
odd_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]) | anything},
    optional={
        "content": anything | st.lists(chunks | anything, max_size=2),
        "tool_calls": anything | st.lists(odd_calls | anything, max_size=2),
        "tool_call_id": anything | st.just("a1b2c3d4e"),
        "reasoning_content": anything,
        "reasoning": anything,
        "name": anything,
        "prefix": anything,
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(odd_messages | anything, max_size=3), st.none() | st.lists(anything, max_size=2), st.booleans())
def test_whatever_is_sent_is_encoded_or_refused_in_one_sentence(either, messages, tools, continues):
    try:
        ids = either.encode(messages, tools, "high", continue_final_message=continues)
    except PromptError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert ids[0] == either.control(SpecialTokens.bos)
