"""`small4 calibrate`: the thresholds of `auto`, for a target accuracy or a target cost."""

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from launch.errors import LaunchError
from launch.server import serving
from launch.terminal import counting, dim_stderr, visible
from programs.calibrate import (
    FEW_CASES,
    Choice,
    Measured,
    Point,
    always,
    choose,
    deliberations,
    measure,
)
from programs.calibration import FILE, Calibration, identity
from programs.eval.cases import read_cases
from programs.eval.scorers import chooser
from programs.eval.statistics import Interval
from sgl_small4.prompt.backend import Small4Backend

SHOWN = 12  # rows of the curve
SAID = 5  # of the lines that are left out


def calibrate(
    file: Path,
    accuracy: float | None = None,
    cost: float | None = None,
    server: str | None = None,
    limit: int | None = None,
    scorer: str | None = None,
    out: Path | None = None,
    concurrency: int = 8,
    as_json: bool = False,
) -> int:
    """Measure the labelled cases of `file`, choose the thresholds, print the curve and store them.

    Exactly one of `accuracy` (0 to 1) and `cost` (mean output tokens of an answer) is given. They are stored in `out`,
    by default in the folder of the model that the server serves, which must be here and writable. Where no thresholds
    reach the target, the nearest are stored, which is said, and the exit code is 1; else 0.

    Raises LaunchError, ProgramError and BackendError, each one sentence.
    """
    _check(accuracy, cost, limit, concurrency)
    cases = read_cases(file, limit)
    scorer_of = chooser(scorer, cases.cases)
    remarks = dim_stderr()
    with (
        serving(server, "of nano for these cases", None if as_json else remarks) as url,
        Small4Backend(url) as backend,
    ):
        target = _place(out, Path(backend.model_info["model_path"]))
        bar = counting("cases and deliberations", remarks, disable=as_json)
        count = len(cases.cases)
        task = bar.add_task("", total=count + deliberations(count))
        with bar:
            measured, left_out = measure(
                cases.cases, scorer_of, backend=backend, concurrency=concurrency, advance=lambda: bar.advance(task)
            )
        choice = choose(measured, accuracy=accuracy, cost=cost)
        model = identity(backend.model_info)
    notes = _notes(measured, choice, accuracy, cost, [*cases.broken, *left_out])
    facts = {
        "file": file.name,
        "cases": len(measured),
        "deliberated": sum(one.deliberate is not None for one in measured),
        "accuracy": choice.point.accuracy,
        "interval": _bounds(choice.point.interval),
        "tokens": choice.point.tokens,
        "target": {"accuracy": accuracy} if accuracy is not None else {"tokens": cost},
        "met": choice.met,
        "date": datetime.now(UTC).date().isoformat(),
    }
    found = Calibration(direct=choice.point.direct, think=choice.point.think, model=model, measured=facts)
    found.write(target)
    if as_json:
        curve = [asdict(point) for point in choice.curve]
        alone = {effort: {"accuracy": a, "tokens": t} for effort, (a, t) in always(measured).items()}
        whole = {"calibration": found.model_dump(), "file": str(target), "curve": curve, "always": alone}
        print(json.dumps({**whole, "notes": notes}, allow_nan=False))
    else:
        _show(measured, choice, notes, target)
    return 0 if choice.met else 1


def _check(accuracy: float | None, cost: float | None, limit: int | None, concurrency: int) -> None:
    if (accuracy is None) == (cost is None):
        raise LaunchError("Give a target: either --accuracy, from 0 to 1, or --cost in output tokens.")
    if accuracy is not None and not 0 < accuracy <= 1:
        raise LaunchError(f"--accuracy is {accuracy:g}: it must be above 0 and at most 1, such as 0.95.")
    if cost is not None and not 0 < cost < float("inf"):
        raise LaunchError(f"--cost is {cost:g}: it must be a number of output tokens above 0.")
    for name, value in (("--limit", 1 if limit is None else limit), ("--concurrency", concurrency)):
        if value < 1:
            raise LaunchError(f"{name} is {value}: it must be at least 1.")


def _place(out: Path | None, model: Path) -> Path:
    """Where the calibration goes, known to be writable before anything is asked."""
    if out is not None:
        if out.is_dir() or not os.access(out.parent, os.W_OK):
            raise LaunchError(f"--out {str(out)!r} cannot be written: name a file in a folder that is there.")
        return out
    if not model.is_dir() or not os.access(model, os.W_OK):
        raise LaunchError(f"The model's folder {str(model)!r} is not here or not writable: give --out FILE.")
    return model / FILE


def _notes(
    measured: list[Measured], choice: Choice, accuracy: float | None, cost: float | None, left_out: list[str]
) -> list[str]:
    point, notes = choice.point, []
    if not choice.met:
        wanted = f"an accuracy of {100 * (accuracy or 0):g} %" if cost is None else f"{cost:g} output tokens a question"
        reached = f"{100 * point.accuracy:.1f} % with {point.tokens:.1f} tokens"
        notes.append(f"The target cannot be met: no thresholds reach {wanted}; the nearest come to {reached}.")
    if len(measured) < FEW_CASES:
        notes.append(f"{len(measured)} cases are few: with less than {FEW_CASES} the thresholds are a guess.")
    tried = sum(one.deliberate is not None for one in measured)
    notes.append(
        "Thresholds are confidences from which an answer is taken; tokens are the mean output of a question; last said "
        "by direct, think and deliberate."
    )
    notes.append(
        f"Deliberating was tried on the {tried} cases that thinking left least sure; thresholds that would send others "
        "on to it were not considered."
    )
    notes.append(
        "The accuracy is that on the cases that the thresholds were chosen by: on others it is a little lower "
        "(`small4 eval` measures it)."
    )
    notes += left_out[:SAID]
    if len(left_out) > SAID:
        notes.append(f"{len(left_out) - SAID} more lines are left out.")
    return [visible(note, keep="") for note in notes]


def _show(measured: list[Measured], choice: Choice, notes: list[str], target: Path) -> None:
    console = Console(highlight=False, markup=False)
    table = Table(title="What the thresholds come to", title_justify="left")
    for name in ("direct", "think", "accuracy", "tokens", "last said by"):
        table.add_column(name, justify="right", no_wrap=True)
    for effort, (right, tokens) in always(measured).items():
        table.add_row(f"always {effort}", "", f"{100 * right:.1f} %", f"{tokens:.1f}", "")
    table.add_section()
    for point in _thinned(choice.curve):
        table.add_row(*_cells(point))
    table.add_section()
    table.add_row(*_cells(choice.point), style="bold")
    console.print(table)
    for note in notes:
        console.print(f"- {note}")
    console.print(f"Stored in {visible(str(target))}.", soft_wrap=True)


def _cells(point: Point) -> list[str]:
    bounds = _bounds(point.interval)
    interval = f" ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f})" if bounds else ""
    thresholds = [f"{value:.4f}" if value <= 1 else "never" for value in (point.direct, point.think)]
    ended = " / ".join(f"{100 * part:.0f}" for part in point.ended)
    return [*thresholds, f"{100 * point.accuracy:.1f} %{interval}", f"{point.tokens:.1f}", f"{ended} %"]


def _thinned(curve: tuple[Point, ...]) -> list[Point]:
    steps = min(SHOWN, len(curve))
    return [curve[round(step * (len(curve) - 1) / max(1, steps - 1))] for step in range(steps)]


def _bounds(interval: Interval | None) -> list[float] | None:
    return None if interval is None or interval.low is None or interval.high is None else [interval.low, interval.high]
