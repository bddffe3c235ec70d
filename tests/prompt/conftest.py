"""Tokenizers to test with: mistral_common's real vocabulary with the v15 special table, and its Hugging Face twin."""

import base64
import json
from pathlib import Path

import pytest
from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.tokenizer import _byte_characters

SPECIAL_TOKENS = 1000
VOCABULARY = 12_000  # text tokens of the twins that are compared; the real file has 130,072


def special_table() -> list[dict]:
    """The control tokens that v15 has; the ids are this file's own, since nothing may rely on published ones."""
    return [{"rank": id, "token_str": name.value, "is_control": True} for id, name in enumerate(SpecialTokens)]


def tekken_file(folder: Path, vocabulary: int | None = None, **changes) -> Path:
    """Write a v15 tekken.json over the vocabulary that mistral_common ships."""
    tekken = json.loads((MistralTokenizer._data_path() / "tekken_240911.json").read_text())
    text_tokens = vocabulary or tekken["config"]["default_vocab_size"] - SPECIAL_TOKENS
    tekken["config"] |= {"version": "v15", "default_vocab_size": text_tokens + SPECIAL_TOKENS}
    tekken["vocab"] = tekken["vocab"][:text_tokens]
    tekken["special_tokens"] = special_table()
    tekken["model_settings_builder"] = {
        "reasoning_effort": {"type": "enum", "values": ["none", "high"], "accepts_none": True, "default": "none"}
    }
    del tekken["image"]
    tekken |= changes
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tekken.json"
    path.write_text(json.dumps(tekken))
    return path


def hugging_face_file(folder: Path, tekken: Path) -> Path:
    """Write the tokenizer.json that gives the ids of a tekken.json: same ranks, same pattern, same special ids."""
    source = json.loads(tekken.read_text())
    characters = _byte_characters()
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in source["vocab"]}

    def spell(piece: bytes) -> str:
        return "".join(characters[byte] for byte in piece)

    merges = []
    for piece, rank in ranks.items():
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [pair for pair in halves if pair[0] in ranks and pair[1] in ranks]
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(rank, [spell(left), spell(right)]) for left, right in known]
    specials = [{**token, "rank": token["rank"]} for token in source["special_tokens"]]
    specials += [{"rank": id, "token_str": f"<SPECIAL_{id}>"} for id in range(len(specials), SPECIAL_TOKENS)]
    description = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token["rank"],
                "content": token["token_str"],
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for token in specials
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": source["config"]["pattern"]},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {token["token_str"]: token["rank"] for token in specials}
            | {spell(piece): rank + SPECIAL_TOKENS for piece, rank in ranks.items()},
            "merges": [pair for _, pair in sorted(merges, key=lambda merge: merge[0])],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(description))
    return path


@pytest.fixture(scope="session")
def tekken_folder(tmp_path_factory) -> Path:
    """The real vocabulary, whole."""
    return tekken_file(tmp_path_factory.mktemp("tekken")).parent


@pytest.fixture(scope="session")
def tekken(tekken_folder) -> PromptFormat:
    return PromptFormat.from_folder(tekken_folder)


@pytest.fixture(scope="session")
def twins(tmp_path_factory) -> tuple[PromptFormat, PromptFormat]:
    """The same vocabulary as tekken.json and as tokenizer.json."""
    folder = tmp_path_factory.mktemp("twins")
    path = tekken_file(folder / "tekken", vocabulary=VOCABULARY)
    hugging_face_file(folder / "hugging-face", path)
    return PromptFormat.from_folder(folder / "tekken"), PromptFormat.from_folder(folder / "hugging-face")


@pytest.fixture(scope="session", params=["tekken.json", "tokenizer.json"])
def either(request, twins) -> PromptFormat:
    """Each of the two, in turn: what must hold whichever tokenizer a checkpoint ships."""
    return twins[request.param == "tokenizer.json"]
