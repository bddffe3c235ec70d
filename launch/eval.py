"""`small4 eval`: labelled cases at several efforts, and beside another server."""

import json
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from launch.errors import LaunchError
from launch.server import serving
from launch.terminal import counting, dim_stderr
from programs.effort import BUDGET, MARKS, solve
from programs.eval import endpoint
from programs.eval.cases import read_cases
from programs.eval.endpoint import Endpoint, Server
from programs.eval.graphs import Graphs
from programs.eval.notes import as_json as summary_json
from programs.eval.reply import Arm
from programs.eval.run import run
from programs.eval.scorers import chooser
from programs.eval.summary import summarise
from programs.eval.table import show
from programs.eval.usage import Prices
from sgl_small4.prompt.backend import Small4Backend

EFFORTS = ("none", "high", "auto", "deliberate")
KEY = "SMALL4_AGAINST_KEY"  # the other server's API key, in the environment, where a list of processes does not show it


def evaluate(
    file: Path,
    efforts: str = "none,high,auto,deliberate",
    server: str | None = None,
    against: str | None = None,
    against_model: str | None = None,
    scorer: str | None = None,
    repeats: int = 1,
    prices: str | None = None,
    against_prices: str | None = None,
    out: Path | None = None,
    limit: int | None = None,
    concurrency: int = 8,
    temperature: float | None = None,
    max_tokens: int | None = None,
    as_json: bool = False,
) -> int:
    """Ask all cases at all efforts of `server` (a private nano without one), and at none and high of `against`.

    Prints tables, or with `as_json` exactly one JSON object; the files of `out` are written at the end, and also when
    a server dies or the run is interrupted. `max_tokens` is of an answer: `against`, which
    has one limit for trace and answer, is given the budget of a trace beside it at high, so that both may write as
    much. Where it or `temperature` is None, each side has its own default; `against_prices` are `prices` where None.

    The exit code: 0; 1 where questions were left unasked or no reply came at all; 130 or 143 after an interrupt.
    Raises LaunchError, ProgramError and BackendError, each one sentence, before anything is asked.
    """
    chosen = _efforts(efforts)
    for name, value in (
        ("--repeats", repeats),
        ("--concurrency", concurrency),
        ("--limit", 1 if limit is None else limit),
    ):
        if value < 1:
            raise LaunchError(f"{name} is {value}: it must be at least 1.")
    price = Prices.parse(prices) if prices else None
    price_against = Prices.parse(against_prices) if against_prices else price
    cases = read_cases(file, limit)
    scorer_of = chooser(scorer, cases.cases)
    if out is not None:
        from programs.eval import files  # matplotlib takes a second

        files.prepare(out)
    remarks = dim_stderr()
    fixed = {
        name: value for name, value in (("temperature", temperature), ("max_tokens", max_tokens)) if value is not None
    }
    with ExitStack() as stack:
        others, refused = _others(stack, against, against_model, chosen, fixed)
        url = stack.enter_context(serving(server, "of nano for these cases", None if as_json else remarks))
        options: dict[str, Any] = {"backend": stack.enter_context(Small4Backend(url)), **fixed}
        alive = partial(endpoint.answers, url)
        arms: list[Arm] = [*(Graphs(solve, effort, options, alive) for effort in chosen), *others]
        bar = counting("replies", remarks, disable=as_json)
        task = bar.add_task("", total=len(arms) * repeats * len(cases.cases))
        with bar:
            finished = run(cases.cases, arms, scorer_of, repeats, concurrency, lambda: bar.advance(task))
    paid = [price] * len(chosen) + [price_against] * len(others)
    summary = summarise(finished, paid)
    if out is not None:
        files.write(out, finished, summary, paid, cases.broken)
    if as_json:
        print(json.dumps(summary_json(finished, summary, cases.broken), allow_nan=False))
    else:
        if price and others and not against_prices:
            refused.append("Both servers are billed at the prices given; --against-prices sets the other's.")
        show(Console(highlight=False, markup=False), finished, summary, cases.broken, refused)
    if finished.ended_by is not None:
        return 128 + (signal.SIGINT if isinstance(finished.ended_by, KeyboardInterrupt) else signal.SIGTERM)
    came = any(row.outcome != "failed" for row in finished.rows)
    return 0 if came and not any(finished.missing) else 1


def _efforts(text: str) -> list[str]:
    chosen = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [effort for effort in chosen if effort not in EFFORTS]
    if unknown or not chosen:
        said = f"there is no effort {unknown[0]!r}" if unknown else "none is given"
        raise LaunchError(f"--efforts {text!r}: {said}; list some of {', '.join(EFFORTS)}, with commas between.")
    return chosen


def _others(
    stack: ExitStack, url: str | None, model: str | None, efforts: Sequence[str], fixed: dict[str, Any]
) -> tuple[list[Endpoint], list[str]]:
    """The other server at those of the efforts that can be asked of it, and a sentence about the rest."""
    if url is None:
        return [], []
    known = [effort for effort in efforts if effort in endpoint.EFFORTS]
    if not known:
        raise LaunchError(
            f"--against asks at effort none and high, and --efforts has neither: {', '.join(efforts)} are graphs of "
            "small4's own."
        )
    other = Server(url, model, os.environ.get(KEY))
    stack.callback(other.close)
    unknown = [effort for effort in efforts if effort not in known]
    said = [f"{other.url} was not asked at {' and '.join(unknown)}: graphs of small4's own."] if unknown else []
    return [Endpoint(other, effort, **_room(fixed, effort)) for effort in known], said


def _room(fixed: dict[str, Any], effort: str) -> dict[str, Any]:
    if effort == "none" or "max_tokens" not in fixed:
        return fixed
    return {**fixed, "max_tokens": fixed["max_tokens"] + BUDGET + MARKS}
