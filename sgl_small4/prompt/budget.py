"""What a reply may say next: a free trace within its budget, then the answer that the request constrains, or calls.

    start --[THINK]--> trace --[/THINK]--> answer        any --[TOOL_CALLS]--> calls

A constraint (JSON schema, regex, EBNF, structural tag) holds for the answer alone. Whether a trace may come first is
what the prompt's own ids say: they carry the effort, and whether tools are offered. The states follow control ids, as
in parse.py.

SGLang's own gate (`constrained/reasoner_grammar_backend.py`) counts from the first token, whether or not a trace was
opened, and finds the end of a trace by encoding its marker, which a tekken tokenizer spells in letters. A logit
processor runs one token late under the overlap scheduler; a grammar object holds sampling back, so the budget is one.
"""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from mistral_common.tokens.tokenizers.base import SpecialTokens
from sglang.srt.constrained.base_grammar_backend import BaseGrammarObject
from sglang.srt.constrained.xgrammar_backend import MAX_ROLLBACK_TOKENS, XGrammarGrammar

from sgl_small4.prompt.format import PromptError, PromptFormat
from sgl_small4.prompt.parse import opens_in

State = Literal["start", "trace", "answer", "calls"]

BITS = 32  # of one word of a vocabulary mask
# Beside the trace, a reply at effort high holds its two marks and at least one token of the answer.
TOKENS_BESIDE_TRACE = 3


def thinking_budget(
    value: object, max_tokens: int | None, field: str = "max_thinking_tokens", limit: str = "max_tokens"
) -> int | None:
    """A request's limit on trace tokens, checked against its limit on all tokens; None where there is none.

    Raises PromptError when it is no whole number from 0, or leaves no room for an answer. `field` and `limit` are the
    two numbers' names on the route.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PromptError(f"{field} must be a whole number from 0, or be left out; got {value!r:.80}.")
    if max_tokens is not None and value + TOKENS_BESIDE_TRACE > max_tokens:
        raise PromptError(
            f"{field} {value} leaves no answer within {limit} {max_tokens}: the trace's two marks and "
            f"one token of an answer need {TOKENS_BESIDE_TRACE} more; lower the one or raise the other."
        )
    return value


@dataclass(frozen=True)
class Controls:
    """The control ids that a reply is made of, and how a prompt ends."""

    think: int
    end_think: int
    calls: int
    tools: int
    settings: int
    end_settings: int
    end_instruction: int
    end_tool_results: int
    end_system: int
    all: frozenset[int]
    stops: frozenset[int]
    format: PromptFormat

    @classmethod
    @lru_cache(maxsize=4)
    def of(cls, format: PromptFormat) -> "Controls":
        return cls(
            think=format.control(SpecialTokens.begin_think),
            end_think=format.control(SpecialTokens.end_think),
            calls=format.control(SpecialTokens.tool_calls),
            tools=format.control(SpecialTokens.begin_tools),
            settings=format.control(SpecialTokens.begin_model_settings),
            end_settings=format.control(SpecialTokens.end_model_settings),
            end_instruction=format.control(SpecialTokens.end_inst),
            end_tool_results=format.control(SpecialTokens.end_tool_results),
            end_system=format.control(SpecialTokens.end_system),
            all=format.control_ids,
            stops=frozenset({format.control(SpecialTokens.eos)}),
            format=format,
        )


class ReplyState:
    """Where a reply stands, id by id: what the scheduler counts and stops by.

    `trace_tokens` counts the ids between [THINK] and the end of its trace; `text_tokens` the text ids since the last
    control id, which is how far back a stop string may reach.
    """

    def __init__(self, controls: Controls, prompt_ids: Sequence[int]) -> None:
        self.controls = controls
        self.state: State = opening_state(controls, prompt_ids)
        self.trace_tokens = 0
        self.text_tokens = 0

    def follow(self, id: int) -> None:
        """Take the next id."""
        controls = self.controls
        if id not in controls.all:
            self.text_tokens += 1
            self.trace_tokens += self.state == "trace"
            if self.state == "start":
                self.state = "answer"
            return
        self.text_tokens = 0
        if id == controls.think:
            self.state = "trace"
        elif id == controls.end_think and self.state == "trace":
            self.state = "answer"
        elif id == controls.calls:
            self.state = "calls"

    @property
    def may_stop(self) -> bool:
        """Whether a stop string counts here: in text of the answer."""
        return self.state == "answer" and self.text_tokens > 0


def opening_state(controls: Controls, prompt_ids: Sequence[int]) -> State:
    """Where the reply to this prompt begins; in an open trace or a begun answer when a message is continued."""
    if opens_in(prompt_ids, controls.format) == "trace":
        return "trace"
    # A system message may be the last one.
    turns = (controls.end_instruction, controls.end_tool_results, controls.end_system)
    return "start" if len(prompt_ids) and prompt_ids[-1] in turns else "answer"


def prompt_thinks(controls: Controls, prompt_ids: Sequence[int]) -> bool:
    """Whether the prompt's settings block says effort high."""
    ids = list(prompt_ids)
    try:
        start = ids.index(controls.settings) + 1
        text = b"".join(map(controls.format.text_bytes, ids[start : ids.index(controls.end_settings, start)]))
        settings = json.loads(text)
    except ValueError:  # no block, or one that holds no JSON
        return False
    return isinstance(settings, dict) and settings.get("reasoning_effort") == "high"


class TraceGrammar(BaseGrammarObject):
    """The grammar of one reply; see the top of this file.

    `answer` constrains the answer (None: free text), `budget` limits the trace's tokens (None: no limit). Once a trace
    is closed an answer follows: the reply cannot end without one.
    """

    # How a mask is made, moved and applied does not depend on what it says.
    allocate_vocab_mask = XGrammarGrammar.allocate_vocab_mask
    apply_vocab_mask = XGrammarGrammar.apply_vocab_mask
    move_vocab_mask = staticmethod(XGrammarGrammar.move_vocab_mask)

    def __init__(
        self,
        controls: Controls,
        prompt_ids: Sequence[int],
        *,
        answer: BaseGrammarObject | None,
        budget: int | None,
        vocab_size: int,
    ) -> None:
        super().__init__()
        self.grammar_stats = answer.grammar_stats if answer else None
        self._controls = controls
        self._reply = ReplyState(controls, prompt_ids)
        self._answer = answer
        self._budget = budget
        self._answer_tokens = 0
        self._traced = self._reply.state == "trace"
        self._thinks = prompt_thinks(controls, prompt_ids)
        self._tools = controls.tools in prompt_ids
        self._forced_calls = answer is not None and self._admits(answer, controls.calls, vocab_size)
        self._steps: deque[tuple[Any, ...]] = deque(maxlen=MAX_ROLLBACK_TOKENS)

    def _admits(self, answer: BaseGrammarObject, id: int, vocab_size: int) -> bool:
        mask = self.allocate_vocab_mask(vocab_size, 1, "cpu")
        answer.fill_vocab_mask(mask, 0)
        return bool(int(mask[0, id // BITS]) >> (id % BITS) & 1)

    @property
    def _spent(self) -> bool:
        return self._budget is not None and self._reply.trace_tokens >= self._budget

    @property
    def _answering(self) -> bool:
        return self._reply.state in ("start", "answer")

    def accept_token(self, token: int) -> None:
        """Follow one id; raises ValueError when the answer's constraint does not admit it."""
        reply = self._reply
        before = (reply.state, reply.trace_tokens, reply.text_tokens, self._answer_tokens, self._traced)
        opens = token == self._controls.think or (token == self._controls.calls and not self._forced_calls)
        in_answer = self._answering and not opens
        if in_answer and self._answer is not None:
            self._answer.accept_token(token)
        self._steps.append((*before, in_answer))
        self.current_token = token
        if in_answer and self._forced_calls:
            reply.state = "answer"  # the constraint itself goes through the calls
        else:
            reply.follow(token)
        self._answer_tokens += in_answer
        self._traced = self._traced or token == self._controls.think

    def rollback(self, k: int) -> None:
        """Take the last `k` ids back."""
        for _ in range(k):
            *before, in_answer = self._steps.pop()
            self._reply.state, self._reply.trace_tokens, self._reply.text_tokens = before[:3]
            self._answer_tokens, self._traced = before[3:]
            if in_answer and self._answer is not None:
                self._answer.rollback(1)

    def is_terminated(self) -> bool:
        return self._answering and self._answer is not None and self._answer.is_terminated()

    def fill_vocab_mask(self, vocab_mask: torch.Tensor, idx: int) -> None:
        """Write the ids that may come next into row `idx` of `vocab_mask` (int32 [rows, vocab / 32], one bit an id)."""
        row, controls = vocab_mask[idx], self._controls
        if self._reply.state == "trace" and self._spent:
            row.zero_()
            _set(row, controls.end_think, True)
            return
        if self._answering and self._answer is not None:
            self._answer.fill_vocab_mask(vocab_mask, idx)
            if self._answer_tokens == 0:
                _set(row, controls.think, self._thinks and not self._traced and self._reply.state == "start")
                if self._tools and not self._forced_calls:
                    _set(row, controls.calls, True)
            return
        row.fill_(-1)
        if self._traced:
            _set(row, controls.think, not (self._spent or self._reply.state == "trace" or self._answer is not None))
        if self._reply.state == "trace" or (self._traced and self._answering and self._answer_tokens == 0):
            for stop in controls.stops:
                _set(row, stop, False)
        if self._reply.state == "trace" and self._answer is not None and (self._forced_calls or not self._tools):
            _set(row, controls.calls, False)


def _set(row: torch.Tensor, id: int, allowed: bool) -> None:
    """Set one id's bit in a row of a vocabulary mask."""
    word, bit = divmod(id, BITS)
    value = int(row[word]) & 0xFFFFFFFF
    value = value | 1 << bit if allowed else value & ~(1 << bit)
    row[word] = value - (1 << BITS) if value >> (BITS - 1) else value
