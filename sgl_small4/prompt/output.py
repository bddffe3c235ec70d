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
    """Read one answer. Its probability is None where log-probabilities were not asked for or nothing was said."""
    ids, meta = list(answer["output_ids"]), dict(answer["meta_info"])
    matched = (meta.get("finish_reason") or {}).get("matched")
    probability = reply_probability(ids, meta.get("output_token_logprobs"), format)
    if isinstance(matched, int) and ids[-1:] == [matched]:
        ids.pop()
    reply = parse(ids, format, opens_in)
    text = reply.answer
    if isinstance(matched, str) and matched in text:
        text = text[: text.index(matched)]
        ids = _up_to(text, ids, format, opens_in)
    meta |= {"reply": reply, "trace": reply.trace, "probability": probability}
    return Output(reply, text, tuple(ids), meta)


def reply_probability(
    ids: Sequence[int], logprobs: Sequence[Sequence[Any]] | None, format: PromptFormat
) -> float | None:
    """How sure the model was of a reply, from 0 to 1. Without a trace: the probability of the answer, to its end.

    With a trace: the geometric mean over the tokens of both. Once a trace is written its answer is copied from it, and
    that answer's own probability tells nothing (on nano, area under the curve of right against wrong: 0.55); the mean
    does (0.97), and does not shrink with length.
    """
    if not logprobs or len(logprobs) != len(ids):
        return None
    total = sum(entry[0] for entry in logprobs)
    return math.exp(total / len(ids) if format.control(SpecialTokens.end_think) in ids else total)


def _up_to(text: str, ids: list[int], format: PromptFormat, opens_in: OpensIn) -> list[int]:
    """The ids whose answer is `text`: those generated that end at or before its end, and the rest encoded."""
    count = len(ids)
    while count and not text.startswith(parse(ids[:count], format, opens_in).answer):
        count -= 1
    said = parse(ids[:count], format, opens_in).answer
    return ids[:count] + format.encode_text(text[len(said) :])
