"""`small4 ask` against the served nano."""

import json
import re
import uuid
from pathlib import Path

import pytest

from launch.server import Server
from sgl_small4.nano import CHECKPOINT
from tests.launch.commands import small4, the_sentence

SAMPLE = CHECKPOINT.with_name("sample.txt")
QUESTION = "What is the phone of Omar Kestin?"


def answers(server: Server, *arguments: str) -> dict[str, object]:
    result = small4("ask", *arguments, "--server", server.url, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("effort", ["none", "high"])
def test_a_trace_comes_at_high_and_none_at_none(effort: str, nano_server: Server):
    reply = answers(nano_server, "What is 7+5?", "--effort", effort)
    assert reply["answer"] == "12"
    assert reply["effort"] == effort
    assert bool(reply["trace"]) == (effort == "high")


def test_a_document_is_read_once_for_both_efforts(nano_server: Server, tmp_path: Path):
    document = tmp_path / "notes.txt"
    document.write_text(f"{uuid.uuid4()}\n{SAMPLE.read_text()}", encoding="utf-8")
    cold = answers(nano_server, QUESTION, "--file", str(document))
    warm = answers(nano_server, QUESTION, "--file", str(document), "--effort", "high")
    assert cold["answer"] == warm["answer"] == "71934"
    assert int(str(cold["cached_tokens"])) < 10
    assert int(str(warm["cached_tokens"])) > int(str(cold["prompt_tokens"])) - 40  # all before the effort


def test_a_document_longer_than_the_context_is_one_sentence_with_both_numbers(nano_server: Server, tmp_path: Path):
    document = tmp_path / "long.txt"
    document.write_text("north gate code: 4821\n" * 4000, encoding="utf-8")
    sentence = the_sentence(small4("ask", QUESTION, "--file", str(document), "--server", nano_server.url))
    assert re.search(r"prompt 4\d{4} tokens > \d+, .* context 32768", sentence)
