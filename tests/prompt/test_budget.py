"""A reply's grammar: a free trace within its budget, then the answer as constrained, or calls where tools stand."""

import random

import pytest
import torch
import xgrammar
from mistral_common.tokens.tokenizers.base import SpecialTokens
from sglang.srt.constrained.xgrammar_backend import XGrammarGrammarBackend

from sgl_small4.prompt.budget import Controls, ReplyState, TraceGrammar, thinking_budget
from sgl_small4.prompt.format import PromptError
from sgl_small4.prompt.grammar import calls_tag, grammar_vocabulary
from sgl_small4.prompt.parse import parse

QUESTION = [{"role": "user", "content": "How many?"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SCHEMA = (
    '{"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": false}'
)


class Bench:
    """Grammars over one tokenizer, and what they admit."""

    def __init__(self, format):
        self.format, self.controls = format, Controls.of(format)
        self.vocab_size = format.tokenizer.n_words
        stops = [format.control(SpecialTokens.eos)]
        tokenizer = type("Tokenizer", (), {})()
        tokenizer.init_xgrammar = lambda: (grammar_vocabulary(format, self.vocab_size, stops), None)
        self.backend = XGrammarGrammarBackend(tokenizer, self.vocab_size, max_whitespace_cnt=16)

    def prompt(self, effort, tools=None, messages=QUESTION, **more):
        return self.format.encode(messages, tools, effort, **more)

    def grammar(self, prompt_ids, answer=None, budget=None):
        return TraceGrammar(self.controls, prompt_ids, answer=answer, budget=budget, vocab_size=self.vocab_size)

    def admitted(self, grammar):
        mask = grammar.allocate_vocab_mask(self.vocab_size, 1, "cpu")
        grammar.fill_vocab_mask(mask, 0)
        bits = mask[0][:, None] >> torch.arange(32) & 1
        return set(bits.flatten()[: self.vocab_size].nonzero().flatten().tolist())

    def write(self, grammar, ids):
        for id in ids:
            assert id in self.admitted(grammar), self.format.tokenizer.id_to_piece(id)
            grammar.accept_token(id)

    def ids(self, text):
        """Text, with a control token wherever one is named."""
        ids = []
        for part in text.replace("]", "]\0").replace("[", "\0[").split("\0"):
            name = {"[THINK]": "begin_think", "[/THINK]": "end_think", "[TOOL_CALLS]": "tool_calls", "[ARGS]": "args"}
            known = name.get(part)
            ids += [self.format.control(SpecialTokens[known])] if known else self.format.encode_text(part)
        return ids

    @property
    def end(self):
        return self.format.control(SpecialTokens.eos)


@pytest.fixture(scope="module")
def bench(twins):
    return Bench(twins[0])


def text_ids(bench, ids):
    return {id for id in ids if id not in bench.controls.all}


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_spent_budget_closes_the_trace_and_an_answer_follows(bench, budget):
    grammar = bench.grammar(bench.prompt("high"), budget=budget)
    word = bench.ids("a")[0]
    bench.write(grammar, [bench.controls.think, *[word] * budget])
    assert bench.admitted(grammar) == {bench.controls.end_think}
    bench.write(grammar, [bench.controls.end_think])
    admitted = bench.admitted(grammar)
    assert word in admitted and bench.end not in admitted and bench.controls.think not in admitted
    bench.write(grammar, [word, bench.end])


def test_a_budget_counts_all_traces_of_a_reply(bench):
    grammar = bench.grammar(bench.prompt("high"), budget=3)
    word = bench.ids("a")[0]
    think, end_think = bench.controls.think, bench.controls.end_think
    bench.write(grammar, [think, word, word, end_think, word, think, word])
    assert bench.admitted(grammar) == {end_think}


def test_a_trace_below_its_budget_ends_where_the_model_ends_it(bench):
    grammar = bench.grammar(bench.prompt("high"), budget=100)
    bench.write(grammar, bench.ids("[THINK]a[/THINK]b") + [bench.end])


def test_a_reply_may_open_no_trace(bench):
    grammar = bench.grammar(bench.prompt("high"), budget=3)
    bench.write(grammar, bench.ids("It is Friday.") + [bench.end])


def test_a_trace_comes_free_before_a_constrained_answer(bench):
    grammar = bench.grammar(bench.prompt("high"), bench.backend.dispatch_json(SCHEMA))
    bench.write(grammar, bench.ids('[THINK]not {"json": at all[/THINK]{"x": 12}'))
    assert bench.end in bench.admitted(grammar)
    grammar.accept_token(bench.end)
    assert grammar.is_terminated()


def test_a_trace_comes_after_whatever_ends_a_prompt(bench):
    call = {"id": "a1b2c3d4e", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    called = [*QUESTION, {"role": "assistant", "content": None, "tool_calls": [call]}]
    result = {"role": "tool", "tool_call_id": "a1b2c3d4e", "content": "1"}
    late = {"role": "system", "content": "Be brief."}
    for messages in ([*QUESTION, late], [*called, result], [*called, result, late]):
        grammar = bench.grammar(bench.prompt("high", messages=messages), bench.backend.dispatch_json(SCHEMA))
        bench.write(grammar, bench.ids('[THINK]so[/THINK]{"x": 12}'))


def test_a_constrained_trace_cannot_end_the_reply(bench):
    grammar = bench.grammar(bench.prompt("high"), bench.backend.dispatch_json(SCHEMA))
    bench.write(grammar, bench.ids("[THINK]so"))
    assert not {bench.end, bench.controls.calls, bench.controls.think} & bench.admitted(grammar)


def test_the_constraint_holds_from_the_first_token_where_no_trace_comes(bench):
    for effort in ("none", "high"):
        grammar = bench.grammar(bench.prompt(effort), bench.backend.dispatch_regex("yes|no"))
        marks = {bench.controls.think} if effort == "high" else set()
        assert bench.admitted(grammar) - text_ids(bench, bench.admitted(grammar)) == marks
        bench.write(grammar, bench.ids("no") + [bench.end])


def test_a_call_may_stand_where_a_constrained_answer_would(bench):
    for effort, trace in (("none", ""), ("high", "[THINK]a[/THINK]")):
        grammar = bench.grammar(bench.prompt(effort, [TOOL]), bench.backend.dispatch_json(SCHEMA))
        bench.write(grammar, bench.ids(trace + '[TOOL_CALLS]look[ARGS]{"any": [1]}') + [bench.end])
        assert not grammar.is_terminated()  # the reply ended by its last id; the answer's grammar never began
        without = bench.grammar(bench.prompt(effort), bench.backend.dispatch_json(SCHEMA))
        assert bench.controls.calls not in bench.admitted(without)


def test_no_call_stands_inside_a_constrained_answer(bench):
    grammar = bench.grammar(bench.prompt("none", [TOOL]), bench.backend.dispatch_json(SCHEMA))
    bench.write(grammar, bench.ids('{"x'))
    assert bench.controls.calls not in bench.admitted(grammar)


@pytest.mark.parametrize("parallel", [False, True])
def test_forced_calls_are_spelled_as_the_model_spells_them(bench, parallel):
    functions = [{"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}]
    tag = calls_tag(bench.format, functions, forced=True, parallel=parallel).model_dump_json(by_alias=True)
    grammar = bench.grammar(bench.prompt("high", [TOOL]), bench.backend.dispatch_structural_tag(tag))
    assert bench.admitted(grammar) == {bench.controls.think, bench.controls.calls}
    reply = bench.ids('[THINK]a[/THINK][TOOL_CALLS]look[ARGS]{"at": "x]"}')
    bench.write(grammar, reply)
    assert (bench.controls.calls in bench.admitted(grammar)) == parallel
    bench.write(grammar, [bench.end])
    assert [call.text for call in parse(reply, bench.format).calls] == ['{"at": "x]"}']


def test_strict_functions_are_called_as_described_or_not_at_all(bench):
    strict = {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]}
    tag = calls_tag(bench.format, [{"name": "look", "parameters": strict}], forced=False, parallel=True)
    constraint = bench.backend.dispatch_structural_tag(tag.model_dump_json(by_alias=True))
    for reply in ("no call, [look", "", "[THINK]a[/THINK]b", '[THINK]a[/THINK]so[TOOL_CALLS]look[ARGS]{"at": 3}'):
        grammar = bench.grammar(bench.prompt("high", [TOOL]), constraint.copy())
        bench.write(grammar, bench.ids(reply) + [bench.end])
    grammar = bench.grammar(bench.prompt("high", [TOOL]), constraint.copy())
    bench.write(grammar, bench.ids('[TOOL_CALLS]look[ARGS]{"at": '))
    assert not set(bench.ids('"')) & bench.admitted(grammar)


def test_a_continued_trace_is_open_from_the_start(bench):
    open_trace = {"role": "assistant", "content": [{"type": "thinking", "thinking": "so", "closed": False}]}
    prompt = bench.prompt("high", messages=[*QUESTION, open_trace], continue_final_message=True)
    grammar = bench.grammar(prompt, budget=1)
    bench.write(grammar, bench.ids("a"))
    assert bench.admitted(grammar) == {bench.controls.end_think}


def test_rolling_back_is_as_if_it_had_not_been(bench):
    choose = random.Random(5)
    written = bench.ids('[THINK]four and five[/THINK]{"x": 9}')
    for _ in range(50):
        grammar = bench.grammar(bench.prompt("high"), bench.backend.dispatch_json(SCHEMA), budget=40)
        cut = choose.randrange(len(written))
        back = choose.randrange(cut + 1)
        bench.write(grammar, written[:cut])
        grammar.rollback(back)
        bench.write(grammar, written[cut - back :] + [bench.end])
        assert grammar.is_terminated()


def test_a_stop_string_reaches_back_within_the_answer_alone(bench):
    reply = ReplyState(bench.controls, bench.prompt("high"))
    for id in bench.ids("[THINK]stop here[/THINK]"):
        reply.follow(id)
        assert not reply.may_stop
    answer = bench.ids("go")
    for id in answer:
        reply.follow(id)
    assert reply.may_stop and reply.text_tokens == len(answer)
    for id in bench.ids("[TOOL_CALLS]look[ARGS]{}"):
        reply.follow(id)
        assert not reply.may_stop


def test_trace_tokens_are_the_ids_between_the_marks(bench):
    reply = ReplyState(bench.controls, bench.prompt("high"))
    trace = bench.ids("one and two")
    for id in [bench.controls.think, *trace, bench.controls.end_think, *bench.ids("three"), bench.end]:
        reply.follow(id)
    assert reply.trace_tokens == len(trace)


@pytest.mark.parametrize("value", [-1, 1.5, "8", True, [1], float("nan")])
def test_a_budget_that_is_no_count_is_refused(value):
    with pytest.raises(PromptError, match="whole number"):
        thinking_budget(value, None)


def test_a_budget_leaves_room_for_an_answer():
    assert thinking_budget(None, 1) is None
    assert thinking_budget(29, 32) == 29
    with pytest.raises(PromptError, match="30 leaves no answer within max_tokens 32"):
        thinking_budget(30, 32)


def test_masks_are_xgrammars_own(bench):
    grammar = bench.grammar(bench.prompt("high"), budget=0)
    mask = grammar.allocate_vocab_mask(bench.vocab_size, 1, "cpu")
    grammar.accept_token(bench.controls.think)
    grammar.fill_vocab_mask(mask, 0)
    logits = torch.zeros(1, bench.vocab_size)
    xgrammar.apply_token_bitmask_inplace(logits, mask)
    expected = logits.clone()
    logits.zero_()
    grammar.apply_vocab_mask(logits, mask)
    assert torch.equal(logits, expected) and logits.argmax() == bench.controls.end_think
