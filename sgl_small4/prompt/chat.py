"""The conversation format as SGLang's chat encoding: ids in and ids out on the chat routes, whatever the parser flags.

SGLang's own route renders a template to text and splits the answer's text again; here `encode_messages` gives the ids
of format.py and the output is parsed from ids by parse.py. What a client sees:

- `reasoning_content` is the trace, `content` the answer, `tool_calls` the calls, with ids of nine letters or digits;
- `metadata.reasoning_effort` says which effort was used, in the response and in the first chunk of a stream;
- `usage.reasoning_tokens` counts the ids of the trace; the scheduler counts them.

The protocol is `ChatEncodingAdapter` in sglang/srt/entrypoints/openai/chat_encoding_adapters.py; plugin/ selects it
and hangs the functions at the end of this file on the chat handler.
"""

import json
from collections.abc import Mapping
from typing import Any

from sglang.srt.entrypoints.openai.chat_encoding_adapters import (
    ChatEncodingAdapterContext,
    select_new_output_ids,
    token_output_sse_chunks,
)
from sglang.srt.entrypoints.openai.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    FunctionResponse,
    ResponsesRequest,
    ToolCall,
)
from sglang.srt.function_call.core_types import ToolCallItem
from sglang.srt.runtime_context import get_serving

from sgl_small4.prompt import passage
from sgl_small4.prompt.format import PromptFormat, effort_of
from sgl_small4.prompt.parse import OpensIn, opens_in
from sgl_small4.prompt.served import served_format
from sgl_small4.prompt.stream import CallDelta, Delta, ReplyStream, Wishes

SPEC = "small4"
OPEN_TRACE = "[THINK]"  # what SGLang calls the prefill of a reply, where a trace is continued


def build_adapter(context: ChatEncodingAdapterContext) -> "Small4ChatEncoding | None":
    """The adapter for the served checkpoint; None where the server runs without a tokenizer."""
    return None if context.tokenizer is None else Small4ChatEncoding(served_format())


class Small4ChatEncoding:
    """Both directions of the format, as the chat routes call them."""

    collects_openai_media = False
    strict_tool_call_arguments = False  # mistral_common takes arguments that are no JSON

    def __init__(self, format: PromptFormat) -> None:
        self._format = format

    @property
    def output(self) -> "Small4ChatEncoding":
        return self

    def encode_messages(self, *, request: ChatCompletionRequest, tools: list[dict] | None, **_: Any) -> list[int]:
        """The prompt's ids, from the request's own messages: the handler's copy went through a lossy JSON parser."""
        messages = [message.model_dump() for message in request.messages]
        passage.unfold(messages, request.chat_template_kwargs)
        continues = request.continue_final_message or any(message.get("prefix") for message in messages[-1:])
        effort = effort_of(request.reasoning_effort)
        ids = self._format.encode(messages, tools, effort, continue_final_message=continues)
        if opens_in(ids, self._format) == "trace":
            request._response_parser_prefix = OPEN_TRACE
        return ids

    def _reply(self, request: ChatCompletionRequest) -> ReplyStream:
        """The reply to this request, before its first id."""
        state: OpensIn = "trace" if request._response_parser_prefix == OPEN_TRACE else "answer"
        if request.input_ids is not None:
            state = opens_in(request.input_ids, self._format)
        wishes = Wishes(
            stops=_stops(request.stop),
            keep_stop=request.no_stop_trim,
            separate_trace=request.separate_reasoning,
            stream_trace=request.stream_reasoning,
            opens_in=state,
        )
        return ReplyStream(self._format, wishes)

    def parse_chat_response(
        self, *, request: ChatCompletionRequest, output_ids: list[int], finish_reason: dict[str, Any]
    ) -> tuple[str | None, str, list[ToolCall] | None, dict[str, Any]]:
        """Trace, answer, calls and finish reason of one choice, whole."""
        reply = self._reply(request).finish(output_ids, finish_reason.get("matched"))
        if reply.calls and finish_reason["type"] == "stop":
            finish_reason = {**finish_reason, "type": "tool_calls"}
        return reply.trace or None, reply.answer, [_tool_call(call) for call in reply.calls] or None, finish_reason

    def stream_chat_chunks(
        self,
        *,
        content: dict[str, Any],
        index: int,
        request: ChatCompletionRequest,
        created: int,
        parser_dict: dict[int, ReplyStream],
        has_tool_calls: dict[int, bool],
        choice_logprobs: dict | None,
        finish_reason_type: str | None,
        usage: dict[str, Any] | None,
    ) -> list[str]:
        """The events of one step of one choice."""
        first = index not in parser_dict
        if first:
            parser_dict[index] = self._reply(request)
        stream = parser_dict[index]
        delta = _step(stream, content, content["meta_info"]["finish_reason"])
        has_tool_calls[index] = has_tool_calls.get(index, False) or bool(delta.calls)
        fields = {"chunk_id": content["meta_info"]["id"], "created": created, "model": request.model, "index": index}
        chunks = token_output_sse_chunks(
            **fields,
            usage=usage,
            logprobs=choice_logprobs,
            reasoning=delta.trace,
            content=delta.answer,
            tool_calls=[_tool_call(call) for call in delta.calls],
        )
        return [_effort_event(request, **fields), *chunks] if first else chunks

    def parse_responses_output(
        self, *, request: ResponsesRequest, output_ids: list[int], finish_reason: dict[str, Any] | None, **_: Any
    ) -> tuple[str, str, list[ToolCallItem]]:
        """Trace, answer and calls for /v1/responses."""
        stream = ReplyStream(self._format, Wishes(_stops(request.stop)))
        reply = stream.finish(output_ids, (finish_reason or {}).get("matched"))
        return reply.trace, reply.answer, [_tool_call_item(call) for call in reply.calls]

    def new_responses_stream(self, *, request: ResponsesRequest, **_: Any) -> "ResponsesStream":
        return ResponsesStream(ReplyStream(self._format, Wishes(_stops(request.stop))))


class ResponsesStream:
    """The same steps as /v1/responses takes them."""

    def __init__(self, stream: ReplyStream) -> None:
        self._stream = stream

    def step(self, chunk: dict[str, Any], finish_reason: dict[str, Any] | None) -> tuple[str, str, list[ToolCallItem]]:
        delta = _step(self._stream, chunk, finish_reason)
        return delta.trace, delta.answer, [_tool_call_item(call) for call in delta.calls]


def _step(stream: ReplyStream, content: Mapping[str, Any], finish_reason: dict[str, Any] | None) -> Delta:
    new_ids = select_new_output_ids(
        output_ids=content.get("output_ids") or [],
        num_consumed_tokens=stream.consumed_tokens,
        completion_tokens=content["meta_info"]["completion_tokens"],
        finish_reason_type=finish_reason["type"] if finish_reason else None,
        incremental=get_serving().incremental_streaming_output,
    )
    return stream.finish(new_ids, finish_reason.get("matched")) if finish_reason else stream.feed(new_ids)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def _tool_call(call: CallDelta) -> ToolCall:
    """Later parts of a call have an empty name: mistralai's client takes no part without one, and null is none."""
    function = FunctionResponse(name=call.name or "", arguments=call.arguments)
    return ToolCall(id=call.id, index=call.index, function=function)


def _tool_call_item(call: CallDelta) -> ToolCallItem:
    return ToolCallItem(tool_index=call.index, name=call.name, parameters=call.arguments)


def _effort_event(request: ChatCompletionRequest, *, chunk_id: str, created: int, model: str, index: int) -> str:
    chunk = {
        "id": chunk_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": index, "delta": {"reasoning_content": None}, "logprobs": None, "finish_reason": None}],
        "metadata": {"reasoning_effort": effort_of(request.reasoning_effort)},
    }
    return f"data: {json.dumps(chunk)}\n\n"


def settle_effort(request: ChatCompletionRequest) -> None:
    """Replace the client's effort by the model's, before the handler asks whether the request reasons."""
    request.reasoning_effort = effort_of(request.reasoning_effort)


def report_effort(response: ChatCompletionResponse, request: ChatCompletionRequest) -> None:
    """Say in a whole response which effort was used."""
    response.metadata = {**(response.metadata or {}), "reasoning_effort": effort_of(request.reasoning_effort)}
