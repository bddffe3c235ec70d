"""Anthropic's /v1/messages before and after the chat route that serves it.

SGLang translates a request into a chat and its reply back. What that leaves out is put in here: the thinking budget on
the way in; on the way out `usage.reasoning_tokens` and `metadata.reasoning_effort`, named as on the chat route, in the
whole response and in the events `message_start` and `message_delta`.
"""

import copy
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from sglang.srt.entrypoints.anthropic.protocol import (
    AnthropicMessagesRequest,
    AnthropicMessagesResponse,
    AnthropicUsage,
)
from sglang.srt.entrypoints.anthropic.serving import AnthropicServing
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest, ChatCompletionResponse
from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat

from sgl_small4.prompt.format import effort_of
from sgl_small4.prompt.requests import BUDGET


class CountedUsage(AnthropicUsage):
    reasoning_tokens: int = 0


class CountedMessage(AnthropicMessagesResponse):
    usage: CountedUsage
    metadata: dict[str, str]


def chat_request(
    convert: Callable[[Any, AnthropicMessagesRequest], ChatCompletionRequest],
    serving: AnthropicServing,
    request: AnthropicMessagesRequest,
) -> ChatCompletionRequest:
    """The chat that a message asks for, with its thinking budget and the beginning of its reply."""
    thinking, budget = request.thinking, request.thinking and request.thinking.budget_tokens
    if thinking is not None and budget is not None:  # upstream would log that it is not kept
        request = request.model_copy(update={"thinking": thinking.model_copy(update={"budget_tokens": None})})
    chat = convert(serving, request)
    if budget is not None:
        chat.custom_params = {BUDGET: budget}
    if request.messages and request.messages[-1].role == "assistant":  # Anthropic's way to begin a reply
        chat.continue_final_message = True
    return chat


def switch_trace(chat: ChatCompletionRequest, enabled: bool) -> None:
    """Thinking enabled is effort high, disabled is none."""
    chat.reasoning_effort = "high" if enabled else "none"


def counted(message: AnthropicMessagesResponse, chat: ChatCompletionResponse) -> CountedMessage:
    """A whole reply with its trace's tokens and its effort."""
    usage = CountedUsage(**message.usage.model_dump(), reasoning_tokens=chat.usage.reasoning_tokens or 0)
    metadata = {"reasoning_effort": (chat.metadata or {})["reasoning_effort"]}
    return CountedMessage.model_construct(**{**dict(message), "usage": usage, "metadata": metadata})


class Tapped:
    """A chat handler whose last usage is kept on the way to the one who asked for the stream."""

    def __init__(self, chat: OpenAIServingChat) -> None:
        self._chat = chat
        self._last = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chat, name)

    async def _generate_chat_stream(self, *request: Any) -> AsyncIterator[str]:
        async for event in self._chat._generate_chat_stream(*request):
            if '"choices":[]' in event:  # the chunk with the sums
                self._last = event
            yield event

    @property
    def reasoning_tokens(self) -> int:
        usage = json.loads(self._last.removeprefix("data: ")).get("usage") if self._last else None
        return (usage or {}).get("reasoning_tokens") or 0


async def counted_stream(
    generate: Callable[..., AsyncIterator[str]],
    serving: AnthropicServing,
    adapted: Any,
    chat: ChatCompletionRequest,
    *request: Any,
) -> AsyncIterator[str]:
    """The events of a streamed reply with its trace's tokens and its effort."""
    serving, tapped = copy.copy(serving), Tapped(serving.openai_serving_chat)
    serving.openai_serving_chat = tapped
    async for event in generate(serving, adapted, chat, *request):
        if event.startswith("event: message_start\n"):
            event = _edited(event, lambda fields: fields["message"].update(metadata=_effort(chat)))
        elif event.startswith("event: message_delta\n"):
            event = _edited(event, lambda fields: fields["usage"].update(reasoning_tokens=tapped.reasoning_tokens))
        yield event


def _effort(chat: ChatCompletionRequest) -> dict[str, str]:
    return {"reasoning_effort": effort_of(chat.reasoning_effort)}


def _edited(event: str, edit: Callable[[dict[str, Any]], None]) -> str:
    name, data = event.split("\ndata: ", 1)
    fields = json.loads(data)
    edit(fields)
    return f"{name}\ndata: {json.dumps(fields, ensure_ascii=False)}\n\n"
