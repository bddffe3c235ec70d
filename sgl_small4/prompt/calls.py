"""The array spelling of calls, read as it comes: `[{"name": "look", "arguments": {..}}, ..]`.

A call is given as soon as its name and the beginning of its arguments are there, and its arguments as they are written:
one that a limit cuts off is the call as far as it came. What is no call of an array is text, and none of it is lost.
"""

import json
import re
from typing import Literal, NamedTuple

WHITE_SPACE = " \t\r\n"
UNFINISHED_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?$")


class Part(NamedTuple):
    """What one step adds: the beginning of a call, more of its arguments, or text that belongs to no call."""

    kind: Literal["call", "arguments", "text"]
    text: str
    name: str = ""


State = Literal[
    "before", "between", "key", "key string", "colon", "value", "string", "nested", "scalar", "after", "no array"
]


class CallArray:
    """The state machine over characters: the same parts for every chunking, but for where texts are cut."""

    def __init__(self) -> None:
        self._state: State = "before"
        self._held: list[str] = []  # what is text if no call comes of it
        self._any_call = False
        self._parts: list[tuple[Literal["call", "arguments", "text"], list[str], str]] = []
        self._begin_element()

    def _begin_element(self) -> None:
        self._key = ""
        self._raw: list[str] = []  # the value, or the key, that is being read
        self._name: str | None = None
        self._arguments: str | None = None
        self._given = False  # whether the element's call has been passed on
        self._streams = False  # whether the value being read is
        self._depth = 0
        self._quoted = self._escaped = False

    def feed(self, text: str) -> list[Part]:
        for number, character in enumerate(text):
            if self._state == "no array":
                self._give("text", text[number:])
                break
            held = len(self._held)
            if not self._step(character):
                self._state = "no array"
                self._give("text", "".join(self._held[:held]) + character)
                self._held.clear()
        return self._take()

    def finish(self) -> list[Part]:
        """The section is over, by a control token or by a limit."""
        cut_arguments = self._state == "string" and self._key in ("arguments", "parameters") and not self._given
        if (
            cut_arguments
            and self._name
            and (text := unquoted(UNFINISHED_ESCAPE.sub(r"\1", "".join(self._raw)))) is not None
        ):
            self._give("call", text, self._name)
        elif not self._given and (self._state not in ("between", "after") or not self._any_call):
            self._give("text", "".join(self._held))
        self._state = "no array"
        self._held.clear()
        return self._take()

    def _give(self, kind: Literal["call", "arguments", "text"], text: str, name: str = "") -> None:
        if self._parts and kind == self._parts[-1][0] != "call":
            self._parts[-1][1].append(text)
        elif text or kind == "call":
            self._parts.append((kind, [text], name))

    def _take(self) -> list[Part]:
        parts, self._parts = self._parts, []
        return [Part(kind, "".join(texts), name) for kind, texts, name in parts]

    def _step(self, character: str) -> bool:
        """Read one character; False when it cannot stand there."""
        state = self._state
        if state in ("nested", "string", "key string", "scalar"):
            return self._value(character)
        if character in WHITE_SPACE:
            self._held.append(character)
        elif state == "before" and character == "[":
            self._state = "between"
            self._held.append(character)
        elif state == "between" and character == ",":
            self._held.append(character)
        elif state == "between" and character == "{":
            self._begin_element()
            self._state = "key"
            self._held.append(character)
        elif state == "between" and character == "]" and self._any_call:
            self._state = "after"
            self._held.clear()
        elif state == "key" and character in ',"':
            self._state = "key" if character == "," else "key string"
            self._raw = []
            self._held.append(character)
        elif state == "key" and character == "}":
            return self._end_element()
        elif state == "colon" and character == ":":
            self._state = "value"
            self._held.append(character)
        elif state == "value":
            return self._begin_value(character)
        else:
            return False
        return True

    def _begin_value(self, character: str) -> bool:
        self._raw = []
        if character == '"':
            self._state = "string"
            self._held.append(character)
            return True
        if character in ":,]}":
            return False
        self._state = "nested" if character in "{[" else "scalar"
        is_arguments = self._key in ("arguments", "parameters")
        if self._state == "nested" and is_arguments and self._name and not self._given:
            self._pass_on("")
            self._streams = True
        return self._value(character)

    def _value(self, character: str) -> bool:
        """Read one character of a value, or of a key."""
        if self._state == "scalar" and character in WHITE_SPACE + ",}":
            return self._end_value("".join(self._raw)) and self._step(character)
        if self._streams:
            self._give("arguments", character)
        else:
            self._held.append(character)
        if self._state in ("nested", "scalar"):
            if not self._streams:
                self._raw.append(character)
            self._count(character)
            return bool(self._depth) or self._state == "scalar" or self._end_value("".join(self._raw))
        if self._escaped or character != '"':
            self._escaped = character == "\\" and not self._escaped
            self._raw.append(character)
            return True
        text = unquoted("".join(self._raw))
        if text is None:
            return False
        if self._state == "key string":
            self._key, self._state = text, "colon"
            return True
        return self._end_value(text)

    def _count(self, character: str) -> None:
        if self._quoted:
            self._quoted = self._escaped or character != '"'
            self._escaped = character == "\\" and not self._escaped
        elif character == '"':
            self._quoted = True
        else:
            self._depth += (character in "{[") - (character in "}]")

    def _end_value(self, text: str) -> bool:
        if self._state == "string" and self._key == "name":
            self._name = self._name or text
        elif self._key == "name":
            return False
        elif self._key in ("arguments", "parameters") and self._arguments is None:
            self._arguments = text
            if self._name and not self._given:
                self._pass_on(text)
        self._state, self._streams = "key", False
        return True

    def _end_element(self) -> bool:
        if not self._given:
            if not self._name:
                return False
            self._pass_on("{}" if self._arguments is None else self._arguments)
        self._state, self._given = "between", False
        self._held.clear()
        return True

    def _pass_on(self, arguments: str) -> None:
        self._give("call", arguments, self._name or "")
        self._given = self._any_call = True
        self._held.clear()


def unquoted(raw: str) -> str | None:
    """The text that stands between the quotes of a JSON string, None where it is none; no half of a surrogate pair."""
    try:
        text = json.loads(f'"{raw}"', strict=False)
    except json.JSONDecodeError:
        return None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
