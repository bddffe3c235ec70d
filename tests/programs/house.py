"""The graph door in front of a small app, with a solver that tests play: what a door's tests share."""

import asyncio
import json
import threading
from typing import Any

import httpx
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from programs.door import GraphDoor
from programs.errors import ProgramError
from programs.graph import Graph
from programs.result import Result
from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.node import Node

MESSAGES = [{"role": "user", "content": "What is 47+86?"}]
CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}


def node(id: int, trace: str | None = None, trace_tokens: int = 0) -> Node:
    counts = {"prompt_tokens": 20, "cached_tokens": 16 * id, "completion_tokens": 7 + trace_tokens}
    times = {"began": 0.0, "seconds": 0.1}
    more = {"trace_tokens": trace_tokens, "finish_reason": "stop", **counts, **times}
    return Node(id=id, parent=None, kind="generate", name="direct", prompt="<b>hi</b>", text="133", trace=trace, **more)


def answered(answer: str = "133", trace: str | None = "40+80=120, 7+6=13", state: Any = "answered") -> Result:
    graph = Graph("auto", "What is 47+86?")
    graph.record(node(graph.next_id()))
    graph.record(node(graph.next_id(), trace, 30))
    graph.finish(answer, state, 0.9)
    return Result("What is 47+86?", answer, answer, trace, 0.9, "auto", state, graph)


class Solver:
    """Stands for `programs.effort.solve`: keeps what it was called with and gives `outcome`, or raises it."""

    def __init__(self, outcome: Result | BaseException | None = None) -> None:
        self.outcome = outcome or answered()
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.cancelled = threading.Event()

    def __call__(self, question: Any, *, cancel: Cancellation, **options: Any) -> Result:
        self.calls.append((question, options))
        while not self.go_on.wait(0.005):
            if cancel.is_set():
                self.cancelled.set()
                raise ProgramError("It was given up.")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Engine:
    """Stands for SGLang's app: keeps the bodies that reach it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.app = Starlette(routes=[Route("/{path:path}", self.take, methods=["GET", "POST", "OPTIONS"])])

    async def take(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        return Response(f"engine {request.method} {request.url.path}")


class House:
    """The door with a solver behind it and an engine beside it."""

    def __init__(self, outcome: Result | BaseException | None = None, **settings: Any) -> None:
        self.solver, self.engine = Solver(outcome), Engine()
        self.backends = 0
        self.door = GraphDoor(self.engine.app, solve=self.solver, backend=self.backend, model="nano", **settings)

    def backend(self) -> str:
        self.backends += 1
        return "the backend"

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.door), base_url="http://door")

    def post(self, body: Any, path: str = CHAT, **more: Any) -> httpx.Response:
        return asyncio.run(self._send("POST", path, body, **more))

    def get(self, path: str, method: str = "GET") -> httpx.Response:
        return asyncio.run(self._send(method, path, None))

    async def _send(self, method: str, path: str, body: Any, **more: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        async with self.client() as client:
            headers = {"Content-Type": "application/json"} | more.pop("headers", {})
            return await client.request(method, path, content=content, headers=headers, **more)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "nano", "messages": MESSAGES, "reasoning_effort": "auto", **fields}


def refused(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == status
    return error["message"]


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
