"""OpenAI's /v1/responses on its way to the scheduler: limits that mean what they say, and refusals in one sentence."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import HTTPException
from pydantic import ValidationError
from sglang.srt.entrypoints.openai.protocol import ResponsesRequest

from sgl_small4.prompt.errors import sentence_of
from sgl_small4.prompt.requests import BUDGET


def sampling_params(
    build: Callable[..., dict[str, Any]], request: ResponsesRequest, *args: Any, **kwargs: Any
) -> dict[str, Any]:
    """Sampling parameters with the thinking budget, and with all tokens that `max_output_tokens` grants."""
    params = build(request, *args, **kwargs)
    budget = (request.chat_template_kwargs or {}).get(BUDGET)
    if budget is not None:
        params["custom_params"] = {BUDGET: budget}
    if request.max_output_tokens is not None:  # upstream takes two off
        params["max_new_tokens"] = request.max_output_tokens
    return params


async def prompt_of(make: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """The prompt of a request; upstream answers a refusal with the exceptions behind it."""
    try:
        return await make(*args, **kwargs)
    except ValidationError as error:
        raise HTTPException(status_code=400, detail=sentence_of(error.errors(include_url=False))) from error
    except ValueError as error:
        raise HTTPException(status_code=400, detail=str(error)) from error
