"""Every figure of the README: run each measuring command, then print one table of target, measured, met.

A measuring command takes `--json FILE` and writes a list of rows there; see Row. All of them together take over an hour
on two cores: `python -m launch.bench.figures` leaves the rows it has in figures/ and measures again only with --again.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.console import Console
from rich.table import Table

from launch.errors import LaunchError

FOLDER = Path("figures")
COMMANDS = {
    "nano": ("sgl_small4.nano.evaluate",),
    "cpu": ("launch.bench.cpu",),
    "startup": ("launch.bench.startup",),
}


class Row(BaseModel):
    """One figure. `met` is None where a figure is only reported."""

    model_config = ConfigDict(extra="forbid")
    what: str
    target: str
    measured: str
    met: bool | None


ROWS = TypeAdapter(list[Row])


def figures(names: list[str], again: bool) -> list[Row]:
    """The rows of the named commands, measured now or, without `again`, as they were left in figures/."""
    FOLDER.mkdir(exist_ok=True)
    rows = [_demo_seconds()] if "demo" in names else []
    for name in names:
        if name == "demo":
            continue
        file = FOLDER / f"{name}.json"
        if again or not file.exists():
            command = [sys.executable, "-m", *COMMANDS[name], "--json", str(file)]
            if subprocess.run(command, check=False).returncode:
                raise LaunchError(f"The measurement `python -m {' '.join(COMMANDS[name])}` failed: see above.")
        rows += ROWS.validate_json(file.read_bytes())
    return rows


def _demo_seconds() -> Row:
    """`small4 demo` as a person meets it after installation, from its first to its last moment."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "launch.cli", "demo"], check=True, capture_output=True)
    seconds = time.perf_counter() - started
    return Row(what="small4 demo", target="under 60 s", measured=f"{seconds:.1f} s", met=seconds < 60)


def table(rows: list[Row]) -> Table:
    shown = Table("what", "target", "measured", "met")
    for row in rows:
        shown.add_row(row.what, row.target, row.measured, {True: "yes", False: "no", None: ""}[row.met])
    return shown


def main() -> int:
    """Print the table; the exit code is 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[*COMMANDS, "demo"], help="one command instead of all")
    parser.add_argument("--again", action="store_true", help="measure even where figures/ has rows")
    given = parser.parse_args()
    try:
        rows = figures([given.only] if given.only else [*COMMANDS, "demo"], given.again)
    except LaunchError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 1
    Console().print(table(rows))
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
