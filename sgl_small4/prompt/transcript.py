"""What an SGLang program has said so far, as token ids: each text encoded once, each output kept as it was generated.

The interpreter (sglang/lang/interpreter.py, 0.5.23) shows a backend one growing string, the finished messages and where
the open role begins. A transcript follows them by blocks, one per role: what is new since it was last looked at is
encoded as text and added; what the model generated is added by its own ids. So a turn costs the encoding of that turn,
and its prompt begins with the ids of the one before, which is what the prefix cache needs. Control ids come from here
alone; the strings of `TEMPLATE` only show a reader where a role begins and ends, and are never encoded.

Transcripts are immutable: a fork shares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mistral_common.tokens.tokenizers.base import SpecialTokens
from sglang.lang.chat_template import ChatTemplate, register_chat_template, register_chat_template_matching_function

from sgl_small4.config import ConfigError, Small4Config
from sgl_small4.prompt.format import PromptError, PromptFormat

TEMPLATE = ChatTemplate(
    name="mistral-small-4",
    default_system_prompt=None,
    role_prefix_and_suffix={
        "system": ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        "user": ("[INST]", "[/INST]"),
        "assistant": ("", "</s>"),
        "tool": ("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    },
    image_token="[IMG]",
)

FRAMES = {
    "system": (SpecialTokens.begin_system, SpecialTokens.end_system),
    "user": (SpecialTokens.begin_inst, SpecialTokens.end_inst),
    "tool": (SpecialTokens.begin_tool_results, SpecialTokens.end_tool_results),
}
NO_IMAGES = "The program shows an image, and this release of the model reads text only."
BETWEEN = "\n\n"  # what mistral_common puts between two turns of one role


def register_template() -> None:
    """Make SGLang's frontend find the template for this model: by what a folder holds, or by the published name."""
    register_chat_template(TEMPLATE)
    register_chat_template_matching_function(_template_for)


def _template_for(model_path: str) -> str | None:
    try:
        Small4Config.from_folder(model_path)
        return TEMPLATE.name
    except (ConfigError, OSError):
        return TEMPLATE.name if "mistral-small-4" in str(model_path).lower() else None


@dataclass(frozen=True)
class Block:
    """What one role said; `role` None is text outside of any role. `text` is what the ids were encoded from, None once
    the model generated some of them."""

    role: str | None
    ids: tuple[int, ...] = ()
    text: str | None = ""
    closed: bool = False


@dataclass(frozen=True)
class Transcript:
    """Blocks up to character `at` of the interpreter's text and message `messages` of its messages.

    `begin` is where the open role's content begins in the text, None while no role is open.
    """

    blocks: tuple[Block, ...] = ()
    at: int = 0
    messages: int = 0
    begin: int | None = None

    def follow(self, executor: Any, format: PromptFormat) -> "Transcript":
        """What the executor has said by now."""
        text, now = executor.text_, self
        for message in executor.messages_[self.messages :]:
            now = now._close(message["role"], _content(message), text, format)
        if executor.cur_role is None:
            return replace(now._write(text[now.at :], format), at=len(text))
        if now.begin is None:
            begin = executor.cur_role_begin_pos
            now = now._write(text[now.at : begin - len(_frame(executor.cur_role)[0])], format)
            now = replace(now._open(executor.cur_role, format), begin=begin, at=begin)
        return replace(now._write(text[now.at :], format), at=len(text))

    def output(self, ids: Sequence[int], text: str) -> "Transcript":
        """With what the model generated; the interpreter adds `text` to its own."""
        last = self.blocks[-1] if self.blocks and not self.blocks[-1].closed else None
        if last is None:
            return replace(self, blocks=(*self.blocks, Block(None, tuple(ids), None)), at=self.at + len(text))
        grown = replace(last, ids=last.ids + tuple(ids), text=None)
        return replace(self, blocks=(*self.blocks[:-1], grown), at=self.at + len(text))

    def ids(self, format: PromptFormat, settings: Sequence[int]) -> list[int]:
        """The prompt: [tokens]. `settings` (tools and effort) stand before the first user's turn,
        or where nobody asks before the first of the assistant."""
        ids = [format.control(SpecialTokens.bos)]
        roles = [block.role for block in self.blocks]
        first = "user" if "user" in roles else "assistant"
        before = roles.index(first) if first in roles else None
        for number, block in enumerate(self.blocks):
            if number == before:
                ids += settings
            if block.role in FRAMES:
                begin, end = FRAMES[block.role]
                ids.append(format.control(begin))
                ids += block.ids
                if block.closed:
                    ids.append(format.control(end))
            else:
                ids += block.ids
                if block.closed and block.ids:
                    ids.append(format.control(SpecialTokens.eos))
        return ids

    def _close(self, role: str, content: str, text: str, format: PromptFormat) -> "Transcript":
        """A role that has ended. The interpreter strips white space from the left of `content`; the text has it."""
        prefix, suffix = _frame(role)
        now = self
        if now.begin is None:
            start = _find(text, now.at, prefix, content, suffix)
            now = now._write(text[now.at : start], format)._open(role, format)
            begin = start + len(prefix)
            now = replace(now, at=begin)
        else:
            begin = now.begin
        end = begin + _white_space(text, begin) + len(content)
        now = now._write(text[now.at : end], format)
        last = replace(now.blocks[-1], closed=True)
        if role == "assistant" and last.text and last.text.endswith(" "):  # mistral_common leaves these spaces out
            last = replace(last, ids=tuple(format.encode_text(last.text.rstrip(" "))))
        blocks = (*now.blocks[:-1], last)
        return Transcript(blocks, end + len(suffix), now.messages + 1)

    def _open(self, role: str, format: PromptFormat) -> "Transcript":
        """A role begins. Two turns of a user or of the assistant in a row are one, as in mistral_common."""
        last = self.blocks[-1] if self.blocks else None
        if last is None or last.role != role or role not in ("user", "assistant") or not last.ids:
            return replace(self, blocks=(*self.blocks, Block(role)))
        if last.text is not None:  # encoded again with what follows: one turn is one text
            return replace(self, blocks=(*self.blocks[:-1], Block(role, text=last.text + BETWEEN)))
        opened = replace(self, blocks=(*self.blocks[:-1], replace(last, closed=False)))
        return opened._write(BETWEEN, format)

    def _write(self, text: str, format: PromptFormat) -> "Transcript":
        """Text that the program wrote, at the end of the open block."""
        is_open = bool(self.blocks) and not self.blocks[-1].closed
        last, kept = (self.blocks[-1], self.blocks[:-1]) if is_open else (Block(None), self.blocks)
        if not last.ids:
            whole = (last.text or "") + text
            if not whole:
                return self
            return replace(self, blocks=(*kept, replace(last, ids=tuple(format.encode_text(whole)), text=whole)))
        if not text:
            return self
        return replace(self, blocks=(*kept, replace(last, ids=last.ids + tuple(format.encode_text(text)), text=None)))


def settings_ids(format: PromptFormat, effort: Any, tools: Sequence[Any]) -> list[int]:
    """What stands before the first [INST]: the tools and the effort; raises PromptError for a tool that is none."""
    ids = format.encode([{"role": "user", "content": "-"}], tools, effort)
    return ids[1 : ids.index(format.control(SpecialTokens.begin_inst))]


def _frame(role: str) -> tuple[str, str]:
    if role not in TEMPLATE.role_prefix_and_suffix:
        raise PromptError(f"The program opened a role named {role!r}; there are system, user, assistant and tool.")
    return TEMPLATE.role_prefix_and_suffix[role]


def _content(message: dict[str, Any]) -> str:
    if not isinstance(message["content"], str):
        raise PromptError(NO_IMAGES)
    return message["content"]


def _find(text: str, at: int, prefix: str, content: str, suffix: str) -> int:
    """Where a finished message begins: at once, or after text that stands outside of any role."""
    start = at
    while start != -1:
        begin = start + len(prefix)
        if text.startswith(content + suffix, begin + _white_space(text, begin)):
            return start
        start = text.find(prefix, start + 1)
    raise PromptError(
        f"The program's text does not hold its own message {content!r:.80}: it was changed outside of the language."
    )


def _white_space(text: str, at: int) -> int:
    """Characters of white space from `at` on."""
    end = at
    while end < len(text) and text[end].isspace():
        end += 1
    return end - at
