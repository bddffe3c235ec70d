"""Replies of a scripted model as ids, so that no text becomes a control token; and a server of them, for commands."""

from contextlib import AbstractContextManager
from typing import Any

from sgl_small4.prompt.backend import shown
from sgl_small4.prompt.transport import BackendError
from tests.fake_http import FakeHTTPServer, JSONHandler, running
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


class ScriptServer(FakeHTTPServer):
    """Answers `/model_info` and `/generate` as `script` does; what it raises is a 400."""

    def __init__(self, script: Scripted) -> None:
        super().__init__(_Handler)
        self.script = script


class _Handler(JSONHandler):
    server: ScriptServer

    def do_GET(self) -> None:
        self.send(200, self.server.script.model_info())

    def do_POST(self) -> None:
        fields = self.read()
        try:
            self.send(200, self.server.script.generate(fields, fields["rid"]))
        except BackendError as error:
            self.send(400, {"error": {"message": str(error)}})


def served(script: Scripted) -> AbstractContextManager[ScriptServer]:
    return running(ScriptServer(script))
