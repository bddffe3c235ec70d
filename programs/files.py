"""Files written whole or not at all."""

import contextlib
import os
import uuid
from pathlib import Path


def write_whole(path: str | Path, content: bytes) -> None:
    """Put `content` where `path` is, or leave what is there; a link stays one. Raises OSError, or ValueError for a path
    that no system knows."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
