"""A server of the chat API that says what a test tells it to, and can die in the middle."""

import json
from contextlib import AbstractContextManager
from typing import Any

from tests.fake_http import FakeHTTPServer, JSONHandler, running

USAGE = {"prompt_tokens": 30, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 12}}


def piece(finish: str | None = None, **delta: str) -> dict[str, Any]:
    """One chunk of a stream."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}


REPLY = [
    piece(role="assistant", content=""),
    piece(reasoning_content="17+25:"),
    piece(reasoning_content="7+5=12"),
    piece(content="4"),
    piece(content="2"),
    piece(finish="stop"),
    {"choices": [], "usage": USAGE},
]


class FakeServer(FakeHTTPServer):
    """Streams `chunks` and `[DONE]`; `dies` cuts the connection instead of the end; `refusal` is the body of a 400."""

    def __init__(self, chunks: list[dict[str, Any]], dies: bool, refusal: dict[str, Any] | None) -> None:
        super().__init__(_Handler)
        self.chunks, self.dies, self.refusal = chunks, dies, refusal
        self.requests: list[dict[str, Any]] = []


class _Handler(JSONHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_GET(self) -> None:
        self.send(200, {"object": "list", "data": [{"id": "fake-small4", "max_model_len": 4096}]})

    def do_POST(self) -> None:
        self.server.requests.append(self.read())
        if self.server.refusal is not None:
            self.send(400, self.server.refusal)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in self.server.chunks:
            self._event(json.dumps(chunk))
        if self.server.dies:
            self.close_connection = True
            return
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))


def fake_server(
    chunks: list[dict[str, Any]] = REPLY, dies: bool = False, refusal: dict[str, Any] | None = None
) -> AbstractContextManager[FakeServer]:
    return running(FakeServer(chunks, dies, refusal))
