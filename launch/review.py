"""`small4 review`: a diff or a git range in, findings out, as a table or as one JSON object."""

import codecs
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch.client import Effort
from launch.errors import LaunchError
from launch.server import serving
from launch.terminal import dim_stderr, visible
from programs.review import Review, review_diff
from sgl_small4.prompt.backend import Small4Backend

GIT_SECONDS = 120
STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}

# A repository's own settings may run programs or change the form of a diff: none of that here.
GIT_DIFF = (
    *("git", "--no-pager", "-c", "core.fsmonitor=false", "-c", "core.quotePath=true", "diff", "--patch"),
    *("--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short", "--ignore-submodules=dirty"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)


def review(
    diff: str | None,
    git: str | None,
    repo: Path,
    effort: Effort,
    server: str | None,
    show_graph: Path | None,
    as_json: bool,
) -> int:
    """Review the file `diff` (`-` or nothing: standard input), or what `git diff GIT` says in `repo`. The exit code.

    0 whatever was found; 1 where no part of the diff could be reviewed although there was one. Raises LaunchError,
    ProgramError and BackendError, each one sentence.
    """
    text = decoded(_source(diff, git, repo))
    if not text.strip():
        raise LaunchError("The diff is empty: there is nothing to review.")
    remarks = dim_stderr()
    with serving(server, "for this one review", None if as_json else remarks) as url, Small4Backend(url) as backend:
        found = review_diff(text, effort=effort, backend=backend)
    if as_json:
        print(json.dumps(to_dict(found)))
    else:
        _show(found, remarks)
    if show_graph is not None:
        found.graph.save(show_graph)
    return 1 if found.failed and not found.reviewed else 0


def to_dict(found: Review) -> dict[str, Any]:
    """What `--json` prints; ASCII alone, so no text in it can steer a terminal."""
    return {
        "findings": [asdict(finding) for finding in found.findings],
        "unplaced": [asdict(claim) for claim in found.unplaced],
        "failed": [asdict(missing) for missing in found.failed],
        "skipped": [asdict(missing) for missing in found.skipped],
        "usage": asdict(found.usage),
    }


def decoded(raw: bytes) -> str:
    """A diff as text: UTF-8, or UTF-16 where it says so. Files in it may have other encodings; those bytes are lost."""
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # PowerShell's `>` writes it
    return raw.decode("utf-16" if utf16 else "utf-8", "replace")


def git_diff(range: str, repo: Path) -> bytes:
    """What git says of a range. It can be no option and no path, and nothing of the repository's is run."""
    if not range or range.startswith("-") or re.search(r"[\0-\x1f\x7f]", range):
        raise LaunchError(f"{range!r} is no git range: write one such as main..topic or HEAD~1.")
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        made = subprocess.run(
            [*GIT_DIFF, range, "--"],
            cwd=repo,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        if not repo.is_dir():
            raise LaunchError(f"There is no folder {str(repo)!r}: correct --repo.") from error
        raise LaunchError("git is not installed: install it, or give a diff as a file.") from error
    except OSError as error:
        raise LaunchError(f"git cannot run in {str(repo)!r}: {error.strerror or error}.") from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"git gave no diff within {GIT_SECONDS} seconds: make it yourself, as a file.") from error
    if made.returncode != 0:
        said = made.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
        reason = visible(said[0]).removeprefix("fatal: ").rstrip(".")
        raise LaunchError(f"git has no diff for {range!r} in {str(repo)!r}: {reason}.")
    if not made.stdout.strip():
        raise LaunchError(f"Nothing differs in {range!r}: there is nothing to review.")
    return made.stdout


def _source(diff: str | None, git: str | None, repo: Path) -> bytes:
    if git is not None:
        if diff is not None:
            raise LaunchError("A diff and --git are two sources: give one.")
        return git_diff(git, repo)
    if diff in (None, "-"):
        if diff is None and sys.stdin.isatty():
            raise LaunchError("No diff is given: name a file, pipe one in, or add --git RANGE.")
        return sys.stdin.buffer.read()
    try:
        return Path(str(diff)).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LaunchError(f"The diff {diff!r} cannot be read: {reason}.") from error


def _show(found: Review, remarks: Console) -> None:
    """Findings on standard output; what is not one, dim, on standard error."""
    if found.findings:
        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
        table.add_column("line", overflow="fold")
        table.add_column("severity")
        table.add_column("reason", overflow="fold", ratio=1)
        for finding in found.findings:
            place = f"{finding.file}:{finding.line}{'' if finding.added else ' (unchanged)'}"
            severity = Text(finding.severity, STYLES[finding.severity])
            table.add_row(Text(visible(place, "")), severity, Text(visible(finding.reason, "")))
        Console(highlight=False, markup=False).print(table)
    for claim in found.unplaced:
        remarks.print(visible(f"unplaced: {claim.file}:{claim.line}: {claim.reason} [{claim.why}]", ""))
    for missing in found.failed:
        remarks.print(visible(f"failed: {missing.place}: {missing.reason}", ""))
    for missing in found.skipped:
        remarks.print(visible(f"skipped: {missing.place}: {missing.reason}", ""))
    usage = found.usage
    remarks.print(
        f"{len(found.findings)} findings, {len(found.unplaced)} unplaced, {len(found.failed)} failed, "
        f"{len(found.skipped)} skipped; {usage.requests} requests, {usage.prompt_tokens} tokens in, "
        f"{usage.cached_tokens} of them cached, {usage.completion_tokens} out"
    )
