"""`small4 ask` against a server whose every word the test writes."""

import json
from pathlib import Path

import pytest

from programs.chat_api import base_url
from tests.launch.commands import small4, the_sentence
from tests.launch.fake_server import REPLY, fake_server, piece


def test_the_answer_is_on_standard_output_and_the_trace_and_the_costs_on_standard_error():
    with fake_server() as server:
        result = small4("ask", "17+25?", "--effort", "high", "--server", server.url)
    assert result.returncode == 0
    assert result.stdout == "42\n"
    trace, costs = result.stderr.splitlines()
    assert trace == "17+25:7+5=12"
    assert costs.startswith("effort high: 30 tokens in, 12 of them cached, 7 out, ")


def test_json_is_exactly_one_object_with_the_promised_fields():
    with fake_server() as server:
        result = small4("ask", "17+25?", "--effort", "high", "--server", server.url, "--json")
    assert result.returncode == 0
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
    reply = json.loads(result.stdout)
    assert reply.pop("seconds") > 0
    assert reply == {
        "answer": "42",
        "trace": "17+25:7+5=12",
        "effort": "high",
        "prompt_tokens": 30,
        "completion_tokens": 7,
        "cached_tokens": 12,
    }


def test_cached_tokens_are_null_when_the_server_does_not_report_them():
    chunks = [*REPLY[:-1], {"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 7}}]
    with fake_server(chunks) as server:
        result = small4("ask", "17+25?", "--server", server.url, "--json")
    assert json.loads(result.stdout)["cached_tokens"] is None


@pytest.mark.parametrize("effort", ["none", "high"])
def test_the_document_is_the_system_prompt_and_the_effort_is_sent(effort: str, tmp_path: Path):
    document = tmp_path / "guests.txt"
    document.write_text("name: Ada | city: Oslo\n", encoding="utf-8")
    with fake_server() as server:
        small4("ask", "Where is Ada?", "--file", str(document), "--effort", effort, "--server", server.url)
    (request,) = server.requests
    assert request["messages"] == [
        {"role": "system", "content": "name: Ada | city: Oslo\n"},
        {"role": "user", "content": "Where is Ada?"},
    ]
    assert request["reasoning_effort"] == effort
    assert request["model"] == "fake-small4"


def test_escape_sequences_of_a_model_do_not_reach_the_terminal():
    with fake_server([piece(content="\x1b[31mred"), piece(finish="stop"), REPLY[-1]]) as server:
        result = small4("ask", "colour?", "--server", server.url)
    assert "\x1b" not in result.stdout
    assert "[31mred" in result.stdout


def test_nobody_at_the_address():
    result = small4("ask", "17+25?", "--server", "http://127.0.0.1:9")
    assert "small4 serve" in the_sentence(result)


@pytest.mark.parametrize("server", ["http://", "ftp://127.0.0.1", "127.0.0.1:99999999"])
def test_an_address_that_is_none(server: str):
    assert "--server" in the_sentence(small4("ask", "17+25?", "--server", server))


def test_a_server_of_something_else():
    with fake_server([{"unexpected": []}, {"choices": "none"}]) as server:
        result = small4("ask", "17+25?", "--server", server.url)
    assert "not an OpenAI-compatible server" in the_sentence(result)


@pytest.mark.parametrize("said", [0, 2, 4, 6])
def test_a_server_that_goes_away_before_the_end(said: int):
    with fake_server(REPLY[:said], dies=True) as server:
        result = small4("ask", "17+25?", "--effort", "high", "--server", server.url)
    assert "went away in the middle of the answer" in the_sentence(result)


def test_a_request_that_the_server_aborts():
    with fake_server([piece(content="4"), piece(finish="abort"), REPLY[-1]]) as server:
        result = small4("ask", "17+25?", "--server", server.url)
    assert "went away in the middle of the answer" in the_sentence(result)


def test_a_reply_that_fills_the_context_is_not_taken_for_a_whole_one():
    with fake_server([piece(content="4"), piece(finish="length"), REPLY[-1]]) as server:
        result = small4("ask", "17+25?", "--server", server.url)
    assert result.stdout == "4\n"
    assert "cut off after 7 tokens" in the_sentence(result)


def test_the_effort_shown_is_the_one_the_server_says_it_used():
    used = {**piece(role="assistant"), "metadata": {"reasoning_effort": "none"}}
    with fake_server([used, *REPLY]) as server:
        result = small4("ask", "17+25?", "--effort", "high", "--server", server.url, "--json")
    assert json.loads(result.stdout)["effort"] == "none"


def test_an_error_in_the_stream_is_shown_in_the_servers_words():
    with fake_server([piece(content="4"), {"error": {"message": "The pool is full.", "code": 503}}]) as server:
        result = small4("ask", "17+25?", "--server", server.url)
    assert "The pool is full." in the_sentence(result)


@pytest.mark.parametrize("shape", ["sglang", "openai"])
def test_a_prompt_longer_than_the_context_is_refused_in_the_servers_words(shape: str):
    sentence = "The input (9000 tokens) is longer than the model's context length (4096 tokens)."
    body = {"message": sentence} if shape == "sglang" else {"error": {"message": sentence}}
    with fake_server(refusal=body) as server:
        result = small4("ask", "17+25?", "--server", server.url)
    assert sentence in the_sentence(result)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_question_asks_nobody(text: str):
    with fake_server() as server:
        result = small4("ask", text, "--server", server.url)
    assert "The question is empty" in the_sentence(result)
    assert not server.requests


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xd8\xff\xe0 a picture", "not UTF-8 text (byte 0)"),
        (b"text and \0 zero", "zero byte"),
        (b" \n", "is empty"),
    ],
)
def test_a_file_that_is_not_text_asks_nobody(content: bytes, sentence: str, tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(content)
    with fake_server() as server:
        result = small4("ask", "what?", "--file", str(file), "--server", server.url)
    assert sentence in the_sentence(result)
    assert not server.requests


def test_a_file_that_is_missing_or_a_folder(tmp_path: Path):
    for file in (tmp_path / "missing", tmp_path):
        result = small4("ask", "what?", "--file", str(file), "--server", "127.0.0.1:9")
        assert "cannot be read" in the_sentence(result)


@pytest.mark.parametrize(
    "server", ["127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/"]
)
def test_a_server_may_be_named_with_or_without_scheme_and_path(server: str):
    assert base_url(server) == "http://127.0.0.1:1"
