"""The only file that touches SGLang's registries and hooks.

Each hook is one function below: its docstring says why it exists and which upstream symbol it hangs on (sglang 0.5.23).
`install` puts all of them in place and raises when one of the symbols is gone.
"""

import pkgutil
from collections.abc import Callable
from typing import NamedTuple

from sglang.srt.models.registry import ModelRegistry
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


@hook("sglang.kernels.ops.attention.decode_attention._decode_grouped_att_m_fwd", HookType.AROUND)
def load_values_apart(launch: Callable, query, key_buffer, value_buffer, *args, has_mla: bool = False, **kwargs):
    """Triton's decode kernel for latent rows that upstream does not split, ours of 256 + 64 among them.

    With `has_mla` the kernel takes its transposed key block for the values. The launcher cuts a key row into latent and
    rope for the widths 576 and 288 alone; 320 becomes one block of 512, which is no block of 256 values, and nothing
    compiles. Told that it is no MLA, the same kernel loads the values by themselves. Only launches that cannot compile
    are changed; what other models launch stays as it is.
    """
    key_width, value_width = key_buffer.shape[-1], value_buffer.shape[-1]
    split_upstream = key_width in (576, 288)
    same_block = (key_width - 1).bit_length() == (value_width - 1).bit_length()
    return launch(query, key_buffer, value_buffer, *args, has_mla=has_mla and (split_upstream or same_block), **kwargs)


class MissingTarget(RuntimeError):
    """An upstream symbol that a hook hangs on does not exist in the installed SGLang."""


def install() -> None:
    """Register the model classes and apply every hook, once per process."""
    ModelRegistry.register("sgl_small4.model", overwrite=True, strict=True)
    for entry in HOOKS:
        apply(entry)


def apply(entry: Hook) -> None:
    """Apply one hook now; raises MissingTarget when the symbol is not there.

    `HookRegistry.apply_hooks` would log the failure and go on, and would skip a target that another plugin has hooked;
    `_apply_target` is the part of it that does the work and raises.
    """
    source = HookSource(plugin_name="sgl_small4", dist_name="sgl-small4")
    try:
        HookRegistry._apply_target(entry.target, [(entry.kind, entry.function, source)])
    except (ImportError, AttributeError) as error:
        raise MissingTarget(f"this release of sglang has no {entry.target} ({error}); install sglang==0.5.23") from error
    if not hasattr(pkgutil.resolve_name(entry.target), "__wrapped__"):
        raise MissingTarget(f"the hook on {entry.target} did not take")
