"""The chat template gives mistral_common's ids for harmless text, through transformers' own renderer."""

import json
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import sgl_small4.prompt
from sgl_small4.prompt.format import EFFORTS
from tests.prompt import conversations as given_by

TEMPLATE = Path(sgl_small4.prompt.__file__).parent / "template.jinja"


@pytest.fixture(scope="module")
def tokenizer(twins) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_file=str(twins[1].tokenizer.file_path),
        bos_token="<s>",
        eos_token="</s>",
        chat_template=TEMPLATE.read_text(),
    )


@settings(max_examples=100, deadline=None)
@given(
    given_by.conversations(given_by.harmless_texts),
    given_by.tools(given_by.harmless_texts),
    st.sampled_from([None, *EFFORTS]),
)
def test_the_template_gives_mistral_commons_ids(tokenizer, twins, messages, tools, effort):
    for message in messages:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    rendered = tokenizer.apply_chat_template(
        messages, tools=tools or None, reasoning_effort=effort, tokenize=True, return_dict=False
    )
    assert rendered == twins[1].encode(messages, tools, EFFORTS[effort or "none"])


QUESTION = {"role": "user", "content": "?"}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([given_by.assistant("a")], "Unexpected role 'assistant'"),
        ([QUESTION, {"role": "tool", "tool_call_id": "b", "content": "1"}], "Unexpected role 'tool' after 'user'"),
        ([QUESTION, given_by.assistant(None), QUESTION], "needs content"),
        ([{"role": "user", "content": [{"type": "image", "image": "x"}]}], "text only, got image"),
        (
            [
                QUESTION,
                given_by.assistant(None, calls=[("a", "f", {})]),
                {"role": "tool", "tool_call_id": "b", "content": "1"},
            ],
            "must answer one call",
        ),
    ],
)
def test_what_the_template_cannot_write_it_refuses(tokenizer, messages, reason):
    with pytest.raises(jinja2.TemplateError, match=reason):
        tokenizer.apply_chat_template(messages, tokenize=False)


SYSTEM, ANSWER = {"role": "system", "content": "s"}, given_by.assistant("a")
CALL = given_by.assistant(None, calls=[("a1b2c3d4e", "f", {}), ("call_2", "f", {"x": 1})])
RESULTS = [{"role": "tool", "tool_call_id": id, "content": id} for id in ("call_2", "a1b2c3d4e")]


@pytest.mark.parametrize(
    "messages",
    [
        [QUESTION, ANSWER, SYSTEM, QUESTION],
        [SYSTEM, QUESTION, ANSWER, SYSTEM, {**SYSTEM, "role": "developer"}, ANSWER, SYSTEM],
        [SYSTEM, SYSTEM, QUESTION, CALL, *RESULTS, SYSTEM, QUESTION],
        [QUESTION, SYSTEM, QUESTION, CALL, SYSTEM, *RESULTS, SYSTEM, ANSWER, QUESTION],
        [QUESTION, CALL, QUESTION, ANSWER, QUESTION],
    ],
)
def test_late_systems_and_calls_without_results_are_written_as_the_format_writes_them(tokenizer, twins, messages):
    parsed = json.loads(json.dumps(messages))
    for call in (call for message in parsed for call in message.get("tool_calls", [])):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    rendered = tokenizer.apply_chat_template(parsed, tokenize=True, return_dict=False)
    assert rendered == twins[1].encode(messages)


def test_the_template_lists_the_efforts(tokenizer):
    with pytest.raises(jinja2.TemplateError, match="none, minimal, low, medium, high, xhigh, max"):
        tokenizer.apply_chat_template([QUESTION], tokenize=False, reasoning_effort="HIGH")
