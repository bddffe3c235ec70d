"""A scripted model that answers "What is the fee?" from the line "fee: 700" of its document, and quotes that line."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from programs.documents.question import NOT_THERE
from sgl_small4.nano.tasks.documents import QUOTE
from sgl_small4.prompt.backend import shown
from tests.prompt.scripted import FORMAT, Scripted

Override = Callable[[str, str], str | None]  # from the question and the document; None: as usual


def turns(ids: list[int]) -> list[str]:
    """The user's turns of a prompt."""
    return re.findall(r"\[INST\](.*?)\[/INST\]", shown(ids, FORMAT), re.DOTALL)


def system(ids: list[int]) -> str:
    return shown(ids, FORMAT).partition("[SYSTEM_PROMPT]")[2].partition("[/SYSTEM_PROMPT]")[0]


def line_about(question: str, document: str) -> str | None:
    about = re.search(r"the (.+?)\?", question)
    return next((line for line in document.splitlines() if about and line.startswith(f"{about[1]}:")), None)


def answer(question: str, document: str) -> str:
    line = line_about(question, document)
    return line.partition(": ")[2] if line else NOT_THERE


def reading_model(override: Override = lambda question, document: None) -> Scripted:
    """`override` may answer any turn in its own way, quotes too."""

    def reply(ids: list[int], fields: Mapping[str, Any]) -> str:
        asked, document = turns(ids), system(ids)
        said = override(asked[-1], document)
        if said is None and asked[-1] == QUOTE:
            line = line_about(asked[-2], document)
            said = json.dumps([line] if line else [], ensure_ascii=False)
        if said is None:
            said = answer(asked[-1], document)
        high = '"reasoning_effort": "high"' in shown(ids, FORMAT)
        return f"[THINK]looked it up[/THINK]{said}</s>" if high else f"{said}</s>"

    return Scripted(reply)


def asked_questions(script: Scripted) -> list[str]:
    """The last turn of each request that wanted a reply, in order."""
    wanted = [fields for fields in script.asked if fields["sampling_params"]["max_new_tokens"]]
    return [turns(fields["input_ids"])[-1] for fields in wanted]
