"""One reply to one case, from whatever gave it."""

from dataclasses import dataclass
from typing import Literal, Protocol

from programs.eval.cases import Case
from programs.eval.usage import Counts

State = Literal["answered", "cut", "empty", "failed"]


@dataclass(frozen=True)
class Reply:
    """`answer` holds nothing of the trace. `state` is "cut" where the answer ended at a limit, "empty" where there is
    none, "failed" where the server gave an error, which `error` says in a sentence. `at_limit` says that generation
    ended at a limit, answer or none; `tagged` that the trace was taken out of the answer's text. `counts` is None where
    the server gave none.
    """

    answer: str
    trace: str
    state: State
    seconds: float
    counts: Counts | None = None
    at_limit: bool = False
    tagged: bool = False
    error: str | None = None


def failed(error: str, seconds: float) -> Reply:
    return Reply("", "", "failed", seconds, error=error)


def replied(
    answer: str, trace: str, seconds: float, counts: Counts | None, at_limit: bool, tagged: bool = False
) -> Reply:
    """A reply that came: blank is no answer, whatever the reason; one that ended at a limit is cut."""
    state: State = "empty" if not answer.strip() else "cut" if at_limit else "answered"
    return Reply(answer, trace, state, seconds, counts, at_limit, tagged)


class Arm(Protocol):
    """One column of the comparison: a server at an effort."""

    @property
    def name(self) -> str: ...

    @property
    def effort(self) -> str: ...

    def ask(self, case: Case) -> Reply:
        """May be called from several threads; an error of the server is a reply that failed."""
        ...

    def stop(self) -> None:
        """Give up what is still being asked."""
        ...

    def alive(self) -> bool:
        """Whether anybody still answers there at all."""
        ...
