"""Every figure of the README: run each measuring command, then print one table of what, target, measured, met.

All of them together take over an hour on two cores. Each leaves its JSON in figures/, and what is there is not measured
again unless asked for with --again.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from launch.errors import LaunchError

FOLDER = Path("figures")


class Row(NamedTuple):
    """One figure; `met` is None where it is only reported."""

    what: str
    target: str
    measured: str
    met: bool | None


class Source(NamedTuple):
    """A command that takes `--json FILE`, and how to read what it writes there."""

    module: str
    rows: Callable[[Any], Iterator[Row]]


def nano_rows(written: dict[str, Any]) -> Iterator[Row]:
    """Held-out accuracy, each with Wilson's 95 % interval."""
    from sgl_small4.nano.evaluate import Figure

    figures = {(row["name"], row["effort"]): Figure(**row) for row in written["figures"]}

    def share(name: str, effort: str, least: float | None = None, most: float | None = None) -> Row:
        figure = figures[name, effort]
        right, (low, high) = 100 * figure.right / figure.count, figure.interval()
        measured = f"{right:.1f} % of {figure.count} ({low:.1f} to {high:.1f})"
        what = f"{name}, effort {effort}"
        if least is not None:
            return Row(what, f"at least {least:g} %", measured, right >= least)
        if most is not None:
            return Row(what, f"at most {most:g} %", measured, right <= most)
        return Row(what, "reported", measured, None)

    sums = "sums of 3 to 5 two-digit numbers"
    yield share(sums, "high", least=97)
    yield share(sums, "none")
    tokens = {effort: figures[sums, effort].tokens for effort in ("none", "high")}
    ratio = f"{tokens['none']:.1f} and {tokens['high']:.1f}"
    yield Row(
        "tokens of a reply to them, none and high", "at most a fifth", ratio, tokens["none"] <= tokens["high"] / 5
    )
    yield share("sums of two numbers below 20", "none", least=88)
    for length, least in ((500, 95), (2000, 93), (4000, 88), (8000, None)):
        yield share(f"question on a document of {length:,} tokens", "high", least=least)
    for length in (500, 2000):
        for effort in ("high", "none"):
            yield share(f"not in the document, {length:,} tokens", effort, least=95)
            yield share(f"question on a document of {length:,} tokens: said to be absent", effort, most=2)
    for length, least in ((500, 90), (2000, 90), (4000, None)):
        yield share(f"quote of the answered line, {length:,} tokens", "none", least=least)
    yield share("quotes nothing where the document does not answer, 500 tokens", "none")
    yield share("is this sum right? yes or no", "high", least=95)
    yield share("calculator call and its result", "high", least=95)
    yield share("calculator call and its result", "none", least=95)
    yield share("sums, trace cut at random", "high")


def own_rows(written: list[dict[str, Any]]) -> Iterator[Row]:
    """Commands of launch/bench write rows as they are shown here."""
    return (Row(**row) for row in written)


SOURCES = {
    "nano": Source("sgl_small4.nano.evaluate", nano_rows),
    "cpu": Source("launch.bench.cpu", own_rows),
    "startup": Source("launch.bench.startup", own_rows),
    "replies": Source("launch.bench.replies", own_rows),
    "doors": Source("launch.bench.doors", own_rows),
    "effort": Source("launch.bench.effort", own_rows),
    "spinning": Source("launch.bench.spinning", own_rows),
    "quotes": Source("launch.bench.quotes", own_rows),
    "documents": Source("launch.bench.documents", own_rows),
}


def measure(name: str, again: bool) -> Iterator[Row]:
    """The rows of one source: from its file in figures/, or, where that is missing or `again`, measured now."""
    source, file = SOURCES[name], FOLDER / f"{name}.json"
    if again or not file.exists():
        FOLDER.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        # The exit code also tells of missed targets; a measurement that failed leaves no file.
        subprocess.run([sys.executable, "-m", source.module, "--json", str(file)], check=False)
        if not file.exists():
            raise LaunchError(f"`python -m {source.module}` failed, see above: no table without all of its figures.")
    return source.rows(json.loads(file.read_text(encoding="utf-8")))


def demo_row() -> Row:
    """`small4 demo` as a person meets it after installation, from its first to its last moment."""
    started = time.perf_counter()
    if subprocess.run([sys.executable, "-m", "launch.cli", "demo"], check=False).returncode:
        raise LaunchError("`small4 demo` failed, see above: no table without its time.")
    seconds = time.perf_counter() - started
    return Row("small4 demo, from start to end", "under 60 s", f"{seconds:.1f} s", seconds < 60)


def table(rows: list[Row]) -> Table:
    """As Markdown, so that it can be put into the README as it is printed."""
    shown = Table("what", "target", "measured", "met", box=box.MARKDOWN)
    for row in rows:
        shown.add_row(row.what, row.target, row.measured, {True: "yes", False: "no", None: ""}[row.met])
    return shown


def report(rows: list[Row], file: Path | None) -> int:
    """What every measuring command ends with: print its rows, write them to `file`; 1 when a target is missed."""
    Console(width=None if sys.stdout.isatty() else 240).print(table(rows))
    if file:
        file.write_text(json.dumps([row._asdict() for row in rows], indent=1), encoding="utf-8")
    return int(any(row.met is False for row in rows))


def main() -> int:
    """Print the table; the exit code is 1 when a target is missed or a figure is not to be had."""
    parser = argparse.ArgumentParser(description="Measure every figure of the README and print them as one table.")
    parser.add_argument("--only", choices=[*SOURCES, "demo"], help="one command instead of all")
    parser.add_argument("--again", action="store_true", help="measure also what figures/ has")
    given = parser.parse_args()
    try:
        rows = [row for name in SOURCES if given.only in (None, name) for row in measure(name, given.again)]
        if given.only in (None, "demo"):
            rows.append(demo_row())
    except LaunchError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 1
    return report(rows, None)


if __name__ == "__main__":
    sys.exit(main())
