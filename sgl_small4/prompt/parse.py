"""From output ids back to trace, answer and calls: the other direction of format.py.

    answer  --[THINK]-->  trace  --[/THINK]-->  answer
    any     --[TOOL_CALLS]-->  name  --[ARGS]-->  arguments
    any     --</s>-->  answer

A reply begins in the answer, or in the trace that its prompt ends inside of. A trace or a call begins where the model
emitted the control id, never where text looks like one, so the states follow ids alone and every chunking of the same
ids gives the same reply. Text is kept byte for byte: a character whose bytes are not all there yet waits for them, and
only what is still broken at the end of its segment is replaced.

A call has two spellings: `[TOOL_CALLS]name[ARGS]{..}`, once per call, and `[TOOL_CALLS][{"name": .., "arguments": ..}]`
for all of them (calls.py). What follows [TOOL_CALLS] and is neither stays text of the answer: nothing the model wrote
is lost.
"""

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from mistral_common.tokens.tokenizers.base import SpecialTokens

from sgl_small4.prompt.calls import CallArray, Part
from sgl_small4.prompt.format import PromptFormat

Kind = Literal["answer", "trace", "call"]

LONGEST_NAME = 256  # characters; what is longer is text that follows [TOOL_CALLS]

OpensIn = Literal["answer", "trace"]


@dataclass(frozen=True)
class Piece:
    """A part of one segment, as far as the ids given so far tell it.

    A segment's pieces share its number. The first piece of a trace and of a call may be empty: it says that the
    segment has begun. `name` is the function's, on every piece of a call; `text` is then a part of its arguments.
    """

    segment: int
    kind: Kind
    text: str
    name: str = ""


@dataclass(frozen=True)
class Segment:
    """A trace, a stretch of the answer, or a call (`text` being its arguments, JSON as the model wrote it)."""

    kind: Kind
    text: str
    name: str = ""


@dataclass(frozen=True)
class Reply:
    """What an assistant said, in its order."""

    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> "Reply":
        """Put the pieces of one reply together."""
        segments = []
        for (_, kind, name), group in groupby(pieces, key=lambda piece: (piece.segment, piece.kind, piece.name)):
            segments.append(Segment(kind, "".join(piece.text for piece in group), name))
        return cls(tuple(segments))

    @property
    def trace(self) -> str | None:
        """The trace; None when the model opened none."""
        traces = [segment.text for segment in self.segments if segment.kind == "trace"]
        return "".join(traces) if traces else None

    @property
    def answer(self) -> str:
        return "".join(segment.text for segment in self.segments if segment.kind == "answer")

    @property
    def calls(self) -> tuple[Segment, ...]:
        return tuple(segment for segment in self.segments if segment.kind == "call")


def parse(ids: Iterable[int], format: PromptFormat, opens_in: OpensIn = "answer") -> Reply:
    """The reply that the output ids spell. `opens_in` is the state in which the prompt ended."""
    parser = ReplyParser(format, opens_in)
    return Reply.of([*parser.feed(ids), *parser.finish()])


def opens_in(prompt_ids: Sequence[int], format: PromptFormat) -> OpensIn:
    """Where a reply to this prompt begins: in a trace when the prompt ends inside one, else in the answer."""
    think = format.control(SpecialTokens.begin_think)
    last = next((id for id in reversed(prompt_ids) if id in format.control_ids), None)
    return "trace" if last == think else "answer"


class ReplyParser:
    """The state machine: feed it output ids as they come, then finish."""

    def __init__(self, format: PromptFormat, opens_in: OpensIn = "answer") -> None:
        self._text_bytes = format.text_bytes
        self._control_ids = format.control_ids
        self._think, self._end_think = (
            format.control(SpecialTokens.begin_think),
            format.control(SpecialTokens.end_think),
        )
        self._calls, self._args = format.control(SpecialTokens.tool_calls), format.control(SpecialTokens.args)
        self._call_id, self._eos = format.control(SpecialTokens.call_id), format.control(SpecialTokens.eos)
        self._state: Literal["answer", "trace", "name", "call id", "arguments", "array"] = opens_in
        self._begun = opens_in != "trace"  # a trace says so before its first text
        self._name = ""  # what stands between [TOOL_CALLS] and [ARGS], as far as it came
        self._array = CallArray()
        self._array_text = False  # whether the array has ended and text follows
        self._segment = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # starts anew after each final=True
        self.trace_tokens = 0  # ids between [THINK] and the end of the trace

    def feed(self, ids: Iterable[int]) -> list[Piece]:
        """Take the next ids; give what they add to the reply."""
        pieces = self._begin()
        text = bytearray()
        for id in ids:
            if id not in self._control_ids:
                text += self._text_bytes(id)
                self.trace_tokens += self._state == "trace"
                continue
            self._add(pieces, self._decoder.decode(text))
            text.clear()
            self._control(pieces, id)
        self._add(pieces, self._decoder.decode(text))
        return pieces

    def finish(self) -> list[Piece]:
        """The ids are over, by </s> or cut by a limit: give what was held back."""
        pieces = self._begin()
        self._enter(pieces, "answer")
        return pieces

    def _begin(self) -> list[Piece]:
        begun, self._begun = self._begun, True
        return [] if begun else [Piece(self._segment, "trace", "")]

    def _control(self, pieces: list[Piece], id: int) -> None:
        if id == self._think:
            self._enter(pieces, "trace")
            pieces.append(Piece(self._segment, "trace", ""))
        elif id == self._calls:
            self._enter(pieces, "name")
        elif id == self._eos or (id == self._end_think and self._state == "trace"):
            self._enter(pieces, "answer")
        elif id == self._args and self._state in ("name", "call id"):
            self._add(pieces, self._decoder.decode(b"", final=True))
            self._name = self._name.strip()
            self._state = "arguments"
            pieces.append(Piece(self._segment, "call", "", self._name))
        elif id == self._call_id and self._state == "name":
            self._add(pieces, self._decoder.decode(b"", final=True))
            self._state = "call id"  # written by v11 models; ids are the server's to give

    def _enter(self, pieces: list[Piece], state: Literal["answer", "trace", "name"]) -> None:
        """End the segment that is open and begin another."""
        self._add(pieces, self._decoder.decode(b"", final=True))
        if self._state in ("name", "call id") and self._name:
            pieces.append(Piece(self._segment, "answer", self._name))  # no call came of it
        elif self._state == "array":
            self._add_parts(pieces, self._array.finish())
        self._segment += 1
        self._state = state
        self._name = ""

    def _add(self, pieces: list[Piece], text: str) -> None:
        if not text or self._state == "call id":
            return
        if self._state == "name":
            self._name += text
            if self._name.lstrip().startswith("["):
                self._state, self._array, self._array_text = "array", CallArray(), False
                self._add_parts(pieces, self._array.feed(self._name))
            elif len(self._name) > LONGEST_NAME:
                pieces.append(Piece(self._segment, "answer", self._name))
                self._state, self._name = "answer", ""
        elif self._state == "array":
            self._add_parts(pieces, self._array.feed(text))
        elif self._state == "arguments":
            pieces.append(Piece(self._segment, "call", text, self._name))
        else:
            pieces.append(Piece(self._segment, self._state, text))

    def _add_parts(self, pieces: list[Piece], parts: Iterable[Part]) -> None:
        """Each call of an array is a segment of its own, and so is the text that follows."""
        for part in parts:
            self._segment += part.kind == "call" or (part.kind == "text" and not self._array_text)
            self._array_text = part.kind == "text"
            self._name = part.name or self._name
            if self._array_text:
                pieces.append(Piece(self._segment, "answer", part.text))
            else:
                pieces.append(Piece(self._segment, "call", part.text, self._name))
