"""Generated replies, read whole and in pieces: is every one split as it was made, whatever the chunks?

A reply is made part by part, and each part says what it is to be read as; nothing here asks the parser for the truth.
Parts are traces, answers, and calls in both spellings, with look-alike markers, characters whose bytes are split among
tokens, bytes that are no text, empty segments, control ids where none belongs, and a cut wherever a limit may fall.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mistral_common.tokens.tokenizers.base import SpecialTokens

from launch.bench.figures import Row, report
from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.parse import OpensIn, ReplyParser
from sgl_small4.prompt.stream import Delta, ReplyStream, Wishes

Call = tuple[str, str]  # name, arguments
Chunks = list[list[int]]

TEXTS = (
    "It is Friday.", " ", "\n\n", "As [3] shows, x[7] = y[2].", "Use the [THINK] tag.", "[/THINK]", "</s>",
    "[TOOL_CALLS]", '[TOOL_CALLS][{"name": "look", "arguments": {}}]', "[TOOL_CALLS]look[ARGS]{}", "[ARGS]",
    "[INST]x[/INST]", "[/TH", "l'été", "ภาษาไทย", "مَرْحَبًا", "👩🏿\u200d🚀", "é🙂", "KMnO4 9,876", "\x00\x16", "{}",
    "]", '"', "\\", "##EN", "##", "ENOUG",
)  # fmt: skip
NAMES = ("look", "add_numbers", "get-weather2")
STOPS = ("##END", "ENOUGH", "stop ✋ here")
STRAY = (SpecialTokens.begin_inst, SpecialTokens.img, SpecialTokens.begin_tool_results, SpecialTokens.bos)


@dataclass
class Made:
    """A reply: its ids, and what they are to be read as."""

    ids: list[int] = field(default_factory=list)
    segments: list[tuple[str, str, str]] = field(default_factory=list)  # kind, text, name
    opens_in: OpensIn = "answer"
    stop: str | None = None  # the stop string that ends the answer

    @property
    def trace(self) -> str:
        return "".join(text for kind, text, _ in self.segments if kind == "trace")

    @property
    def answer(self) -> str:
        return "".join(text for kind, text, _ in self.segments if kind == "answer")

    @property
    def calls(self) -> list[Call]:
        return [(name, text) for kind, text, name in self.segments if kind == "call"]


class Maker:
    """Makes replies, the same ones for the same seed."""

    def __init__(self, format: PromptFormat, seed: int) -> None:
        self._format = format
        self._random = random.Random(seed)
        pieces = {format.text_bytes(id): id for id in range(format.tokenizer.n_words) if id not in format.control_ids}
        self._byte_ids = [pieces[bytes([byte])] for byte in range(256)]

    def replies(self, count: int) -> Iterator[Made]:
        return (self._reply() for _ in range(count))

    def _reply(self) -> Made:
        made, chance = Made(), self._random
        if chance.random() < 0.1:
            made.opens_in = "trace"
            self._trace_text(made)
        for _ in range(chance.randrange(5)):
            chance.choices((self._trace, self._answer, self._call, self._array, self._stray), (3, 4, 3, 3, 1))[0](made)
        ends = (self._nothing, self._eos, self._eos, self._stop, self._cut_text, self._cut_call, self._cut_array)
        chance.choice(ends)(made)
        made.segments = merged(made.segments)
        return made

    # What a reply is made of. Each adds ids and what they are to be read as.

    def _control(self, made: Made, name: SpecialTokens) -> None:
        made.ids.append(self._format.control(name))

    def _spell(self, made: Made, text: str) -> None:
        """The ids of a text, here and there byte by byte."""
        while text:
            cut = self._random.randint(1, 24)
            part, text = text[:cut], text[cut:]
            if self._random.random() < 0.3:
                made.ids += [self._byte_ids[byte] for byte in part.encode()]
            else:
                made.ids += self._format.encode_text(part)

    def _text(self, least: int = 0) -> str:
        return "".join(self._random.choice(TEXTS) for _ in range(self._random.randint(least, 5)))

    def _trace(self, made: Made) -> None:
        self._control(made, SpecialTokens.begin_think)
        self._trace_text(made)

    def _trace_text(self, made: Made) -> None:
        text = self._text()
        self._spell(made, text)
        made.segments.append(("trace", text, ""))
        self._control(made, SpecialTokens.end_think)

    def _answer(self, made: Made) -> None:
        text = self._text()
        self._say(made, text)

    def _say(self, made: Made, text: str) -> None:
        """Text of the answer; after a call, a model can only get there through another segment."""
        if made.segments and made.segments[-1][0] == "call":
            self._control(made, SpecialTokens.eos)
        self._spell(made, text)
        made.segments.append(("answer", text, ""))

    def _stray(self, made: Made) -> None:
        """A control id that means nothing in a reply, and is no text."""
        if made.segments and made.segments[-1][0] == "answer":
            self._control(made, self._random.choice((*STRAY, SpecialTokens.end_think)))
        else:
            self._control(made, self._random.choice(STRAY))

    def _call(self, made: Made) -> None:
        arguments = self._arguments()
        made.segments.append(("call", arguments, self._begin_call(made)))
        self._spell(made, arguments)

    def _begin_call(self, made: Made) -> str:
        """A call up to its arguments; gives its name."""
        name, chance = self._random.choice(NAMES), self._random.random()
        self._control(made, SpecialTokens.tool_calls)
        self._spell(made, f" {name} " if chance < 0.1 else name)
        if chance > 0.9:
            self._control(made, SpecialTokens.call_id)
            self._spell(made, "a1b2c3d4e")
        self._control(made, SpecialTokens.args)
        return name

    def _arguments(self) -> str:
        value: dict[str, object] = {self._text(): self._text() for _ in range(self._random.randrange(3))}
        value |= {"n": [1.5, None, {"x": [self._text()]}]} if self._random.random() < 0.3 else {}
        return self._json(value)

    def _json(self, value: object) -> str:
        space = self._random.choice((None, (",", ":"), (", ", ": ")))
        indent = 2 if self._random.random() < 0.1 else None
        return json.dumps(value, ensure_ascii=self._random.random() < 0.3, separators=space, indent=indent)

    def _array(self, made: Made) -> None:
        calls, written = self._elements(self._random.randint(1, 3))
        written += self._blank() + "]" + self._blank()
        made.segments += [("call", arguments, name) for name, arguments in calls]
        if self._random.random() < 0.2:
            text = self._blank() + "And so. " + self._text()
            made.segments.append(("answer", written[len(written.rstrip()) :] + text, ""))
            written += text
        self._write_array(made, written)

    def _write_array(self, made: Made, written: str) -> None:
        self._control(made, SpecialTokens.tool_calls)
        self._spell(made, written)

    def _elements(self, count: int) -> tuple[list[Call], str]:
        """So many calls, and the array that spells them, not closed."""
        calls, written = [], self._blank() + "["
        for number in range(count):
            name, arguments = self._random.choice(NAMES), self._arguments()
            fields = [("name", json.dumps(name)), (self._key(), self._spelled(arguments))]
            if self._random.random() < 0.2:
                fields.append(("id", self._random.choice(('"a1"', "7", "null", '{"name": ["x"]}'))))
            self._random.shuffle(fields)
            inside = ",".join(f'{self._blank()}"{key}"{self._blank()}:{self._blank()}{value}' for key, value in fields)
            written += ("," if number else "") + f"{self._blank()}{{{inside}{self._blank()}}}"
            calls.append((name, arguments))
        return calls, written

    def _key(self) -> str:
        return self._random.choice(("arguments", "arguments", "parameters"))

    def _spelled(self, arguments: str) -> str:
        """Arguments as they are, or as a JSON string that holds them."""
        return self._json_string(arguments) if self._random.random() < 0.3 else arguments

    def _json_string(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=self._random.random() < 0.5)

    def _blank(self) -> str:
        return self._random.choice(("", "", " ", "\n  "))

    # Ends.

    def _nothing(self, made: Made) -> None:
        """The limit fell between two parts."""

    def _eos(self, made: Made) -> None:
        self._control(made, SpecialTokens.eos)

    def _stop(self, made: Made) -> None:
        made.stop = self._random.choice(STOPS)
        text = self._text(1)
        self._say(made, text)
        made.ids += self._format.encode_text(made.stop)

    def _cut_text(self, made: Made) -> None:
        """Within a trace or an answer, or within a character of it."""
        kind, text = self._random.choice(("trace", "answer")), self._text()
        if kind == "trace":
            self._control(made, SpecialTokens.begin_think)
            made.segments.append(("trace", "", ""))
            self._spell(made, text)
        else:
            self._say(made, text)
            text = ""
        broken = self._random.choice(
            (b"", "é".encode()[:1], "🙂".encode()[:3], "ก".encode()[:2], b"\xff\xfe", b"\x80a")
        )
        made.ids += [self._byte_ids[byte] for byte in broken]
        made.segments.append((kind, text + broken.decode("utf-8", "replace"), ""))
        if kind == "trace":
            (_, before, _), (_, after, _) = made.segments[-2:]
            made.segments[-2:] = [("trace", before + after, "")]

    def _cut_call(self, made: Made) -> None:
        """In its arguments, in its name, or where no name is."""
        if self._random.random() < 0.5:
            name, arguments = self._begin_call(made), self._arguments()
            arguments = arguments[: self._random.randint(0, len(arguments))]
            self._spell(made, arguments)
            made.segments.append(("call", arguments, name))
        else:
            self._control(made, SpecialTokens.tool_calls)
            text = self._random.choice(("", "lo", "I could look it up.", "[1, 2]", "[", " [] no", '[{"na', "[{}]"))
            self._spell(made, text)
            made.segments.append(("answer", text, ""))

    def _cut_array(self, made: Made) -> None:
        """In the arguments of its last call, as an object or as a text that an escape may end in half."""
        calls, written = self._elements(self._random.randint(0, 2))
        name, arguments = self._random.choice(NAMES), self._arguments()
        kept = self._random.randint(1, len(arguments))
        written += ("," if calls else "") + f'{self._blank()}{{"name": "{name}", "{self._key()}":{self._blank()}'
        if self._random.random() < 0.5:
            written += self._json_string(arguments[:kept])[:-1] + self._random.choice(("", "\\", "\\u", "\\u00e"))
        else:
            written += arguments[:kept]
        made.segments += [("call", arguments, name) for name, arguments in calls]
        made.segments.append(("call", arguments[:kept], name))
        self._write_array(made, written)


def merged(segments: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Answers in a row as one, and none that is empty: where an answer is cut into segments says nothing."""
    together: list[tuple[str, str, str]] = []
    for kind, text, name in segments:
        if kind == "answer" and together and together[-1][0] == "answer":
            together[-1] = ("answer", together[-1][1] + text, "")
        elif kind != "answer" or text:
            together.append((kind, text, name))
    return together


def chunkings(made: Made, format: PromptFormat, chance: random.Random) -> dict[str, Chunks]:
    """The ids whole, one at a time, as many as complete a character, and in random sizes."""
    characters: Chunks = [[]]
    waiting = b""
    for id in made.ids:
        characters[-1].append(id)
        waiting += format.text_bytes(id)
        if id in format.control_ids or _ends_in_a_character(waiting):
            characters.append([])
            waiting = b""
    sizes: Chunks = []
    while sum(map(len, sizes)) < len(made.ids):
        start = sum(map(len, sizes))
        sizes.append(made.ids[start : start + chance.randint(1, 9)])
    return {
        "whole": [made.ids],
        "1 token": [[id] for id in made.ids],
        "1 character": [chunk for chunk in characters if chunk],
        "random": sizes,
    }


def _ends_in_a_character(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def by_parser(made: Made, chunks: Chunks, format: PromptFormat) -> bool:
    """Whether the parser gives the segments that were made."""
    parser = ReplyParser(format, made.opens_in)
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)] + parser.finish()
    read: list[tuple[str, str, str]] = []
    open_segment: int | None = None
    for piece in pieces:
        if piece.segment == open_segment:
            read[-1] = (piece.kind, read[-1][1] + piece.text, piece.name)
        else:
            read.append((piece.kind, piece.text, piece.name))
            open_segment = piece.segment
    stopped = [("answer", made.stop, "")] if made.stop else []  # the parser knows nothing of stop strings
    return merged(read) == merged([*made.segments, *stopped])


def by_stream(made: Made, chunks: Chunks, format: PromptFormat, stops: tuple[str, ...], keep_stop: bool) -> bool:
    """Whether a client is given the trace, the answer and the calls that were made."""
    stream = ReplyStream(format, Wishes(stops=stops, keep_stop=keep_stop, opens_in=made.opens_in))
    eos = format.control(SpecialTokens.eos)
    matched: object = made.stop if stops else None
    if matched is None and made.ids[-1:] == [eos]:
        matched = eos
    deltas = [stream.feed(chunk) for chunk in chunks[:-1]] + [stream.finish(chunks[-1] if chunks else [], matched)]
    answer = made.answer + (made.stop if made.stop and (keep_stop or not stops) else "")
    return (*put_together(deltas),) == (made.trace, answer, made.calls)


def put_together(deltas: Sequence[Delta]) -> tuple[str, str, list[Call]]:
    """What a client makes of a stream: texts joined, each call from its first part on, by its index."""
    calls: list[Call] = []
    for call in (call for delta in deltas for call in delta.calls):
        if call.name is not None:
            assert call.index == len(calls) and call.id
            calls.append((call.name, call.arguments))
        else:
            name, arguments = calls[call.index]
            calls[call.index] = (name, arguments + call.arguments)
    return "".join(delta.trace for delta in deltas), "".join(delta.answer for delta in deltas), calls


READERS: dict[str, Callable[[Made, Chunks, PromptFormat], bool]] = {
    "the parser": by_parser,
    "a chat stream": partial(by_stream, stops=(), keep_stop=False),
    "a chat stream with stop strings": partial(by_stream, stops=STOPS, keep_stop=False),
    "a chat stream that keeps stop strings": partial(by_stream, stops=STOPS, keep_stop=True),
}


def compare(format: PromptFormat, count: int, seed: int) -> list[Row]:
    """One row for each reader: how many replies it read as they were made in every chunking."""
    chance = random.Random(seed + 1)
    right = dict.fromkeys(READERS, 0)
    for number, made in enumerate(Maker(format, seed).replies(count)):
        chunked = chunkings(made, format, chance)
        for reader, read in READERS.items():
            wrong = [name for name, chunks in chunked.items() if not read(made, chunks, format)]
            right[reader] += not wrong
            if wrong:
                print(f"reply {number}: {reader} fails for {', '.join(wrong)}: {made}", file=sys.stderr)
    return [
        Row(f"replies as {reader} reads them, in 4 chunkings",
            "100 % equal to the reference split",
            f"{100 * equal / count:.2f} % ({equal:,} of {count:,})", equal == count)
        for reader, equal in right.items()
    ]  # fmt: skip


def main() -> int:
    """Print the rows; the exit code is 1 when a reply is read otherwise than it was made."""
    parser = argparse.ArgumentParser(description="Compare the reply parser with replies whose split is known.")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    parser.add_argument("--replies", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = compare(PromptFormat.from_folder(CHECKPOINT), given.replies, given.seed)
    return report(found, given.json)


if __name__ == "__main__":
    sys.exit(main())
