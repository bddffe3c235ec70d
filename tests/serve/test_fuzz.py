"""Requests that nobody would write: an answer each, none of them a 500, and a server that is as it was before."""

import json

import httpx
import pytest

from launch.bench.fuzz import ROUTES, fuzz, settled
from launch.server import Server
from tests.serve.conftest import Nano

REQUESTS = 40
HELLO = [{"role": "user", "content": "Hello"}]
DEEP = "[" * 20_000 + "]" * 20_000


def test_administrative_routes_are_never_sent_to(nano: Nano):
    known = nano.http.get("/openapi.json").json()["paths"]
    assert all(path in known for _, path in ROUTES)
    named = " ".join(path for _, path in ROUTES)
    assert not any(
        word in named for word in ("pause", "memory", "weight", "flush", "session", "abort", "lora", "cache")
    )


@pytest.mark.slow
def test_generated_requests_leave_the_server_as_it_was(nano_server: Server, nano: Nano):
    before = nano.generate(nano.prompt("What is 7+5?"))["text"]
    found = fuzz(nano_server.url, REQUESTS)
    assert found.failures == []
    assert found.count >= REQUESTS * 0.9 and found.statuses[200] and found.statuses[400]
    assert settled(nano_server.url) == 0
    assert nano.generate(nano.prompt("What is 7+5?"))["text"] == before


def chat(**fields: object) -> dict[str, object]:
    return {"model": "nano", "messages": HELLO, "max_tokens": 4} | fields


HOSTILE = {
    "no JSON": ("/v1/chat/completions", b"{"),
    "no UTF-8": ("/v1/chat/completions", b'{"model": "\xff\xfe"}'),
    "a list": ("/v1/chat/completions", b"[]"),
    "deep nesting": ("/v1/chat/completions", DEEP.encode()),
    "a number of messages": ("/v1/chat/completions", chat(messages=7)),
    "half a surrogate pair": ("/v1/chat/completions", chat(messages=[{"role": "user", "content": "\ud800"}])),
    "an unknown role": ("/v1/chat/completions", chat(messages=[{"role": "wizard", "content": "Hello"}])),
    "a negative limit": ("/v1/chat/completions", chat(max_tokens=-1)),
    "a limit past the context": ("/v1/chat/completions", chat(max_tokens=10**12)),
    "a temperature that is no number": ("/v1/chat/completions", b'{"model":"x","messages":[],"temperature":NaN}'),
    "a schema that is none": ("/v1/chat/completions", chat(response_format={"type": "json_schema", "json_schema": 1})),
    "a regex that is none": ("/v1/chat/completions", chat(regex="(")),
    "a tool without a name": ("/v1/chat/completions", chat(tools=[{"type": "function", "function": {}}])),
    "a budget below nothing": ("/v1/chat/completions", chat(max_thinking_tokens=-5)),
    "an id past the vocabulary": ("/generate", {"input_ids": [10**9], "sampling_params": {"max_new_tokens": 1}}),
    "a negative id": ("/generate", {"input_ids": [-1], "sampling_params": {"max_new_tokens": 1}}),
    "an id that is too long for a word": ("/v1/completions", {"model": "nano", "prompt": [2**70]}),
    "sampling parameters of another type": ("/generate", {"text": "a", "sampling_params": 7}),
    "an unknown block": ("/v1/messages", chat(messages=[{"role": "user", "content": [{"type": "spell"}]}])),
    "input of another type": ("/v1/responses", {"model": "nano", "input": 7}),
}


@pytest.mark.parametrize(("path", "body"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_is_refused_in_words(nano: Nano, path: str, body: bytes | dict[str, object]):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = nano.http.post(path, content=content, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500, response.text
    assert said(response)
    assert nano.generate(nano.prompt("What is 7+5?"), 4)["meta_info"]["completion_tokens"]


def said(response: httpx.Response) -> str:
    """The sentence of a refusal, wherever the route's form has it."""
    body = response.json()
    error = body.get("error", body)
    return error["message"]
