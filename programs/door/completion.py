"""A graph's result as a chat completion of OpenAI's form, whole or as the chunks of a stream.

The fields are those of SGLang's own route for this model; `metadata` says more: the effort that was asked for, and
where the graph is kept.
"""

import time
import uuid
from typing import Any

import orjson
from sglang.srt.entrypoints.openai.protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatMessage,
    PromptTokensDetails,
    UsageInfo,
)
from sglang.srt.entrypoints.openai.usage_processor import UsageProcessor

from programs.door.asked import Asked
from programs.graph import Usage
from programs.result import Result

DONE = b"data: [DONE]\n\n"
STILL_RUNNING = b": the graph is running\n\n"  # a comment, which clients skip


class Completion:
    """The answer to one request. `cache_report`: whether the server counts cached tokens in its responses."""

    def __init__(self, asked: Asked, graphs_url: str, cache_report: bool) -> None:
        self._asked = asked
        self._graphs_url = graphs_url
        self._cache_report = cache_report
        self._id = uuid.uuid4().hex
        self._created = int(time.time())

    def whole(self, result: Result) -> bytes:
        trace, answer = self._texts(result)
        message = ChatMessage(role="assistant", content=answer, reasoning_content=trace)
        choice = ChatCompletionResponseChoice(index=0, message=message, finish_reason=_finish_reason(result))
        response = ChatCompletionResponse(
            id=self._id,
            created=self._created,
            model=self._asked.model,
            choices=[choice],
            usage=self._usage(result.usage),
            metadata=self._metadata(result),
        )
        return response.model_dump_json(by_alias=True).encode()

    def opening(self) -> bytes:
        """The first chunk, before there is a result."""
        delta = {"role": "assistant", "content": "", "reasoning_content": None}
        return self._chunk(self._choice(delta), metadata={"reasoning_effort": self._asked.effort})

    def rest(self, result: Result) -> bytes:
        """All that follows, to the end of the stream."""
        trace, answer = self._texts(result)
        chunks = []
        if trace:
            chunks.append(self._chunk(self._choice({"reasoning_content": trace})))
        if answer:
            chunks.append(self._chunk(self._choice({"reasoning_content": None, "content": answer})))
        last = self._choice({"reasoning_content": None}, _finish_reason(result))
        chunks.append(self._chunk(last, metadata=self._metadata(result)))
        if self._asked.include_usage:
            chunks.append(self._chunk([], usage=self._usage(result.usage).model_dump()))
        return b"".join([*chunks, DONE])

    def _texts(self, result: Result) -> tuple[str | None, str]:
        if self._asked.separate_trace:
            return result.trace or None, result.answer
        return None, (result.trace or "") + result.answer

    def _metadata(self, result: Result) -> dict[str, Any]:
        id = result.graph.id
        graph = {"id": id, "url": self._graphs_url + id, "state": result.state, "confidence": result.confidence}
        return {"reasoning_effort": self._asked.effort, "graph": graph}

    def _usage(self, usage: Usage) -> UsageInfo:
        return UsageProcessor.calculate_token_usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            reasoning_tokens=usage.trace_tokens,
            cached_tokens=PromptTokensDetails(cached_tokens=usage.cached_tokens) if self._cache_report else None,
        )

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> list[dict[str, Any]]:
        fields = {"logprobs": None, "finish_reason": finish_reason, "matched_stop": None}
        return [{"index": 0, "delta": delta, **fields}]

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {"id": self._id, "object": "chat.completion.chunk", "created": self._created}
        return event({**chunk, "model": self._asked.model, "choices": choices, **more})


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event. Characters that JSON may hold as they are and a line may not end at stay inside it."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def error_body(status: int, sentence: str) -> dict[str, Any]:
    """A refusal in OpenAI's form, as on the other routes."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": sentence, "type": kind, "param": None, "code": status}}


def _finish_reason(result: Result) -> str:
    return "length" if result.state == "cut" else "stop"
