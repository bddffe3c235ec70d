"""A request whose client hangs up gives its slot and its memory back, and the next is served as ever."""

import json
import re
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest

from launch.server import Server
from tests.serve.conftest import Nano

pytestmark = pytest.mark.slow
FREED_SECONDS = 3
PASS_SECONDS = (
    12  # a forward pass of 1,024 tokens at the end of a long prompt took 4 s on a host with five times its load
)
FULL_DECODE_SECONDS = 2  # one forward pass that writes 16 answers, on the same host
QUESTION = [{"role": "user", "content": "What is 47+86+35?"}]
LONG_ANSWER = {
    "/generate": {"text": "What is", "sampling_params": {"max_new_tokens": 20000, "ignore_eos": True}},
    "/v1/completions": {"model": "default", "prompt": "What is", "max_tokens": 20000, "ignore_eos": True},
    "/v1/chat/completions": {"model": "default", "messages": QUESTION, "max_tokens": 20000, "ignore_eos": True},
}


def load(nano: Nano) -> dict[str, int]:
    """Requests and cache tokens that the scheduler has in hand."""
    state = nano.http.get("/v1/loads").json()["loads"][0]
    return {name: state[name] for name in ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")}


def wait_for(nano: Nano, seconds: float, **wanted: int) -> float:
    """Seconds until the load is at least what is wanted; with nothing wanted, until nothing is in hand."""
    begin = time.monotonic()
    while True:
        now = load(nano)
        if all(now[name] >= least for name, least in wanted.items()) if wanted else not any(now.values()):
            return time.monotonic() - begin
        assert time.monotonic() - begin < seconds, now
        time.sleep(0.1)


def begin(server: Server, path: str, body: dict[str, Any]) -> socket.socket:
    """Send a request and leave its connection open."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    )
    connection.sendall(head.encode() + b"\r\n\r\n" + content)
    return connection


def tokens_read(server: Server, since: int) -> int:
    """Prompt tokens of all forward passes that the log tells of after its first `since` characters."""
    return sum(map(int, re.findall(r"Prefill batch.*?#new-token: (\d+)", server.log.read_text()[since:])))


def still_serves(nano: Nano) -> bool:
    return nano.generate(nano.prompt("What is 7+5?"))["text"] == "12"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("path", LONG_ANSWER)
def test_a_hang_up_while_the_answer_is_written(path: str, stream: bool, nano: Nano, nano_server: Server):
    with begin(nano_server, path, LONG_ANSWER[path] | {"stream": stream}):
        wait_for(nano, 30, num_running_reqs=1, num_used_tokens=1)
    wait_for(nano, FREED_SECONDS)
    assert still_serves(nano)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
def test_a_hang_up_ends_each_of_two_choices(stream: bool, nano: Nano, nano_server: Server):
    body = LONG_ANSWER["/v1/chat/completions"] | {"n": 2, "stream": stream}
    with begin(nano_server, "/v1/chat/completions", body):
        wait_for(nano, 30, num_running_reqs=2)
    wait_for(nano, FREED_SECONDS)
    assert still_serves(nano)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
def test_a_hang_up_ends_a_prompt_that_is_read_in_parts(stream: bool, nano: Nano, nano_server: Server):
    prompt = [300 + (7 * place + int(stream)) % 199 for place in range(30_000)]
    body = {"input_ids": prompt, "sampling_params": {"max_new_tokens": 5}, "stream": stream}
    since = len(nano_server.log.read_text())
    with begin(nano_server, "/generate", body):
        wait_for(nano, 30, num_used_tokens=1)
    wait_for(nano, FREED_SECONDS + PASS_SECONDS)
    assert still_serves(nano)
    assert 0 < tokens_read(nano_server, since) < 25_000


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_a_hang_up_while_a_long_question_is_read(path: str, stream: bool, nano: Nano, nano_server: Server):
    question = f"{path}{stream}" + "".join(chr(97 + (5 * place) % 23) + chr(98 + place % 19) for place in range(14_000))
    message = {"role": "user", "content": question}
    asked = {"messages": [message], "max_tokens": 5} if path == "/v1/messages" else {"input": [message]}
    model = nano.http.get("/v1/models").json()["data"][0]["id"]
    since = len(nano_server.log.read_text())
    with begin(nano_server, path, asked | {"model": model, "stream": stream}):
        wait_for(nano, 30, num_used_tokens=1)
    wait_for(nano, FREED_SECONDS + PASS_SECONDS)
    assert 0 < tokens_read(nano_server, since) < 25_000


def test_a_hang_up_ends_a_request_that_waits_for_its_turn(nano: Nano, nano_server: Server):
    """16 requests run at most; the answer of the seventeenth never begins."""
    body = LONG_ANSWER["/generate"]
    with ExitStack() as running:
        for _ in range(16):
            running.enter_context(begin(nano_server, "/generate", body))
        wait_for(nano, 60, num_running_reqs=16)
        with begin(nano_server, "/generate", body):
            wait_for(nano, 30, num_waiting_reqs=1)
        started = time.monotonic()
        while load(nano)["num_waiting_reqs"]:
            assert time.monotonic() - started < FREED_SECONDS + FULL_DECODE_SECONDS
            time.sleep(0.1)
        assert load(nano)["num_running_reqs"] == 16
    wait_for(nano, FREED_SECONDS + FULL_DECODE_SECONDS)
    assert still_serves(nano)


def test_an_abort_by_id_ends_no_other_request(nano: Nano, nano_server: Server):
    """SGLang aborts every request whose id begins with the given one, so that alike ids are not let in."""
    body = LONG_ANSWER["/generate"] | {"rid": "report-17"}
    with begin(nano_server, "/generate", body):
        wait_for(nano, 30, num_running_reqs=1)
        refused = nano.http.post("/generate", json=body | {"rid": "report-1"})
        assert refused.status_code == 400 and "choose another" in refused.text
        wait_for(nano, 5, num_running_reqs=1)  # the load is a snapshot of the scheduler's, between two of its passes
    wait_for(nano, FREED_SECONDS)


def test_health_stays_green_while_a_long_prompt_is_read(nano: Nano, nano_server: Server):
    prompt = [300 + (11 * place) % 197 for place in range(30_000)]
    body = {"input_ids": prompt, "sampling_params": {"max_new_tokens": 1}}
    with begin(nano_server, "/generate", body):
        wait_for(nano, 30, num_used_tokens=1)
        answers = [nano.http.get(path).status_code for path in ("/health", "/health_generate")]
        assert load(nano)["num_running_reqs"] + load(nano)["num_used_tokens"] > 0  # the prompt was still being read
    assert answers == [200, 200]
    wait_for(nano, FREED_SECONDS + PASS_SECONDS)
