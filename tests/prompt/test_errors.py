"""Refusals have OpenAI's form, whatever form SGLang's routes gave them."""

import json

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse

from sgl_small4.prompt import errors
from sgl_small4.prompt.errors import OpenAIErrors

BARE = {"object": "error", "message": "No «x».", "type": "BadRequest", "param": None, "code": 400}
WRAPPED = {"error": {"message": "No «x».", "type": "invalid_request_error", "param": None, "code": 400}}
NOT_FOUND = {"error": {"message": "Not Found", "type": "invalid_request_error", "param": None, "code": 404}}
FAILED = {"error": {"message": "No «x».", "type": "server_error", "param": None, "code": 503}}
ANTHROPIC = {"type": "error", "error": {"type": "invalid_request_error", "message": "No."}}


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setattr(errors, "serves_ours", lambda: True)
    app = FastAPI()
    app.add_middleware(OpenAIErrors)
    return app


async def answer(app, path="/"):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://small4") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, BARE, WRAPPED),
        (503, BARE, FAILED),
        (400, WRAPPED, WRAPPED),
        (400, ANTHROPIC, ANTHROPIC),
        (
            400,
            {"error": "a: no number"},
            {"error": {"message": "a: no number", "type": "invalid_request_error", "param": None, "code": 400}},
        ),
        (404, {"detail": "Not Found"}, NOT_FOUND),
        (404, ["no", "object"], ["no", "object"]),
        (200, BARE, BARE),
    ],
)
@pytest.mark.anyio
async def test_a_bare_error_goes_under_error(app, status, body, expected):
    app.get("/")(lambda: JSONResponse(body, status_code=status))
    response = await answer(app)
    assert (response.status_code, response.json()) == (status, expected)


@pytest.mark.anyio
async def test_a_body_in_pieces_and_one_that_is_no_json_pass(app):
    def pieces(text):
        return lambda: StreamingResponse((text[i : i + 7] for i in range(0, len(text), 7)), status_code=400)

    app.get("/json")(pieces(json.dumps(BARE)))
    app.get("/text")(pieces("no json at all, but long enough for pieces"))
    assert (await answer(app, "/json")).json() == WRAPPED
    assert (await answer(app, "/text")).text == "no json at all, but long enough for pieces"


@pytest.mark.anyio
async def test_the_refusals_of_other_models_stay_as_they_are(app, monkeypatch):
    monkeypatch.setattr(errors, "serves_ours", lambda: False)
    app.get("/")(lambda: JSONResponse(BARE, status_code=400))
    assert (await answer(app)).json() == BARE


@pytest.fixture
def anyio_backend():
    return "asyncio"
