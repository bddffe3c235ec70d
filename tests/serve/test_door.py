"""`small4 serve --graphs`: a served nano whose chat route also runs graphs, behind a key."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from launch.errors import LaunchError
from launch.graphs import check
from launch.server import Server
from programs.graph import Graph

KEY = "the-key"
SUM = [{"role": "user", "content": "What is 47+86+35+29?"}]
ENDLESS = [{"role": "user", "content": f"What is {'+'.join(map(str, range(30, 70)))}?"}]  # more than nano can hold
EASY = [{"role": "user", "content": "What is 7+5?"}]
CONTEXT = 32768
FREED_SECONDS = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("graphs") / "server.log"
    with Server(arguments=["--graphs", "--api-key", KEY], log=log) as server:
        yield server


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=120, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=120)


def graph_at(http: httpx.Client, completion: Any) -> Graph:
    return Graph.from_dict(http.get(completion.metadata["graph"]["url"]).raise_for_status().json())


def in_hand(http: httpx.Client) -> int:
    """Requests that the scheduler runs or keeps waiting."""
    load = http.get("/v1/loads").json()["loads"][0]
    return int(load["num_running_reqs"] + load["num_waiting_reqs"])


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def begin(server: Server, body: dict[str, Any]) -> socket.socket:
    """Send a chat request and leave its connection open."""
    content = json.dumps(body).encode()
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    ]
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + content)
    return connection


@pytest.mark.parametrize("effort", ["auto", "deliberate"])
def test_any_openai_client_gets_a_graph_by_naming_its_effort(effort: Any, client: openai.OpenAI, http: httpx.Client):
    completion = client.chat.completions.create(model="nano", messages=SUM, reasoning_effort=effort)
    message = completion.choices[0].message
    assert message.content == "197" and "197" in message.reasoning_content
    assert completion.choices[0].finish_reason == "stop"
    graph = graph_at(http, completion)
    assert graph.effort == effort and graph.outcome.answer == message.content
    if effort == "deliberate":
        assert sum(node.name.startswith("think") for node in graph.nodes) > 1
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (graph.usage.prompt_tokens, graph.usage.completion_tokens)
    assert usage.prompt_tokens_details.cached_tokens == graph.usage.cached_tokens
    assert usage.completion_tokens_details.reasoning_tokens == graph.usage.trace_tokens > 0
    assert completion.metadata["reasoning_effort"] == effort


def test_a_stream_tells_trace_answer_and_usage_apart(client: openai.OpenAI):
    chunks = list(
        client.chat.completions.create(
            model="nano",
            messages=SUM,
            reasoning_effort="deliberate",  # type: ignore[call-overload]
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == "197"
    assert "197" in "".join(delta.reasoning_content or "" for delta in deltas)
    assert chunks[-1].usage.completion_tokens > chunks[-1].usage.completion_tokens_details.reasoning_tokens > 0


def test_a_constraint_holds_for_the_answer(client: openai.OpenAI):
    completion = client.chat.completions.create(
        model="nano", messages=EASY, reasoning_effort="auto", extra_body={"regex": "sum: [0-9]{1,3}"}
    )
    assert completion.choices[0].message.content.startswith("sum: ")


@pytest.mark.parametrize("effort", ["none", "high"])
def test_the_other_efforts_are_the_engine_s_own(effort: Any, client: openai.OpenAI):
    completion = client.chat.completions.create(model="nano", messages=EASY, reasoning_effort=effort, temperature=0)
    assert completion.choices[0].message.content == "12"
    assert completion.metadata["reasoning_effort"] == effort and "graph" not in completion.metadata


def test_a_graph_is_seen_with_the_key_alone(client: openai.OpenAI, http: httpx.Client, server: Server):
    url = client.chat.completions.create(model="nano", messages=EASY, reasoning_effort="auto").metadata["graph"]["url"]
    page = http.get(f"{url}.html")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    assert http.get(f"{url}.svg").headers["content-type"].startswith("image/svg+xml")
    for path in (url, f"{url}.html", f"{url}.svg"):
        assert httpx.get(server.url + path, trust_env=False).status_code == 401
    unknown = http.get("/v1/graphs/0123")
    assert unknown.status_code == 404 and "There is no graph" in unknown.json()["error"]["message"]


def test_without_the_key_no_graph_runs(server: Server):
    body = {"model": "nano", "messages": EASY, "reasoning_effort": "auto"}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=body, trust_env=False).status_code == 401


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields, named",
    [
        ({"n": 2}, "n is not supported"),
        ({"messages": [{"role": "user", "content": "zq" * CONTEXT}]}, str(CONTEXT)),
        ({"regex": "("}, "regex"),
    ],
    ids=["n", "too long", "regex"],
)
def test_a_mistake_is_a_400_in_openai_s_form(fields: dict, named: str, stream: bool, http: httpx.Client):
    body = {"model": "nano", "messages": EASY, "reasoning_effort": "deliberate", "stream": stream, **fields}
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert named in error["message"] and error["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_leaves_nothing_running(stream: bool, server: Server, http: httpx.Client):
    body = {"model": "nano", "messages": ENDLESS, "reasoning_effort": "deliberate", "stream": stream}
    with begin(server, body):
        wait_until(lambda: in_hand(http) > 1, 10)
    wait_until(lambda: in_hand(http) == 0, FREED_SECONDS)
    time.sleep(1)
    assert in_hand(http) == 0, "the graph went on"


@pytest.mark.parametrize(
    "arguments, named",
    [({"tokenizer_worker_num": 2}, "--tokenizer-worker-num"), ({"ssl_certfile": "x"}, "--ssl-certfile")],
    ids=str,
)
def test_arguments_with_which_there_can_be_no_door_are_named(arguments: dict, named: str):
    plain = {"tokenizer_worker_num": 1, "ssl_certfile": None, "grpc_mode": False, "smg_grpc_mode": False}
    plain |= {"encoder_only": False, "use_ray": False}
    check(SimpleNamespace(**plain))
    with pytest.raises(LaunchError, match=named):
        check(SimpleNamespace(**(plain | arguments)))
