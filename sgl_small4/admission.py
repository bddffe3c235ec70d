"""What a request must satisfy before it is scheduled: where SGLang would find out in the scheduler, for everybody.

An id outside the vocabulary, a bias that is no number or a `top_k` beyond 32 bits ends the forward pass of all requests
in the batch, and with it the server. A prompt and its answer that do not fit are cut in silence, or refused after they
waited for their turn. Everything here raises RequestError, which every route answers with 400 in its own error form.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from re import _constants, _parser  # what `re` itself compiles with
from typing import Any

import msgspec
from sglang.srt.constants import HEALTH_CHECK_RID_PREFIX
from sglang.srt.managers.io_struct import SessionParams
from sglang.srt.sampling.sampling_params import SamplingParams

MAX_CHOICES = 128  # OpenAI's limit of `n`
MAX_BIAS = 100.0  # OpenAI's range of `logit_bias`
FIELDS = {field.name: field.type for field in msgspec.structs.fields(SamplingParams)}
CHECKED_ELSEWHERE = {"watermark", "logit_bias"}
# Fields that hold one value for each prompt; a list that is left over would end the scheduler.
ONE_EACH = (
    "lora_path lora_id custom_logit_processor extra_key bootstrap_host bootstrap_port bootstrap_room "
    "bootstrap_pair_key decode_tp_size".split()
)
REPEATS = {_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT}


class RequestError(ValueError):
    """A request that cannot be served; the text is one sentence for the client."""


@dataclass(frozen=True)
class Room:
    """How many tokens one request may take: the context's length and, where it is smaller, the cache's."""

    context: int
    cache: int
    longest_prompt: int

    @classmethod
    def of(cls, context: int, max_req_input_len: int) -> "Room":
        """From what SGLang's scheduler reports: `max_req_input_len` is min(context, cache) - 6."""
        return cls(context, min(context, max_req_input_len + 6), max_req_input_len - 1)

    def check(self, prompt_tokens: int, max_new_tokens: int | None) -> None:
        """Raise RequestError, with the sum, when the prompt and its longest answer do not fit."""
        limit, name = (self.context, "context") if self.cache == self.context else (self.cache, "cache")
        if max_new_tokens is not None and prompt_tokens + max_new_tokens > limit:
            raise RequestError(
                f"prompt {prompt_tokens} + max tokens {max_new_tokens} = {prompt_tokens + max_new_tokens} tokens > "
                f"{name} {limit}: shorten the prompt, or ask for at most {max(0, limit - prompt_tokens)} tokens."
            )
        if prompt_tokens > self.longest_prompt:
            raise RequestError(
                f"prompt {prompt_tokens} tokens > {self.longest_prompt}, the longest that leaves room for an answer "
                f"in the {name} {limit}: shorten the prompt."
            )


def check_request(request: Any, live_ids: Iterable[str]) -> None:
    """What can be said of a `GenerateReqInput` before it is split and tokenized: its choices and its id."""
    sampling = request.sampling_params or {}
    for one in sampling if isinstance(sampling, list) else [sampling]:
        if not isinstance(one, Mapping):
            raise RequestError(f"sampling_params is an object of sampling parameters, not {one!r}.")
        for name in ("n", "beam_width"):
            count = one.get(name)
            if count is not None and (type(count) is not int or not 1 <= count <= MAX_CHOICES):
                raise RequestError(f"{name} is an integer from 1 to {MAX_CHOICES}, not {count!r}.")
    check_session(getattr(request, "session_params", None))  # requests for embeddings have none
    for rid in request.rid if isinstance(request.rid, list) else [request.rid]:
        if rid is not None:
            check_id(rid, live_ids)


def check_session(params: Any) -> None:
    """SGLang makes a `SessionParams` of whatever stands there, and fails on what it does not know."""
    known = {field.name: field.type for field in msgspec.structs.fields(SessionParams)}
    for name, value in (params or {}).items():
        if name not in known:
            raise RequestError(f"There is no session parameter {name!r:.80}: known are {', '.join(known)}.")
        _check_type(f"session_params.{name}", value, known[name])


def settle_fields(settle: Callable[[], None]) -> None:
    """Run SGLang's own look at a request's fields; what trips it up there is the client's to correct."""
    try:
        settle()
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise RequestError(
            f"The request's fields do not fit together ({error}): give one value for one prompt, or for a list of "
            "prompts a list of the same length."
        ) from error


def check_id(rid: str, live_ids: Iterable[str]) -> None:
    """Refuse an id that would be taken for another's: SGLang aborts every request whose id begins with the given one.

    It also answers ids with the prefix of its own health checks only while nothing else runs.
    """
    if not rid:
        raise RequestError("rid is empty: leave it out, and the request gets an id of its own.")
    if rid.startswith(HEALTH_CHECK_RID_PREFIX):
        raise RequestError(f"rid {rid!r} begins with {HEALTH_CHECK_RID_PREFIX}, which is kept for health checks.")
    for live in live_ids:
        if live.startswith(rid) or rid.startswith(live):
            raise RequestError(
                f"rid {rid!r} and that of a running request, {live!r}, begin alike, so that to abort one would abort "
                "both: choose another."
            )


def check_tokenized(request: Any, input_ids: Sequence[int] | None, vocab_size: int, room: Room) -> None:
    """One request whose prompt is known as ids."""
    for name in ONE_EACH:
        if isinstance(getattr(request, name, None), list):
            raise RequestError(f"{name} is a list, but the prompt is one: give one value, or leave it out.")
    if request.input_embeds is None:
        check_ids(input_ids or (), vocab_size)
    check_sampling(request.sampling_params or {}, vocab_size)
    top = request.top_logprobs_num
    if top is not None and not 0 <= top <= vocab_size:
        raise RequestError(f"top_logprobs_num is from 0 to {vocab_size}, the vocabulary, not {top}.")
    start = request.logprob_start_len
    if start is not None and start < -1:
        raise RequestError(f"logprob_start_len is a position in the prompt, or -1 for none of it, not {start}.")
    if start is not None and request.return_logprob and start > len(input_ids or ()):
        raise RequestError(
            f"logprob_start_len {start} lies behind the prompt, which has {len(input_ids or ())} tokens."
        )
    room.check(len(input_ids or ()), (request.sampling_params or {}).get("max_new_tokens"))


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    if not ids:
        raise RequestError("The prompt is empty: give at least one token.")
    for id in (min(ids), max(ids)):
        if not 0 <= id < vocab_size:
            raise RequestError(f"The prompt holds the token id {id}: the vocabulary has ids 0 to {vocab_size - 1}.")


def check_sampling(sampling: Mapping[str, Any], vocab_size: int) -> None:
    """Names, types and ranges of sampling parameters, as far as SGLang leaves them to the scheduler."""
    check_types(sampling)
    if (top_k := sampling.get("top_k")) is not None and top_k > 2**31 - 1:
        raise RequestError(f"top_k is -1 for all, or from 1 to {2**31 - 1}, not {top_k}.")
    if (interval := sampling.get("stream_interval")) is not None and interval < 1:
        raise RequestError(f"stream_interval is at least 1 token, not {interval}.")
    for id in sampling.get("stop_token_ids") or ():
        if not 0 <= id < vocab_size:
            raise RequestError(f"stop_token_ids holds {id}: the vocabulary has ids 0 to {vocab_size - 1}.")
    if "" in _texts(sampling.get("stop")):
        raise RequestError("stop holds an empty string, which ends every answer before it begins: leave it out.")
    for pattern in _texts(sampling.get("stop_regex")):
        check_pattern(pattern)
    check_bias(sampling.get("logit_bias"), vocab_size)


def check_types(sampling: Mapping[str, Any]) -> None:
    for name, value in sampling.items():
        if name not in FIELDS:
            raise RequestError(f"There is no sampling parameter {name!r}.")
        if value is not None and name not in CHECKED_ELSEWHERE:
            _check_type(name, value, FIELDS[name])


def check_bias(bias: Any, vocab_size: int) -> None:
    if bias is None:
        return
    if not isinstance(bias, Mapping):
        raise RequestError(f"logit_bias is an object of token ids and numbers, not {bias!r}.")
    for key, value in bias.items():
        if not re.fullmatch(r"\d{1,9}", str(key)) or int(key) >= vocab_size:
            raise RequestError(f"logit_bias names the token id {key!r}: the vocabulary has ids 0 to {vocab_size - 1}.")
        if isinstance(value, bool) or not isinstance(value, int | float) or not -MAX_BIAS <= value <= MAX_BIAS:
            raise RequestError(f"logit_bias gives token {key} {value!r}: a bias is a number from -100 to 100.")


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that does not compile, or may backtrack for ever while every other request waits."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise RequestError(f"stop_regex {pattern!r} is no regular expression: {error}.") from error
    if _repeats_within_repeat(_parser.parse(pattern), inside=False):
        raise RequestError(
            f"stop_regex {pattern!r} repeats a part without bound that is itself repeated, which may take for ever to "
            "match: repeat it once."
        )


def _repeats_within_repeat(node: Any, inside: bool) -> bool:
    """Whether an unbounded repeat of a parsed pattern holds another repeat of variable length."""
    if isinstance(node, tuple) and len(node) == 2 and node[0] in REPEATS:
        least, most, body = node[1]
        if inside and most != least:
            return True
        return _repeats_within_repeat(body, inside or most == _constants.MAXREPEAT)
    if isinstance(node, tuple | list | _parser.SubPattern):
        return any(_repeats_within_repeat(part, inside) for part in node)
    return False


def _check_type(name: str, value: Any, wanted: Any) -> None:
    try:
        checked = msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        reason = str(error).replace("Expected", "expected").removesuffix(".")
        raise RequestError(f"{name} has the wrong type: {reason}.") from error
    numbers = value if isinstance(value, list | set | tuple) else [checked]
    if any(isinstance(number, int) and abs(number) > sys.maxsize for number in numbers):
        raise RequestError(f"{name} is too large a number.")


def _texts(value: str | Sequence[str] | None) -> Sequence[str]:
    return [value] if isinstance(value, str) else value or ()
