"""One streamed question to an OpenAI-compatible server, with trace and answer told apart."""

import time
from collections.abc import Callable, Iterator
from typing import Literal

import httpx
from pydantic import BaseModel, ValidationError

from launch.errors import LaunchError
from programs.chat_api import Models, Wire, base_url, refusal

Effort = Literal["none", "high"]
Part = Literal["trace", "answer"]
Message = dict[str, str]

# No limit on the time between two tokens: a long document on a small host takes minutes to read. A server that dies
# closes its connection.
TIMEOUT = httpx.Timeout(None, connect=5.0)


class Reply(BaseModel):
    """What one question cost and gave; `effort` is the one the server used, `cached_tokens` None where it says none."""

    answer: str
    trace: str
    effort: Effort
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    seconds: float


class _Delta(Wire):
    content: str | None = None
    reasoning_content: str | None = None

    def pieces(self) -> Iterator[tuple[Part, str]]:
        if self.reasoning_content:
            yield "trace", self.reasoning_content
        if self.content:
            yield "answer", self.content


class _Choice(Wire):
    delta: _Delta
    finish_reason: str | None = None


class _PromptDetails(Wire):
    cached_tokens: int | None = None


class _Usage(Wire):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _PromptDetails | None = None


class _Error(Wire):
    message: str


class _Metadata(Wire):
    reasoning_effort: Effort | None = None


class _Chunk(Wire):
    choices: list[_Choice] = []
    metadata: _Metadata | None = None
    usage: _Usage | None = None
    error: _Error | None = None


def ask(server: str, messages: list[Message], effort: Effort, show: Callable[[Part, str], None]) -> Reply:
    """Send one chat request, hand each piece to `show` as it comes, and return the whole reply.

    Raises LaunchError when nobody answers, the request is refused, or the server goes away before the end.
    """
    url = base_url(server)
    text: dict[Part, str] = {"trace": "", "answer": ""}
    usage, finish, used = None, None, effort
    started = time.perf_counter()
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
            model = _served_model(client, url)
            for chunk in _stream(client, model, messages, effort):
                usage = chunk.usage or usage
                used = (chunk.metadata and chunk.metadata.reasoning_effort) or used
                for choice in chunk.choices:
                    finish = choice.finish_reason or finish
                    for part, piece in choice.delta.pieces():
                        text[part] += piece
                        show(part, piece)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise LaunchError(f"No server answers at {url}: start one with `small4 serve`, or correct --server.") from error
    except httpx.TransportError as error:
        raise _gone(url) from error
    except ValidationError as error:
        raise LaunchError(f"What answers at {url} is not an OpenAI-compatible server: correct --server.") from error
    if usage is None or finish is None or finish == "abort":
        raise _gone(url)
    if finish == "length":
        raise LaunchError(
            f"The reply was cut off after {usage.completion_tokens} tokens, where the server's context ends: "
            "ask for less, or serve with a larger --context-length."
        )
    details = usage.prompt_tokens_details
    return Reply(
        answer=text["answer"],
        trace=text["trace"],
        effort=used,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=details.cached_tokens if details else None,
        seconds=round(time.perf_counter() - started, 3),
    )


def _served_model(client: httpx.Client, url: str) -> str:
    response = client.get("/v1/models")
    if response.status_code != 200:
        raise LaunchError(f"What answers at {url} lists no models (HTTP {response.status_code}): correct --server.")
    return Models.model_validate_json(response.content).data[0].id


def _stream(client: httpx.Client, model: str, messages: list[Message], effort: Effort) -> Iterator[_Chunk]:
    request = {
        "model": model,
        "messages": messages,
        "reasoning_effort": effort,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with client.stream("POST", "/v1/chat/completions", json=request) as response:
        if response.status_code != 200:
            response.read()
            said = refusal(response) or f"HTTP {response.status_code}"
            raise LaunchError(f"The server refused the question: {said}")
        for line in response.iter_lines():
            data = line.removeprefix("data: ")
            if data == line or data == "[DONE]":
                continue
            chunk = _Chunk.model_validate_json(data)
            if chunk.error:
                raise LaunchError(f"The server stopped the answer: {chunk.error.message}")
            yield chunk


def _gone(url: str) -> LaunchError:
    return LaunchError(f"The server at {url} went away in the middle of the answer: see its log and ask again.")
