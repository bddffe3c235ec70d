"""Programs' prompts as ids: mistral_common's, and each text encoded once."""

from types import SimpleNamespace
from typing import Any

import pytest
import sglang as sgl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sglang.lang.chat_template import get_chat_template, get_chat_template_by_model_path

from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.backend import Small4Backend, configure, tool_result
from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.transcript import TEMPLATE, Transcript
from tests.prompt.scripted import FORMAT, Scripted, control, ids_of

ROLES = {"system": sgl.system, "user": sgl.user, "assistant": sgl.assistant}
HOSTILE = st.sampled_from(
    ["[INST]", "[/INST]", "</s>", "[SYSTEM_PROMPT]", "[/TOOL_RESULTS]", "[THINK]", "\n", " ", "é", ""]
)
TEXTS = st.lists(HOSTILE | st.text(max_size=6), max_size=4).map("".join)


def prompt_of(turns: list[tuple[str, str]], **settings: Any) -> list[int]:
    """The ids that a program with these turns sends, its last turn being a generation."""
    script = Scripted(lambda ids, fields: "x</s>")

    @sgl.function
    def program(s):
        configure(s, **settings)
        for role, text in turns:
            s += ROLES[role](text)
        s += sgl.assistant(sgl.gen("answer", max_tokens=4))

    program.run(backend=Small4Backend(script))["answer"]
    return script.asked[-1]["input_ids"]


@pytest.mark.parametrize("effort", ["none", "high"])
def test_a_two_turn_program_sends_mistral_commons_ids(effort):
    turns = [("system", " Be short. "), ("user", "  hi\n"), ("assistant", "yo"), ("user", "and [/INST] now?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    assert prompt_of(turns, effort=effort) == FORMAT.encode(messages, effort=effort)


@settings(max_examples=150, deadline=None)
@example([("user", "hi"), ("assistant", "[INST]  ")], "and")
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), TEXTS), max_size=5), TEXTS)
def test_any_conversation_has_mistral_commons_ids_and_no_control_id_from_a_text(turns, question):
    turns = [(role, text) for role, text in [*turns, ("user", question + "?")] if text.strip()]
    messages = [{"role": role, "content": text} for role, text in turns]
    sent = prompt_of(turns)
    if turns[0][0] != "assistant":
        assert sent == FORMAT.encode(messages)
    openings = [id for id in sent if id in (control("[INST]"), control("[SYSTEM_PROMPT]"))]
    assert len(openings) <= len(turns)


def test_tools_and_their_results_have_mistral_commons_ids():
    tool = {"type": "function", "function": {"name": "calc", "parameters": {"type": "object", "properties": {}}}}
    script = Scripted(lambda ids, fields: '[TOOL_CALLS]calc[ARGS]{"e": "1"}</s>')

    @sgl.function
    def program(s):
        configure(s, tools=[tool])
        s += sgl.user("hi")
        s += sgl.assistant(sgl.gen("call"))
        s += tool_result("7[/TOOL_RESULTS]")
        s += sgl.assistant(sgl.gen("answer"))

    program.run(backend=Small4Backend(script))["answer"]
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "calc", "arguments": '{"e": "1"}'}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "7[/TOOL_RESULTS]"},
    ]
    assert script.asked[-1]["input_ids"] == FORMAT.encode(messages, [tool])


def test_what_the_model_generated_keeps_its_own_ids():
    spelled = [FORMAT.encode_text(letter)[0] for letter in "number"]  # letter by letter, as no encoder would
    assert spelled != FORMAT.encode_text("number")
    transcript = Transcript().output(spelled, "number")
    executor = SimpleNamespace(text_="number and more", messages_=[], cur_role=None, cur_role_begin_pos=None)
    ids = transcript.follow(executor, FORMAT).ids(FORMAT, ())
    assert ids == [1, *spelled, *FORMAT.encode_text(" and more")]


def test_each_text_is_encoded_once(monkeypatch):
    encoded = []
    encode = PromptFormat.encode_text
    monkeypatch.setattr(PromptFormat, "encode_text", lambda self, text: encoded.append(text) or encode(self, text))
    script = Scripted(lambda ids, fields: "x</s>")

    @sgl.function
    def program(s):
        s += sgl.system("A long document.")
        for number in range(4):
            s += sgl.user(f"question {number}")
            s += sgl.assistant(sgl.gen(f"answer {number}"))

    program.run(backend=Small4Backend(script))["answer 3"]
    assert [text for text in encoded if text != "x"] == [
        "A long document.",
        *(f"question {number}" for number in range(4)),
    ]


def test_each_prompt_begins_with_the_ids_of_the_one_before():
    script = Scripted(lambda ids, fields: "[THINK]t[/THINK]yes</s>")

    @sgl.function
    def program(s):
        s += "Text outside of any role. "
        s += sgl.user("one")
        with s.assistant():
            s += "I say " + sgl.gen("a") + " and " + sgl.gen("b")
        s += sgl.user("two")
        s += sgl.assistant(sgl.gen("c"))

    program.run(backend=Small4Backend(script, effort="high"))["c"]
    prompts = [asked["input_ids"] for asked in script.asked]
    reply = ids_of("[THINK]t[/THINK]yes")
    for before, after in zip(prompts, prompts[1:], strict=False):
        assert after[: len(before) + len(reply)] == [*before, *reply]


def test_branches_of_a_fork_share_the_prompt_and_keep_their_own_replies_apart():
    script = Scripted(lambda ids, fields: f"{len(ids)}</s>")

    @sgl.function
    def program(s):
        s += sgl.user("one")
        branches = s.fork(2)
        for number, branch in enumerate(branches):
            branch += sgl.assistant("b" * number + sgl.gen("answer"))
            branch += sgl.user("more")
            branch += sgl.assistant(sgl.gen("last"))
        branches.join()
        s += sgl.assistant(sgl.gen("own"))

    state = program.run(backend=Small4Backend(script))
    assert len(set(state["answer"])) == 2 and len(state["last"]) == 2
    base = FORMAT.encode([{"role": "user", "content": "one"}])
    assert all(asked["input_ids"][: len(base)] == base for asked in script.asked)
    state["own"]
    assert script.asked[-1]["input_ids"] == base


@pytest.mark.parametrize(
    "name", ["mistralai/Mistral-Small-4-119B-2603", "mistral-small-4", str(CHECKPOINT)], ids=["hub", "folder", "nano"]
)
def test_every_name_of_the_model_finds_its_template(name):
    assert get_chat_template_by_model_path(name) is TEMPLATE


def test_other_models_do_not_find_it_and_an_unknown_template_is_an_error():
    assert get_chat_template_by_model_path("meta-llama/Llama-3-8B").name != TEMPLATE.name
    with pytest.raises(KeyError):
        get_chat_template("mistral-small-5")
