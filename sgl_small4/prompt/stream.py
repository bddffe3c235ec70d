"""One choice of a chat request on its way to a client: parsed pieces as OpenAI's fields, with stop strings cut off."""

import secrets
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.parse import OpensIn, Piece, ReplyParser

CALL_ID_LETTERS = string.ascii_letters + string.digits


@dataclass
class CallDelta:
    """A part of call number `index`. `id` and `name` stand on the first part of a call alone."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass
class Delta:
    """What one step adds; of a whole reply, everything."""

    trace: str = ""
    answer: str = ""
    calls: list[CallDelta] = field(default_factory=list)


@dataclass(frozen=True)
class Wishes:
    """What a request says about the form of its reply. It opens in a trace where the prompt ends inside of one."""

    stops: tuple[str, ...] = ()
    keep_stop: bool = False
    separate_trace: bool = True
    stream_trace: bool = True
    opens_in: OpensIn = "answer"


class ReplyStream:
    """Feed it output ids as they come; each step gives what it adds for the client."""

    def __init__(self, format: PromptFormat, wishes: Wishes) -> None:
        self._parser = ReplyParser(format, wishes.opens_in)
        self._wishes = wishes
        # The end of the text waits for as long as it may be the beginning of a stop string.
        self._held_back = max((len(stop) for stop in wishes.stops), default=1) - 1
        self._tail: Piece | None = None
        self._waiting_trace = ""
        self._call_numbers: dict[int, int] = {}  # segment to index
        self._finished = False
        self.consumed_tokens = 0

    def feed(self, ids: Sequence[int]) -> Delta:
        self.consumed_tokens += len(ids)
        pieces = self._parser.feed(ids)
        return self._delta(self._release(pieces, self._held_back) if self._held_back else pieces)

    def finish(self, ids: Sequence[int] = (), matched: object = None) -> Delta:
        """The last ids. `matched` is what ended the reply: a stop string, a token id, or None."""
        if self._finished:
            return Delta()  # SGLang repeats the end of a choice while others go on
        self._finished = True
        self.consumed_tokens += len(ids)
        keep = self._wishes.keep_stop
        if ids and ids[-1] == matched and not keep:
            ids = ids[:-1]
        pieces = self._release([*self._parser.feed(ids), *self._parser.finish()], held_back=None)
        if self._tail is not None:
            text = self._tail.text
            if isinstance(matched, str) and (at := text.find(matched)) >= 0:
                text = text[: at + len(matched) if keep else at]
            pieces.append(replace(self._tail, text=text))
        delta = self._delta(pieces)
        delta.trace += self._waiting_trace
        return delta

    def _release(self, pieces: Iterable[Piece], held_back: int | None) -> list[Piece]:
        """Pass pieces on, but for the last `held_back` characters of the segment that is open (None: all of them)."""
        released = []
        for piece in pieces:
            tail = self._tail
            if tail is not None and tail.segment == piece.segment:
                piece = replace(piece, text=tail.text + piece.text)
            elif tail is not None and tail.text:
                released.append(tail)
            cut = 0 if held_back is None else max(len(piece.text) - held_back, 0)
            released.append(replace(piece, text=piece.text[:cut]))
            self._tail = replace(piece, text=piece.text[cut:])
        return released

    def _delta(self, pieces: Iterable[Piece]) -> Delta:
        delta = Delta()
        for piece in pieces:
            if piece.kind == "trace" and self._wishes.separate_trace:
                self._waiting_trace += piece.text
                if self._wishes.stream_trace:
                    self._pass_trace(delta)
                continue
            self._pass_trace(delta)
            if piece.kind == "call":
                self._call(delta, piece)
            else:
                delta.answer += piece.text
        return delta

    def _pass_trace(self, delta: Delta) -> None:
        delta.trace += self._waiting_trace
        self._waiting_trace = ""

    def _call(self, delta: Delta, piece: Piece) -> None:
        known = piece.segment in self._call_numbers
        index = self._call_numbers.setdefault(piece.segment, len(self._call_numbers))
        if not known:
            delta.calls.append(CallDelta(index, piece.text, id=_call_id(), name=piece.name))
        elif delta.calls and delta.calls[-1].index == index:
            delta.calls[-1].arguments += piece.text
        elif piece.text:
            delta.calls.append(CallDelta(index, piece.text))


def _call_id() -> str:
    """Mistral's form: nine letters or digits."""
    return "".join(secrets.choice(CALL_ID_LETTERS) for _ in range(9))
