"""The graph door in front of a small app: what it passes on, what it answers, what it refuses."""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from programs import door as door_module
from programs.asked import graph_body
from programs.door import GraphDoor, Shelf
from programs.effort import MARKS
from programs.errors import ProgramError
from programs.graph import Graph
from programs.result import Result
from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.format import PromptError
from sgl_small4.prompt.node import Node
from sgl_small4.prompt.transport import BackendError, HttpTransport, Unreachable

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


# What passes as it came


PASSING = {
    "high": orjson.dumps(chat(reasoning_effort="high")),
    "no effort": orjson.dumps({"model": "nano", "messages": MESSAGES}),
    "auto in the text": orjson.dumps(
        {"messages": [{"role": "user", "content": 'Explain "reasoning_effort": "auto" and deliberate.'}]}
    ),
    "auto as a tool choice": orjson.dumps({"messages": MESSAGES, "tool_choice": "auto"}),
    "an effort of something else": orjson.dumps({"messages": MESSAGES, "metadata": {"effort": "auto"}}),
    "no JSON": b'{"reasoning_effort": "auto", "messages": [',
    "no object": b'[{"reasoning_effort": "auto"}]',
    "nested too deep": b'{"reasoning_effort": "auto", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no UTF-8": b'{"reasoning_effort": "auto", "messages": "\xff\xfe"}',
    "half a surrogate": b'{"reasoning_effort": "auto", "messages": "\\ud800"}',
    "the effort in another shape": orjson.dumps(chat(reasoning_effort=["auto"])),
    "empty": b"",
    "huge": orjson.dumps({"messages": [{"role": "user", "content": "automatic effort " * 500_000}]}),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_body_that_asks_for_no_graph_reaches_the_engine_byte_for_byte(name: str):
    house = House()
    assert house.post(PASSING[name]).text == f"engine POST {CHAT}"
    assert house.engine.bodies == [PASSING[name]] and not house.solver.calls


@pytest.mark.parametrize(
    "path", ["/generate", "/v1/completions", "/v1/chat/completions/", "/v1/graphs", "/v1/responses"]
)
def test_other_routes_pass_whatever_they_say(path: str):
    house = House()
    assert house.post(chat(), path).text == f"engine POST {path}"
    assert not house.solver.calls


def test_models_and_preflights_pass():
    house = House()
    assert house.get("/v1/models").text == "engine GET /v1/models"
    assert house.get(CHAT).text == f"engine GET {CHAT}"
    assert house.get("/v1/graphs/x", "OPTIONS").text == "engine OPTIONS /v1/graphs/x"


def test_a_body_of_another_media_type_is_left_to_the_engine():
    house = House()
    house.post(chat(), headers={"Content-Type": "text/plain"})
    assert len(house.engine.bodies) == 1 and not house.solver.calls


def test_a_body_in_pieces_reaches_the_engine_in_the_same_pieces_and_then_what_comes():
    pieces = [{"type": "http.request", "body": part, "more_body": True} for part in (b'{"messages": ', b"", b"[]")]
    sent = [*pieces, {"type": "http.request", "body": b"}", "more_body": False}, {"type": "http.disconnect"}]
    assert asyncio.run(_received_behind_the_door(sent)) == sent


def test_a_client_that_hangs_up_within_its_body_is_the_engine_s_to_notice():
    sent = [
        {"type": "http.request", "body": b'{"reasoning_effort": "auto"', "more_body": True},
        {"type": "http.disconnect"},
    ]
    assert asyncio.run(_received_behind_the_door(sent)) == sent


async def _received_behind_the_door(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the app receives, call by call, when the server gives `sent`."""
    coming, received = list(sent), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.extend([await receive() for _ in sent])

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    await GraphDoor(app, solve=Solver(), backend=str, model="nano")(scope(), receive, _nowhere)
    return received


def scope(path: str = CHAT, **more: Any) -> dict[str, Any]:
    headers = [(b"content-type", b"application/json")]
    return {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": headers, **more}


async def _next(coming: Iterator[Any]) -> Any:
    return next(coming)


async def _nowhere(message: Any) -> None:
    pass


def test_websockets_and_lifespans_pass():
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def run() -> None:
        door = GraphDoor(app, solve=Solver(), backend=str, model="nano")
        for kind in ("lifespan", "websocket"):
            await door({"type": kind, "path": CHAT}, None, None)  # type: ignore[arg-type]

    asyncio.run(run())
    assert seen == ["lifespan", "websocket"]


# What a graph answers


def test_a_whole_answer_has_trace_usage_effort_and_graph_apart():
    house = House()
    body = house.post(chat()).json()
    assert body["object"] == "chat.completion" and body["model"] == "nano"
    choice = body["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "133", "reasoning_content": "40+80=120, 7+6=13"}
    assert choice["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 40,
        "total_tokens": 84,
        "completion_tokens": 44,
        "prompt_tokens_details": {"cached_tokens": 16},
        "reasoning_tokens": 30,
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    id = house.solver.outcome.graph.id
    assert body["metadata"]["reasoning_effort"] == "auto"
    assert body["metadata"]["graph"] == {
        "id": id,
        "url": f"/v1/graphs/{id}",
        "state": "answered",
        "confidence": 0.9,
    }
    assert not house.engine.bodies


def test_a_stream_says_the_same_as_the_whole_answer():
    house = House()
    whole = house.post(chat()).json()
    response = house.post(chat(stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response.text)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[0]["metadata"] == {"reasoning_effort": "auto"}
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    message = whole["choices"][0]["message"]
    assert "".join(delta.get("content") or "" for delta in deltas) == message["content"]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == message["reasoning_content"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop" and chunks[-2]["metadata"] == whole["metadata"]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]


def test_a_stream_counts_only_when_asked_to():
    assert all("usage" not in chunk for chunk in events(House().post(chat(stream=True)).text))


def test_cached_tokens_are_left_out_where_the_server_counts_none():
    assert House(cache_report=False).post(chat()).json()["usage"]["prompt_tokens_details"] is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_trace_that_is_not_to_be_apart_stands_before_the_answer(stream: bool):
    response = House().post(chat(separate_reasoning=False, stream=stream))
    if stream:
        deltas = [chunk["choices"][0]["delta"] for chunk in events(response.text)]
        assert not any(delta.get("reasoning_content") for delta in deltas)
        content = "".join(delta.get("content") or "" for delta in deltas)
    else:
        message = response.json()["choices"][0]["message"]
        assert message["reasoning_content"] is None
        content = message["content"]
    assert content == "40+80=120, 7+6=13133"


def test_an_answer_that_was_cut_ends_with_length_and_an_empty_one_says_so():
    assert House(answered(state="cut")).post(chat()).json()["choices"][0]["finish_reason"] == "length"
    empty = House(answered("", None, "empty")).post(chat()).json()
    assert empty["choices"][0]["message"]["content"] == "" and empty["metadata"]["graph"]["state"] == "empty"


@pytest.mark.parametrize(
    "place",
    [
        {"reasoning_effort": "deliberate"},
        {"reasoning": {"effort": "deliberate"}},
        {"reasoning": {"reasoning_effort": "deliberate"}},
        {"chat_template_kwargs": {"reasoning_effort": "deliberate"}},
        {"extra_body": {"reasoning_effort": "deliberate"}},
        {"reasoning_effort": "deliberate", "chat_template_kwargs": {"reasoning_effort": "deliberate"}},
    ],
    ids=str,
)
def test_an_effort_may_stand_where_the_other_efforts_may(place: dict):
    house = House()
    response = house.post({"model": "nano", "messages": MESSAGES, **place})
    assert response.json()["metadata"]["reasoning_effort"] == "deliberate"
    assert house.solver.calls[0][1]["effort"] == "deliberate"


def test_the_question_is_the_whole_conversation():
    house = House()
    messages = [
        {"role": "developer", "content": "A document with [INST] in it."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Omar."},
        {"role": "user", "content": [{"type": "text", "text": "And his "}, {"type": "text", "text": "phone?"}]},
    ]
    house.post(chat(messages=messages))
    assert house.solver.calls[0][0] == [
        {"role": "system", "content": "A document with [INST] in it."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Omar."},
        {"role": "user", "content": "And his phone?"},
    ]


def test_what_a_request_says_reaches_the_solver_and_what_it_does_not_say_is_left_to_it():
    house = House()
    house.post(chat())
    house.post(chat(max_completion_tokens=300, max_thinking_tokens=40, temperature=0.7, stop=["\n"], regex="[0-9]+"))
    house.post(chat(response_format={"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}))
    house.post(chat(response_format={"type": "json_object"}, max_thinking_tokens=0))
    common = {"effort": "auto", "backend": "the backend"}
    assert [options for _, options in house.solver.calls] == [
        common,
        common | {"output": re.compile("[0-9]+"), "budget": 40, "max_tokens": 258, "temperature": 0.7, "stop": ("\n",)},
        common | {"output": SCHEMA},
        common | {"output": {"type": "object"}, "budget": 0},
    ]
    assert house.backends == 1


@pytest.mark.parametrize("max_tokens", [4, 5, 100, 10_000])
def test_trace_and_answer_of_each_generation_stay_within_max_tokens(max_tokens: int):
    house = House()
    house.post(chat(max_tokens=max_tokens))
    options = house.solver.calls[0][1]
    assert options["max_tokens"] >= max_tokens // 4 and options["budget"] >= 1
    assert options["max_tokens"] + options["budget"] + MARKS == max_tokens


def test_defaults_that_clients_send_are_no_reason_to_refuse():
    fields = {"n": 1, "top_p": 1.0, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False, "tools": []}
    more = {"tool_choice": "none", "seed": None, "user": "me", "parallel_tool_calls": True, "stream_options": None}
    assert House().post(chat(**fields, **more)).status_code == 200


# What is refused


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"n": 2}, "n is"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_p": 0.5}, "top_p"),
        ({"seed": 1}, "seed"),
        ({"logit_bias": {"3": 1.0}}, "logit_bias"),
        ({"ebnf": 'root ::= "a"'}, "ebnf"),
        ({"response_format": {"type": "structural_tag", "structures": [], "triggers": []}}, "structural_tag"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"skip_special_tokens": False}, "skip_special_tokens"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"rid": "x"}, "rid"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "continuous_usage_stats"),
        ({"custom_params": {"x": 1}}, "custom_params.x"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
        ({"model": "nano:adapter"}, "adapter"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "13", "prefix": True}]}, "messages[1].prefix"),
        ({"input_ids": [1, 2, 3]}, "reasoning_effort"),
        ({"enable_thinking": True}, "enable_thinking"),
        ({"messages": [{"role": "tool", "content": "5", "tool_call_id": "123456789"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "content": "", "reasoning_content": "x"}]}, "reasoning_content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "image_url"),
    ],
    ids=str,
)
def test_what_a_graph_cannot_do_is_refused_by_name(fields: dict, named: str):
    house = House()
    sentence = refused(house.post(chat(**fields)))
    assert named in sentence and sentence.endswith(".")
    assert not house.solver.calls and not house.engine.bodies


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"reasoning": {"effort": "high"}}, "Two efforts"),
        ({"chat_template_kwargs": {"reasoning_effort": "deliberate"}}, "Two efforts"),
        ({"extra_body": {"reasoning_effort": "none"}}, "Two efforts"),
        ({"reasoning": {"effort": {"deep": 1}}}, "Two efforts"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "What is 2+3?"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"messages": [3]}, "messages"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"regex": "(a+)+"}, "regex"),
        ({"max_thinking_tokens": -1}, "max_thinking_tokens"),
        ({"max_thinking_tokens": 64, "max_tokens": 64}, "max_thinking_tokens"),
        ({"response_format": 3}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "holds no schema"),
        ({"response_format": {"type": "json_object"}, "regex": "a"}, "two constraints"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "x"}}}}, "schema"),
        ({"regex": "(?=a)b"}, "regex"),
        ({"regex": "("}, "regex"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"extra_body": 3}, "extra_body"),
        ({"stream": "perhaps"}, "stream"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_mistake_is_a_400_with_one_sentence_before_a_stream_begins(fields: dict, named: str, stream: bool):
    house = House()
    sentence = refused(house.post(chat(**({"stream": stream} | fields))))
    assert named in sentence and "\n" not in sentence and "Traceback" not in sentence
    assert not house.solver.calls


@pytest.mark.parametrize("levels", [300, 1000])
def test_a_schema_nested_too_deep_is_refused(levels: int):
    schema = b'{"type": "array", "items": ' * levels + b'{"type": "string"}' + b"}" * levels
    wanted = b'{"type": "json_schema", "json_schema": {"name": "deep", "schema": ' + schema + b"}}"
    body = orjson.dumps(chat())[:-1] + b', "response_format": ' + wanted + b"}"
    assert "deep" in refused(House().post(body))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "error, status, sentence",
    [
        (ProgramError("The budget is below what an answer needs."), 400, "The budget is below what an answer needs."),
        (PromptError("messages[0]: no."), 400, "messages[0]: no."),
        (Unreachable("The server has no room."), 503, "The server has no room."),
        (BackendError("The server said nothing for 600 s."), 500, "The server said nothing for 600 s."),
        (ZeroDivisionError("secret path"), 500, "its log tells"),
    ],
    ids=str,
)
def test_what_the_graph_raises_is_told_in_one_sentence(error: Exception, status: int, sentence: str, stream: bool):
    response = House(error).post(chat(stream=stream))
    assert sentence in refused(response, status) and "secret" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)


def test_a_refusal_of_the_server_s_own_is_passed_on_as_the_client_s_mistake():
    said = {"error": {"message": "prompt 40000 tokens > 32768, the longest: shorten the prompt."}}
    transport = HttpTransport("http://server", None, 5)
    transport._client = httpx.Client(
        base_url="http://server", transport=httpx.MockTransport(lambda _: httpx.Response(400, json=said))
    )
    with pytest.raises(BackendError) as raised:
        transport.generate({"input_ids": [1]}, "1")
    assert refused(House(raised.value).post(chat())) == said["error"]["message"]


def test_a_result_that_failed_is_no_answer():
    failed = replace(answered("", None), state="failed", error="The server ended while it answered.")
    assert refused(House(failed).post(chat()), 500) == "The server ended while it answered."


# While a graph runs


@asynccontextmanager
async def asked_of(house: House, body: dict[str, Any]) -> AsyncIterator["Connection"]:
    """One request whose client the test plays itself."""
    connection = Connection(orjson.dumps(body))
    task = asyncio.create_task(house.door(scope(), connection.receive, connection.send))
    try:
        yield connection
    finally:
        house.solver.go_on.set()
        await asyncio.wait_for(task, 5)


class Connection:
    def __init__(self, body: bytes) -> None:
        self.sent: list[dict[str, Any]] = []
        self._coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._coming.put_nowait({"type": "http.request", "body": body, "more_body": False})

    async def receive(self) -> dict[str, Any]:
        return await self._coming.get()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def hang_up(self) -> None:
        self._coming.put_nowait({"type": "http.disconnect"})

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


async def until(holds: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.005)


def slow_house(monkeypatch: pytest.MonkeyPatch, outcome: Any = None, **settings: Any) -> House:
    monkeypatch.setattr(door_module, "OPENING_SECONDS", 0.01)
    monkeypatch.setattr(door_module, "KEEP_ALIVE_SECONDS", 0.02)
    house = House(outcome, **settings)
    house.solver.go_on.clear()
    return house


def test_a_stream_opens_and_is_kept_alive_while_the_graph_runs(monkeypatch: pytest.MonkeyPatch):
    house = slow_house(monkeypatch)

    async def run() -> str:
        async with asked_of(house, chat(stream=True)) as connection:
            await until(lambda: connection.text.count("\n: the graph is running\n\n") >= 2)
            assert json.loads(connection.text.splitlines()[0].removeprefix("data: "))["choices"][0]["delta"]["role"]
            assert "133" not in connection.text
        return connection.text

    text = asyncio.run(run())
    assert events(text)[-1]["choices"][0]["finish_reason"] == "stop" and '"content":"133"' in text


def test_what_fails_after_a_stream_began_is_an_event_of_it(monkeypatch: pytest.MonkeyPatch):
    house = slow_house(monkeypatch, Unreachable("The server is gone."))

    async def run() -> str:
        async with asked_of(house, chat(stream=True)) as connection:
            await until(lambda: connection.sent)
        return connection.text

    last = events(asyncio.run(run()))[-1]
    assert last["error"]["message"] == "The server is gone." and last["error"]["code"] == 503


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_cancels_its_graph(stream: bool, monkeypatch: pytest.MonkeyPatch):
    house = slow_house(monkeypatch)

    async def run() -> None:
        async with asked_of(house, chat(stream=stream)) as connection:
            await until(lambda: house.solver.calls and (connection.sent or not stream))
            connection.hang_up()
            await until(house.solver.cancelled.is_set)
            await until(lambda: house.door._running == 0)

    asyncio.run(run())


def test_graphs_beyond_those_that_may_run_at_once_are_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch):
    house = slow_house(monkeypatch, at_once=2)

    async def run() -> None:
        async with asked_of(house, chat()), asked_of(house, chat(stream=True)):
            await until(lambda: len(house.solver.calls) == 2)
            full = await house._send("POST", CHAT, chat())
            assert "2 graphs are running" in refused(full, 503) and int(full.headers["retry-after"]) > 0
            beside = await house._send("POST", CHAT, {"messages": MESSAGES})
            assert beside.text == f"engine POST {CHAT}"
        assert (await house._send("POST", CHAT, chat())).status_code == 200

    asyncio.run(run())


def test_a_graph_that_was_given_up_holds_its_place_until_it_ends(monkeypatch: pytest.MonkeyPatch):
    house = slow_house(monkeypatch, at_once=1)
    stubborn = threading.Event()
    house.door._solve = lambda *_, **__: (stubborn.wait(5), answered())[1]

    async def run() -> None:
        async with asked_of(house, chat()) as connection:
            await until(lambda: house.door._running == 1)
            connection.hang_up()
            await until(lambda: connection.sent)
            refused(await house._send("POST", CHAT, chat()), 503)
            stubborn.set()
            await until(lambda: house.door._running == 0)

    asyncio.run(run())


def test_graphs_run_beside_each_other_and_beside_the_engine(monkeypatch: pytest.MonkeyPatch):
    house = House()
    together = threading.Barrier(8)
    house.door._solve = lambda *_, **__: (together.wait(5), answered())[1]

    async def run() -> list[httpx.Response]:
        return await asyncio.gather(*(house._send("POST", CHAT, chat()) for _ in range(8)))

    assert [response.status_code for response in asyncio.run(run())] == [200] * 8
    assert house.backends == 1


# The graphs under their URLs


def test_a_graph_is_under_its_url_as_json_and_as_pictures():
    house = House()
    url = house.post(chat()).json()["metadata"]["graph"]["url"]
    stored = house.get(url)
    assert stored.headers["content-type"] == "application/json"
    assert Graph.from_dict(stored.json()).usage == house.solver.outcome.graph.usage
    page, picture = house.get(f"{url}.html"), house.get(f"{url}.svg")
    assert page.headers["content-type"].startswith("text/html") and "<html" in page.text
    assert picture.headers["content-type"].startswith("image/svg+xml") and "<svg" in picture.text
    for response in (stored, page, picture):
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
    assert "<b>hi</b>" not in page.text and "<script" not in page.text


def test_the_url_has_the_path_that_the_server_is_mounted_at():
    house = House()

    async def run() -> dict[str, Any]:
        connection = Connection(orjson.dumps(chat()))
        mounted = scope("/llm" + CHAT, root_path="/llm")
        await house.door(mounted, connection.receive, connection.send)
        return json.loads(connection.text)

    assert asyncio.run(run())["metadata"]["graph"]["url"].startswith("/llm/v1/graphs/")


@pytest.mark.parametrize(
    "name", ["nothing", "0" * 32, "0" * 32 + ".html", "..%2f..%2fetc%2fpasswd", "%00", "a.b.c", ""]
)
def test_an_unknown_graph_is_a_404(name: str):
    house = House()
    house.post(chat())
    assert "There is no graph" in refused(house.get(f"/v1/graphs/{name}"), 404)


def test_a_graph_has_no_other_views_and_no_other_methods():
    house = House()
    url = house.post(chat()).json()["metadata"]["graph"]["url"]
    assert "ID.svg" in refused(house.get(f"{url}.png"), 404)
    assert "DELETE" in refused(house.get(url, "DELETE"), 405)


def test_the_shelf_keeps_the_last_graphs_within_its_bounds():
    shelf = Shelf(most=3, most_bytes=100)
    for id in "abcd":
        shelf.put(id, b"1" * 20)
    assert [id for id in "abcd" if shelf.get(id)] == ["b", "c", "d"]
    shelf.put("e", b"1" * 70)
    assert [id for id in "abcde" if shelf.get(id)] == ["d", "e"]
    shelf.put("f", b"1" * 101)
    assert [id for id in "abcdef" if shelf.get(id)] == ["d", "e"]
    shelf.put("e", b"1" * 10)
    shelf.put("g", b"1" * 70)
    assert [id for id in "abcdefg" if shelf.get(id)] == ["d", "e", "g"]


# What it costs the others


def test_a_large_body_that_passes_is_not_worth_measuring(capsys: pytest.CaptureFixture[str]):
    small = orjson.dumps(chat(reasoning_effort="high", tool_choice="auto"))
    large = orjson.dumps(chat(reasoning_effort="high", messages=[{"role": "user", "content": "autonomous " * 100_000}]))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    async def seconds(target: Any, body: bytes, times: int) -> float:
        pieces = [body[at : at + 2**16] for at in range(0, len(body), 2**16)]
        messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        messages[-1]["more_body"] = False
        best = float("inf")
        for _ in range(times):
            coming = iter(messages)
            began = time.perf_counter()
            await target(scope(), partial(_next, coming), _nowhere)
            best = min(best, time.perf_counter() - began)
        return best

    door = GraphDoor(app, solve=Solver(), backend=str, model="nano")
    added = {}
    for name, body, times in (("a short question", small, 2000), ("1.1 MB of text", large, 50)):
        added[name] = asyncio.run(seconds(door, body, times)) - asyncio.run(seconds(app, body, times))
    with capsys.disabled():
        print("".join(f"\nthe door adds {1e6 * more:.1f} microseconds to {name}" for name, more in added.items()))
    assert added["a short question"] < 100e-6 and added["1.1 MB of text"] < 5e-3


def test_a_body_is_looked_at_by_keys_and_not_by_words():
    assert graph_body(b'{"reasoning_effort" :\n "auto"}') == {"reasoning_effort": "auto"}
    assert graph_body(b'{"content": "effort\\": \\"auto\\""}') is None
