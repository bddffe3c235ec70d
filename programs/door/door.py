"""Graphs behind the chat API: the efforts `auto` and `deliberate` on /v1/chat/completions, answered by running a graph.

A pure ASGI middleware in front of SGLang's own app. It answers

- POST /v1/chat/completions where the effort is one of the two; the graph's own requests go to the same server;
- GET /v1/graphs/ID (JSON), ID.html and ID.svg for the graphs that it ran last.

Everything else passes as it came. Of a chat request that passes, the body is searched once for such an effort.
"""

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from programs.door.asked import Asked, graph_body
from programs.door.completion import DONE, STILL_RUNNING, Completion, error_body, event
from programs.door.shelf import Shelf
from programs.errors import ProgramError
from programs.graph import Graph
from programs.result import Result
from sgl_small4.admission import RequestError
from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.format import PromptError
from sgl_small4.prompt.transport import BackendError, Refused, Unreachable

CHAT = "/v1/chat/completions"
GRAPHS = "/v1/graphs/"
AT_ONCE = 32  # graphs; each is one thread that waits, and its requests queue like any others
RETRY_AFTER = 5  # seconds
KEPT = 256  # graphs
KEPT_BYTES = 64 * 2**20  # of their JSON
OPENING_SECONDS = 0.25  # a graph that is refused within them is a 400, streamed or not
KEEP_ALIVE_SECONDS = 10.0  # proxies cut a stream that is silent for 30 or 60

# Nothing of a page may be fetched or run: it shows texts of users, documents and models.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
VIEWS: dict[str, tuple[str, Callable[[Graph], str]]] = {
    ".html": ("text/html", lambda graph: graph.html()),
    ".svg": ("image/svg+xml", lambda graph: graph.svg()),
}

Solve = Callable[..., Result]
logger = logging.getLogger(__name__)


class GraphDoor:
    """`solve` is `programs.effort.solve`; `backend` makes what it asks, once, at the first graph. `model` is the name
    that is served, `cache_report` whether responses count cached tokens, `at_once` how many graphs may run."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        solve: Solve,
        backend: Callable[[], Any],
        model: str,
        cache_report: bool = True,
        at_once: int = AT_ONCE,
    ) -> None:
        self._app = app
        self._solve = solve
        self._make_backend = backend
        self._backend: Any = None
        self._backend_lock = threading.Lock()
        self._model = model
        self._cache_report = cache_report
        self._at_once = at_once
        self._running = 0
        self._shelf = Shelf(KEPT, KEPT_BYTES)
        self._view_lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path == CHAT and scope["method"] == "POST":
                await self._chat(scope, receive, send)
                return
            if path.startswith(GRAPHS) and scope["method"] != "OPTIONS":
                response = await self._view(scope["method"], path.removeprefix(GRAPHS))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages = [await receive()]
        while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
            messages.append(await receive())
        body = _graph_body(scope, messages)
        if body is None:
            await self._app(scope, _replay(messages, receive), send)
            return
        messages.clear()  # a large body is not held while the graph runs
        try:
            asked = await asyncio.to_thread(Asked.of, body, self._model)  # compiles constraints
        except (PromptError, RequestError) as refused:
            await _refusal(400, str(refused))(scope, receive, send)
            return
        except RecursionError:
            sentence = "The request is nested too deep: no field of it needs so many levels."
            await _refusal(400, sentence)(scope, receive, send)
            return
        if self._running >= self._at_once:
            sentence = (
                f"{self._running} graphs are running, as many as may at once; try again in {RETRY_AFTER} seconds."
            )
            await _refusal(503, sentence)(scope, receive, send)
            return
        completion = Completion(asked, scope.get("root_path", "") + GRAPHS, self._cache_report)
        await self._answer(asked, completion, scope, receive, send)

    async def _answer(self, asked: Asked, completion: Completion, scope: Scope, receive: Receive, send: Send) -> None:
        cancel = Cancellation()
        outcome = self._start(asked, cancel)
        gone = asyncio.ensure_future(_hang_up(receive))
        try:
            opened = False
            await _first_of(outcome, gone, OPENING_SECONDS if asked.stream else None)
            while asked.stream and not (outcome.done() or gone.done()):
                await _send_part(send, STILL_RUNNING if opened else completion.opening(), first=not opened)
                opened = True
                await _first_of(outcome, gone, KEEP_ALIVE_SECONDS)
            if not outcome.done():
                if not opened:
                    await Response(status_code=499)(scope, receive, send)  # nobody reads it; access logs show it
                return
            result = outcome.result()
            status, sentence = refusal_of(result)
            if isinstance(result, Result) and not sentence:
                if not asked.stream:
                    await Response(completion.whole(result), media_type="application/json")(scope, receive, send)
                    return
                if not opened:
                    await _send_part(send, completion.opening(), first=True)
                await _send_part(send, completion.rest(result), last=True)
            elif opened:
                await _send_part(send, event(error_body(status, sentence)) + DONE, last=True)
            else:
                await _refusal(status, sentence)(scope, receive, send)
        finally:
            gone.cancel()
            if not outcome.done():
                # Not in this thread: it asks the server that this loop serves to abort what runs.
                threading.Thread(target=cancel.set, name="small4-cancel", daemon=True).start()

    def _start(self, asked: Asked, cancel: Cancellation) -> "asyncio.Future[Result | BaseException]":
        """Run the graph in a thread of its own; the future holds its result, or what it raised.

        SGLang's HTTP side checks constraints in the loop's default threads: graphs that waited there for their own
        requests could wait for each other.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Result | BaseException] = loop.create_future()

        def finish(result: Result | BaseException) -> None:
            self._running -= 1
            if not outcome.done():
                outcome.set_result(result)

        def run() -> None:
            try:
                result: Result | BaseException = self._solved(asked, cancel)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the request is answered and its slot freed
                result = error
            try:
                loop.call_soon_threadsafe(finish, result)
            except RuntimeError:
                pass  # the server has ended

        threading.Thread(target=run, name="small4-graph", daemon=True).start()
        self._running += 1
        return outcome

    def _solved(self, asked: Asked, cancel: Cancellation) -> Result:
        with self._backend_lock:
            if self._backend is None:
                self._backend = self._make_backend()
        result = self._solve(asked.messages, effort=asked.effort, backend=self._backend, cancel=cancel, **asked.options)
        self._shelf.put(result.graph.id, result.graph.json().encode())
        return result

    async def _view(self, method: str, name: str) -> Response:
        """The response for /v1/graphs/`name`."""
        if method not in ("GET", "HEAD"):
            response = _refusal(405, f"A graph is read with GET, not {method}.")
            response.headers["Allow"] = "GET, HEAD"
            return response
        id, dot, kind = name.partition(".")
        stored = self._shelf.get(id)
        if stored is None or (dot and dot + kind not in VIEWS):
            kept = f"there are ID, ID.html and ID.svg for the last {KEPT} graphs"
            return _refusal(404, f"There is no graph {name!r:.80}: {kept}.")
        if not dot:
            return Response(stored, media_type="application/json", headers=PAGE_HEADERS)
        media_type, draw = VIEWS[dot + kind]
        text = await asyncio.to_thread(self._drawn, stored, draw)
        return Response(text, media_type=media_type, headers=PAGE_HEADERS)

    def _drawn(self, stored: bytes, draw: Callable[[Graph], str]) -> str:
        with self._view_lock:  # one at a time: whoever looks at graphs takes one core at most from the model
            return draw(Graph.from_dict(json.loads(stored)))


def refusal_of(outcome: Result | BaseException) -> tuple[int, str]:
    """The status and the sentence for a graph that came to nothing; (200, "") for one that came to something."""
    match outcome:
        case Result(state="failed"):
            return 500, outcome.error or "The graph failed."
        case Result():
            return 200, ""
        case PromptError() | RequestError() | ProgramError():
            return 400, str(outcome)
        case Unreachable():
            return 503, str(outcome)
        case Refused():  # such as a prompt that does not fit; the sentence is this server's own
            return 400, outcome.said
        case BackendError():
            return 500, str(outcome)
    logger.error("A graph failed for a reason of this server's own.", exc_info=outcome)
    return 500, "The graph failed for a reason of the server's own, which its log tells."


def _refusal(status: int, sentence: str) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else None
    return Response(orjson.dumps(error_body(status, sentence)), status, headers, "application/json")


def _graph_body(scope: Scope, messages: list[Message]) -> dict[str, Any] | None:
    """The JSON of a whole body that asks for a graph; what is no JSON by its header is SGLang's to refuse."""
    content_type = Headers(scope=scope).get("content-type", "").lower().split(";", 1)[0]
    if messages[-1]["type"] != "http.request" or content_type != "application/json":
        return None
    return graph_body(b"".join(message.get("body", b"") for message in messages))


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """What was received already, message by message, and then what comes."""
    waiting = messages[::-1]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first_of(outcome: "asyncio.Future[Any]", gone: "asyncio.Future[Any]", seconds: float | None) -> None:
    await asyncio.wait((outcome, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


async def _send_part(send: Send, part: bytes, first: bool = False, last: bool = False) -> None:
    if first:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": part, "more_body": not last})
