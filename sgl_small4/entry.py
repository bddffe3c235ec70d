"""What SGLang's entry points call. Only the standard library is imported here, so that loading this module cannot fail.

SGLang logs an exception raised by a plugin and goes on without it (``sglang/srt/plugins/__init__.py``), which would
serve the stock class or nothing at all. ``SystemExit`` is not an ``Exception``: it passes through those handlers, so a
failure here ends the process, in the parent as in every spawned one.
"""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
CPU_PLATFORM = "sgl_small4.cpu.platform.CpuPlatform"


def load_platform() -> str | None:
    """Entry point ``sglang.srt.platforms``: our platform's dotted name, or None where an accelerator is present."""
    return _or_exit("platform", _prepare_platform)


def load_plugin() -> None:
    """Entry point ``sglang.srt.plugins``: register the model and put every hook in place."""
    _or_exit("plugin", _install_plugin)


def _prepare_platform() -> str | None:
    # SGLang's registry imports all of its model files (seconds) unless an external package is named; with one it
    # imports them when an architecture outside that package is asked for (``models/registry.py``).
    os.environ.setdefault("SGLANG_EXTERNAL_MODEL_PACKAGE", "sgl_small4.model")
    from sgl_small4.cpu import platform

    return CPU_PLATFORM if platform.install() else None


def _install_plugin() -> None:
    from sgl_small4 import plugin

    plugin.install()


def _or_exit(part: str, load: Callable[[], Result]) -> Result:
    try:
        return load()
    except Exception as error:  # noqa: BLE001 - whatever it is, SGLang must not go on without this part
        reason = str(error) or type(error).__name__
        sys.exit(f"sgl_small4: the {part} could not be loaded, so nothing is served: {type(error).__name__}: {reason}")
