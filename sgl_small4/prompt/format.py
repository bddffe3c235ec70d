"""From a conversation to token ids, exactly as tekken v15 writes it.

    <s>[SYSTEM_PROMPT]s[/SYSTEM_PROMPT][AVAILABLE_TOOLS]t[/AVAILABLE_TOOLS]
    [MODEL_SETTINGS]{"reasoning_effort": "high"}[/MODEL_SETTINGS][INST]u[/INST]
    [THINK]trace[/THINK]answer[TOOL_CALLS]name[ARGS]{..}</s>[TOOL_RESULTS]r[/TOOL_RESULTS]..

The encoder is mistral_common's own; history.py puts a client's conversation into the form that it takes. This module
is the only one on the served path that emits control ids: they come by name from the tokenizer's special table, and
every text, whoever wrote it, is encoded as text. Traces of earlier turns are kept where the history holds them.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.messages import Roles
from mistral_common.protocol.instruct.normalize import InstructRequestNormalizerV15
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import MistralRequestValidatorV15
from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV15
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from pydantic import ValidationError

from sgl_small4.prompt import history
from sgl_small4.prompt.history import Message
from sgl_small4.prompt.history import PromptError as PromptError
from sgl_small4.prompt.tokenizer import load_tokenizer

Effort = Literal["none", "high"]

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


class ConversationValidator(MistralRequestValidatorV15):
    """mistral_common's rules, less strict in the two points that history.py decides: where a system message may stand,
    and whether every call has a result. Its encoder writes both as they come.
    """

    def _validate_message_order(self, messages: list[Any]) -> None:
        super()._validate_message_order([message for message in messages if message.role != Roles.system])

    def _validate_tool_calls_followed_by_tool_messages(self, messages: list[Any]) -> None:
        """Nothing: history.py has paired the results with their calls."""


class PromptFormat:
    """One checkpoint's conversation format: its tokenizer, its control ids, and the encoder over both."""

    def __init__(self, tokenizer: Tekkenizer) -> None:
        self.tokenizer = tokenizer
        self._pieces: dict[int, bytes] = {}  # asked for once per streamed token
        self._encoder = MistralTokenizer(
            InstructTokenizerV15(tokenizer),
            validator=ConversationValidator(),
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
        piece = self._pieces.get(id)
        if piece is None:
            piece = self.tokenizer.id_to_byte_piece(id) if id < self.tokenizer.n_words else b""
            self._pieces[id] = piece
        return piece

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
            settled = history.settle(messages)
            if continue_final_message and messages[-1:] and messages[-1]["role"] == "assistant":
                # A final message that says nothing was left out: there is nothing to end the prompt inside of.
                continue_final_message = bool(settled) and settled[-1]["role"] == "assistant"
            request = ChatCompletionRequest.from_openai(
                messages=settled,
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
        except RecursionError as error:
            raise PromptError(
                "The conversation is not valid: arguments or a tool's parameters nest too deep."
            ) from error
        except (MistralCommonException, ValueError, AssertionError) as error:
            raise PromptError(f"The conversation is not valid: {_sentence(error)}") from error


def _tool(index: int, tool: object) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or not isinstance(tool.get("function"), Mapping):
        raise PromptError(f"tools[{index}]: a tool must be an object with a function, got {tool!r:.80}.")
    return dict(tool)


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    reason = reason if len(reason) <= 300 else f"{reason[:300]}.."
    return reason if reason.endswith(".") else f"{reason}."
