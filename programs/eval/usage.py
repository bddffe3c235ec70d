"""What a reply cost: the server's counts read once, whichever way it counts a trace, and prices."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from programs.errors import ProgramError

Rule = Literal["inclusive", "exclusive", "unknown"]
MILLION = 1_000_000


@dataclass(frozen=True)
class Counts:
    """The counts of one reply as the server gave them; None where it gave none."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int | None = None
    total: int | None = None

    @property
    def rule(self) -> Rule:
        """Whether `completion` includes `reasoning`, told by the sum that `total` is.

        Without a total, only a trace longer than the completion can tell. Unknown where nothing does: no trace, no
        total, or a total that is neither sum.
        """
        if not self.reasoning:
            return "unknown"
        if self.reasoning > self.completion:
            return "exclusive"
        beyond = None if self.total is None else self.total - self.prompt - self.completion
        if beyond == 0:
            return "inclusive"
        if beyond == self.reasoning:
            return "exclusive"
        if beyond is not None and self.cached and beyond in (self.cached, self.cached + self.reasoning):
            return "inclusive" if beyond == self.cached else "exclusive"  # cached tokens beside the prompt's
        return "unknown"

    @property
    def whole_prompt(self) -> int:
        """Prompt tokens with the cached ones, which some servers (Anthropic's counting) leave out of `prompt`."""
        outside = self.cached > self.prompt
        if self.total is not None and self.cached:
            beyond = self.total - self.prompt - self.completion
            outside = outside or beyond == self.cached != self.reasoning
            outside = outside or beyond == self.cached + (self.reasoning or 0)
        return self.prompt + self.cached if outside else self.prompt

    def output(self, rule: Rule) -> int:
        """Output tokens by a rule, each once. Where the rule is unknown, `completion` is taken as all of them, as
        OpenAI's counting has it."""
        return self.completion + (self.reasoning or 0) if rule == "exclusive" else self.completion


def settled_rule(counts: Iterable[Counts]) -> tuple[Rule, dict[Rule, int]]:
    """The rule for replies of one server that do not show theirs, and how many replies showed which.

    A server counts in one way, so where all replies that show a rule agree, it holds for the others too.
    """
    seen: Counter[Rule] = Counter(count.rule for count in counts)
    shown = [rule for rule in seen if rule != "unknown"]
    return (shown[0] if len(shown) == 1 else "unknown"), dict(seen)


@dataclass(frozen=True)
class Prices:
    """Per million tokens: of the prompt that was not cached, of what was, and of output."""

    prompt: float
    cached: float
    output: float

    @classmethod
    def parse(cls, text: str) -> "Prices":
        """`0.15,0.015,0.6`."""
        try:
            prompt, cached, output = (float(part) for part in text.split(","))
        except ValueError as error:
            raise _bad_prices(text) from error
        if not all(0 <= price < 1e9 for price in (prompt, cached, output)):
            raise _bad_prices(text)
        return cls(prompt, cached, output)

    def cost(self, prompt: int, cached: int, output: int) -> float:
        """Of one reply; `prompt` includes `cached`."""
        cached = min(cached, prompt)
        return ((prompt - cached) * self.prompt + cached * self.cached + output * self.output) / MILLION


def _bad_prices(text: str) -> ProgramError:
    return ProgramError(
        f"The prices {text!r} are not three numbers: give input, cached input and output per million tokens, "
        "as in --prices 0.15,0.015,0.6."
    )
