"""A stream that is refused before its first token is answered as a whole answer would be: with status 400.

SGLang opens the streams of /generate, /v1/responses and /v1/messages before the request is checked, so that a refusal
comes as an event of a response with status 200, which most clients take for an empty answer.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Send

OPENING_EVENTS = 3  # the most that a route sends before its first token: `response.created` and two more


@dataclass
class Progress:
    """How far the request behind one stream has come."""

    begun: bool = False


class Refused(BaseException):
    """A refusal on its way to `stream_or_refuse`.

    Not an Exception: SGLang's streams catch those, log them with a traceback and answer with an event.
    """


_stream: ContextVar[Progress | None] = ContextVar("small4_stream", default=None)


async def watched(check: Callable[[], None], outputs: AsyncIterator[Any], http: Any) -> AsyncIterator[Any]:
    """The outputs of one request after `check`; the stream that this runs in learns how it begins."""
    progress = _stream.get()
    try:
        check()
        async with aclosing(outputs):  # type: ignore[type-var]
            async for output in outputs:
                if progress is not None:
                    progress.begun = True
                yield output
    except ValueError as error:
        if progress is None or progress.begun or http is None:
            raise
        raise Refused(http.url.path, str(error)) from None


async def stream_or_refuse(stream: Callable, response: StreamingResponse, send: Send) -> None:
    """Send a stream from its first event on, once it is known that there is no refusal; otherwise the refusal."""
    progress = Progress()
    _stream.set(progress)
    events = aiter(response.body_iterator)
    opening: list[Any] = []
    try:
        while not progress.begun and len(opening) < OPENING_EVENTS:
            opening.append(await anext(events))
    except StopAsyncIteration:
        pass
    except Refused as refused:
        response.background = None  # SGLang's aborts the request there, and fails on one that was not let in
        refusal = JSONResponse(body_of(*refused.args), status_code=400)
        await send({"type": "http.response.start", "status": 400, "headers": refusal.raw_headers})
        await send({"type": "http.response.body", "body": refusal.body})
        return
    response.body_iterator = _joined(opening, events)
    await stream(response, send)


def body_of(path: str, sentence: str) -> dict[str, Any]:
    """A refusal in the form of the route at `path`."""
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": "invalid_request_error", "message": sentence}}
    return {"error": {"message": sentence, "type": "invalid_request_error", "param": None, "code": 400}}


async def _joined(opening: list[Any], events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    for event in opening:
        yield event
    async for event in events:
        yield event
