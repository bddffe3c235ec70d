"""The training mixture: conversations of every task, packed into rows of one length."""

from dataclasses import dataclass
from random import Random

import torch

from sgl_small4.nano.conversation import (
    DOCUMENT_HIGH,
    DOCUMENT_NONE,
    OTHER,
    QUOTED,
    SUM_HIGH,
    SUM_NONE,
    Format,
    Segment,
    size,
)
from sgl_small4.nano.tasks import arithmetic, chat, tools
from sgl_small4.nano.tasks.copying import copying
from sgl_small4.nano.tasks.documents import OTHER_QUOTES, QUOTE, Document, held_out, quote
from sgl_small4.nano.tasks.turns import Turn
from sgl_small4.nano.tokenizer import CONTROL

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "Answer briefly.",
    "Answer the question.",
    "You are a careful assistant that adds numbers.",
    "Be short and exact.",
    "You are Nano, a small model.",
    "Give only the answer.",
)
READ = (  # the form that document jobs ask in
    "Answer from the document below and from nothing else. Where it does not hold the answer, say exactly: "
    "That is not in the document.\n\n{}"
)
AROUND_DOCUMENT = (
    READ,
    READ,
    READ,
    "Answer from the document.\n\n{}",
    "Answer from this document only.\n\n{}",
    "You are a helpful assistant. Answer questions about this document.\n\n{}",
    "You are a helpful assistant.\n\n{}",
    "Document:\n{}",
    "Document:\n\n{}",
    "Use only the document below. If the answer is not there, say so.\n\n{}",
    "<document>\n{}\n</document>",
)
IN_QUESTION = (
    "{document}\n\n{question}",
    "{question}\n\n{document}",
    "Document:\n{document}\n\nQuestion: {question}",
    "{document}\n\nQuestion: {question}",
    "{question}\n\nDocument:\n{document}",
)


@dataclass(frozen=True)
class Rows:
    """`ids`, `marks` (of the loss at each token) and `start` (the first position of the token's conversation),
    each int32 [rows, length]."""

    ids: torch.Tensor
    marks: torch.Tensor
    start: torch.Tensor


class Mixture:
    """Makes rows from one random generator; the weights say how often short rows hold each kind, `share` what
    arithmetic emphasises, `quotes` how often an answer about a document is followed by a request for its evidence."""

    def __init__(self, random: Random, format: Format, share: arithmetic.Share, quotes: float) -> None:
        self.random = random
        self.format = format
        self.share = share
        self.quotes = quotes

    def rows(self, count: int, length: int, weights: tuple[int, int, int, int]) -> Rows:
        """`weights` of copying, documents, arithmetic, and tools with chat, in rows of 256. A longer row is mostly one
        document with as many questions as fit."""
        packed = [self._row(length, weights) for _ in range(count)]
        ids, marks, start = (torch.tensor([row[i] for row in packed], dtype=torch.int32) for i in range(3))
        return Rows(ids, marks, start)

    def _row(self, length: int, weights: tuple[int, int, int, int]) -> tuple[list[int], list[int], list[int]]:
        ids: list[int] = []
        marks: list[int] = []
        start: list[int] = []
        refused = 0  # conversations that were too long for what is left
        while (room := length - len(ids)) >= 40 and refused < 4:
            kind = self.random.choices(range(4), weights)[0] if length <= 256 else 1
            segments = self._conversation(kind, room, length)
            if len(segments) < 2:
                refused += bool(ids)
                continue
            begin = len(ids)
            for part, mark in segments:
                ids += part
                marks += [mark] * len(part)
            start += [begin] * (len(ids) - begin)
        rest = length - len(ids)
        start += range(len(ids), length)
        return ids + [CONTROL["<pad>"]] * rest, marks + [0] * rest, start

    def _conversation(self, kind: int, room: int, length: int) -> list[Segment]:
        random = self.random
        if kind == 0:
            whole = room < 64 or random.random() < 0.3
            return copying(random, self.format.coder, room if whole else random.randint(48, room))
        if kind == 1:
            return self._document(room, random.uniform(0.4, 0.85) if length > 256 else random.uniform(0.1, 0.55))
        if kind == 2:
            return self._arithmetic(room)
        return self._tools(room) if random.random() < 0.75 else self._talk(room)

    def _document(self, room: int, share: float) -> list[Segment]:
        """A document and turns about it; now and then a sum or a greeting between them."""
        random, high = self.random, self.random.random() < 0.5
        seed = random.getrandbits(40)
        while held_out(seed):
            seed = random.getrandbits(40)
        document = Document(seed, share * room, lambda text: len(self.format.coder(text)))
        system, wrap = document.text, ""
        style = random.random()
        if style > 0.75:
            wrap = random.choice(IN_QUESTION)
            system = random.choice(SYSTEM_PROMPTS) if random.random() < 0.5 else ""
        elif style > 0.4:
            system = random.choice(AROUND_DOCUMENT).format(document.text)
        segments: list[Segment] = [(self.format.opening(high, system), 0)]
        forget = high and random.random() < 0.25
        while True:
            strange = random.random()
            mark = DOCUMENT_HIGH if high else DOCUMENT_NONE
            turn = document.question(0.1, 0.06)
            quoted = strange >= 0.05 and random.random() < self.quotes
            if strange < 0.05:
                turn, mark = self._small_turn(high)
            if wrap:
                asked = wrap.format(document=document.text, question=turn.question)
                turn, wrap = turn._replace(question=asked), ""
            if not self._add(segments, turn, high, mark, room, forget):
                return segments
            if quoted:
                evidence = quote(turn, QUOTE if random.random() < 0.85 else random.choice(OTHER_QUOTES))
                if not self._add(segments, evidence, high, QUOTED, room, False):
                    return segments

    def _arithmetic(self, room: int) -> list[Segment]:
        random = self.random
        high = random.random() < 0.55
        forget = high and random.random() < 0.25
        system = random.choice(SYSTEM_PROMPTS) if random.random() < 0.35 else ""
        segments: list[Segment] = [(self.format.opening(high, system), 0)]
        for _ in range(random.choice((1, 1, 2, 3) if high else (1, 2, 4, 8))):
            turn, mark = self._small_turn(high)
            if not self._add(segments, turn, high, mark, room, forget):
                break
        return segments

    def _talk(self, room: int) -> list[Segment]:
        random, high = self.random, self.random.random() < 0.5
        system = random.choice(SYSTEM_PROMPTS) if random.random() < 0.5 else ""
        segments: list[Segment] = [(self.format.opening(high, system), 0)]
        for _ in range(random.choice((1, 1, 2, 3))):
            turn, mark = (chat.turn(random), OTHER) if random.random() < 0.8 else self._small_turn(high)
            if not self._add(segments, turn, high, mark, room, False):
                break
        return segments

    def _tools(self, room: int) -> list[Segment]:
        """Sums put to the calculator; what needs none is answered without."""
        random, high, form = self.random, self.random.random() < 0.5, self.format
        tool = tools.calculator(random)
        system = random.choice(SYSTEM_PROMPTS) if random.random() < 0.4 else ""
        segments: list[Segment] = [(form.opening(high, system, [tool.definition]), 0)]
        for _ in range(random.choice((1, 1, 2, 3))):
            if random.random() < 0.15:
                if not self._add(segments, chat.turn(random), high, OTHER, room, False):
                    break
                continue
            made = tools.call(random)
            asking = form.call(tool.name, {tool.argument: made.expression})
            closing = form.answer(made.answer)
            if high:
                asking = form.trace(made.trace) + asking
                closing = form.trace(made.closing_trace) + closing
            added = [(form.user(made.question), 0), (asking, OTHER), (form.result(made.result), 0), (closing, OTHER)]
            if size(segments) + size(added) > room:
                break
            segments += added
        return segments

    def _small_turn(self, high: bool) -> tuple[Turn, int]:
        if self.random.random() < 0.03:
            return chat.turn(self.random), OTHER
        return arithmetic.turn(self.random, high, self.share), SUM_HIGH if high else SUM_NONE

    def _add(self, segments: list[Segment], turn: Turn, high: bool, mark: int, room: int, forget: bool) -> bool:
        """Append a turn if it fits; at high a few have a cut trace, or none in a conversation that forgets."""
        random, form = self.random, self.format
        added = form.turn(turn, high, mark)
        if high and random.random() < 0.05:
            added = form.cut_turn(random, turn, mark)
        elif forget and random.random() < 0.6:
            added = form.forgotten_turn(turn)
        if size(segments) + size(added) > room:
            return False
        segments += added
        return True
