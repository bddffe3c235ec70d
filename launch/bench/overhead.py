"""What our process does beside the requests: CPU seconds of programs, and encoding as a conversation grows.

CPU: a mix of programs (direct, think and deliberate, one each of every question) runs 32 at once. The bodies of their
`/generate` requests are kept and posted again bare: 32 threads, the same transport, JSON by orjson, nothing read but
the JSON. Both are process time of this process, programs and bare requests in turn first, each pair with its own
bodies, since deliberate ends early by what the model says.

Encoding: a program of SGLang's frontend over a transport that answers at once, so that the time is ours and the
interpreter's. Its first turn is 200,000 tokens, each further one 100 characters.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import httpx
import sglang as sgl
from mistral_common.tokens.tokenizers.base import SpecialTokens
from sglang.lang.interpreter import ProgramState

from programs.effort import Effort, solve
from sgl_small4.nano import CHECKPOINT
from sgl_small4.nano.cases import easy_sums
from sgl_small4.prompt.backend import Small4Backend
from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.transport import Fields, Transport, new_rid, transport_of

AT_ONCE = 32
MIX: tuple[Effort, ...] = ("none", "high", "deliberate")
QUESTIONS = 32  # of each effort in one half of a pair
SECONDS = 300.0
NEW_TURN = 100  # characters


class Bare(Protocol):
    """Sends a body and reads its answer."""

    def generate(self, fields: Fields, rid: str) -> Any: ...

    def close(self) -> None: ...


class Kept:
    """A transport that keeps the bodies of what is generated, and passes all on."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.where = inner.where
        self.bodies: list[Fields] = []

    def model_info(self) -> dict[str, Any]:
        return self.inner.model_info()

    def generate(self, fields: Fields, rid: str) -> Any:
        self.bodies.append(fields)
        return self.inner.generate(fields, rid)

    def stream(self, fields: Fields, rid: str) -> Iterator[dict[str, Any]]:
        return self.inner.stream(fields, rid)

    def abort(self, rid: str) -> None:
        self.inner.abort(rid)

    def close(self) -> None:
        self.inner.close()


class Httpx:
    """The bare requests as anybody would send them: httpx, one client for all threads."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.Client(base_url=url, timeout=SECONDS, limits=limits, trust_env=False)

    def generate(self, fields: Fields, rid: str) -> Any:
        return self._client.post("/generate", json={**fields, "rid": rid}).json()

    def close(self) -> None:
        self._client.close()


def pairs(url: str, count: int, bare: Bare, efforts: Sequence[Effort] = MIX) -> list[tuple[float, float]]:
    """Process seconds of programs and of the requests they make, sent `bare`."""
    random = Random("overhead")
    kept = Kept(transport_of(url, None, SECONDS))
    found = []
    with Small4Backend(kept) as backend, ThreadPoolExecutor(AT_ONCE) as pool:
        bodies = _programs(pool, backend, kept, _questions(random), efforts)[1]  # imports, connections, caches
        _bare(pool, bare, bodies)
        for number in range(count):
            # The bare half that comes first posts what the programs of the pair before sent: as many, of the same kind.
            spent = {}
            for half in ("bare", "programs") if number % 2 else ("programs", "bare"):
                if half == "programs":
                    spent[half], bodies = _programs(pool, backend, kept, _questions(random), efforts)
                else:
                    spent[half] = _bare(pool, bare, bodies)
            found.append((spent["programs"], spent["bare"]))
    bare.close()
    return found


def _questions(random: Random) -> list[str]:
    return [case.turn.question for case in easy_sums(random, QUESTIONS)]


def _programs(
    pool: ThreadPoolExecutor, backend: Small4Backend, kept: Kept, questions: list[str], efforts: Sequence[Effort]
) -> tuple[float, list[Fields]]:
    kept.bodies = []
    asked = [(question, effort) for question in questions for effort in efforts]
    seconds = _process_seconds(lambda: list(pool.map(lambda one: solve(*one, backend=backend), asked)))
    return seconds, kept.bodies


def _bare(pool: ThreadPoolExecutor, transport: Bare, bodies: list[Fields]) -> float:
    return _process_seconds(lambda: list(pool.map(lambda body: transport.generate(body, new_rid()), bodies)))


def _process_seconds(run: Callable[[], Any]) -> float:
    gc.collect()
    began = time.process_time()
    run()
    return time.process_time() - began


@dataclass(frozen=True)
class Grown:
    """A further turn: characters that were encoded for it; milliseconds of the whole turn and, for comparison, of
    encoding all that was said by then."""

    characters: int
    turn: float
    again: float


class Counting:
    """A prompt format that counts the characters it encodes."""

    def __init__(self, format: PromptFormat) -> None:
        self._format = format
        self.characters = 0

    def encode_text(self, text: str) -> list[int]:
        self.characters += len(text)
        return self._format.encode_text(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._format, name)


class Instant:
    """A transport of nano that answers every prompt with the same words, at once."""

    where = "Nobody"

    def __init__(self) -> None:
        format = PromptFormat.from_folder(CHECKPOINT)
        self._ids = [*format.encode_text("Very well."), format.control(SpecialTokens.eos)]
        self.prompt_tokens = 0

    def model_info(self) -> dict[str, Any]:
        folder = str(CHECKPOINT)
        return {"model_path": folder, "tokenizer_path": folder, "model_type": "mistral4", "context_length": None}

    def generate(self, fields: Fields, rid: str) -> Any:
        self.prompt_tokens = len(fields["input_ids"])
        ended = {"type": "stop", "matched": self._ids[-1]}
        meta = {"finish_reason": ended, "prompt_tokens": self.prompt_tokens, "completion_tokens": len(self._ids)}
        return {"output_ids": list(self._ids), "meta_info": meta}

    def stream(self, fields: Fields, rid: str) -> Iterator[dict[str, Any]]:
        yield self.generate(fields, rid)

    def abort(self, rid: str) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is open."""


@sgl.function
def conversation(s: ProgramState, said: Sequence[str], ended: Callable[[int], None]) -> None:
    for number, text in enumerate(said):
        s += sgl.user(text)
        s += sgl.assistant(sgl.gen(f"answer {number}", max_tokens=16))
        s.sync()
        ended(number)


def growth(tokens: int, turns: int) -> list[Grown]:
    """What each of `turns` further turns costs on a first one of `tokens` tokens."""
    with Small4Backend(Instant()) as backend:
        plain = backend.format
        counting = Counting(plain)
        backend.format = counting  # type: ignore[assignment]  # it does all that a PromptFormat does
        random = Random("growth")
        said = [_long_text(random, plain, tokens), *(_text(random, NEW_TURN) for _ in range(turns))]
        found: list[Grown] = []
        began = time.perf_counter()

        def ended(number: int) -> None:
            nonlocal began
            turn = 1000 * (time.perf_counter() - began)
            if number:
                began = time.perf_counter()
                plain.encode_text("".join(said[: number + 1]))
                found.append(Grown(counting.characters, turn, 1000 * (time.perf_counter() - began)))
            counting.characters = 0
            began = time.perf_counter()

        conversation.run(said=said, ended=ended, backend=backend)
    return found


def _long_text(random: Random, format: PromptFormat, tokens: int) -> str:
    parts: list[str] = []
    while tokens > 0:
        parts.append(_text(random, 1000))
        tokens -= len(format.encode_text(parts[-1]))
    return "".join(parts)


def _text(random: Random, characters: int) -> str:
    """Questions one after another, cut to so many characters."""
    text = ""
    while len(text) < characters:
        text += easy_sums(random, 1)[0].turn.question + " "
    return text[:characters].rstrip().ljust(characters, ".")
