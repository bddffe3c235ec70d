"""What a run came to: per arm accuracy, outcomes, lengths, speed and cost; between arms the paired differences."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from programs.eval import statistics
from programs.eval.run import Outcome, Row, Run
from programs.eval.statistics import Interval
from programs.eval.usage import Counts, Prices, Rule, settled_rule

OUTCOMES: tuple[Outcome, ...] = ("right", "partial", "wrong", "empty", "cut", "failed", "unscored")
ANSWERED: tuple[Outcome, ...] = ("right", "partial", "wrong")
NOT_THE_MODELS = ("failed", "unscored")  # left out of paired differences


@dataclass(frozen=True)
class Latency:
    """Seconds of the replies that came."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Lengths:
    """Means over the replies that came; tokens over those with counts."""

    answer_characters: float
    trace_characters: float
    prompt_tokens: float | None
    output_tokens: float | None
    trace_tokens: float | None


@dataclass(frozen=True)
class Counting:
    """How a server counts a trace: the rule that was billed by, how many replies showed which, how many had a trace at
    all, and how many came without usage."""

    name: str
    rule: Rule
    seen: dict[Rule, int]
    traced: int
    without_usage: int


@dataclass(frozen=True)
class Column:
    """One arm. `of_asked` has every reply in its denominator, so that what is empty, cut or failed is not right;
    `of_answered` only those that were right, partly right or wrong. `cost` is of the replies with counts, None without
    prices or counts. `reasons` are those of failed and of unscored replies, most frequent first.
    """

    name: str
    effort: str
    asked: int
    missing: int
    outcomes: dict[Outcome, int]
    at_limit: int  # of the empty ones, those whose generation ended at a limit
    of_asked: Interval | None
    of_answered: Interval | None
    kinds: dict[str, Interval]
    lengths: Lengths | None
    cached_share: float | None
    latency: Latency | None
    cost: float | None
    tagged: int
    reasons: dict[str, int]


@dataclass(frozen=True)
class Difference:
    """`second` minus `first`, over the items that both were asked."""

    first: int
    second: int
    interval: Interval | None
    left_out: int


@dataclass(frozen=True)
class Summary:
    columns: tuple[Column, ...]
    counting: tuple[Counting, ...]  # of each server
    differences: tuple[Difference, ...]
    cases: int
    repeats: int


def summarise(run: Run, prices: Sequence[Prices | None]) -> Summary:
    """`prices`: of each arm."""
    rule = rules(run)
    columns = tuple(
        _column(run, number, [row for row in run.rows if row.arm == number], price, rule)
        for number, price in enumerate(prices)
    )
    pairs = [
        _difference(run, first, second)
        for first, second in combinations(range(len(run.arms)), 2)
        if _comparable(run, first, second)
    ]
    counting = tuple(_counting(name, rows) for (_, name), rows in _by_server(run).items())
    return Summary(columns, counting, tuple(pairs), len(run.cases), run.repeats)


def rules(run: Run) -> Callable[[Row], Rule]:
    """How each reply is billed: by the rule that it shows, else by that of its server's other replies."""
    settled = {server: settled_rule(_counts(rows))[0] for server, rows in _by_server(run).items()}

    def rule(row: Row) -> Rule:
        own = row.reply.counts.rule if row.reply.counts else "unknown"
        return settled[_server(run, row.arm)] if own == "unknown" else own

    return rule


def cost(row: Row, rule: Rule, prices: Prices | None) -> float | None:
    counts = row.reply.counts
    if counts is None or prices is None:
        return None
    return prices.cost(counts.whole_prompt, counts.cached, counts.output(rule))


def _comparable(run: Run, first: int, second: int) -> bool:
    """Efforts of one server, or servers at one effort: anything else would change two things at once."""
    one, other = run.arms[first], run.arms[second]
    return (_server(run, first) == _server(run, second)) != (one.effort == other.effort)


def _server(run: Run, arm: int) -> tuple[type, str]:
    return type(run.arms[arm]), run.arms[arm].name


def _by_server(run: Run) -> dict[tuple[type, str], list[Row]]:
    servers: dict[tuple[type, str], list[Row]] = {_server(run, number): [] for number in range(len(run.arms))}
    for row in run.rows:
        servers[_server(run, row.arm)].append(row)
    return servers


def _counts(rows: Sequence[Row]) -> list[Counts]:
    return [row.reply.counts for row in rows if row.reply.counts]


def _counting(name: str, rows: Sequence[Row]) -> Counting:
    counts = _counts(rows)
    rule, seen = settled_rule(counts)
    return Counting(name, rule, seen, sum(bool(count.reasoning) for count in counts), len(rows) - len(counts))


def _column(run: Run, number: int, rows: list[Row], prices: Prices | None, rule: Callable[[Row], Rule]) -> Column:
    arm = run.arms[number]
    came = [row for row in rows if row.outcome != "failed"]
    counts = _counts(rows)
    outcomes = Counter(row.outcome for row in rows)
    prompt = sum(count.whole_prompt for count in counts)
    costs = [value for row in rows if (value := cost(row, rule(row), prices)) is not None]
    reasons = Counter(f"{row.outcome}: {row.reason}" for row in rows if row.reason)
    return Column(
        name=arm.name,
        effort=arm.effort,
        asked=len(rows),
        missing=run.missing[number],
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES},
        at_limit=sum(row.outcome == "empty" and row.reply.at_limit for row in rows),
        of_asked=_share(rows, lambda row: True),
        of_answered=_share(rows, lambda row: row.outcome in ANSWERED),
        kinds={kind: interval for kind in _kinds(rows) if (interval := _of_kind(rows, kind))},
        lengths=_lengths(came, rule) if came else None,
        cached_share=sum(count.cached for count in counts) / prompt if prompt else None,
        latency=_latency(came) if came else None,
        cost=sum(costs) if costs else None,
        tagged=sum(row.reply.tagged for row in rows),
        reasons=dict(reasons.most_common()),
    )


def _kinds(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.case.kind for row in rows if row.case.kind))


def _of_kind(rows: Sequence[Row], kind: str) -> Interval | None:
    return _share([row for row in rows if row.case.kind == kind], lambda row: True)


def _share(rows: Sequence[Row], counts: Callable[[Row], bool]) -> Interval | None:
    """Scores over the rows that count, both averaged over an item's repeats."""
    items = _by_item(rows)
    points = np.array([np.mean([row.score or 0.0 if counts(row) else 0.0 for row in of]) for of in items.values()])
    weights = np.array([np.mean([float(counts(row)) for row in of]) for of in items.values()])
    clusters = np.array([of[0].case.cluster for of in items.values()])
    if not items:
        return None
    return statistics.share(points, weights, clusters, sum(counts(row) for row in rows))


def _by_item(rows: Sequence[Row]) -> dict[int, list[Row]]:
    items: dict[int, list[Row]] = {}
    for row in rows:
        items.setdefault(row.case.number, []).append(row)
    return items


def _difference(run: Run, first: int, second: int) -> Difference:
    """Over items that have a reply in both: a server's error or an answer that could not be scored says nothing about
    the model and is left out; empty and cut replies count as not right on both sides."""
    means = []
    for arm in (first, second):
        rows = [row for row in run.rows if row.arm == arm and row.outcome not in NOT_THE_MODELS]
        means.append({item: np.mean([row.score or 0.0 for row in of]) for item, of in _by_item(rows).items()})
    shared = [case for case in run.cases if case.number in means[0] and case.number in means[1]]
    interval = statistics.difference(
        np.array([means[0][case.number] for case in shared]),
        np.array([means[1][case.number] for case in shared]),
        np.array([case.cluster for case in shared]),
    )
    return Difference(first, second, interval, len(run.cases) - len(shared))


def _lengths(rows: Sequence[Row], rule: Callable[[Row], Rule]) -> Lengths:
    counted = [(row, row.reply.counts) for row in rows if row.reply.counts]
    traced = [counts.reasoning for _, counts in counted if counts.reasoning is not None]
    return Lengths(
        answer_characters=float(np.mean([len(row.reply.answer) for row in rows])),
        trace_characters=float(np.mean([len(row.reply.trace) for row in rows])),
        prompt_tokens=float(np.mean([counts.whole_prompt for _, counts in counted])) if counted else None,
        output_tokens=float(np.mean([counts.output(rule(row)) for row, counts in counted])) if counted else None,
        trace_tokens=float(np.mean(traced)) if traced else None,
    )


def _latency(rows: Sequence[Row]) -> Latency:
    return Latency(*(float(value) for value in np.percentile([row.reply.seconds for row in rows], (50, 90, 99))))
