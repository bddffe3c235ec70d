"""The format of the checkpoint that this SGLang process serves."""

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from sglang.srt.runtime_context import get_model, get_serving

from sgl_small4.prompt.format import PromptFormat


def is_ours(hf_config: Any) -> bool:
    """Whether a served configuration is Small 4's, by the model type of its text part."""
    text = getattr(hf_config, "text_config", None) or hf_config
    return getattr(text, "model_type", None) == "mistral4"


def serves_ours() -> bool:
    """Whether the HTTP server in this process serves a Small 4."""
    server = sys.modules.get("sglang.srt.entrypoints.http_server")
    state = server.get_global_state() if server else None
    return state is not None and is_ours(state.tokenizer_manager.model_config.hf_config)


def served_format() -> PromptFormat:
    """The tokenizer that the server was started with, from its folder or from the hub's; read once per process."""
    return _read(get_serving().tokenizer_path, get_model().revision)


@lru_cache(maxsize=4)
def _read(name: str, revision: str | None) -> PromptFormat:
    folder = Path(name)
    if not folder.is_dir():
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=["tekken.json", "tokenizer.json"]))
    return PromptFormat.from_folder(folder)
