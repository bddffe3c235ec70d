"""What one request of a program was and cost: a node of the graph that the program draws."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["prefill", "generate", "select"]


@dataclass(frozen=True)
class Node:
    """One request. Token counts are the server's own; `completion_tokens` include the trace's.

    `parent` is the node whose prompt and output this one's prompt goes on from, None for the first. `prompt` is what
    this prompt adds to that, as text with control tokens by name. `probability` is the model's own: of
    the reply (output.py says how), or of the choice among the choices.
    `state` and `next_step` are what the graph made of the reply: a limit spent, an empty answer, a missing trace, and
    the one thing that was done about it.
    """

    id: int
    parent: int | None
    kind: Kind
    name: str
    prompt: str
    text: str
    trace: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    trace_tokens: int
    began: float  # seconds after the graph began
    seconds: float
    finish_reason: str  # stop, length, abort or error
    probability: float | None = None
    state: str = ""
    next_step: str = ""
