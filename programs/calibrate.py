"""Thresholds for `auto` from labelled cases: how sure is sure enough, for a target accuracy or a target cost.

Every case is answered directly and thought about, as `auto` would do it. Deliberating costs most and is rare, so it is
tried on some cases only: those that thinking left least sure, a quarter of all and 100 at most. Then every pair of
thresholds is worked out on what came of that. A threshold of `think` that would send other cases on to `deliberate` is
none of them. Cases that go on at every threshold, as they have no whole answer or a less sure one than at first, may be
more than were tried: such a one counts with think's own score, and costs as much more than thinking as those tried did.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from programs.effort import (
    Attempt,
    Task,
    run_deliberate,
    run_direct,
    run_think,
    surety,
    task_of,
)
from programs.errors import ProgramError
from programs.eval.cases import Case
from programs.eval.scorers import CannotScore, Scorer
from programs.eval.statistics import Interval, share
from programs.graph import Graph
from sgl_small4.prompt.backend import BackendError, Small4Backend
from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.transport import Unreachable

NEVER = 1.01  # a threshold that no confidence reaches
FEW_CASES = 50
MOST_DELIBERATED = 100
DELIBERATED_PART = 4  # one case in so many
FINENESS = 200  # thresholds tried of each kind

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """One graph on one case: the score, 0 to 1; the tokens that it put out; what `auto` holds against its threshold."""

    score: float
    tokens: int
    surety: float


@dataclass(frozen=True)
class Measured:
    """One case; `deliberate` is None where it was not tried. Its tokens are its own, without those before it."""

    cluster: str
    direct: Outcome
    think: Outcome
    deliberate: Outcome | None = None


@dataclass(frozen=True)
class Point:
    """What a pair of thresholds comes to on the cases: the share that is right, the mean output tokens, and the shares
    that each graph has the last word on. `interval` is the accuracy's, of those that a choice shows."""

    direct: float
    think: float
    accuracy: float
    tokens: float
    ended: tuple[float, float, float]
    interval: Interval | None = None


@dataclass(frozen=True)
class Choice:
    """The chosen pair. `met`: whether it reaches the target; where none does, it is the nearest. `curve`: the pairs
    that none beats in both accuracy and tokens, by tokens."""

    point: Point
    met: bool
    curve: tuple[Point, ...]


def measure(
    cases: Sequence[Case],
    scorer: Callable[[Case], Scorer],
    *,
    backend: Small4Backend,
    concurrency: int = 8,
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[Measured], list[str]]:
    """The outcomes of the cases, and a sentence for each that was left out. `advance` is called once a case, and once
    more where it is deliberated on.

    Raises Unreachable where the server is gone.
    """
    cancel = Cancellation()
    answered: dict[int, _Answered] = {}
    measured: dict[int, Measured] = {}
    left_out: dict[int, str] = {}

    def ask(case: Case) -> _Answered:
        return _ask(case, scorer(case), backend, cancel)

    def deliberate(number: int) -> Measured:
        return _deliberate(answered[number], scorer(answered[number].case))

    def keep(waiting: dict[Future, int], found: dict) -> None:
        for future in as_completed(waiting):
            try:
                found[waiting[future]] = future.result()
            except Unreachable:
                raise
            except (BackendError, CannotScore) as error:
                left_out[waiting[future]] = f"Line {cases[waiting[future]].number} is left out: {error}"
            advance()

    with ThreadPoolExecutor(concurrency) as pool:
        try:
            keep({pool.submit(ask, case): number for number, case in enumerate(cases)}, answered)
            measured |= {number: one.measured for number, one in answered.items()}
            least_sure = sorted(measured, key=lambda number: _order(measured[number]))[: deliberations(len(measured))]
            keep({pool.submit(deliberate, number): number for number in least_sure}, measured)
        finally:
            cancel.set()
            pool.shutdown(wait=True, cancel_futures=True)
    kept = [measured[number] for number in sorted(measured) if number not in left_out]
    return kept, [left_out[number].rstrip(".") + "." for number in sorted(left_out)]


def deliberations(cases: int) -> int:
    """How many of the cases are deliberated on."""
    return min(MOST_DELIBERATED, math.ceil(cases / DELIBERATED_PART))


def choose(measured: Sequence[Measured], *, accuracy: float | None = None, cost: float | None = None) -> Choice:
    """The cheapest thresholds whose accuracy (0 to 1) reaches `accuracy`, or the most accurate whose mean output tokens
    are at most `cost`. One of the two is given; ProgramError where there are no cases."""
    if not measured:
        raise ProgramError("There is no case to calibrate on: every one was left out.")
    sample = _Sample(measured)
    points = sample.points()
    if accuracy is not None:
        good = [point for point in points if point.accuracy >= accuracy - 1e-9]
        best = min(good or points, key=_cheapest if good else _most_accurate)
    else:
        assert cost is not None
        good = [point for point in points if point.tokens <= cost]
        best = min(good or points, key=_most_accurate if good else _cheapest)
    return Choice(sample.judged(best), bool(good), tuple(map(sample.judged, _frontier(points))))


def always(measured: Sequence[Measured]) -> dict[str, tuple[float, float]]:
    """Accuracy and mean output tokens of each effort alone: what `auto` is to be better than."""
    return {
        effort: (
            float(np.mean([getattr(one, name).score for one in measured])),
            float(np.mean([getattr(one, name).tokens for one in measured])),
        )
        for effort, name in (("none", "direct"), ("high", "think"))
    }


class _Sample:
    """The cases as arrays, each [cases]."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self.direct, self.think = (
            np.array([(o.score, o.tokens, o.surety) for o in outcomes]).T
            for outcomes in ([one.direct for one in measured], [one.think for one in measured])
        )
        tried = np.array([one.deliberate is not None for one in measured])
        found = [one.deliberate for one in measured if one.deliberate is not None]
        self.deliberate = self.think[:2].copy()
        if found:
            self.deliberate[1] *= sum(o.tokens for o in found) / max(1.0, float(self.think[1, tried].sum()))
            self.deliberate[:, tried] = np.array([(o.score, o.tokens) for o in found]).T
        self.clusters = np.array([one.cluster for one in measured])
        untried = self.think[2, ~tried]
        sure_enough = untried[untried >= 0]
        self.highest = float(sure_enough.min()) if len(sure_enough) else NEVER

    def points(self) -> list[Point]:
        """What every pair of thresholds comes to."""
        return [
            self._point(direct, think)
            for think in _cuts(self.think[2], self.highest)
            for direct in _cuts(self.direct[2], NEVER)
        ]

    def judged(self, point: Point) -> Point:
        """With the interval."""
        scores = self._ended(point.direct, point.think)[0]
        return replace(point, interval=share(scores, np.ones_like(scores), self.clusters, len(scores)))

    def _point(self, direct: float, think: float) -> Point:
        scores, tokens, ended = self._ended(direct, think)
        shares = tuple(float(np.mean(ended == graph)) for graph in range(3))
        return Point(direct, think, float(scores.mean()), float(tokens.mean()), shares)  # type: ignore[arg-type]

    def _ended(self, direct: float, think: float) -> tuple[Array, Array, Array]:
        """Score, output tokens and the graph that ended it (0 direct, 1 think, 2 deliberate), of each case."""
        taken, thought = self.direct[2] >= direct, self.think[2] >= think
        ended = np.where(taken, 0, np.where(thought, 1, 2))
        scores = np.choose(ended, [self.direct[0], self.think[0], self.deliberate[0]])
        tokens = self.direct[1] + ~taken * (self.think[1] + ~thought * self.deliberate[1])
        return scores, tokens, ended


def _cuts(sureties: Array, highest: float) -> list[float]:
    """Thresholds up to `highest` that part the cases differently: 0, the middles between neighbours, and `highest`;
    evenly thinned to `FINENESS`. A middle, since a confidence is not the same to the last digit in another batch."""
    values = np.unique(sureties[(sureties >= 0) & (sureties <= highest)])
    middles = (values[1:] + values[:-1]) / 2
    if len(middles) > FINENESS:
        middles = middles[np.linspace(0, len(middles) - 1, FINENESS).astype(int)]
    return sorted({0.0, *map(float, middles), highest})


def _frontier(points: Sequence[Point]) -> list[Point]:
    frontier: list[Point] = []
    for point in sorted(points, key=_cheapest):
        if not frontier or point.accuracy > frontier[-1].accuracy + 1e-9:
            frontier.append(point)
    return frontier


def _cheapest(point: Point) -> tuple[float, ...]:
    """Of two that cost the same the more accurate, then the one that is quicker satisfied."""
    return point.tokens, -point.accuracy, point.direct, point.think


def _most_accurate(point: Point) -> tuple[float, ...]:
    return -point.accuracy, point.tokens, point.direct, point.think


@dataclass(frozen=True)
class _Answered:
    """A case on its way: what both graphs said, so that deliberating can go on from it."""

    case: Case
    task: Task
    first: Attempt
    second: Attempt
    measured: Measured


def _ask(case: Case, scorer: Scorer, backend: Small4Backend, cancel: Cancellation) -> _Answered:
    task = task_of(case.question, "none", backend=backend, document=case.document, cancel=cancel)
    first = run_direct(task)
    thinking = replace(task, graph=Graph("high", case.question))
    second = run_think(thinking, first)
    measured = Measured(
        case.cluster,
        _outcome(task, first, scorer, case, surety(first)),
        _outcome(thinking, second, scorer, case, surety(second, first)),
    )
    return _Answered(case, task, first, second, measured)


def _deliberate(answered: _Answered, scorer: Scorer) -> Measured:
    task = replace(answered.task, graph=Graph("deliberate", answered.case.question))
    third = run_deliberate(task, answered.first, answered.second)
    return replace(answered.measured, deliberate=_outcome(task, third, scorer, answered.case, surety(third)))


def _outcome(task: Task, attempt: Attempt, scorer: Scorer, case: Case, sure: float) -> Outcome:
    score = scorer(attempt.text, case) if attempt.state == "answered" else 0.0
    return Outcome(score, task.graph.usage.completion_tokens, sure)


def _order(measured: Measured) -> tuple[float, float]:
    return measured.think.surety, measured.direct.surety
