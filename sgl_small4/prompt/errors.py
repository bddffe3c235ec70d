"""Refusals in OpenAI's form, `{"error": {"message": .., "type": .., "param": .., "code": ..}}`, on every route.

SGLang writes the inner object alone where a route of OpenAI's answers whole (`serving_base.py`, `http_server.py`), and
the right form in streams and on `/v1/responses`. Anthropic's route has a form of its own and keeps it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgl_small4.prompt.served import serves_ours

NOWHERE = {"param": None, "code": 400}
OTHER_ROLES = "'role' must be one of"  # the type of all messages but a user's says so of a user's that is wrong
# What pydantic puts into the place of an error beside field names.
PYTHON_TYPES = frozenset({"str", "int", "float", "bool", "dict", "list", "constrained"})


class OpenAIErrors:
    """ASGI middleware: a JSON body that is a bare error object goes out as the value of `error`."""

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
                wrapped = in_openai_form(body)
                headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
                await send({**start, "headers": [*headers, (b"content-length", str(len(wrapped)).encode())]})
                await send({"type": "http.response.body", "body": wrapped})

        await self.app(scope, receive, pass_on)


def in_openai_form(body: bytes) -> bytes:
    """The body of a refusal; any that is no bare error object of SGLang's stays as it is."""
    try:
        error: Any = json.loads(body)
    except ValueError:
        return body
    if isinstance(error, dict) and isinstance(error.get("error"), str):  # /generate, of a field's type
        return json.dumps({"error": {"message": error["error"], "type": "invalid_request_error"} | NOWHERE}).encode()
    if not isinstance(error, dict) or error.get("object") != "error" or "message" not in error:
        return body
    return json.dumps({"error": {name: error.get(name) for name in ("message", "type", "param", "code")}}).encode()


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
