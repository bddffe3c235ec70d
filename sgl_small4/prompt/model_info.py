"""The model that a server says it serves, and the tokenizer that belongs to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.transport import BackendError

OURS = ("mistral4", "mistral3")  # /model_info's model_type: text alone, or inside the vision wrapper


def format_of(where: str, info: Mapping[str, Any], tokenizer: Path | str | None) -> PromptFormat:
    """The format of the model that a server says it serves; `tokenizer` is a folder that has it, by default where the
    server says. Raises BackendError for another model, and for a tokenizer that cannot be read here."""
    if info.get("model_type") not in OURS:
        raise BackendError(
            f"{where} serves {info.get('model_path')!r} (type {info.get('model_type')!r}), which is no Mistral Small 4."
        )
    folder = Path(tokenizer or info.get("tokenizer_path") or info["model_path"])
    try:
        if not folder.is_dir() and tokenizer is None:
            folder = Path(snapshot_download(str(folder), allow_patterns=["tekken.json", "tokenizer.json"]))
        return PromptFormat.from_folder(folder)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BackendError(
            f"{where} has its tokenizer at {str(folder)!r}, which cannot be read here ({type(error).__name__}): give "
            "tokenizer=FOLDER with its tekken.json or tokenizer.json."
        ) from error
