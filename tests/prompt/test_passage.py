"""A trace reaches the prompt through SGLang's own request types, however a client spells it."""

import pytest
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest

from sgl_small4.prompt.history import PromptError
from sgl_small4.prompt.passage import fold, unfold
from tests.prompt import conversations as given_by

QUESTION = {"role": "user", "content": "?"}
NESTED = {"type": "thinking", "thinking": [given_by.text_chunk("t"), given_by.text_chunk("u")]}


def passed(messages, **fields):
    """The messages as the encoder is given them."""
    request = ChatCompletionRequest(**fold({"messages": messages, **fields}))
    given = [message.model_dump() for message in request.messages]
    unfold(given, request.chat_template_kwargs)
    return given


@pytest.mark.parametrize(
    "said",
    [
        {"content": "a", "reasoning_content": "tu"},
        {"content": "a", "reasoning": "tu"},
        {"content": "a", "reasoning": "tu", "reasoning_content": "tu"},
        {"content": [NESTED, given_by.text_chunk("a")]},
        {"content": [{"type": "thinking", "thinking": "tu"}, given_by.text_chunk("a")]},
        {"content": [{"type": "reasoning", "text": "tu"}, given_by.text_chunk("a")]},
        {"content": [{"type": "thinking", "thinking": "tu", "closed": True}, given_by.text_chunk("a")]},
        {"content": [{**NESTED, "closed": False}, given_by.text_chunk("a")]},
        {"content": [given_by.text_chunk("a"), {**NESTED, "closed": False}]},
        {"content": None, "reasoning": "tu"},
        {"content": ""},
        {"content": None},
    ],
)
def test_every_spelling_of_a_trace_arrives(tekken, said):
    message = {"role": "assistant", **said}
    for history in ([QUESTION, message, QUESTION], [QUESTION, message, QUESTION, message, QUESTION]):
        assert tekken.encode(passed(history)) == tekken.encode(history)
    history = [QUESTION, {**message, "role": "Assistant"}]
    expected = tekken.encode([QUESTION, message], continue_final_message=True)
    assert tekken.encode(passed(history, chat_template_kwargs={"x": 1}), continue_final_message=True) == expected


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"content": "a", "reasoning": "t", "reasoning_content": "u"}, r"messages\[1\]: .* differ"),
        ({"content": [{"type": "thinking", "thinking": [1]}]}, r"messages\[1\]: a thinking chunk holds"),
        (
            {"content": [{"type": "thinking", "thinking": "t", "closed": "no"}]},
            r"messages\[1\]: closed must be true or",
        ),
    ],
)
def test_a_trace_that_is_none_is_refused(said, reason):
    with pytest.raises(PromptError, match=reason):
        fold({"messages": [QUESTION, {"role": "assistant", **said}]})


@pytest.mark.parametrize("messages", [None, "x", {}, [], [None], ["x"], [[]], [{}], [{"role": 5}], [{"role": None}]])
def test_what_is_no_message_is_left_to_the_types(messages):
    assert fold({"messages": messages}) == {"messages": messages}


def test_the_clients_body_is_not_changed():
    body = {"messages": [{"role": "assistant", "content": [{**NESTED, "closed": False}]}], "chat_template_kwargs": {}}
    before = repr(body)
    fold(body)
    assert repr(body) == before
