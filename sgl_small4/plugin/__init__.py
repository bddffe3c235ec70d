"""The only folder that touches SGLang's registries and hooks.

Each hook is one function: its docstring says why it exists and which upstream symbol it hangs on (sglang 0.5.23).
`install` puts all of them in place and raises when one of the symbols is gone.
"""

from sglang.srt.arg_groups.choices import add_attention_backend_choices
from sglang.srt.entrypoints.openai import chat_encoding_adapters
from sglang.srt.models.registry import ModelRegistry
from sglang.srt.utils import is_cpu

from sgl_small4.cpu.platform import ATTENTION_BACKEND
from sgl_small4.model.decoder import EntryClass
from sgl_small4.plugin import engine, routes, scheduler  # noqa: F401  they enter their hooks
from sgl_small4.plugin.hooks import HOOKS, apply
from sgl_small4.prompt import chat


def install() -> None:
    """Register the model class and apply every hook, once per process."""
    ModelRegistry.models[EntryClass.__name__] = EntryClass  # `register` would import all of upstream's models first
    if is_cpu():
        add_attention_backend_choices([ATTENTION_BACKEND])  # the backend itself: CpuPlatform.init_backend
    chat_encoding_adapters._BUILDERS[chat.SPEC] = {"builtin": chat.build_adapter}
    for entry in HOOKS:
        apply(entry)
