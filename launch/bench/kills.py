"""A job that is killed and resumed: no answer lost, none asked twice, and the answers of a job that was left alone.

`small4 analyze` runs as a process of its own, ended by SIGKILL, against one nano server behind a proxy that keeps what
it was asked.
"""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import httpx
import orjson
from mistral_common.tokens.tokenizers.base import SpecialTokens

from launch.bench.figures import Row
from programs.documents.ask import READ
from sgl_small4.nano import CHECKPOINT, cases
from sgl_small4.prompt.format import PromptFormat

KILLS = 20
DOCUMENTS, QUESTIONS, TOKENS = 4, 10, 500
EQUAL = 0.98
_FORM = PromptFormat.from_folder(CHECKPOINT)


class Proxy(ThreadingHTTPServer):
    """Passes everything on to a server. `asked` has, of each request for a reply that was sent, its prompt."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.client = httpx.Client(base_url=target, timeout=600.0, trust_env=False)
        self.asked: list[tuple[int, ...]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client was killed."""


class _Passing(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self._answer(self.server.client.get(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fields = orjson.loads(body)
        if self.path == "/generate" and fields["sampling_params"]["max_new_tokens"]:
            self.server.asked.append(tuple(fields["input_ids"]))
        self._answer(self.server.client.post(self.path, content=body, headers={"Content-Type": "application/json"}))

    def _answer(self, response: httpx.Response) -> None:
        self.send_response(response.status_code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        self.wfile.write(response.content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def recording(target: str) -> Iterator[Proxy]:
    proxy = Proxy(target)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        proxy.client.close()
        thread.join()


def kill_rows(url: str, scratch: Path, kills: int = KILLS) -> Iterator[Row]:
    """Each of `kills` jobs is ended once, at a moment drawn between its first request and the last of a job that is
    left alone."""
    random = Random(11)
    questions = _documents(scratch / "documents")
    with recording(url) as proxy:
        whole = scratch / "whole"
        _start(scratch, whole, questions, proxy.url).wait()
        wanted, span = _answers(whole), _asking_seconds(whole)
        lost = twice = changed = equal = compared = struck = 0
        different: list[str] = []
        for number in range(kills):
            out = scratch / f"killed-{number}"
            proxy.asked.clear()
            process = _start(scratch, out, questions, proxy.url)
            while not proxy.asked and process.poll() is None:
                time.sleep(0.005)
            time.sleep(random.uniform(0, span))
            struck += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            kept = _journal(out)
            proxy.asked.clear()
            if _start(scratch, out, questions, proxy.url).wait():
                raise RuntimeError("The resumed job did not end well.")
            after = _journal(out)
            changed += sum(after.get(key) != row for key, row in kept.items())
            lost += len(_journal(whole)) - len(after)
            first_turns = {prompt for prompt in proxy.asked if _turns(prompt) == 1}
            twice += len(first_turns) - (len(after) - len(kept))
            answers = _answers(out)
            compared += len(wanted)
            equal += sum(answers[place] == wanted[place] for place in wanted)
            different += [
                f"{place[0]}, {place[1]} {wanted[place]!r} and {answers[place]!r}: "
                + _margin(url, (scratch / "documents" / place[0]).read_text(), place[1], wanted[place], answers[place])
                for place in wanted
                if answers[place] != wanted[place]
            ]
    for line in different:
        print(line)
    job = f"{kills} jobs of {DOCUMENTS * QUESTIONS} questions, each killed once ({struck} while it ran) and resumed"
    yield Row(f"{job}: answers lost", "none", str(lost), lost == 0)
    yield Row("answers of the journal asked for again", "none", str(twice), twice == 0)
    yield Row("rows of the journal that differ after the resume", "none", str(changed), changed == 0)
    share = equal / compared
    yield Row(
        "answers at temperature 0 equal to an undisturbed job's", f"at least {EQUAL:.0%}",
        f"{share:.1%} of {compared:,}" + ("" if share == 1 else ", the rest listed with their margins"), share >= EQUAL,
    )  # fmt: skip


def _documents(folder: Path) -> Path:
    """The documents, and the file of questions: each is asked of all documents, so most are not in most of them."""
    each = QUESTIONS // DOCUMENTS + 1
    made = cases.documents(Random(4), DOCUMENTS * each, TOKENS, each, lambda text: len(_FORM.encode_text(text)))
    folder.mkdir()
    for place, text in enumerate(dict.fromkeys(case.system for case in made)):
        (folder / f"{place}.txt").write_text(text, encoding="utf-8")
    questions = folder.with_name("questions.jsonl")
    asked = list(dict.fromkeys(case.turn.question for case in made))[:QUESTIONS]
    questions.write_text("".join(json.dumps({"question": text}) + "\n" for text in asked), encoding="utf-8")
    return questions


def _start(scratch: Path, out: Path, questions: Path, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "launch.cli", "analyze", str(scratch / "documents"), "--questions", str(questions)),
            *("--out", str(out), "--server", url, "--temperature", "0", "--quiet"),
        ]
    )


def _journal(out: Path) -> dict[str, tuple[str, str]]:
    """Each answer's row as it stands there."""
    if not (out / "journal.sqlite").exists():
        return {}
    with sqlite3.connect(out / "journal.sqlite") as db:
        return {key: (answer, at) for key, answer, at in db.execute("SELECT key, answer, at FROM answers")}


def _asking_seconds(out: Path) -> float:
    """Between the first and the last answer of a job."""
    times = sorted(datetime.fromisoformat(at) for _, at in _journal(out).values())
    return (times[-1] - times[0]).total_seconds()


def _answers(out: Path) -> dict[tuple[str, str], str]:
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {(row["document"], row["question"]): row["answer"] for row in rows}


def _turns(prompt: tuple[int, ...]) -> int:
    return prompt.count(_FORM.control(SpecialTokens.begin_inst))


def _margin(url: str, document: str, question: str, one: str, other: str) -> str:
    """How far apart, in log-probability, the first tokens are in which two replies to a question differ."""
    conversation = [{"role": "system", "content": READ.format(text=document)}, {"role": "user", "content": question}]
    replies = [_FORM.encode_text(one), _FORM.encode_text(other)]
    place = next((n for n, (a, b) in enumerate(zip(*replies, strict=False)) if a != b), min(map(len, replies)))
    end = _FORM.control(SpecialTokens.eos)
    rivals = [reply[place] if place < len(reply) else end for reply in replies]
    fields = {
        "input_ids": [*_FORM.encode(conversation), *replies[0][:place]],
        "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
        "return_logprob": True,
        "token_ids_logprob": rivals,
    }
    answer = httpx.post(f"{url}/generate", json=fields, timeout=600.0, trust_env=False).raise_for_status().json()
    logprobs = {id: logprob for logprob, id, _ in answer["meta_info"]["output_token_ids_logprobs"][0]}
    return f"margin {abs(logprobs[rivals[0]] - logprobs[rivals[1]]):.4f} at token {place + 1}"
