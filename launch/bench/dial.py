"""What turning the effort up removes and costs, on held-out questions: the same ones at each effort, paired.

Differences of two numbers below 100 are where nano errs by chance: every one that is held out is asked in five forms,
which share a cluster. Sums of six numbers are the longest it is taught: there most errors come again in every trace.
Easy are sums of two numbers below 100, hard those of four to six numbers of two digits.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import numpy as np

from programs.calibrate import always, choose, measure
from programs.calibration import Calibration
from programs.effort import Effort
from programs.errors import ProgramError
from programs.eval.cases import Case
from programs.eval.scorers import chooser
from programs.eval.statistics import Interval, difference
from programs.many import solve_many
from sgl_small4.nano.tasks import arithmetic
from sgl_small4.nano.tasks.turns import Turn
from sgl_small4.prompt.backend import Small4Backend

AT_ONCE = 32
FORMS = 5
K = 5
TEMPERATURE = 0.7
MARGIN = 0.01  # of accuracy that `auto` may give up on the cases that it is calibrated on


@dataclass(frozen=True)
class Asked:
    """A question; those of one expression share a `cluster`."""

    question: str
    answer: str
    cluster: str


@dataclass(frozen=True)
class Reply:
    answer: str
    right: bool
    tokens: int


@dataclass(frozen=True)
class Removed:
    """Errors of one think, and of what is compared with it on the same questions; `interval` of the paired difference
    in accuracy, tokens the means of a question."""

    what: str
    errors: tuple[int, int]
    interval: Interval
    tokens: tuple[float, float]

    @property
    def share(self) -> float:
        return (self.errors[0] - self.errors[1]) / max(1, self.errors[0])

    @property
    def enough(self) -> bool:
        """At least a third of the errors, and surely some."""
        return self.share >= 1 / 3 and self.interval.low is not None and self.interval.low > 0


@dataclass(frozen=True)
class Routed:
    """The same questions directly, thought about, and by `auto`; `easy`: how many of them, from the first, are easy."""

    direct: list[Reply]
    think: list[Reply]
    auto: list[Reply]
    easy: int
    interval: Interval  # of the paired difference in accuracy, auto less think
    calibration: Calibration

    def part_of_tokens(self, count: int | None = None) -> float:
        """Output tokens of `auto` over those of always think, on the first `count` questions."""
        return _tokens(self.auto[:count]) / _tokens(self.think[:count])

    def perfect(self) -> float:
        """The tokens of a router that knows where the direct answer is right, over those of always think."""
        pairs = zip(self.direct, self.think, strict=True)
        return sum((d if d.right else t).tokens for d, t in pairs) / sum(t.tokens for t in self.think)

    def random(self) -> float:
        """The accuracy of a router that thinks by chance, as often as `auto`'s tokens pay for."""
        direct, think = _tokens(self.direct), _tokens(self.think)
        part = min(1.0, max(0.0, (_tokens(self.auto) - direct) / (think - direct)))
        return (1 - part) * accuracy(self.direct) + part * accuracy(self.think)


def differences() -> list[Asked]:
    """Every held-out difference of two numbers below 100, in `FORMS` forms each."""
    random, asked = Random("differences"), []
    for larger in range(100):
        for smaller in range(larger + 1):
            if arithmetic.held_out([larger, smaller], "-"):
                asked += _forms(random, [larger, smaller], "-")
    return asked


def sums_of_six(count: int) -> list[Asked]:
    """Held-out sums of six numbers of two digits, each in one form."""
    random = Random("sums of six")
    return [_asked(arithmetic.plain(random, *one), one) for one in islice(_long_sums(random, (6,)), count)]


def easy_and_hard(count: int) -> tuple[list[Asked], list[Asked]]:
    """`count` easy ones and as many hard ones, easy first; and as many others, which share no expression with them."""
    random = Random("easy and hard")
    pairs = [([a, b], "+") for a in range(100) for b in range(a, 100) if arithmetic.held_out([a, b], "+")]
    if len(pairs) < 2 * count:
        raise ValueError(f"there are {len(pairs)} easy expressions, too few for twice {count}")
    random.shuffle(pairs)
    hard = list(islice(_long_sums(random, (4, 5, 6)), 2 * count))
    first, second = (
        [_asked(arithmetic.plain(random, *one), one) for one in [*pairs[half], *hard[half]]]
        for half in (slice(0, count), slice(count, 2 * count))
    )
    return first, second


def replies(asked: Sequence[Asked], effort: Effort, backend: Small4Backend, **options: Any) -> list[Reply]:
    """The replies to all questions, in order; raises ProgramError when one fails, as no figure stands without it."""
    found = []
    results = solve_many([one.question for one in asked], effort, concurrency=AT_ONCE, backend=backend, **options)
    for one, result in zip(asked, results, strict=True):
        if result.state == "failed":
            raise ProgramError(f"{one.question!r} at {effort} failed: {result.error}")
        answer = result.answer.strip() if result.state == "answered" else ""
        found.append(Reply(answer, answer == one.answer, result.usage.completion_tokens))
    return found


def removed(asked: Sequence[Asked], backend: Small4Backend) -> Iterator[Removed]:
    """One think against deliberate, then against the plain majority of as many thinks as cost no less."""
    once = replies(asked, "high", backend, temperature=TEMPERATURE)
    deliberated = replies(asked, "deliberate", backend, temperature=TEMPERATURE, k=K)
    yield _compared(f"deliberate k={K}", asked, once, deliberated)
    voices = math.ceil(_tokens(deliberated) / _tokens(once))
    votes = [replies(asked, "high", backend, temperature=TEMPERATURE) for _ in range(voices)]
    voted = [majority(of_one) for of_one in zip(*votes, strict=True)]
    yield _compared(f"plain majority of {voices} thinks", asked, once, voted)


def majority(votes: Sequence[Reply]) -> Reply:
    """The answer that most gave, a tie to the earliest; no answer is no vote."""
    counted = Counter(vote.answer for vote in votes if vote.answer)
    winner = max(counted, key=counted.__getitem__) if counted else ""  # of equals the first counted
    chosen = next(vote for vote in votes if vote.answer == winner or not counted)
    return Reply(winner, chosen.right, sum(vote.tokens for vote in votes))


def routed(count: int, backend: Small4Backend) -> Routed:
    """`auto` on `count` easy and as many hard questions, its thresholds chosen on others as by `small4 calibrate`."""
    asked, others = easy_and_hard(count)
    cases = [_case(number, one) for number, one in enumerate(others, 1)]
    measured, left_out = measure(cases, chooser("exact", cases), backend=backend, concurrency=AT_ONCE)
    if left_out:
        raise ProgramError(left_out[0])
    chosen = choose(measured, accuracy=always(measured)["high"][0] - MARGIN).point
    calibration = Calibration(direct=chosen.direct, think=chosen.think)
    direct, think = (replies(asked, effort, backend) for effort in ("none", "high"))
    auto = replies(asked, "auto", backend, calibration=calibration)
    return Routed(direct, think, auto, count, _paired(asked, think, auto), calibration)


def accuracy(found: Sequence[Reply]) -> float:
    return statistics.fmean(reply.right for reply in found)


def _compared(what: str, asked: Sequence[Asked], once: Sequence[Reply], other: Sequence[Reply]) -> Removed:
    errors = sum(not reply.right for reply in once), sum(not reply.right for reply in other)
    return Removed(what, errors, _paired(asked, once, other), (_tokens(once), _tokens(other)))


def _paired(asked: Sequence[Asked], first: Sequence[Reply], second: Sequence[Reply]) -> Interval:
    before, after = (np.array([float(reply.right) for reply in found]) for found in (first, second))
    interval = difference(before, after, np.array([one.cluster for one in asked]))
    assert interval is not None  # there are questions
    return interval


def _tokens(found: Sequence[Reply]) -> float:
    return statistics.fmean(reply.tokens for reply in found)


def _forms(random: Random, numbers: list[int], operators: str) -> list[Asked]:
    made: dict[str, Asked] = {}
    while len(made) < FORMS:
        turn = arithmetic.plain(random, numbers, operators)
        made.setdefault(turn.question, _asked(turn, (numbers, operators)))
    return list(made.values())


def _asked(turn: Turn, expression: tuple[list[int], str]) -> Asked:
    return Asked(turn.question, turn.answer, arithmetic.expression(*expression))


def _long_sums(random: Random, counts: Sequence[int]) -> Iterator[tuple[list[int], str]]:
    """Held-out sums of numbers of two digits, so many numbers in turn, no expression twice."""
    seen: set[str] = set()
    while True:
        drawn = arithmetic.draw_long(random, counts[len(seen) % len(counts)], mixed=False, kept=True)
        if (written := arithmetic.expression(*drawn)) not in seen:
            seen.add(written)
            yield drawn


def _case(number: int, one: Asked) -> Case:
    fields: Mapping[str, Any] = {"question": one.question, "answer": one.answer}
    return Case(number, one.question, one.answer, None, one.cluster, (), None, None, dict(fields))
