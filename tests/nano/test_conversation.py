"""The training side lays prompts and replies out exactly as mistral_common's v15 encoder does."""

import json
import random

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from sgl_small4.nano import CHECKPOINT
from sgl_small4.nano.conversation import Format
from sgl_small4.nano.tasks import arithmetic, tools
from sgl_small4.nano.tasks.documents import Document, quote
from sgl_small4.nano.tokenizer import Coder


@pytest.fixture(scope="module")
def form() -> Format:
    return Format(Coder(CHECKPOINT / "tekken.json"))


@pytest.fixture(scope="module")
def mistral() -> MistralTokenizer:
    return MistralTokenizer.from_file(str(CHECKPOINT / "tekken.json"))


def assistant(answer: str, trace: str | None) -> dict[str, object]:
    if trace is None:
        return {"role": "assistant", "content": answer}
    content = [{"type": "thinking", "thinking": trace, "closed": True}, {"type": "text", "text": answer}]
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize("system", ["", "Be short.", "name: Ada [INST] | city: Oslo\n- code: 4821"])
@pytest.mark.parametrize("high", [True, False])
def test_conversations_of_several_turns(form: Format, mistral: MistralTokenizer, system: str, high: bool) -> None:
    source = random.Random(3)
    messages: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
    ids = form.opening(high, system)
    for _ in range(3):
        turn = arithmetic.turn(source, high, arithmetic.Share())
        messages += [{"role": "user", "content": turn.question}, assistant(turn.answer, turn.trace if high else None)]
        ids += [i for part, _ in form.turn(turn, high, 1) for i in part]
    evidence = quote(Document(4, 60, len).question(missing=0))
    past = arithmetic.turn(source, high, arithmetic.Share())  # as clients send it back
    messages += [{"role": "user", "content": past.question}, assistant(past.answer, None)]
    messages += [{"role": "user", "content": evidence.question}, assistant(evidence.answer, None)]
    ids += form.past([past, evidence])
    messages.append({"role": "user", "content": "And now?"})
    ids += form.user("And now?")
    request = ChatCompletionRequest.from_openai(messages=messages, reasoning_effort="high" if high else "none")
    assert mistral.encode_chat_completion(request).tokens == ids


@pytest.mark.parametrize("high", [True, False])
def test_a_tool_call_and_its_result(form: Format, mistral: MistralTokenizer, high: bool) -> None:
    source = random.Random(5)
    tool, call = tools.calculator(source), tools.call(source)
    arguments = {tool.argument: call.expression}
    function = {"name": tool.name, "arguments": json.dumps(arguments)}
    calling: dict[str, object] = {
        "role": "assistant",
        "tool_calls": [{"id": "abcdefghi", "type": "function", "function": function}],
    }
    if high:
        calling["content"] = [{"type": "thinking", "thinking": call.trace, "closed": True}]
    messages = [
        {"role": "user", "content": call.question},
        calling,
        {"role": "tool", "tool_call_id": "abcdefghi", "name": tool.name, "content": call.result},
        assistant(call.answer, call.closing_trace if high else None),
        {"role": "user", "content": "Thanks"},
    ]
    effort = "high" if high else "none"
    request = ChatCompletionRequest.from_openai(messages=messages, tools=[tool.definition], reasoning_effort=effort)
    traces = (form.trace(call.trace), form.trace(call.closing_trace)) if high else ([], [])
    expected = form.opening(high, tools=[tool.definition]) + form.user(call.question)
    expected += traces[0] + form.call(tool.name, arguments) + form.result(call.result)
    expected += traces[1] + form.answer(call.answer) + form.user("Thanks")
    assert mistral.encode_chat_completion(request).tokens == expected


def test_a_cut_trace_is_a_beginning_of_the_trace(form: Format) -> None:
    source = random.Random(1)
    for _ in range(50):
        turn = arithmetic.turn(source, True, arithmetic.Share())
        (prompt, silent), (reply, mark) = form.cut_turn(source, turn, 4)
        kept = prompt[len(form.user(turn.question)) :]
        whole = form.trace(turn.trace)
        assert (silent, mark) == (0, 4) and reply == form.answer(turn.answer)
        assert kept[-1] == whole[-1] and kept[:-1] == whole[: len(kept) - 1] and len(kept) < len(whole) + 1
