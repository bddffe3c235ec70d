"""Replies of a scripted model as ids, so that no text becomes a control token; and a server of them, for commands."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sgl_small4.prompt.backend import shown
from sgl_small4.prompt.transport import BackendError
from tests.prompt.scripted import EOS, FORMAT, Scripted, control


def says(text: str) -> list[int]:
    return [*FORMAT.encode_text(text), EOS]


def calls(*asked: tuple[str, str]) -> list[int]:
    """Calls in the model's own spelling: name and arguments of each."""
    ids: list[int] = []
    for name, arguments in asked:
        ids += [control("[TOOL_CALLS]"), *FORMAT.encode_text(name)]
        ids += [control("[ARGS]"), *FORMAT.encode_text(arguments)]
    return [*ids, EOS]


def in_turn(*replies: Any) -> Scripted:
    """Gives `replies` in their order."""
    coming = iter(replies)
    return Scripted(lambda ids, fields: next(coming))


def prompts(script: Scripted) -> list[str]:
    """What was asked, as a reader sees it."""
    return [shown(fields["input_ids"], FORMAT) for fields in script.asked]


class ScriptServer(ThreadingHTTPServer):
    """Answers `/model_info` and `/generate` as `script` does; what it raises is a 400."""

    daemon_threads = True

    def __init__(self, script: Scripted) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptServer

    def do_GET(self) -> None:
        self._send(200, self.server.script.model_info())

    def do_POST(self) -> None:
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            self._send(200, self.server.script.generate(fields, fields["rid"]))
        except BackendError as error:
            self._send(400, {"error": {"message": str(error)}})

    def _send(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def served(script: Scripted) -> Iterator[ScriptServer]:
    server = ScriptServer(script)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
