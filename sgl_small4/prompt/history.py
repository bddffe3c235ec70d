"""A client's conversation, as agents and SDKs send it, put into the form that mistral_common encodes.

What mistral_common accepts keeps its ids exactly. For what it would refuse or stumble over, one choice each:

in the history                                       in the prompt
---------------------------------------------------  ------------------------------------------------------------------
role developer                                       a system message, as mistral_common has it
another role, or none                                refused
a system message after an answer, a call, a result   [SYSTEM_PROMPT]..[/SYSTEM_PROMPT] at its place (1)
assistant messages in a row                          one turn, as mistral_common has it; their calls are one list
an assistant turn without text, trace and calls      left out (a reply that was interrupted); asked to continue it, the
                                                     model begins
content null or missing, of a tool's result          an empty result
content null or missing, of a user or a system       refused
a trace: `reasoning_content`, `reasoning`, chunks    [THINK]..[/THINK] at its place, in old turns as in the last one;
  of type thinking or reasoning, plain or nested       without [/THINK] where a chunk says `closed: false`
arguments: an object, or JSON as a text              that JSON
arguments: a text that is no JSON                    that text as a JSON string, as mistral_common has it
a call without a result                              kept; the conversation goes on
a result of no call in the assistant turn before it  refused
a second result of a call                            refused

(1) mistral_common writes it so after a user's turn and refuses it elsewhere. At its place it keeps its weight, which
the user's turn would take from it, and what stands before it stays the same prefix, which a place further up would not.

Ids of calls are not part of a v15 prompt; they say which result answers which call, and results stand in the order of
the calls. Nine letters or digits are what all of Mistral's validators take: such an id stays. Any other (longer,
shorter, a number, null, missing) becomes one made from it alone, the same in every later request. Where calls of one
turn share an id, the first result with it answers the first of them. A result without an id answers the first call of
the turn without one, or else the first that waits.
"""

import hashlib
import json
import re
import string
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
VALID_ID = re.compile("[a-zA-Z0-9]{9}")
LETTERS = string.ascii_letters + string.digits


class PromptError(ValueError):
    """A request that has no prompt in this format; the sentence is for whoever sent it."""


Placed = tuple[int, dict[str, Any]]  # a message, and where it stands in the client's list


def settle(messages: Sequence[object]) -> list[dict[str, Any]]:
    """The messages in OpenAI's shape as mistral_common takes it, call ids valid and paired.

    Raises PromptError for what the table above calls refused. What is left to refuse is mistral_common's to say.
    """
    placed = [(index, _message(index, message)) for index, message in enumerate(messages)]
    kept = [turn for turn in _turns(placed) if not _says_nothing(turn)]
    _pair_calls(kept)
    return [message for turn in kept for _, message in turn]


def _turns(messages: Iterable[Placed]) -> list[list[Placed]]:
    """Assistant messages in a row together, every other message alone."""
    turns: list[list[Placed]] = []
    for placed in messages:
        if turns and placed[1]["role"] == turns[-1][-1][1]["role"] == "assistant":
            turns[-1].append(placed)
        else:
            turns.append([placed])
    return turns


def _says_nothing(turn: list[Placed]) -> bool:
    return all(
        message["role"] == "assistant"
        and not message.get("tool_calls")
        and message.get("reasoning_content") is None
        and message.get("reasoning") is None
        and not _says_something(message["content"])
        for _, message in turn
    )


def _says_something(content: str | list[dict[str, Any]] | None) -> bool:
    if isinstance(content, list):
        return any(chunk.get("type") != "text" or chunk.get("text") != "" for chunk in content)
    return bool(content)


def _message(index: int, message: object) -> dict[str, Any]:
    """Check what mistral_common would meet with a KeyError or an assertion, and unfold Mistral's thinking chunks."""
    if not isinstance(message, Mapping):
        raise PromptError(f"messages[{index}]: a message must be an object with a role, got {message!r:.80}.")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise PromptError(f"messages[{index}]: the role must be system, user, assistant or tool, got {role!r:.80}.")
    if content is None and role == "tool":
        content = ""
    if content is None and role != "assistant":
        raise PromptError(f"messages[{index}]: a {role} message needs content.")
    if not isinstance(content, str | list | None):
        raise PromptError(f"messages[{index}]: content must be a text or a list of chunks.")
    if message.get("tools"):
        raise PromptError(f"messages[{index}]: tools are given with the request, not with a message.")
    if isinstance(content, list):
        content = [_chunk(index, chunk) for chunk in content]
    settled = {**message, "content": content}
    if role == "assistant" and message.get("tool_calls"):
        settled["tool_calls"] = _calls(index, message["tool_calls"])
    return settled


def _calls(index: int, calls: object) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise PromptError(f"messages[{index}]: tool_calls must be a list of calls, got {calls!r:.80}.")
    for number, call in enumerate(calls):
        if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
            raise PromptError(
                f"messages[{index}].tool_calls[{number}]: a call must be an object with a function, got {call!r:.80}."
            )
    return [dict(call) for call in calls]


def _chunk(index: int, chunk: object) -> dict[str, Any]:
    if not isinstance(chunk, Mapping):
        raise PromptError(f"messages[{index}]: a content chunk must be an object with a type, got {chunk!r:.80}.")
    if chunk.get("type") in ("image", "image_url"):
        raise PromptError(f"messages[{index}]: this checkpoint is served for text only, it takes no images.")
    if chunk.get("type") in ("input_audio", "audio_url"):
        raise PromptError(f"messages[{index}]: this model takes no audio.")
    if chunk.get("type") in ("thinking", "reasoning"):
        closed = {"closed": chunk["closed"]} if chunk.get("closed") is not None else {}
        return {"type": "thinking", "thinking": thought(index, chunk), **closed}
    return dict(chunk)


def thought(index: int, chunk: Message) -> str:
    """The text of a thinking chunk: a plain text, or text chunks as Mistral's API nests them."""
    thought = chunk.get("thinking") or chunk.get("text") or ""
    if isinstance(thought, list) and all(
        isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in thought
    ):
        thought = "".join(part["text"] for part in thought)
    if not isinstance(thought, str):
        raise PromptError(f"messages[{index}]: a thinking chunk holds a text or text chunks, got {thought!r:.80}.")
    return thought


def _pair_calls(turns: list[list[Placed]]) -> None:
    """Give every call a valid id and every result the id of the call that it answers, in place."""
    ids, waiting = CallIds(), Waiting([], [])
    for number, turn in enumerate(turns):
        index, message = turn[0]
        if message["role"] == "assistant":
            calls = [call for _, message in turn for call in message.get("tool_calls") or ()]
            given = [as_text(call.get("id")) for call in calls]
            waiting = Waiting(given, ids.of_turn(given))
            for call, id in zip(calls, waiting.ids, strict=True):
                call["id"] = id
        elif message["role"] == "tool":
            given_id = as_text(message.get("tool_call_id"))
            first = number == 0  # a conversation may begin with a result, for mistral_common
            message["tool_call_id"] = ids.of_turn([given_id])[0] if first else waiting.answer(index, given_id)


class Waiting:
    """The calls of one turn that have no result yet."""

    def __init__(self, given: Sequence[str], ids: Sequence[str]) -> None:
        self.ids = ids
        self._names = dict(zip(ids, given, strict=True))  # ours to the client's, of those without a result
        self._ids: dict[str, deque[str]] = {name: deque() for name in given}
        for id, name in self._names.items():
            self._ids[name].append(id)

    def answer(self, index: int, given: str) -> str:
        """The id of the call that the result at messages[index] answers; PromptError when there is none."""
        ids = self._ids.get(given)
        if not ids and not given and self._names:
            ids = self._ids[next(iter(self._names.values()))]
        if ids:
            self._names.pop(ids[0])
            return ids.popleft()
        if given in self._ids:
            raise PromptError(f"messages[{index}]: the call {given[:80]!r} has its result already.")
        names = ", ".join(repr(name[:80]) if name else "one without an id" for name in list(self._names.values())[:8])
        wanted = f"the calls that wait for one are {names}" if names else "no call waits for one"
        raise PromptError(f"messages[{index}]: the result's tool_call_id {given[:80]!r} is of no call; {wanted}.")


def as_text(id: object) -> str:
    """A client's id of any type as text; empty where it gave none."""
    if id is None or isinstance(id, str):
        return id or ""
    return json.dumps(id, sort_keys=True)


class CallIds:
    """Valid ids for a conversation's calls, turn by turn; what comes later never changes one that was given."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], str] = {}  # by the client's id and how often the turn had it before
        self._taken: set[str] = set()

    def of_turn(self, ids: Sequence[str]) -> list[str]:
        """One id for each call of a turn, all different. An empty id is one that is missing."""
        here = {id for id in ids if VALID_ID.fullmatch(id)}
        self._taken |= here
        seen: Counter[str] = Counter()
        ours = []
        for id in ids:
            ours.append(id if id in here and not seen[id] else self._made_of(id, seen[id], here))
            seen[id] += 1
        return ours

    def _made_of(self, id: str, repetition: int, here: set[str]) -> str:
        """The id that one gets which is not valid, or has been used `repetition` times in its turn."""
        made, attempt = self._made.get((id, repetition)), 0
        while made is None or made in here:
            candidate = _nine_letters(f"{repetition}.{attempt}.{id}")
            made = None if candidate in self._taken else candidate
            attempt += 1
        self._made[id, repetition] = made
        self._taken.add(made)
        return made


def _nine_letters(text: str) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")
    return "".join(LETTERS[number // len(LETTERS) ** place % len(LETTERS)] for place in range(9))
