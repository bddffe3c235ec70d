"""From a conversation to token ids, exactly as tekken v15 writes it.

    <s>[SYSTEM_PROMPT]s[/SYSTEM_PROMPT][AVAILABLE_TOOLS]t[/AVAILABLE_TOOLS]
    [MODEL_SETTINGS]{"reasoning_effort": "high"}[/MODEL_SETTINGS][INST]u[/INST]
    [THINK]trace[/THINK]answer[TOOL_CALLS]name[ARGS]{..}</s>[TOOL_RESULTS]r[/TOOL_RESULTS]..

The encoder is mistral_common's own. This module is the only one on the served path that emits control ids: they come
by name from the tokenizer's special table, and every text, whoever wrote it, is encoded as text. Traces of earlier
turns are kept where the history holds them.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.normalize import InstructRequestNormalizerV15
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import MistralRequestValidatorV15
from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV15
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from pydantic import ValidationError

from sgl_small4.prompt.tokenizer import load_tokenizer

Effort = Literal["none", "high"]
Message = Mapping[str, Any]

# The model knows two efforts; clients speak OpenAI's scale.
EFFORTS: dict[str, Effort] = {
    "none": "none",
    "minimal": "none",
    "low": "none",
    "medium": "high",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


class PromptError(ValueError):
    """A request that has no prompt in this format; the sentence is for whoever sent it."""


def effort_of(value: object) -> Effort:
    """The model's effort for a client's value; omitted (None) means none."""
    if value is None:
        return "none"
    if isinstance(value, str) and value in EFFORTS:
        return EFFORTS[value]
    without, with_trace = (
        ", ".join(name for name in EFFORTS if EFFORTS[name] == effort) for effort in ("none", "high")
    )
    raise PromptError(
        f"reasoning_effort must be one of {without} (no trace), {with_trace} (a trace), or be left out; got {value!r}."
    )


class PromptFormat:
    """One checkpoint's conversation format: its tokenizer, its control ids, and the encoder over both."""

    def __init__(self, tokenizer: Tekkenizer) -> None:
        self.tokenizer = tokenizer
        self._encoder = MistralTokenizer(
            InstructTokenizerV15(tokenizer),
            validator=MistralRequestValidatorV15(),
            request_normalizer=InstructRequestNormalizerV15.normalizer(tokenizer.model_settings_builder),
        )

    @classmethod
    def from_folder(cls, folder: Path | str) -> "PromptFormat":
        """Read the tokenizer of a checkpoint folder: `tekken.json` when there is one, else `tokenizer.json`."""
        return cls(load_tokenizer(Path(folder)))

    def control(self, name: SpecialTokens) -> int:
        """The id of a control token, by its name in the special table."""
        return self.tokenizer.get_special_token(name.value)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Every id that stands for no text."""
        return frozenset(self.tokenizer.special_ids)

    def text_bytes(self, id: int) -> bytes:
        """The bytes of a text id; empty for a control id, and for a row that a checkpoint pads its vocabulary with."""
        return self.tokenizer.id_to_byte_piece(id) if id < self.tokenizer.n_words else b""

    def encode_text(self, text: str) -> list[int]:
        """The ids of a text, none of them a control id."""
        return self.tokenizer.encode(text, bos=False, eos=False)

    def encode(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        effort: Effort = "none",
        *,
        continue_final_message: bool = False,
    ) -> list[int]:
        """The prompt of a conversation, up to where the assistant speaks.

        `messages` and `tools` have the shape of OpenAI's chat API. An assistant message may carry its trace as
        `reasoning_content` or as `thinking` chunks. With `continue_final_message` the last message is the
        assistant's, and the prompt ends inside it.
        """
        try:
            request = ChatCompletionRequest.from_openai(
                messages=[_message(index, message) for index, message in enumerate(messages)],
                tools=[_tool(index, tool) for index, tool in enumerate(tools)] if tools else None,
                reasoning_effort=effort,
                continue_final_message=continue_final_message,
            )
            return self._encoder.encode_chat_completion(request).tokens
        except PromptError:
            raise
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise PromptError(f"The conversation is not valid: {place}: {first['msg']}.") from error
        except (MistralCommonException, ValueError, AssertionError) as error:
            raise PromptError(f"The conversation is not valid: {_sentence(error)}") from error


def _message(index: int, message: object) -> dict[str, Any]:
    """Check what mistral_common would meet with a KeyError or an assertion, and unfold Mistral's thinking chunks."""
    if not isinstance(message, Mapping):
        raise PromptError(f"messages[{index}]: a message must be an object with a role, got {message!r:.80}.")
    role, content = message.get("role"), message.get("content")
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise PromptError(f"messages[{index}]: the role must be system, user, assistant or tool, got {role!r}.")
    if content is None and role != "assistant":
        raise PromptError(f"messages[{index}]: a {role} message needs content.")
    if not isinstance(content, str | list | None):
        raise PromptError(f"messages[{index}]: content must be a text or a list of chunks.")
    if message.get("tools"):
        raise PromptError(f"messages[{index}]: tools are given with the request, not with a message.")
    if isinstance(content, list):
        content = [_chunk(index, chunk) for chunk in content]
    if role == "assistant" and not (content or message.get("tool_calls") or _trace(message)):
        raise PromptError(f"messages[{index}]: an assistant message needs content, a trace or tool_calls.")
    if role == "tool" and not message.get("tool_call_id"):
        raise PromptError(f"messages[{index}]: a tool message needs the tool_call_id of the call that it answers.")
    return {**message, "content": content}


def _chunk(index: int, chunk: object) -> dict[str, Any]:
    if not isinstance(chunk, Mapping):
        raise PromptError(f"messages[{index}]: a content chunk must be an object with a type, got {chunk!r:.80}.")
    if chunk.get("type") in ("image", "image_url"):
        raise PromptError(f"messages[{index}]: this checkpoint is served for text only, it takes no images.")
    if chunk.get("type") in ("input_audio", "audio_url"):
        raise PromptError(f"messages[{index}]: this model takes no audio.")
    if chunk.get("type") in ("thinking", "reasoning"):
        closed = {"closed": chunk["closed"]} if chunk.get("closed") is not None else {}
        return {"type": "thinking", "thinking": _thought(index, chunk), **closed}
    return dict(chunk)


def _tool(index: int, tool: object) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or not isinstance(tool.get("function"), Mapping):
        raise PromptError(f"tools[{index}]: a tool must be an object with a function, got {tool!r:.80}.")
    return dict(tool)


def _thought(index: int, chunk: Message) -> str:
    """The text of a thinking chunk: a plain text, or text chunks as Mistral's API nests them."""
    thought = chunk.get("thinking") or chunk.get("text") or ""
    if isinstance(thought, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in thought):
        thought = "".join(part["text"] for part in thought)
    if not isinstance(thought, str):
        raise PromptError(f"messages[{index}]: a thinking chunk holds a text or text chunks, got {thought!r:.80}.")
    return thought


def _trace(message: Message) -> str | None:
    return message.get("reasoning_content") or message.get("reasoning")


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return reason if reason.endswith(".") else f"{reason}."
