"""Makes the bundled task set of nano's held-out cases: `python -m programs.eval.nano FILE.jsonl`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from sgl_small4.nano import CHECKPOINT, cases
from sgl_small4.nano.tokenizer import Coder

COUNTS = {"easy sum": 40, "long sum": 40, "check": 30, "story": 30, "document": 50, "not in the document": 10}
DOCUMENT_TOKENS, QUESTIONS = 500, 5  # the length of a document, and how many questions share it


def lines() -> list[str]:
    """The same 200 lines each time, in an order in which the first ones are of all kinds."""
    random = Random("small4 eval")
    coder = Coder(CHECKPOINT / "tekken.json")

    def length(text: str) -> int:
        return len(coder(text))

    alone: dict[str, tuple[Callable[[Random, int], list[cases.Case]], str]] = {
        "easy sum": (cases.easy_sums, "number"),
        "long sum": (cases.sums, "number"),
        "check": (cases.checks, "choice"),
        "story": (cases.stories, "number"),
    }
    made = [
        _fields(case, kind, scorer)
        for kind, (make, scorer) in alone.items()
        for case in _distinct(make, random, COUNTS[kind])
    ]
    for kind in ("document", "not in the document"):
        asked = cases.documents(random, COUNTS[kind], DOCUMENT_TOKENS, QUESTIONS, length, missing=kind != "document")
        numbers = {text: number for number, text in enumerate(dict.fromkeys(case.system for case in asked), 1)}
        for case in asked:
            shared = {"document_id": f"{kind} {numbers[case.system]}", "document": case.system}
            made.append(_fields(case, kind, "exact") | shared)
    random.shuffle(made)
    return [json.dumps(fields, ensure_ascii=False) for fields in made]


def _distinct(make: Callable[[Random, int], list[cases.Case]], random: Random, count: int) -> list[cases.Case]:
    """No question twice: it would not be a second observation."""
    found: dict[str, cases.Case] = {}
    while len(found) < count:
        (case,) = make(random, 1)
        found[case.turn.question] = case
    return list(found.values())


def _fields(case: cases.Case, kind: str, scorer: str) -> dict[str, Any]:
    return {"question": case.turn.question, "answer": case.turn.answer, "kind": kind, "scorer": scorer}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(lines()) + "\n", encoding="utf-8")
