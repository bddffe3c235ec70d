"""Small 4 as a backend of SGLang's frontend language: programs stay as they are, prompts go as token ids.

    backend = Small4Backend("http://127.0.0.1:30000")      # or a sglang.Engine
    state = program.run(question="What is 7+5?", backend=backend)

Upstream's `RuntimeEndpoint` sends one growing string with another model's role marks. Here the interpreter's text is
followed block by block (transcript.py), a trace is told from the answer by ids (parse.py), and what holds beside the
language (effort, tools, the graph that requests are recorded in) is set with `configure`. A variable of `gen` holds the
answer alone; its trace, calls and counts are in `get_meta_info` and `reply_of`.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import stamina
from mistral_common.tokens.tokenizers.base import SpecialTokens
from sglang.lang.backend.base_backend import BaseBackend
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
from sglang.lang.choices import ChoicesDecision, ChoicesSamplingMethod, token_length_normalized
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglSamplingParams

from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.choices import likelihood, overlap, shares
from sgl_small4.prompt.format import Effort, PromptError, PromptFormat, effort_of
from sgl_small4.prompt.model_info import format_of
from sgl_small4.prompt.node import Kind, Node
from sgl_small4.prompt.output import Output, read_output
from sgl_small4.prompt.parse import OpensIn, ReplyParser, opens_in
from sgl_small4.prompt.state import STATE, state_of
from sgl_small4.prompt.state import configure as configure
from sgl_small4.prompt.state import node_of as node_of
from sgl_small4.prompt.state import reply_of as reply_of
from sgl_small4.prompt.state import tool_result as tool_result
from sgl_small4.prompt.transcript import NO_IMAGES, TEMPLATE, register_template, settings_ids
from sgl_small4.prompt.transport import BackendError as BackendError
from sgl_small4.prompt.transport import Unreachable, new_rid, transport_of

TIMEOUT = 600.0  # seconds without a byte; a long document on a small host takes minutes to read
ATTEMPTS = 4  # of one request, when the server cannot be reached or has no room
FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0  # seconds between two tries; each wait is twice the one before, with jitter
SHORT = 64  # tokens of a new prompt that several options may each read anew
ASKED = ("return_logprob", "logprob_start_len", "top_logprobs_num", "return_text_in_logprobs")
GIVEN_UP = "The program gave this request up."

# The interpreter warns with a traceback where a backend raises. Our errors are raised again, as one sentence, where the
# program reads the variable.
warnings.filterwarnings("ignore", message=r"(?s)Error in stream_executor.*sgl_small4\.prompt\.transport\.")
logger = logging.getLogger(__name__)
register_template()
# A retry is announced by stamina's logger; one of ours either succeeds or ends in an error that says all.
logging.getLogger("stamina").addFilter(lambda record: "Unreachable(" not in str(vars(record).get("stamina.caused_by")))


class Small4Backend(BaseBackend):
    """The frontend's way to one served Small 4.

    `target` is a server's URL, a `sglang.Engine` or a Transport. `tokenizer` is a folder with `tekken.json` or
    `tokenizer.json`, by default where the server says that its own lies. `timeout`: seconds without a byte of an
    answer. Raises BackendError for a server that is not there, that serves another model, or whose tokenizer is not at
    hand. Use it from any number of threads; `close` lets go of its connections and of what still runs.
    """

    def __init__(
        self,
        target: Any,
        *,
        tokenizer: Path | str | None = None,
        api_key: str | None = None,
        effort: Effort = "none",
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
    ) -> None:
        super().__init__()
        self.chat_template = TEMPLATE
        self.effort = effort_of(effort)
        self._attempts = attempts
        self._transport = transport_of(target, api_key, timeout)
        try:
            self.model_info = self._retried(self._transport.model_info)
            self.format = format_of(self._transport.where, self.model_info, tokenizer)
        except BaseException:
            self._transport.close()
            raise
        self._open = Cancellation()
        self._routing: dict[str, str] = {}
        self._settings = lru_cache(maxsize=64)(self._encode_settings)

    def __enter__(self) -> "Small4Backend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def routed(self, key: str) -> "Small4Backend":
        """This backend for requests that share a prefix: behind SGLang's gateway, where its policy goes by keys, those
        of one key reach one server. What closes this one closes that one."""
        twin = copy(self)
        twin._routing = {"routing_key": key}
        return twin

    def is_there(self) -> bool:
        """Whether the server answers at all; asked once, without a second try."""
        try:
            self._transport.model_info()
        except Unreachable:
            return False
        except BackendError:
            return True
        return True

    def close(self) -> None:
        self._open.set()
        self._transport.close()

    def get_model_name(self) -> str:
        return self.model_info["model_path"]

    # What the interpreter calls

    def end_program(self, s: Any) -> None:
        """A program has been told to end, and need not be again: the interpreter's finalisers do so too, and where the
        garbage collector runs them inside of `Thread.start`, `is_alive` waits for a lock that its own thread holds."""
        s.end = _nothing

    def commit_lazy_operations(self, s: StreamExecutor) -> None:
        """Put the prompt so far into the prefix cache; the interpreter asks for it before it forks."""
        with self._turn(s) as turn:
            self._prefill(turn)

    def cache_prefix(self, prefix_str: str) -> None:
        """Put text that all programs of a batch begin with into the prefix cache."""
        ids = [self.format.control(SpecialTokens.bos), *self.format.encode_text(prefix_str)]
        fields = {"input_ids": ids, "sampling_params": {"max_new_tokens": 0}, **self._routing}
        self._retried(lambda: self._transport.generate(fields, new_rid()))

    def fill_image(self, s: StreamExecutor) -> None:
        raise BackendError(NO_IMAGES)

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[Any, dict[str, Any]]:
        """The answer, or one per sample, and the first one's meta information (output.py)."""
        with self._turn(s) as turn:
            answers = self._ask(turn, self._generation(turn, sampling_params))
            outputs = [turn.read(answer) for answer in (answers if isinstance(answers, list) else [answers])]
            turn.end(outputs[0].kept, outputs[0].text)
        texts = [output.text for output in outputs]
        return (texts if isinstance(answers, list) else texts[0]), outputs[0].meta

    def generate_stream(
        self, s: StreamExecutor, sampling_params: SglSamplingParams
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The answer piece by piece; what may turn out to be a stop string waits. The last piece has all meta
        information."""
        with self._turn(s) as turn:
            fields = self._generation(turn, sampling_params)
            stops = fields["sampling_params"]["stop"] or []
            stops = [stops] if isinstance(stops, str) else stops
            held = max(map(len, stops), default=0)
            parser, said, given = ReplyParser(self.format, turn.opens_in), "", 0
            ids: list[int] = []
            logprobs: list[Any] = []
            event: dict[str, Any] = {"meta_info": {}}
            for event in self._events(turn, fields):
                new = _new(event["output_ids"], len(ids), event["meta_info"]["completion_tokens"])
                entries = event["meta_info"].get("output_token_logprobs") or []
                logprobs = entries if len(entries) > len(logprobs) else [*logprobs, *entries]
                ids += new
                said += "".join(piece.text for piece in parser.feed(new) if piece.kind == "answer")
                certain = min([len(said) - held, *(said.find(stop) for stop in stops if stop in said)])
                if certain > given:
                    yield said[given:certain], event["meta_info"]
                    given = certain
            meta = event["meta_info"] | ({"output_token_logprobs": logprobs} if logprobs else {})
            output = turn.read({"output_ids": ids, "meta_info": meta})
            turn.end(output.kept, output.text)
        yield output.text[given:], output.meta

    def select(
        self,
        s: StreamExecutor,
        choices: list[str],
        temperature: float,
        choices_method: ChoicesSamplingMethod | None = None,
    ) -> ChoicesDecision:
        """Choose by the model's probabilities of each option's own ids, which follow the prompt's.

        The method is upstream's if the program names one, else the likelihood (choices.py); a program that names
        upstream's default by its name cannot be told from one that names none, and gets the likelihood too.
        """
        method = likelihood if choices_method in (None, token_length_normalized) else choices_method
        with self._turn(s) as turn:
            if temperature > 1e-5:
                raise BackendError("A choice has no temperature, the most likely option is taken: leave it out.")
            if not choices or not all(isinstance(choice, str) and choice for choice in choices):
                raise BackendError("A choice needs options, each of them a text that is not empty.")
            options = [self.format.encode_text(choice) for choice in choices]
            scored = options
            if method is likelihood and overlap(options):
                scored = [[*option, self.format.control(SpecialTokens.eos)] for option in options]
            if len(turn.prompt) - turn.state.known > SHORT and len(options) > 1:
                self._prefill(turn)
            answers, began = self._ask(turn, turn.scoring(scored)), turn.began
            entries = [answer["meta_info"]["input_token_logprobs"][1:] for answer in answers]
            unconditional = None
            if method.requires_unconditional_logprobs:
                alone = {"input_ids": scored, "sampling_params": {"max_new_tokens": 0}, "return_logprob": True}
                alone["logprob_start_len"] = 0
                unconditional = [a["meta_info"]["input_token_logprobs"] for a in self._ask(turn, alone)]
            sums = [sum(entry[0] for entry in option) for option in entries]
            decision = method(
                choices=choices,
                normalized_prompt_logprobs=[total / len(option) for total, option in zip(sums, entries, strict=True)],
                input_token_logprobs=entries,
                output_token_logprobs=[answer["meta_info"]["output_token_logprobs"] for answer in answers],
                unconditional_token_logprobs=unconditional,
            )
            chosen, probabilities = choices.index(decision.decision), shares(sums)
            decision.meta_info = {
                **(decision.meta_info or {}),
                "method": type(method).__name__,
                "logprobs": sums,
                "probabilities": probabilities,
            }
            turn.record("select", decision.decision, _together(answers), probabilities[chosen], began)
            turn.end(options[chosen], decision.decision)
        return decision

    _handle_dtype_to_regex = RuntimeEndpoint._handle_dtype_to_regex

    # How it asks

    @contextmanager
    def _turn(self, s: StreamExecutor) -> Iterator["_Turn"]:
        """One step of a program: its prompt when it begins; a failure is recorded, and kept for who reads."""
        try:
            turn = _Turn(self, s)
        except PromptError as error:
            s.variables = _Failed(s.variables, BackendError(str(error)))
            raise s.variables.error from error
        try:
            yield turn
        except BackendError as error:
            turn.failed(error)
            s.variables = _Failed(s.variables, error)
            if turn.state.recorder is None and not turn.given_up():  # who reads a stream or the text sees no variable
                logger.warning("%s", error)
            raise

    def _generation(self, turn: "_Turn", sampling_params: SglSamplingParams) -> dict[str, Any]:
        self._handle_dtype_to_regex(sampling_params)
        sampling = sampling_params.to_srt_kwargs()
        if turn.state.thinking_budget is not None and turn.effort == "high":
            sampling["custom_params"] = {"thinking_budget": turn.state.thinking_budget}
        asked = {name: getattr(sampling_params, name) for name in ASKED if getattr(sampling_params, name) is not None}
        if turn.state.probabilities:
            asked["return_logprob"] = True
        return {"input_ids": turn.prompt, "sampling_params": sampling, **asked}

    def _prefill(self, turn: "_Turn") -> None:
        answer = self._ask(turn, {"input_ids": turn.prompt, "sampling_params": {"max_new_tokens": 0}})
        turn.record("prefill", "", answer["meta_info"], finish_reason="stop")
        turn.end((), "")

    def _ask(self, turn: "_Turn", fields: Mapping[str, Any]) -> Any:
        def once() -> Any:
            with self._in_flight(turn) as rid:
                return self._transport.generate({**fields, **self._routing}, rid)

        turn.began = turn.clock()
        return self._retried(once)

    def _events(self, turn: "_Turn", fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """A stream that could not begin is tried again; one that broke off is not."""
        turn.began = turn.clock()
        with ExitStack() as stack:

            def first() -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
                events = self._transport.stream({**fields, **self._routing}, stack.enter_context(self._in_flight(turn)))
                return next(events), events

            event, events = self._retried(first)
            yield event
            yield from events

    def _retried(self, request: Callable[[], Any]) -> Any:
        """The request's answer; the first try is made without stamina, which is a tenth of our time for a request."""
        try:
            return request()
        except Unreachable as error:
            if self._attempts == 1:
                raise
            time.sleep(FIRST_WAIT if error.after is None else error.after)
        for attempt in stamina.retry_context(
            on=_wait,
            attempts=self._attempts - 1,
            timeout=None,
            wait_initial=FIRST_WAIT,
            wait_max=LONGEST_WAIT,
            wait_jitter=FIRST_WAIT,
        ):
            with attempt:
                answer = request()
        return answer

    @contextmanager
    def _in_flight(self, turn: "_Turn") -> Iterator[str]:
        """A request's id, while it may be given up."""
        rid = new_rid()

        def abort() -> None:
            self._transport.abort(rid)

        given_up = turn.state.cancellation
        with self._open.covers(abort), given_up.covers(abort) if given_up else nullcontext():
            if turn.given_up():
                raise BackendError(GIVEN_UP)
            turn.sent = True
            yield rid

    def _encode_settings(self, effort: Effort, tools: str) -> tuple[int, ...]:
        return tuple(settings_ids(self.format, effort, orjson.loads(tools)))


class _Turn:
    """One step of a program on the way: the prompt that it begins with, and what becomes of it."""

    def __init__(self, backend: Small4Backend, executor: StreamExecutor) -> None:
        self.backend, self.executor = backend, executor
        self.state = state_of(executor.variables)
        self.transcript = self.state.transcript.follow(executor, backend.format)
        self.effort: Effort = self.state.effort or backend.effort
        settings = backend._settings(self.effort, orjson.dumps(self.state.tools).decode())
        self.prompt = self.transcript.ids(backend.format, settings)
        self.began = self.clock()
        self.sent = False  # whether any request of this step went out

    @property
    def opens_in(self) -> OpensIn:
        return opens_in(self.prompt, self.backend.format)

    def clock(self) -> float:
        return self.state.recorder.clock() if self.state.recorder else 0.0

    def given_up(self) -> bool:
        return self.state.cancellation is not None and self.state.cancellation.is_set()

    def scoring(self, options: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Ask for the log-probability of each option's ids: of everything behind the prompt's last id."""
        return {
            "input_ids": [[*self.prompt, *option] for option in options],
            "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": len(self.prompt) - 1,
        }

    def read(self, answer: Mapping[str, Any]) -> Output:
        output = read_output(answer, self.backend.format, self.opens_in)
        self.record("generate", output.text, output.meta, output.meta["probability"])
        return output

    def record(
        self,
        kind: Kind,
        text: str,
        meta: Mapping[str, Any],
        probability: float | None = None,
        began: float | None = None,
        finish_reason: str | None = None,
    ) -> None:
        """Record a node; it becomes the parent of what follows."""
        recorder = self.state.recorder
        if recorder is None:
            return
        began = self.began if began is None else began
        node = Node(
            id=recorder.next_id(),
            parent=self.state.parent,
            kind=kind,
            name=self.state.name,
            prompt=shown(self.prompt[self.state.known :], self.backend.format),
            text=text,
            trace=meta.get("trace"),
            prompt_tokens=meta.get("prompt_tokens", 0),
            cached_tokens=meta.get("cached_tokens", 0),
            completion_tokens=meta.get("completion_tokens", 0),
            trace_tokens=meta.get("reasoning_tokens", 0),
            began=began,
            seconds=recorder.clock() - began,
            finish_reason=finish_reason or (meta.get("finish_reason") or {}).get("type", ""),
            probability=probability,
        )
        recorder.record(node)
        self.state = replace(self.state, parent=node.id, known=len(self.prompt))

    def failed(self, error: BackendError) -> None:
        """A node for a request that failed; one that was given up before it was sent is none."""
        if self.sent or not self.given_up():
            self.record("generate", str(error), {}, finish_reason="abort" if self.given_up() else "error")

    def end(self, ids: Sequence[int], text: str) -> None:
        """What was said becomes part of the program's state."""
        self.transcript = self.transcript.output(ids, text) if ids or text else self.transcript
        known = len(self.prompt) + len(ids) if self.state.recorder else 0
        self.executor.variables[STATE] = replace(self.state, transcript=self.transcript, known=known)


class _Failed(dict):
    """The variables of a state whose request failed: reading one that never came says why."""

    def __init__(self, variables: Mapping[str, Any], error: BackendError) -> None:
        super().__init__(variables)
        self.error = error

    def __missing__(self, name: str) -> Any:
        raise self.error


def _nothing() -> None:
    """What is left of ending a program that has ended."""


def shown(ids: Sequence[int], format: PromptFormat) -> str:
    """Ids as a reader sees them: text, with control ids by name."""
    parts, text = [], bytearray()
    for id in ids:
        if id in format.control_ids:
            parts += [text.decode("utf-8", "replace"), format.tokenizer.id_to_piece(id)]
            text.clear()
        else:
            text += format.text_bytes(id)
    return "".join([*parts, text.decode("utf-8", "replace")])


def _new(output_ids: list[int], have: int, total: int) -> list[int]:
    """The ids of an event that are not there yet, whether the server sends all or the new ones alone."""
    return output_ids[have:] if len(output_ids) == total else output_ids


def _together(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of one request with several prompts."""
    metas = [answer["meta_info"] for answer in answers]
    counts = {name: sum(meta.get(name, 0) for meta in metas) for name in ("prompt_tokens", "cached_tokens")}
    return {**counts, "finish_reason": {"type": "stop"}}


def _wait(error: Exception) -> bool | float:
    """Whether a request may be sent again; where the server said in how many seconds, these."""
    if not isinstance(error, Unreachable):
        return False
    return True if error.after is None else error.after
