"""`small4 convert`: a checkpoint in the other of the two formats."""

from pathlib import Path

from launch.errors import LaunchError


def convert(source: Path, target: Path) -> str:
    """What was written, in one sentence."""
    from sgl_small4.checkpoint.convert import convert as run
    from sgl_small4.checkpoint.inventory import CheckpointError
    from sgl_small4.config import ConfigError

    try:
        return run(source, target)
    except (ConfigError, CheckpointError, OSError) as error:
        raise LaunchError(str(error)) from error
