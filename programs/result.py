"""What a question came to: the answer, how sure it is, what it cost, and the graph that was run for it."""

from dataclasses import dataclass
from typing import Any, Literal

from programs.graph import Graph, Usage

State = Literal["answered", "cut", "empty", "failed"]


@dataclass(frozen=True)
class Result:
    """One question's outcome.

    `value` is the answer in the form that was asked for: JSON read, a number, one of the choices; without an output
    form it is the answer itself. `state` is "cut" where the answer ended at its limit, "empty" where there is none,
    "failed" where a request failed, which `error` then says in one sentence. `confidence`, from 0 to 1, is the model's
    own probability of the answer, or the share of checked votes for it; None where there is none.
    """

    question: str
    answer: str
    value: Any
    trace: str | None
    confidence: float | None
    effort: str
    state: State
    graph: Graph
    error: str | None = None

    @property
    def usage(self) -> Usage:
        """All requests of the graph, cancelled ones too, each counted once."""
        return self.graph.usage
