"""From output ids back to trace, answer and calls: the other direction of format.py.

    answer  --[THINK]-->  trace  --[/THINK]-->  answer
    any     --[TOOL_CALLS]-->  name  --[ARGS]-->  arguments
    any     --</s>-->  answer

A trace or a call begins where the model emitted the control id, never where text looks like one, so the states follow
ids alone and every chunking of the same ids gives the same reply. Text is kept byte for byte: a character whose bytes
are not all there yet waits for them, and only what is still broken at the end of its segment is replaced.

A call has two spellings: `[TOOL_CALLS]name[ARGS]{..}`, once per call, and `[TOOL_CALLS][{"name": .., "arguments": ..}]`
for all of them. What follows [TOOL_CALLS] and is neither stays text of the answer: nothing the model wrote is lost.
"""

import codecs
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from mistral_common.tokens.tokenizers.base import SpecialTokens

from sgl_small4.prompt.format import PromptFormat

Kind = Literal["answer", "trace", "call"]

# A call whose arguments the limit cut off inside the array spelling.
CUT_CALL = re.compile(r'\{\s*"name"\s*:\s*"([^"\\]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(.*)', re.DOTALL)


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


def parse(ids: Iterable[int], format: PromptFormat) -> Reply:
    """The reply that the output ids spell."""
    parser = ReplyParser(format)
    return Reply.of([*parser.feed(ids), *parser.finish()])


class ReplyParser:
    """The state machine: feed it output ids as they come, then finish."""

    def __init__(self, format: PromptFormat) -> None:
        self._text_bytes = format.text_bytes
        self._control_ids = format.control_ids
        self._think, self._end_think = (
            format.control(SpecialTokens.begin_think),
            format.control(SpecialTokens.end_think),
        )
        self._calls, self._args = format.control(SpecialTokens.tool_calls), format.control(SpecialTokens.args)
        self._call_id, self._eos = format.control(SpecialTokens.call_id), format.control(SpecialTokens.eos)
        self._state: Literal["answer", "trace", "name", "call id", "arguments"] = "answer"
        self._name = ""  # what stands between [TOOL_CALLS] and [ARGS], as far as it came
        self._segment = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # starts anew after each final=True
        self.trace_tokens = 0  # ids between [THINK] and the end of the trace

    def feed(self, ids: Iterable[int]) -> list[Piece]:
        """Take the next ids; give what they add to the reply."""
        pieces: list[Piece] = []
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
        pieces: list[Piece] = []
        self._enter(pieces, "answer")
        return pieces

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
        if self._state in ("name", "call id"):
            self._spell_out(pieces)
        self._segment += 1
        self._state = state
        self._name = ""

    def _add(self, pieces: list[Piece], text: str) -> None:
        if not text or self._state == "call id":
            return
        if self._state == "name":
            self._name += text
        elif self._state == "arguments":
            pieces.append(Piece(self._segment, "call", text, self._name))
        else:
            pieces.append(Piece(self._segment, self._state, text))

    def _spell_out(self, pieces: list[Piece]) -> None:
        """A call section that saw no [ARGS]: an array of calls, or no call at all."""
        calls, rest = array_of_calls(self._name)
        for call in calls:
            pieces.append(Piece(self._segment, "call", call.text, call.name))
            self._segment += 1
        if rest:
            pieces.append(Piece(self._segment, "answer", rest))


def array_of_calls(text: str) -> tuple[list[Segment], str]:
    """The calls of `[{"name": .., "arguments": ..}, ..]`, also of one that was cut, and the text that is none."""
    if not text.lstrip().startswith("["):
        return [], text
    calls: list[Segment] = []
    position = text.index("[") + 1
    while True:
        start = _skip(text, position, ", \t\r\n")
        try:
            element, position = json.JSONDecoder().raw_decode(text, start)
        except json.JSONDecodeError:
            break
        if not isinstance(element, dict) or not isinstance(element.get("name"), str):
            return [], text
        arguments = element.get("arguments", element.get("parameters", {}))
        spelled = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append(Segment("call", spelled, element["name"]))
    rest = text[start:]
    if cut := CUT_CALL.fullmatch(rest):
        return [*calls, Segment("call", cut[2], cut[1])], ""
    if not calls:
        return [], text
    return calls, rest.removeprefix("]").strip()


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position
