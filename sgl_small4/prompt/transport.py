"""Requests to a served engine: over HTTP, or to a `sglang.Engine` in this process.

Both take the fields of SGLang's `/generate` with `input_ids`, give its answer, and abort a request by its id.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from uuid import uuid4

import orjson
import urllib3
from pydantic import BaseModel, ConfigDict, ValidationError

from sgl_small4.errors import UserError

CONNECT_SECONDS = 5.0
LONGEST_ASKED = 600.0  # seconds that a server may have a request wait
CONNECTIONS = 1024  # kept open; more are made where they are needed
ROUTING_KEY = "X-SMG-Routing-Key"  # where SGLang's gateway looks for what the field `routing_key` says

Fields = Mapping[str, Any]


class BackendError(UserError):
    """What went wrong with a request, in one sentence."""


class Refused(BackendError):
    """The server refused a request as the client's mistake; `said` is its own sentence."""

    def __init__(self, where: str, status: int, said: str) -> None:
        super().__init__(f"{where} refused a request ({status}): {said}")
        self.status, self.said = status, said


class Unreachable(BackendError):
    """The server could not be reached, or had no room: the same request may do later; in `after` seconds, where it
    says so."""

    def __init__(self, said: str, after: float | None = None) -> None:
        super().__init__(said)
        self.after = after


class _Unknown(BackendError):
    """The server does not know a path."""


class Transport(Protocol):
    """Where requests go. `rid` is the request's id, new for each try."""

    where: str

    def model_info(self) -> dict[str, Any]:
        """The model's path, type and tokenizer as `/model_info` has them, and `context_length` in tokens,
        None where a gateway does not tell it."""

    def generate(self, fields: Fields, rid: str) -> Any:
        """The whole answer: an object, or a list of them for several prompts or samples."""

    def stream(self, fields: Fields, rid: str) -> Iterator[dict[str, Any]]:
        """The answer as it grows."""

    def abort(self, rid: str) -> None:
        """Give a request up; its answer comes back with finish reason `abort`."""

    def close(self) -> None:
        """Let go of connections and threads. The engine goes on."""


def new_rid() -> str:
    """SGLang aborts every request whose id begins with the one given, so ids are of one length and random."""
    return uuid4().hex


class _Info(BaseModel):
    """What is read of `/model_info`."""

    model_config = ConfigDict(protected_namespaces=())

    model_path: str
    tokenizer_path: str | None = None
    model_type: str | None = None


class _Model(BaseModel):
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model] = []


class _Served(BaseModel):
    context_length: int | None = None


class _Worker(BaseModel):
    models: list[_Served] = []


class _Workers(BaseModel):
    """What a gateway says of the servers behind it at `/workers`."""

    workers: list[_Worker] = []


class HttpTransport:
    """A server by its URL. `timeout`: seconds without a byte of an answer."""

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        self.where = f"The server at {url}"
        self._url, self._timeout = url, timeout
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        # Not httpx: its one pool looks at every connection at each request's begin and end, which for 32 programs at
        # once costs more than all else that we do.
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS, retries=False, timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout)
        )

    def model_info(self) -> dict[str, Any]:
        try:
            info = _Info.model_validate(self._info())
            models = _Models.model_validate(self._read("GET", "/v1/models"))
        except ValidationError as error:
            raise BackendError(f"{self.where} is no SGLang server: it does not say which model it serves.") from error
        told = models.data[0].max_model_len if models.data else None
        return {**info.model_dump(), "context_length": told or self._smallest_context()}

    def _info(self) -> Any:
        try:
            return self._read("GET", "/model_info")
        except _Unknown as error:
            try:
                return self._read("GET", "/get_model_info")  # its former name, the one that smg 1.13 passes on
            except _Unknown:
                raise error from None

    def _smallest_context(self) -> int | None:
        """Of the servers behind a gateway; None where it does not tell, or where this is none."""
        try:
            workers = _Workers.model_validate(self._read("GET", "/workers")).workers
        except (BackendError, ValidationError):
            return None
        return min((model.context_length for w in workers for model in w.models if model.context_length), default=None)

    def generate(self, fields: Fields, rid: str) -> Any:
        answer = self._read("POST", "/generate", {**fields, "rid": rid})
        if all(map(_is_answer, answer if isinstance(answer, list) and answer else [answer])):
            return answer
        raise BackendError(f"{self.where} is no SGLang server: its answer has no ids.")

    def stream(self, fields: Fields, rid: str) -> Iterator[dict[str, Any]]:
        response = self._send("POST", "/generate", {**fields, "rid": rid, "stream": True}, stream=True)
        try:
            for line in response:
                if line.startswith(b"data:") and line.strip() != b"data: [DONE]":
                    event = orjson.loads(line[5:])
                    if isinstance(event, dict) and "error" in event:
                        raise BackendError(f"{self.where} ended a stream: {_said(event)}")
                    if not _is_answer(event):
                        raise BackendError(f"{self.where} is no SGLang server: its stream has no ids.")
                    yield event
        except urllib3.exceptions.HTTPError as error:
            raise self._lost(error) from error
        except orjson.JSONDecodeError as error:
            raise BackendError(f"{self.where} is no SGLang server: its stream is not JSON.") from error
        finally:
            response.close()

    def abort(self, rid: str) -> None:
        try:
            self._pool.request(
                "POST",
                f"{self._url}/abort_request",
                body=orjson.dumps({"rid": rid}),
                headers=self._headers,
                timeout=CONNECT_SECONDS,
            )
        except urllib3.exceptions.HTTPError:
            pass  # a server that is gone runs nothing any more

    def close(self) -> None:
        self._pool.clear()

    def _read(self, method: str, path: str, body: Fields | None = None) -> Any:
        response = self._send(method, path, body)
        try:
            return orjson.loads(response.data)
        except orjson.JSONDecodeError as error:
            raise BackendError(f"{self.where} is no SGLang server: its answer is not JSON.") from error

    def _send(
        self, method: str, path: str, body: Fields | None = None, stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        content = None if body is None else orjson.dumps(body)
        key = body.get("routing_key") if body else None
        headers = {**self._headers, ROUTING_KEY: key} if key else self._headers
        try:
            response = self._pool.request(
                method, self._url + path, body=content, headers=headers, preload_content=not stream
            )
            if response.status == 200:
                return response
            said = response.data
        except urllib3.exceptions.HTTPError as error:
            raise self._lost(error) from error
        if response.status in (429, 503):
            asked = response.headers.get("Retry-After", "")  # a date, its other form, is not heeded
            after = min(float(asked), LONGEST_ASKED) if asked.isascii() and asked.isdigit() else None
            raise Unreachable(f"{self.where} has no room or is not ready: {_message(said)}", after)
        if response.status in (401, 403):
            raise BackendError(f"{self.where} refused the key ({response.status}): give api_key.")
        if response.status == 404:
            raise _Unknown(f"{self.where} is no SGLang server: it does not know {path}.")
        if response.status < 500:
            raise Refused(self.where, response.status, _message(said))
        raise BackendError(f"{self.where} failed at a request ({response.status}): {_message(said)}")

    def _lost(self, error: urllib3.exceptions.HTTPError) -> BackendError:
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            return BackendError(f"{self.where} said nothing for {self._timeout:g} s: give more time, or ask for less.")
        reason = str(error).partition("): ")[2] or str(error)  # without urllib3's name of the connection
        return Unreachable(f"{self.where} cannot be reached ({reason}): is it running?")


class EngineTransport:
    """A `sglang.Engine` in this process. Its event loop runs in a thread of ours from now on, so that programs can ask
    from several threads; the engine's own blocking calls need that loop, and wait until `close`."""

    where = "The engine"

    def __init__(self, engine: Any, timeout: float) -> None:
        self._engine, self._timeout = engine, timeout
        self._loop: asyncio.AbstractEventLoop = engine.loop
        self._thread = threading.Thread(target=self._loop.run_forever, name="small4-engine", daemon=True)
        self._thread.start()

    def model_info(self) -> dict[str, Any]:
        manager = self._engine.tokenizer_manager
        return {
            "model_path": manager.server_args.model_path,
            "tokenizer_path": manager.server_args.tokenizer_path,
            "model_type": manager.model_config.hf_config.model_type,
            "context_length": manager.model_config.context_len,
        }

    def generate(self, fields: Fields, rid: str) -> Any:
        return self._wait(self._engine.async_generate(**_engine_fields(fields), rid=self._rids(fields, rid)), rid)

    def stream(self, fields: Fields, rid: str) -> Iterator[dict[str, Any]]:
        outputs = self._wait(self._engine.async_generate(**_engine_fields(fields), rid=rid, stream=True), rid)
        ended = object()
        try:
            while (event := self._wait(anext(outputs, ended), rid)) is not ended:
                yield event
        finally:
            self._wait(outputs.aclose(), rid)

    def abort(self, rid: str) -> None:
        self._loop.call_soon_threadsafe(self._engine.tokenizer_manager.abort_request, rid)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _rids(self, fields: Fields, rid: str) -> Any:
        several = isinstance(fields["input_ids"][0], list)
        return [f"{rid}_{index}" for index in range(len(fields["input_ids"]))] if several else rid

    def _wait(self, awaitable: Any, rid: str) -> Any:
        future = asyncio.run_coroutine_threadsafe(_awaited(awaitable), self._loop)
        try:
            return future.result(self._timeout)
        except TimeoutError as error:
            future.cancel()
            self.abort(rid)
            raise BackendError(
                f"The engine gave nothing for {self._timeout:g} s: give more time, or ask for less."
            ) from error
        except ValueError as error:  # what SGLang's request checks, and ours, raise
            raise Refused(self.where, 400, str(error)) from error


def transport_of(target: Any, api_key: str | None, timeout: float) -> Transport:
    """The way to a server's URL or to an engine of this process; a transport is its own."""
    if isinstance(target, str):
        if not target.startswith(("http://", "https://")):
            raise BackendError(f"{target!r} is no server's URL: it begins with http:// or https://.")
        return HttpTransport(target.rstrip("/"), api_key, timeout)
    if hasattr(target, "tokenizer_manager"):
        return EngineTransport(target, timeout)
    if not hasattr(target, "generate"):
        raise BackendError(f"{target!r:.80} is neither a server's URL nor a sglang.Engine.")
    return target


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _engine_fields(fields: Fields) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ("return_text_in_logprobs", "routing_key")}


def _is_answer(value: Any) -> bool:
    """Whether it has the form of one answer of /generate."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("output_ids"), list)
        and isinstance(value.get("meta_info"), dict)
    )


def _message(body: bytes) -> str:
    try:
        return _said(orjson.loads(body))
    except orjson.JSONDecodeError:
        return body[:200].decode("utf-8", "replace") or "no reason given."


def _said(body: Any) -> str:
    """The sentence of an error in any of SGLang's forms."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    return str(error.get("message", error) if isinstance(error, Mapping) else error)[:500]
