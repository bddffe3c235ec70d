"""Conversations as token ids, block by block as mistral_common's v15 encoder lays them out, with loss marks."""

import json
from collections.abc import Sequence
from random import Random

from sgl_small4.nano.tasks.turns import Turn
from sgl_small4.nano.tokenizer import CONTROL, Coder

Segment = tuple[list[int], int]  # ids and the mark of their loss

SILENT, COPYING, DOCUMENT_HIGH, DOCUMENT_NONE, SUM_HIGH, SUM_NONE, OTHER, QUOTED = range(8)
MARKS = ("silent", "copy", "docH", "docN", "sumH", "sumN", "other", "quote")


class Format:
    """The blocks of a prompt and of a reply."""

    def __init__(self, coder: Coder) -> None:
        self.coder = coder
        self._settings = {
            high: self._block("MODEL_SETTINGS", json.dumps({"reasoning_effort": "high" if high else "none"}))
            for high in (False, True)
        }

    def opening(self, high: bool, system: str = "", tools: Sequence[dict[str, object]] = ()) -> list[int]:
        """All before the first [INST]: the system prompt, the tools, the settings."""
        ids = [CONTROL["<s>"]]
        if system:
            ids += self._block("SYSTEM_PROMPT", system)
        if tools:
            ids += self._block("AVAILABLE_TOOLS", json.dumps(list(tools), ensure_ascii=False))
        return ids + self._settings[high]

    def user(self, text: str) -> list[int]:
        return self._block("INST", text)

    def trace(self, text: str) -> list[int]:
        return self._block("THINK", text)

    def result(self, text: str) -> list[int]:
        """What a tool gave back."""
        return self._block("TOOL_RESULTS", text)

    def answer(self, text: str) -> list[int]:
        return [*self.coder(text), CONTROL["</s>"]]

    def call(self, name: str, arguments: dict[str, object]) -> list[int]:
        """A reply that ends in one tool call."""
        given = json.dumps(arguments, ensure_ascii=False)
        return [CONTROL["[TOOL_CALLS]"], *self.coder(name), CONTROL["[ARGS]"], *self.coder(given), CONTROL["</s>"]]

    def turn(self, turn: Turn, high: bool, mark: int) -> list[Segment]:
        """A question and its reply."""
        reply = self.answer(turn.answer)
        return [(self.user(turn.question), SILENT), (self.trace(turn.trace) + reply if high else reply, mark)]

    def cut_turn(self, random: Random, turn: Turn, mark: int) -> list[Segment]:
        """A turn at effort high whose trace was closed at a random place by somebody else: only the answer counts."""
        trace = self.trace(turn.trace)
        kept = trace[: random.randint(1, len(trace) - 1)] + trace[-1:]
        return [(self.user(turn.question) + kept, SILENT), (self.answer(turn.answer), mark)]

    def forgotten_turn(self, turn: Turn) -> list[Segment]:
        """A past turn at effort high as clients send it back: without its trace."""
        return [(self.past([turn]), SILENT)]

    def past(self, turns: Sequence[Turn]) -> list[int]:
        """Earlier turns without their traces."""
        return [token for turn in turns for token in self.user(turn.question) + self.answer(turn.answer)]

    def _block(self, name: str, text: str) -> list[int]:
        return [CONTROL[f"[{name}]"], *self.coder(text), CONTROL[f"[/{name}]"]]


def size(segments: Sequence[Segment]) -> int:
    return sum(len(ids) for ids, _ in segments)
