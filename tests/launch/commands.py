"""The command line as a person runs it, and what every failure must look like."""

import subprocess
import sys


def small4(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launch.cli", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def the_sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a failed command; fails when there is none, more than one, or a traceback."""
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("small4: ")]
    assert len(said) == 1, result.stderr
    return said[0].removeprefix("small4: ")
