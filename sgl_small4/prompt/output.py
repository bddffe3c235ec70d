"""What one generation came to, read from a `/generate` answer by its ids."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistral_common.tokens.tokenizers.base import SpecialTokens

from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.parse import OpensIn, Reply, parse


@dataclass(frozen=True)
class Output:
    """`text`: the answer up to a stop string; `kept`: the ids that the conversation goes on from, without the end of
    the turn and what a stop string took away; `meta`: the server's, with `reply`, `trace` and `probability`."""

    reply: Reply
    text: str
    kept: tuple[int, ...]
    meta: dict[str, Any]

    @property
    def finish_reason(self) -> str:
        return (self.meta.get("finish_reason") or {}).get("type", "")


def read_output(answer: Mapping[str, Any], format: PromptFormat, opens_in: OpensIn) -> Output:
    """Read one answer. Its probability is that of the ids from the end of the trace to the end of the turn, None where
    log-probabilities were not asked for or nothing was said."""
    ids, meta = list(answer["output_ids"]), dict(answer["meta_info"])
    matched = (meta.get("finish_reason") or {}).get("matched")
    probability = answer_probability(ids, meta.get("output_token_logprobs"), format)
    if isinstance(matched, int) and ids[-1:] == [matched]:
        ids.pop()
    reply = parse(ids, format, opens_in)
    text = reply.answer
    if isinstance(matched, str) and matched in text:
        text = text[: text.index(matched)]
        ids = _up_to(text, ids, format, opens_in)
    meta |= {"reply": reply, "trace": reply.trace, "probability": probability}
    return Output(reply, text, tuple(ids), meta)


def answer_probability(
    ids: Sequence[int], logprobs: Sequence[Sequence[Any]] | None, format: PromptFormat
) -> float | None:
    """The product of the probabilities of the ids behind the trace."""
    end_think = format.control(SpecialTokens.end_think)
    begin = len(ids) - ids[::-1].index(end_think) if end_think in ids else 0
    if not logprobs or len(logprobs) != len(ids) or begin == len(ids):
        return None
    return math.exp(sum(entry[0] for entry in logprobs[begin:]))


def _up_to(text: str, ids: list[int], format: PromptFormat, opens_in: OpensIn) -> list[int]:
    """The ids whose answer is `text`: those generated that end at or before its end, and the rest encoded."""
    count = len(ids)
    while count and not text.startswith(parse(ids[:count], format, opens_in).answer):
        count -= 1
    said = parse(ids[:count], format, opens_in).answer
    return ids[:count] + format.encode_text(text[len(said) :])
