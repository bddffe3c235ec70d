"""A history's passage through SGLang's request types, which know fewer spellings of a trace than clients use.

Nested thinking is refused there, and `reasoning` and `closed` are dropped in silence. So a body's messages are folded
into what the types keep before they see it, and unfolded before they are encoded. Which chunks were left open travels
in `chat_template_kwargs`, which nothing else reads: no template is rendered for this model.
"""

from collections.abc import Mapping
from typing import Any

from sgl_small4.prompt.history import PromptError, thought

OPEN_TRACES = "open_traces"  # in chat_template_kwargs: [message, chunk] for every chunk with `closed: false`


def fold(body: dict[str, Any]) -> dict[str, Any]:
    """A chat body with its traces in the fields that SGLang's types keep; PromptError for a trace that is none."""
    messages, template = body.get("messages"), body.get("chat_template_kwargs")
    if not isinstance(messages, list):
        return body
    open_traces: list[list[int]] = []
    folded = {**body, "messages": [_message(index, message, open_traces) for index, message in enumerate(messages)]}
    if open_traces and isinstance(template, Mapping | None):
        folded["chat_template_kwargs"] = {**(template or {}), OPEN_TRACES: open_traces}
    return folded


def unfold(messages: list[dict[str, Any]], template: Mapping[str, Any] | None) -> None:
    """Open again, in place, the traces that were open in the body."""
    for message, chunk in (template or {}).get(OPEN_TRACES, ()):
        messages[message]["content"][chunk]["closed"] = False


def _message(index: int, message: object, open_traces: list[list[int]]) -> object:
    """A message of the assistant folded; any other, and what is none, as it is."""
    if not isinstance(message, Mapping) or str(message.get("role")).lower() != "assistant":
        return message
    folded = dict(message)
    trace, named_otherwise = message.get("reasoning_content"), message.get("reasoning")
    if trace is None and named_otherwise is not None:
        folded["reasoning_content"] = named_otherwise
    elif named_otherwise not in (None, trace):
        raise PromptError(
            f"messages[{index}]: reasoning_content and reasoning are one trace, and differ here; give one."
        )
    if isinstance(message.get("content"), list):
        folded["content"] = [
            _chunk(index, number, chunk, open_traces) for number, chunk in enumerate(message["content"])
        ]
    return folded


def _chunk(index: int, number: int, chunk: object, open_traces: list[list[int]]) -> object:
    if not isinstance(chunk, Mapping) or chunk.get("type") not in ("thinking", "reasoning"):
        return chunk
    closed = chunk.get("closed")
    if not isinstance(closed, bool | None):
        raise PromptError(f"messages[{index}]: closed must be true or false, got {closed!r:.80}.")
    if closed is False:
        open_traces.append([index, number])
    return {"type": "thinking", "thinking": thought(index, chunk)}
