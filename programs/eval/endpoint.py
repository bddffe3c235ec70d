"""Any OpenAI-compatible server, asked the same cases."""

import logging
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import stamina
from pydantic import Field, NonNegativeInt, ValidationError

from programs.chat_api import Models, Wire, base_url, refusal
from programs.errors import ProgramError
from programs.eval.cases import Case
from programs.eval.reply import Reply, failed, replied
from programs.eval.tags import take_out_trace
from programs.eval.usage import Counts

EFFORTS = ("none", "high")  # what can be sent as `reasoning_effort`
ATTEMPTS = 4
LONGEST_WAIT = 60.0  # seconds, whatever a server's Retry-After says
RETRIED = (429, 502, 503, 504)
CONNECT_SECONDS = 5.0


class _Message(Wire):
    """`content` is text, or Mistral's list of text and thinking chunks; the trace has three names in the wild."""

    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class _Choice(Wire):
    message: _Message
    finish_reason: str | None = None


class _Completion(Wire):
    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


class _PromptDetails(Wire):
    cached_tokens: NonNegativeInt | None = None


class _CompletionDetails(Wire):
    reasoning_tokens: NonNegativeInt | None = None


class _Usage(Wire):
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    total_tokens: NonNegativeInt | None = None
    reasoning_tokens: NonNegativeInt | None = None  # SGLang's place for it
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Later(Exception):
    """The same request may do later, after `wait` seconds where the server said how many."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


# A retry is announced by stamina's logger; ours ends in a reply or in a failure that says all.
logging.getLogger("stamina").addFilter(lambda record: "_Later(" not in str(vars(record).get("stamina.caused_by")))


def answers(url: str) -> bool:
    """Whether a server still takes connections, tried twice; one that is slow does."""
    for pause in (0.2, 0.0):
        try:
            httpx.get(f"{url}/v1/models", timeout=CONNECT_SECONDS, trust_env=_trusts_proxies(url))
            return True
        except httpx.ReadTimeout:
            return True
        except httpx.TransportError:
            time.sleep(pause)
    return False


class Server:
    """A base URL with or without `/v1`; its first model unless one is named.

    Raises ProgramError where nobody answers or what answers lists no models and none is named.
    """

    def __init__(self, url: str, model: str | None = None, key: str | None = None, timeout: float = 600.0) -> None:
        self.url = base_url(url)
        try:
            self._client = httpx.Client(
                base_url=self.url,
                timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
                headers={"Authorization": f"Bearer {key}"} if key else {},
                trust_env=_trusts_proxies(self.url),
            )
            self.model = model or self._first_model()
        except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
            raise ProgramError(f"No server answers at {self.url}: start it, or correct --against.") from error

    def post(self, body: dict[str, Any]) -> httpx.Response:
        """The response, of a few attempts where connections fail or the server is busy. Raises _Later where none came
        through, httpx.TimeoutException where one took too long: the same again would take as long."""
        for attempt in stamina.retry_context(
            on=_again, attempts=ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=8.0, wait_jitter=0.5
        ):
            with attempt:
                try:
                    response = self._client.post("/v1/chat/completions", json=body)
                except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout):
                    raise
                except httpx.TransportError as error:
                    raise _Later(f"the connection failed, {type(error).__name__}") from error
                if response.status_code in RETRIED:
                    raise _Later(_refusal(response), _retry_after(response))
        return response

    def alive(self) -> bool:
        return answers(self.url)

    def close(self) -> None:
        self._client.close()

    def _first_model(self) -> str:
        response = self._client.get("/v1/models", timeout=30.0)
        try:
            if response.status_code == 200:
                return Models.model_validate_json(response.content).data[0].id
        except ValidationError:
            pass  # said below
        raise ProgramError(
            f"What answers at {self.url} lists no models ({_refusal(response)}): name one with --against-model, or "
            "correct --against."
        )


class Endpoint:
    """A server at effort none or high. Raises ProgramError for the efforts that are graphs of ours."""

    def __init__(
        self, server: Server, effort: str, temperature: float | None = None, max_tokens: int | None = None
    ) -> None:
        if effort not in EFFORTS:
            raise ProgramError(
                f"Effort {effort!r} is a graph of small4's and cannot be asked of {server.url}: "
                "compare it at none and high."
            )
        self.name = server.model
        self.effort = effort
        self._server = server
        limits = {"temperature": temperature, "max_tokens": max_tokens}
        self._fixed: dict[str, Any] = {"model": server.model, "reasoning_effort": effort, "stream": False}
        self._fixed |= {name: value for name, value in limits.items() if value is not None}

    def ask(self, case: Case) -> Reply:
        began = time.perf_counter()
        document = [{"role": "system", "content": case.document}] if case.document else []
        messages = [*document, {"role": "user", "content": case.question}]
        try:
            response = self._server.post({**self._fixed, "messages": messages})
        except _Later as error:
            return failed(f"{error} ({ATTEMPTS} attempts)", time.perf_counter() - began)
        except httpx.TimeoutException:
            return failed("no reply within the time limit", time.perf_counter() - began)
        seconds = time.perf_counter() - began
        if response.status_code != 200:
            return failed(_refusal(response), seconds)
        try:
            completion = _Completion.model_validate_json(response.content)
        except ValidationError:
            return failed(f"the reply is no chat completion: {_refusal(response)}", seconds)
        return _reply(completion, seconds)

    def stop(self) -> None:
        """Nothing to give up: a request under way ends with the process."""

    def alive(self) -> bool:
        return self._server.alive()


def _trusts_proxies(url: str) -> bool:
    """A proxy of the environment is for other machines."""
    return urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1")


def _reply(completion: _Completion, seconds: float) -> Reply:
    choice = completion.choices[0]
    message = choice.message
    trace = message.reasoning_content or message.reasoning or ""
    content = message.content
    if isinstance(content, list):
        trace += "".join(_texts(chunk) for chunk in content if chunk.get("type") == "thinking")
        content = "".join(_texts(chunk) for chunk in content if chunk.get("type") in ("text", "output_text"))
    answer, inside, tagged = take_out_trace(content or message.refusal or "")
    counts = _counts(completion.usage)
    if choice.finish_reason in ("abort", "error"):
        return failed(f"the server ended the reply ({choice.finish_reason})", seconds)
    return replied(answer, trace + inside, seconds, counts, choice.finish_reason == "length", tagged)


def _texts(chunk: Any) -> str:
    """The text of a chunk of content, and of the chunks within it."""
    if isinstance(chunk, dict):
        return "".join(_texts(chunk.get(name)) for name in ("text", "thinking"))
    if isinstance(chunk, list):
        return "".join(map(_texts, chunk))
    return chunk if isinstance(chunk, str) else ""


def _counts(usage: Any) -> Counts | None:
    try:
        read = _Usage.model_validate(usage)
    except ValidationError:
        return None  # no usage, or none that can be trusted: the report says how many
    prompt, completion = read.prompt_tokens_details, read.completion_tokens_details
    reasoning = completion.reasoning_tokens if completion else None
    return Counts(
        prompt=read.prompt_tokens,
        completion=read.completion_tokens,
        cached=(prompt.cached_tokens if prompt else None) or 0,
        reasoning=read.reasoning_tokens if reasoning is None else reasoning,
        total=read.total_tokens,
    )


def _again(error: Exception) -> bool | float:
    """After the wait that the server asks for, else stamina's."""
    if not isinstance(error, _Later):
        return False
    return True if error.wait is None else error.wait


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(max(0.0, float(response.headers.get("Retry-After", ""))), LONGEST_WAIT)
    except ValueError:
        return None  # absent, or a date: the usual waits


def _refusal(response: httpx.Response) -> str:
    said = refusal(response)[:300]
    return f"HTTP {response.status_code}: {said}" if said else f"HTTP {response.status_code}"
