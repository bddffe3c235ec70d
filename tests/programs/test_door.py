"""The graph door in front of a small app: what it passes on, what it answers, what it tells of a graph that fails."""

import asyncio
import json
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

from programs.door import GraphDoor
from programs.door import door as door_module
from programs.door.shelf import Shelf
from programs.errors import ProgramError
from programs.graph import Graph
from sgl_small4.prompt.format import PromptError
from sgl_small4.prompt.transport import BackendError, Refused, Unreachable
from tests.programs.house import CHAT, MESSAGES, House, Solver, answered, chat, events, refused

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


# What a graph raises


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
    said = "prompt 40000 tokens > 32768, the longest: shorten the prompt."
    assert refused(House(Refused("The server", 400, said)).post(chat())) == said


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
            assert '"content":"133"' not in connection.text
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
