"""A server of `/generate` whose replies a test writes, as token ids; it keeps every prompt that it was sent."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mistral_common.tokens.tokenizers.base import SpecialTokens

from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.backend import Small4Backend, shown
from sgl_small4.prompt.format import PromptFormat


@cache
def nano_format() -> PromptFormat:
    return PromptFormat.from_folder(CHECKPOINT)


@dataclass(frozen=True)
class Said:
    """A reply: text, and control tokens by their enum, or the ids as they are `given`. Instead of a reply, `refused` is
    what a 400 says, and `dies` cuts the connection."""

    parts: tuple[str | SpecialTokens, ...] = ()
    finish: str = "stop"
    given: tuple[int, ...] = ()
    refused: str = ""
    dies: bool = False

    def ids(self) -> list[int]:
        if self.given:
            return list(self.given)
        format = nano_format()
        ids: list[int] = []
        for part in self.parts:
            ids += [format.control(part)] if isinstance(part, SpecialTokens) else format.encode_text(part)
        return [*ids, format.control(SpecialTokens.eos)] if self.finish == "stop" else ids


def says(*parts: str | SpecialTokens, finish: str = "stop") -> Said:
    return Said(parts, finish)


def calls(*asked: tuple[str, str]) -> Said:
    """Calls in the model's own spelling: name and arguments of each."""
    parts: list[str | SpecialTokens] = []
    for name, arguments in asked:
        parts += [SpecialTokens.tool_calls, name, SpecialTokens.args, arguments]
    return Said(tuple(parts))


@dataclass(frozen=True)
class Request:
    """`prompt` is the ids as a reader sees them."""

    ids: list[int]
    prompt: str
    sampling: dict[str, Any]


Script = Callable[[Request], Said]


class Scripted(ThreadingHTTPServer):
    """Asks `script` for each reply. `most` is how many requests were there at once."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[Request] = []
        self.now = self.most = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_GET(self) -> None:
        folder = str(CHECKPOINT)
        self._send(200, {"model_path": folder, "tokenizer_path": folder, "model_type": "mistral4"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/generate":
            self._send(200, {})
            return
        ids = body["input_ids"]
        request = Request(ids, shown(ids, nano_format()), body["sampling_params"])
        server = self.server
        with server.lock:
            server.requests.append(request)
            server.now += 1
            server.most = max(server.most, server.now)
        said = server.script(request)
        with server.lock:
            server.now -= 1
        if said.dies:
            self.close_connection = True
        elif said.refused:
            self._send(400, {"error": {"message": said.refused}})
        else:
            self._send(200, self._answer(request, said))

    def _answer(self, request: Request, said: Said) -> dict[str, Any]:
        ids = said.ids()
        matched = {"matched": ids[-1]} if said.finish == "stop" else {}
        meta = {
            "prompt_tokens": len(request.ids),
            "cached_tokens": 0,
            "completion_tokens": len(ids),
            "reasoning_tokens": 0,
            "finish_reason": {"type": said.finish, **matched},
        }
        return {"text": "", "output_ids": ids, "meta_info": meta}

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(*replies: Said, script: Script | None = None) -> Iterator[Scripted]:
    """A server that gives `replies` in their order, or asks `script`."""
    coming = iter(replies)
    server = Scripted(script or (lambda request: next(coming)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def backend_of(server: Scripted) -> Iterator[Small4Backend]:
    with Small4Backend(server.url, attempts=1, timeout=30) as backend:
        yield backend
