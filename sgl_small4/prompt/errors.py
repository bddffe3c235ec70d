"""Refusals in OpenAI's form, `{"error": {"message": .., "type": .., "param": .., "code": ..}}`, on every route.

SGLang writes the inner object alone where a route of OpenAI's answers whole (`serving_base.py`, `http_server.py`), the
message alone on `/generate`, `detail` for a path it does not know, and six words for one `type`. Anthropic's route has
a form of its own and keeps it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgl_small4.prompt.served import serves_ours

OTHER_ROLES = "'role' must be one of"  # the type of all messages but a user's says so of a user's that is wrong
# What pydantic puts into the place of an error beside field names.
PYTHON_TYPES = frozenset({"str", "int", "float", "bool", "dict", "list", "constrained"})


class OpenAIErrors:
    """ASGI middleware: every refusal in JSON goes out in the one form, however a route or FastAPI wrote it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not serves_ours():
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def pass_on(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message  # waits for the body, whose length it states
                return
            if start is None or message["type"] != "http.response.body":
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                wrapped = in_openai_form(body, start["status"])
                headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
                await send({**start, "headers": [*headers, (b"content-length", str(len(wrapped)).encode())]})
                await send({"type": "http.response.body", "body": wrapped})

        await self.app(scope, receive, pass_on)


def in_openai_form(body: bytes, status: int = 400) -> bytes:
    """The body of a refusal; Anthropic's, and any that holds no sentence, stays as it is."""
    try:
        answer: Any = json.loads(body)
    except ValueError:
        return body
    if not isinstance(answer, dict) or answer.get("type") == "error":
        return body
    said = answer.get("error", answer if answer.get("object") == "error" else answer.get("detail"))
    error = said if isinstance(said, dict) else {"message": said}
    if not isinstance(error.get("message"), str):
        return body
    kind = "invalid_request_error" if status < 500 else "server_error"
    fields = {"message": error["message"], "type": kind, "param": error.get("param"), "code": status}
    return json.dumps({"error": fields}).encode()


def sentence_of(errors: Iterable[Mapping[str, Any]]) -> str:
    """What pydantic found wrong with a body, as one sentence."""
    found: list[str] = []
    for error in errors:
        place = [str(part) for part in error.get("loc", ()) if part != "body"]
        if error.get("type") == "json_invalid":
            reason = error.get("ctx", {}).get("error", "it cannot be read")
            return f"The body is no JSON: {reason} at character {' '.join(place[-1:])}."
        field = ".".join(part for part in place if re.fullmatch("[a-z_0-9]+", part) and part not in PYTHON_TYPES)
        reason = str(error.get("msg", "")).removeprefix("Value error, ").rstrip(".")
        said = f"{field}: {reason}" if field else reason
        if said not in found and not reason.startswith(OTHER_ROLES):
            found.append(said)
    return f"The request is not valid: {'; '.join(found[:3])[:400]}."
