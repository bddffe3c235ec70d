"""The tokenizer of a checkpoint folder, in the one shape that mistral_common's encoder takes.

Two kinds of files describe the same vocabulary: `tekken.json` (Mistral's own) and `tokenizer.json` (Hugging Face).
The published checkpoints ship both. `tekken.json` wins: the model was trained on it, and published `tokenizer.json`
files have carried a pre-tokeniser pattern that cuts words such as `iPhone` otherwise.

Neither tokenizer can turn text into a control id: tekken keeps its special table outside the merges, and a
`tokenizer.json` is read here without its added tokens.
"""

import json
import logging
from functools import cached_property
from pathlib import Path

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.request import ReasoningEffort
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy, SpecialTokens, TokenizerVersion
from mistral_common.tokens.tokenizers.model_settings_builder import ModelSettingsBuilder, ReasoningEffortEnumBuilder
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer as BytePairs

logger = logging.getLogger(__name__)

# What a v15 conversation is made of. The two fill-in-the-middle tokens are never emitted here, but mistral_common's
# encoder looks them up when it is built.
CONTROL_TOKENS = (
    SpecialTokens.bos,
    SpecialTokens.eos,
    SpecialTokens.begin_inst,
    SpecialTokens.end_inst,
    SpecialTokens.begin_system,
    SpecialTokens.end_system,
    SpecialTokens.begin_tools,
    SpecialTokens.end_tools,
    SpecialTokens.begin_tool_results,
    SpecialTokens.end_tool_results,
    SpecialTokens.begin_tool_content,
    SpecialTokens.tool_calls,
    SpecialTokens.args,
    SpecialTokens.call_id,
    SpecialTokens.begin_think,
    SpecialTokens.end_think,
    SpecialTokens.begin_model_settings,
    SpecialTokens.end_model_settings,
    SpecialTokens.prefix,
    SpecialTokens.suffix,
)

# One line each for what a wrong pre-tokeniser pattern gets wrong: used to compare two tokenizers of one folder.
PROBES = (
    "iPhone KMnO4 pKa 9,876 ab\u0016",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",  # Thai
    "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627",  # Arabic with diacritics
    "ok \U0001f44d\U0001f3fd \u2014 l'\u00e9t\u00e9, McDonald's\r\n\n  x = y[2];  ",
)


class TokenizerError(ValueError):
    """The tokenizer files of a checkpoint cannot carry the v15 format; the sentence is for the user."""


class HuggingFaceTekkenizer(Tekkenizer):
    """A `tokenizer.json` (byte-level BPE) behind tekken's interface, with the ids that the file gives."""

    def __init__(self, path: Path) -> None:
        # Tekkenizer.__init__ wants tekken's vocabulary layout; here only the attributes that its methods and the
        # encoder read are set, and everything that touches text is overridden below.
        description = json.loads(path.read_text(encoding="utf-8"))
        if description["model"]["type"] != "BPE":
            raise TokenizerError(f"{path}: expected a byte-level BPE model, found {description['model']['type']}.")
        added = description["added_tokens"]
        names = {token["content"] for token in added}
        self._all_special_tokens = [
            {"rank": token["id"], "token_str": token["content"], "is_control": token["special"]} for token in added
        ]
        self._special_tokens_reverse_vocab = {token["content"]: token["id"] for token in added}
        self._special_token_ids = set(self._special_tokens_reverse_vocab.values())
        pieces = {token: id for token, id in description["model"]["vocab"].items() if token not in names}
        self._bytes = _bytes_of(pieces, path)
        self._vocab_size = 1 + max(*self._bytes, *self._special_token_ids)
        self._version = TokenizerVersion.v15
        self._image_config = self._audio_config = None
        self._file_path = path
        self._model_settings_builder = ModelSettingsBuilder(
            reasoning_effort=ReasoningEffortEnumBuilder(
                values=[ReasoningEffort.none, ReasoningEffort.high], accepts_none=True, default=ReasoningEffort.none
            )
        )
        # Without added tokens there is nothing in the file that could match "[/INST]" inside a text.
        description.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        description["model"]["vocab"] = pieces
        self._byte_pairs = BytePairs.from_str(json.dumps(description))

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        text = s.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # as tiktoken does: no lone surrogates
        ids = self._byte_pairs.encode(text, add_special_tokens=False).ids
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def id_to_byte_piece(
        self, token_id: int, special_token_policy: SpecialTokenPolicy = SpecialTokenPolicy.IGNORE
    ) -> bytes:
        if token_id not in self._special_token_ids:
            return self._bytes.get(token_id, b"")
        if special_token_policy == SpecialTokenPolicy.RAISE:
            raise ValueError(f"{token_id} is a special token")
        keep = special_token_policy == SpecialTokenPolicy.KEEP
        return self._special_names[token_id].encode() if keep else b""

    @cached_property
    def _special_names(self) -> dict[int, str]:
        return {id: name for name, id in self._special_tokens_reverse_vocab.items()}

    def decode(self, tokens: list[int], special_token_policy: SpecialTokenPolicy = SpecialTokenPolicy.IGNORE) -> str:
        pieces = (self.id_to_byte_piece(token, special_token_policy) for token in tokens)
        return b"".join(pieces).decode("utf-8", "replace")

    def vocab(self) -> list[str]:
        return [self.id_to_piece(id) for id in sorted({*self._bytes, *self._special_token_ids})]

    def is_byte(self, token_id: int) -> bool:
        return len(self._bytes.get(token_id, b"")) == 1


def load_tokenizer(folder: Path) -> Tekkenizer:
    """Read `tekken.json` when there is one, else `tokenizer.json`, and check that it can carry v15."""
    tekken, hugging_face = folder / "tekken.json", folder / "tokenizer.json"
    if tekken.is_file():
        tokenizer = _read(Tekkenizer.from_file, tekken)
        if hugging_face.is_file():
            _log_difference(tokenizer, _read(HuggingFaceTekkenizer, hugging_face))
    elif hugging_face.is_file():
        tokenizer = _read(HuggingFaceTekkenizer, hugging_face)
    else:
        raise TokenizerError(f"{folder}: there is no tekken.json and no tokenizer.json to encode conversations with.")
    _check(tokenizer)
    return tokenizer


def _read(reader, path: Path) -> Tekkenizer:
    try:
        return reader(path)
    except TokenizerError:
        raise
    except (KeyError, TypeError, ValueError, AssertionError, MistralCommonException) as error:
        raise TokenizerError(f"{path}: not a readable tokenizer file ({error!r:.200}).") from error


def _check(tokenizer: Tekkenizer) -> None:
    path = tokenizer.file_path
    if tokenizer.version != TokenizerVersion.v15:
        raise TokenizerError(
            f"{path}: the tokenizer is {tokenizer.version.value}; Mistral Small 4's conversations are v15."
        )
    missing = [token.value for token in CONTROL_TOKENS if not tokenizer.is_special(token.value)]
    if missing:
        raise TokenizerError(f"{path}: the special table lacks {', '.join(missing)}, which v15 conversations need.")
    builder = tokenizer.model_settings_builder
    efforts = builder.reasoning_effort.values if builder and builder.reasoning_effort else []
    if not {ReasoningEffort.none, ReasoningEffort.high} <= set(efforts):
        raise TokenizerError(
            f"{path}: model_settings_builder must take the reasoning efforts none and high, it takes {list(efforts)}."
        )


def _log_difference(tekken: Tekkenizer, hugging_face: Tekkenizer) -> None:
    differing = [
        text
        for text in PROBES
        if tekken.encode(text, bos=False, eos=False) != hugging_face.encode(text, bos=False, eos=False)
    ]
    if differing:
        logger.warning(
            "Prompts are encoded with %s; tokenizer.json beside it gives other ids, for example on %r.",
            tekken.file_path,
            differing[0],
        )


def _bytes_of(pieces: dict[str, int], path: Path) -> dict[int, bytes]:
    """The bytes of every id that stands for text."""
    alphabet = {character: byte for byte, character in enumerate(_byte_characters())}
    try:
        return {id: bytes(alphabet[character] for character in piece) for piece, id in pieces.items()}
    except KeyError as missing:
        raise TokenizerError(
            f"{path}: the vocabulary is not byte-level (it holds {missing}); ship the checkpoint's tekken.json too."
        ) from None


def _byte_characters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in byte order: what byte-level vocabularies are spelled in."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(stand_ins)) for byte in range(256)]
