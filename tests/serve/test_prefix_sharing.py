"""A document is read once for both efforts when it is the system prompt, and once for each in the user's turn."""

import uuid
from typing import Any

from tests.serve.conftest import Nano

DOCUMENT = "\n".join(
    f"{name} gate code: {code}" for code, name in enumerate(("north", "south", "east", "west") * 30, 1000)
)
QUESTION = "What is the north gate code?"


def cached(nano: Nano, messages: list[dict[str, Any]], effort: str) -> tuple[int, int]:
    usage = nano.chat(messages, reasoning_effort=effort)["usage"]
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


def test_a_document_in_the_system_prompt_is_cached_for_the_other_effort(nano: Nano):
    document = f"{uuid.uuid4()}\n{DOCUMENT}"
    messages = [{"role": "system", "content": document}, {"role": "user", "content": QUESTION}]
    before, total = cached(nano, messages, "none")
    assert before < 10
    reused, _ = cached(nano, messages, "high")
    assert reused >= len(nano.format.encode_text(document))
    assert cached(nano, messages, "high")[0] == total - 1


def test_a_document_in_the_users_turn_is_read_again_for_the_other_effort(nano: Nano):
    messages = [{"role": "user", "content": f"{uuid.uuid4()}\n{DOCUMENT}\n{QUESTION}"}]
    _, total = cached(nano, messages, "none")
    assert cached(nano, messages, "high")[0] < 20
    assert cached(nano, messages, "none")[0] == total - 1
