"""A request that cannot be served is refused with 400 and one sentence, on every route, and harms no other."""

import json
import threading
from typing import Any

import httpx
import pytest

from launch.server import Server
from tests.serve.conftest import Nano

pytestmark = pytest.mark.slow
CONTEXT = 32768
ROUTES = ["/generate", "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"]
BAD_NUMBERS: dict[str, dict[str, Any]] = {
    "a negative id": {"input_ids": [300, -1]},
    "an id beyond the vocabulary": {"input_ids": [300, 768]},
    "an id of 100 bits": {"input_ids": [2**100]},
    "no id": {"input_ids": []},
    "a bias that is infinite in 32 bits": {"sampling_params": {"logit_bias": {"5": 1e308}}},
    "a bias of no token": {"sampling_params": {"logit_bias": {"768": 1}}},
    "top_k of 40 bits": {"sampling_params": {"top_k": 2**40}},
    "a temperature in words": {"sampling_params": {"temperature": "hot"}},
    "an empty stop": {"sampling_params": {"stop": ["", "x"]}},
    "10,000 stops": {"sampling_params": {"stop": ["x"] * 10_000}},
    "a stop that is no pattern": {"sampling_params": {"stop_regex": "("}},
    "a stop that backtracks for ever": {"sampling_params": {"stop_regex": "(a+)+$"}},
    "a stop id beyond the vocabulary": {"sampling_params": {"stop_token_ids": [10**18], "min_new_tokens": 2}},
    "a million choices": {"sampling_params": {"n": 10**6}},
    "no choice": {"sampling_params": {"n": 0}},
    "an interval of nothing": {"sampling_params": {"stream_interval": 0}, "stream": True},
    "nested parameters": {"sampling_params": {"custom_params": {"a": {"b": {"c": 1}}}}},
    "sampling parameters that are a number": {"sampling_params": 5},
    "more logprobs than tokens": {"return_logprob": True, "top_logprobs_num": 100_000},
    "logprobs from before the prompt": {"return_logprob": True, "logprob_start_len": -7},
    "a logit processor": {"custom_logit_processor": "nonsense"},
    "the id of a health check": {"rid": "HEALTH_CHECK_1"},
}


def body_of(nano: Nano, path: str, text: str, max_tokens: int | None, stream: bool = False) -> dict[str, Any]:
    """One request with the same text and limit as each route spells them."""
    model = nano.http.get("/v1/models").json()["data"][0]["id"]
    message = [{"role": "user", "content": text}]
    named = {
        "/generate": {"text": text, "sampling_params": {"max_new_tokens": max_tokens}},
        "/v1/completions": {"model": model, "prompt": text, "max_tokens": max_tokens},
        "/v1/chat/completions": {"model": model, "messages": message, "max_tokens": max_tokens},
        "/v1/responses": {"model": model, "input": text, "max_output_tokens": max_tokens},
        "/v1/messages": {"model": model, "messages": message, "max_tokens": max_tokens},
    }[path]
    return named | {"stream": stream}


def sentence(response: httpx.Response, path: str) -> str:
    """The refusal's sentence, from where the route's clients look for it."""
    assert response.status_code == 400, response.text
    answer = response.json()
    if path == "/v1/messages":
        assert answer["type"] == "error" and answer["error"]["type"] == "invalid_request_error"
    return answer["error"]["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("path", ROUTES)
def test_an_answer_that_does_not_fit_is_refused_with_the_sum(path: str, stream: bool, nano: Nano):
    said = sentence(nano.http.post(path, json=body_of(nano, path, "What is 7+5?", CONTEXT, stream)), path)
    prompt = int(said.partition("prompt ")[2].partition(" ")[0])
    assert 0 < prompt < 100
    assert f"prompt {prompt} + max tokens {CONTEXT} = {prompt + CONTEXT} tokens > context {CONTEXT}" in said


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("path", ROUTES)
def test_a_prompt_that_does_not_fit_is_refused(path: str, stream: bool, nano: Nano, nano_server: Server):
    logged = nano_server.log.stat().st_size
    said = sentence(nano.http.post(path, json=body_of(nano, path, "zq" * CONTEXT, 1, stream)), path)
    assert f"context {CONTEXT}" in said and "shorten the prompt" in said
    assert b"Traceback" not in nano_server.log.read_bytes()[logged:]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_without_a_limit_the_answer_may_take_what_is_left(path: str, nano: Nano):
    body = body_of(nano, path, "What is 7+5?", None)
    response = nano.http.post(path, json={name: value for name, value in body.items() if value is not None})
    assert response.status_code == 200, response.text
    assert "12" in response.text


def test_bad_numbers_are_refused_and_eight_good_requests_beside_them_finish(nano: Nano):
    question = nano.prompt("What is 47+86+35?", "high")
    finished: list[int] = []

    def ask() -> None:
        answer = nano.generate(question, max_new_tokens=200, sampling={"ignore_eos": True})
        finished.append(answer["meta_info"]["completion_tokens"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    outcomes = {}
    for kind, fields in BAD_NUMBERS.items():
        bad = {"input_ids": [300], "sampling_params": {}, **fields}
        outcomes[kind] = nano.http.post("/generate", json=bad).status_code
    still_running = any(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()
    assert outcomes == dict.fromkeys(BAD_NUMBERS, 400)
    assert still_running and finished == [200] * 8


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "content",
    [b"", b"5", b"[" * 100_000, b'{"a":' * 5_000, b'{"model": "\xff\xfe"}', b'{"model": NaN}'],
    ids=["empty", "a number", "deep", "deep objects", "no UTF-8", "NaN"],
)
def test_a_body_that_is_no_request_is_refused(content: bytes, path: str, nano: Nano):
    response = nano.http.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422), response.text


@pytest.mark.parametrize("path", ROUTES)
def test_half_a_character_is_refused_and_a_nul_is_text(path: str, nano: Nano):
    body = json.dumps(body_of(nano, path, "a HERE b", 4))
    headers = {"content-type": "application/json"}
    half = nano.http.post(path, content=body.replace("HERE", "\\ud800"), headers=headers)
    assert half.status_code == 400, half.text
    nul = nano.http.post(path, content=body.replace("HERE", "\\u0000"), headers=headers)
    assert nul.status_code == 200, nul.text


@pytest.mark.parametrize(
    "field",
    [
        {"lora_id": [None, None, None, None]},
        {"lora_path": [None]},
        {"bootstrap_host": ["a", "b"]},
        {"custom_logit_processor": ["["]},
        {"input_embeds": [[], [1e300]], "input_ids": None},
        {"extra_key": ["a"]},
        {"session_params": {"nothing": 1}},
        {"session_params": {"id": 5}},
        {"logprob_start_len": 9999, "return_logprob": True},
        {"token_ids_logprob": [[1], 2], "return_logprob": True},
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
def test_a_field_of_another_shape_is_refused_and_the_server_goes_on(
    field: dict, stream: bool, nano: Nano, nano_server: Server
):
    request = {"input_ids": nano.prompt("What is 2+3?"), "stream": stream, "sampling_params": {"max_new_tokens": 4}}
    logged = nano_server.log.stat().st_size
    response = nano.http.post(
        "/generate", json={name: value for name, value in (request | field).items() if value is not None}
    )
    assert response.status_code == 400, response.text
    assert response.json()["error"]["message"].count(".") >= 1
    assert nano.chat([{"role": "user", "content": "What is 2+3?"}])["choices"][0]["message"]["content"] == "5"
    assert b"Traceback" not in nano_server.log.read_bytes()[logged:]


@pytest.mark.parametrize("tokens", [[-90642], [10**7], [[1], [-1]]])
def test_ids_outside_the_vocabulary_are_not_detokenized(tokens: list, nano: Nano):
    response = nano.http.post("/v1/detokenize", json={"model": "nano", "tokens": tokens})
    assert response.status_code == 400
    assert "vocabulary has ids 0 to" in response.json()["error"]["message"]
