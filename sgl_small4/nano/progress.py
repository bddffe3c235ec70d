"""Held-out accuracy while training runs: a reply counts when each of its tokens is the most likely one.

Quick, since nothing is generated; `evaluate.py` makes the figures that count."""

from random import Random

import torch

from sgl_small4.nano import cases
from sgl_small4.nano.conversation import OTHER, Format, Segment, size
from sgl_small4.nano.model import Model
from sgl_small4.nano.tasks import tools
from sgl_small4.nano.tokenizer import CONTROL

BATCH_TOKENS = 16384


class Progress:
    """Fixed held-out conversations, scored on demand."""

    def __init__(self, format: Format, lengths: tuple[int, ...] = (500, 2000, 4000)) -> None:
        random = Random("progress")
        self._sets: dict[str, list[list[Segment]]] = {}

        def length(text: str) -> int:
            return len(format.coder(text))

        def add(name: str, made: list[cases.Case]) -> None:
            for high in (True, False):
                self._sets[f"{name}/{'high' if high else 'none'}"] = [
                    [
                        (format.opening(high, case.system) + format.past(case.history), 0),
                        *format.turn(case.turn, high, OTHER),
                    ]
                    for case in made
                ]

        add("sum", cases.sums(random, 100))
        add("easy", cases.easy_sums(random, 200))
        add("check", cases.checks(random, 100))
        for tokens in lengths:
            made = cases.documents(random, max(24, 36000 // tokens), tokens, 1, length)
            add(f"doc{tokens}", made)
            add(f"quote{tokens}", cases.quotes(made, 1))
        add("absent500", cases.documents(random, 48, 500, 1, length, missing=True))
        tool = tools.calculator(random, usual=True)
        self._sets["call/none"] = [
            [
                (format.opening(False, tools=[tool.definition]) + format.user(call.question), 0),
                (format.call(tool.name, {tool.argument: call.expression}), OTHER),
                (format.result(call.result), 0),
                (format.answer(call.answer), OTHER),
            ]
            for call in cases.calculations(random, 60)
        ]

    def score(self, model: Model) -> dict[str, int]:
        """Per cent right of each set."""
        return {name: round(100 * self._share_right(model, made)) for name, made in self._sets.items()}

    @torch.no_grad()
    def _share_right(self, model: Model, conversations: list[list[Segment]]) -> float:
        right = 0
        width = -(-max(map(size, conversations)) // 16) * 16
        step = max(1, BATCH_TOKENS // width)
        for first in range(0, len(conversations), step):
            part = conversations[first : first + step]
            ids = torch.full((len(part), width), CONTROL["<pad>"], dtype=torch.int32)
            asked = torch.zeros(len(part), width, dtype=torch.bool)
            for row, conversation in enumerate(part):
                at = 0
                for piece, mark in conversation:
                    ids[row, at : at + len(piece)] = torch.tensor(piece, dtype=torch.int32)
                    asked[row, at : at + len(piece)] = mark > 0
                    at += len(piece)
            at = asked.view(-1).nonzero().view(-1) - 1
            logits, _ = model(ids, torch.zeros_like(ids), at)
            wrong = logits.argmax(-1) != ids.view(-1)[at + 1]
            right += len(part) - len(set(((at + 1) // width)[wrong].tolist()))
        return right / len(conversations)
