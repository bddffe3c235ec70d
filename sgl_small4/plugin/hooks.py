"""A hook on a symbol of SGLang: how one is entered, found and applied."""

import pkgutil
from collections.abc import Callable
from typing import NamedTuple

from sglang.srt.plugins.hook_registry import HookRegistry, HookSource, HookType


class Hook(NamedTuple):
    """`function` is called AROUND, AFTER, BEFORE or instead of (REPLACE) the upstream symbol `target`."""

    target: str
    kind: HookType
    function: Callable


HOOKS: list[Hook] = []


def hook(target: str, kind: HookType) -> Callable[[Callable], Callable]:
    """Enter the decorated function into `HOOKS`; see `HookRegistry.register` for what each kind is called with."""

    def enter(function: Callable) -> Callable:
        HOOKS.append(Hook(target, kind, function))
        return function

    return enter


class MissingTarget(RuntimeError):
    """An upstream symbol that a hook hangs on does not exist in the installed SGLang."""


def apply(entry: Hook) -> None:
    """Apply one hook now; raises MissingTarget when the symbol is not there.

    `HookRegistry.apply_hooks` would log the failure and go on, and would skip a target that another plugin has hooked;
    `_apply_target` is the part of it that does the work.
    """
    find(entry.target)
    source = HookSource(plugin_name="sgl_small4", dist_name="sgl-small4")
    HookRegistry._apply_target(entry.target, [(entry.kind, entry.function, source)])
    if not hasattr(find(entry.target), "__wrapped__"):
        raise MissingTarget(f"the hook on {entry.target} did not take")


def find(target: str) -> object:
    """The upstream symbol with this dotted name; raises MissingTarget when the installed SGLang has none."""
    try:
        return pkgutil.resolve_name(target)
    except (ImportError, AttributeError) as error:
        raise MissingTarget(f"this sglang has no {target} ({error}); install sglang==0.5.23") from error
