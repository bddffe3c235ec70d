"""What is read of any server of OpenAI's API, whoever asks it."""

from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field


class Wire(BaseModel):
    """What is read of a server's JSON; fields that are not named are let go."""

    model_config = ConfigDict(extra="ignore")


class Model(Wire):
    id: str


class Models(Wire):
    """The answer of /v1/models."""

    data: list[Model] = Field(min_length=1)


def base_url(server: str) -> str:
    """`host:port`, `http://host:port/` and `http://host:port/v1` as `http://host:port`."""
    url = server if "://" in server else f"http://{server}"
    return url.rstrip("/").removesuffix("/v1")


def refusal(response: httpx.Response) -> str:
    """The server's own sentence, empty where it has none: OpenAI puts it under `error`, SGLang at the top."""
    try:
        body: Any = response.json()
    except ValueError:
        return ""
    if isinstance(body, dict):
        error = body.get("error")
        for message in (error.get("message") if isinstance(error, dict) else error, body.get("message")):
            if isinstance(message, str) and message.strip():
                return message.strip()
    return ""
