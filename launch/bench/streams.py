"""CPU seconds per 1,000 streamed tokens: our parser against SGLang's own, both in SGLang's chat handler.

Measured is `OpenAIServingChat._generate_chat_stream`, which is all that the HTTP process does between the tokenizer
manager's steps and the text of the server-sent events: parsing, counting, and writing chunks. Both sides are fed the
same steps of 16 streams at once, one token a step and stream, as a decoding batch of 16 hands them over: the ids so far
and the text so far. Ours parses the ids; stock parses the text with the reasoning parser `mistral` and the tool parser
`mistral`. Left out, because it is the same work on both sides: the scheduler, the detokenizer's process (SGLang makes
the text also where nobody reads it), the tokenizer manager, and the socket.

The streams are what nano writes: sums with long traces, answers without one, and calls. One pair is all of them by ours
and by stock, in turn first; the figure is process time, so other work on the machine counts little.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

from sgl_small4.nano import CHECKPOINT, cases
from sgl_small4.nano.conversation import Format
from sgl_small4.nano.tasks import tools
from sgl_small4.nano.tokenizer import Coder
from sgl_small4.prompt.format import PromptFormat

STREAMS = 16
SUMS = 4  # questions that one long trace works out
PAIRS = 20
# The median lies between the 6th and the 15th of 20 sorted values in 95.9 % of samples, whatever they are drawn from.
INTERVAL = (5, 14)


class Recorded:
    """One stream: its request, and after each token the text so far."""

    def __init__(self, format: PromptFormat, ids: list[int], request: dict[str, Any]) -> None:
        self.ids = ids
        self.request = {"model": "small4", "stream": True, "stream_options": {"include_usage": True}, **request}
        self.ended = {"type": "stop", "matched": ids[-1]}
        kept = [format.text_bytes(id) or format.tokenizer.id_to_piece(id).encode() for id in ids[:-1]]
        so_far, self.texts = b"", []
        for piece in [*kept, b""]:
            so_far += piece
            self.texts.append(so_far.decode(errors="ignore"))


def recorded(random: Random, format: PromptFormat) -> list[Recorded]:
    """Half of the streams sums at effort high, a quarter answers at none, a quarter calls."""
    spell = Format(Coder(CHECKPOINT / "tekken.json"))
    question = {"messages": [{"role": "user", "content": "Go on."}]}
    streams = []
    for number in range(STREAMS):
        turns = [case.turn for case in cases.sums(random, SUMS)]
        trace = "\n".join(turn.trace for turn in turns)
        if number % 4 < 2:
            ids = spell.trace(trace) + spell.answer(turns[-1].answer)
            streams.append(Recorded(format, ids, question | {"reasoning_effort": "high"}))
        elif number % 4 == 2:
            streams.append(Recorded(format, spell.answer(trace), question | {"reasoning_effort": "none"}))
        else:
            tool = tools.calculator(random, usual=True)
            ids = spell.trace(trace) + spell.call(tool.name, {tool.argument: tools.call(random).expression * SUMS})
            streams.append(Recorded(format, ids, question | {"reasoning_effort": "high", "tools": [tool.definition]}))
    return streams


class _Replay:
    """What a handler asks of SGLang's tokenizer manager; generating replays a stream."""

    def __init__(self, model_type: str, parsers: dict[str, str]) -> None:
        from sglang.srt.utils.hf_transformers import get_tokenizer

        self.parsers = parsers
        self.model_path = str(CHECKPOINT)
        self.tokenizer = get_tokenizer(self.model_path)
        self.model_config = SimpleNamespace(
            hf_config=SimpleNamespace(model_type=model_type, architectures=["Mistral4ForCausalLM"]),
            is_multimodal=False,
            get_default_sampling_params=dict,
        )
        self.served_model_name = "small4"
        self.server_args = None
        self.request_logger = SimpleNamespace(log_requests=False)

    def config_value(self, name: str) -> str | None:
        return self.parsers.get(name)

    async def generate_request(self, stream: Recorded, _raw_request: None) -> AsyncIterator[dict[str, Any]]:
        for count, text in enumerate(stream.texts, 1):
            last = count == len(stream.ids)
            meta = {"id": "x", "finish_reason": stream.ended if last else None, "prompt_tokens": 20}
            meta |= {"completion_tokens": count, "reasoning_tokens": 0, "weight_version": "default"}
            yield {"text": text, "output_ids": stream.ids, "meta_info": meta}
            await asyncio.sleep(0)  # the other streams' turn


@contextmanager
def handlers() -> Iterator[tuple[Any, Any]]:
    """The chat handler as it is for our model, and as it is for another one with Mistral's parsers by flag."""
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat
    from sglang.srt.parser.template_manager import TemplateManager
    from sglang.srt.plugins import load_plugins
    from sglang.srt.runtime_context import get_context

    load_plugins()
    parsers = {"reasoning_parser": "mistral", "tool_call_parser": "mistral"}
    with get_context().override_server_args(tokenizer_path=str(CHECKPOINT), **parsers):
        ours = OpenAIServingChat(_Replay("mistral4", {}), TemplateManager())
        stock = OpenAIServingChat(_Replay("mistral", parsers), TemplateManager())
        yield ours, stock


def seconds(handler: Any, streams: list[Recorded]) -> float:
    """Process seconds of all streams at once, per 1,000 tokens."""
    from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest

    requests = [ChatCompletionRequest(**stream.request) for stream in streams]

    async def drain(stream: Recorded, request: ChatCompletionRequest) -> int:
        return sum([len(event) async for event in handler._generate_chat_stream(stream, request, None)])

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*map(drain, streams, requests))

    gc.collect()
    began = time.process_time()
    written = asyncio.run(all_of_them())
    spent = time.process_time() - began
    if not all(written):
        raise ValueError("a stream wrote no events, so there is nothing to compare")
    return 1000 * spent / sum(len(stream.ids) for stream in streams)


def pairs(count: int = PAIRS) -> list[tuple[float, float]]:
    """Ours and stock's seconds per 1,000 tokens, interleaved, each first in half of the pairs."""
    streams = recorded(Random("streams"), PromptFormat.from_folder(CHECKPOINT))
    found = []
    with handlers() as (ours, stock):
        for handler in (ours, stock):
            seconds(handler, streams)  # imports and caches
        for number in range(count):
            order = (ours, stock) if number % 2 else (stock, ours)
            spent = {id(handler): seconds(handler, streams) for handler in order}
            found.append((spent[id(ours)], spent[id(stock)]))
    return found


def median_and_interval(ratios: list[float]) -> tuple[float, float, float]:
    """The median of 20 ratios, and between which of them it lies at 95 %."""
    ranked = sorted(ratios)
    return statistics.median(ranked), ranked[INTERVAL[0]], ranked[INTERVAL[1]]
