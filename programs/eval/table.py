"""A run's summary on the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from programs.eval.notes import clean, notes
from programs.eval.run import Outcome, Run
from programs.eval.statistics import Interval
from programs.eval.summary import ANSWERED, Column, Summary

NARROWEST = 150  # columns, where the output is no terminal: a table must not be folded in a file


def show(console: Console, run: Run, summary: Summary, broken: tuple[str, ...], remarks: list[str]) -> None:
    """Tables, then what qualifies them. What a model, a server or a file
    said is shown as text."""
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST)
    console.print(_accuracy(summary))
    console.print(_costs(summary))
    kinds = list(dict.fromkeys(kind for column in summary.columns for kind in column.kinds))
    if len(kinds) > 1:
        console.print(_by_kind(summary, kinds))
    if summary.differences:
        console.print(_differences(summary))
    for remark in [*notes(run, summary, broken), *remarks]:
        console.print(Text(f"- {remark}"))


def _accuracy(summary: Summary) -> Table:
    table = _table("Accuracy", "of asked", "of answered", "right", "wrong", "empty", "cut", "failed")
    rare: tuple[Outcome, ...] = ("partial", "unscored")
    extra = [outcome for outcome in rare if any(column.outcomes[outcome] for column in summary.columns)]
    for outcome in extra:
        table.add_column(outcome, justify="right")
    for column in summary.columns:
        shown: tuple[Outcome, ...] = ("right", "wrong", "empty", "cut", "failed", *extra)
        counts = [column.outcomes[outcome] for outcome in shown]
        answered = sum(column.outcomes[outcome] for outcome in ANSWERED)
        shares = [_share(column.of_asked, column.asked), _share(column.of_answered, answered)]
        _row(table, column, [*shares, *map(str, counts)])
    return table


def _costs(summary: Summary) -> Table:
    table = _table(
        "Means of a reply", "output tokens", "of them trace", "answer chars", "trace chars", "prompt tokens", "cached",
        "p50 s", "p90 s", "p99 s", "cost of all",
    )  # fmt: skip
    for column in summary.columns:
        lengths, latency = column.lengths, column.latency
        _row(
            table,
            column,
            [
                _number(lengths.output_tokens if lengths else None, 1),
                _number(lengths.trace_tokens if lengths else None, 1),
                _number(lengths.answer_characters if lengths else None, 1),
                _number(lengths.trace_characters if lengths else None, 1),
                _number(lengths.prompt_tokens if lengths else None, 1),
                _percent(column.cached_share),
                *(_number(getattr(latency, name) if latency else None, 2) for name in ("p50", "p90", "p99")),
                _number(column.cost, 6),
            ],
        )
    return table


def _by_kind(summary: Summary, kinds: list[str]) -> Table:
    table = _table("Of asked, by kind", *map(clean, kinds))
    for column in summary.columns:
        _row(table, column, [_percent(column.kinds[kind].estimate) if kind in column.kinds else "-" for kind in kinds])
    return table


def _differences(summary: Summary) -> Table:
    table = Table(title="Paired differences, in points", title_justify="left")
    for name in ("from", "to", "difference", "items", "clusters"):
        table.add_column(name, justify="left" if name in ("from", "to") else "right")
    for pair in summary.differences:
        first, second = (summary.columns[number] for number in (pair.first, pair.second))
        interval = pair.interval
        table.add_row(
            *(Text(clean(f"{column.name} {column.effort}")) for column in (first, second)),
            "-" if interval is None else _points(interval),
            f"{interval.items if interval else 0} of {summary.cases}",
            str(interval.clusters if interval else 0),
        )
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("model", "effort"):
        table.add_column(name, no_wrap=True)
    for name in names:
        table.add_column(Text(name), justify="right")
    return table


def _row(table: Table, column: Column, cells: list[str]) -> None:
    table.add_row(Text(clean(column.name)), column.effort, *cells)


def _share(interval: Interval | None, count: int) -> str:
    if interval is None:
        return "-"
    bounds = "no interval" if interval.low is None else f"{_bounds(interval)}{'' if interval.trusted else ' ?'}"
    return f"{_percent(interval.estimate)} of {count} ({bounds})"


def _points(interval: Interval) -> str:
    if interval.low is None:
        return f"{100 * interval.estimate:+.1f} (no interval)"
    return f"{100 * interval.estimate:+.1f} ({_bounds(interval, '+')}){'' if interval.trusted else ' ?'}"


def _bounds(interval: Interval, sign: str = "") -> str:
    assert interval.low is not None and interval.high is not None
    return f"{100 * interval.low:{sign}.1f} to {100 * interval.high:{sign}.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:,.{places}f}"
