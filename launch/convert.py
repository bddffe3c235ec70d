"""`small4 convert`: a checkpoint in the other of the two formats."""

from pathlib import Path

from launch.errors import LaunchError


def convert(source: Path, target: Path) -> str:
    """What was written, in one sentence."""
    from sgl_small4.checkpoint.convert import convert as run

    try:
        return run(source, target)
    except (OSError, ValueError) as error:
        raise LaunchError(str(error)) from error
