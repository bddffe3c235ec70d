"""The nano tokenizer: Mistral's control tokens with their own ids, 256 bytes and a few hundred merges.

One vocabulary is written in two forms that give equal ids: `tekken.json` for mistral_common and
`tokenizer.json` for transformers. `Coder` is the fast encoder of the training side."""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY_SIZE = 768
SPECIAL_COUNT = 40
# Only ASCII classes: \s and \d do not mean the same in the regex engines of tiktoken and tokenizers.
PATTERN = r" ?[A-Za-z]+|[0-9]| ?[^ \t\r\nA-Za-z0-9]+|[ \t\r\n]"

# Names at the ids that Mistral's tekken v15 files give them; the ids between are fillers.
NAMED = {
    **dict(enumerate(("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"))),
    **dict(enumerate(("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>"), 7)),
    **dict(enumerate(("[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"), 12)),
    **dict(enumerate(("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"), 17)),
    **dict(enumerate(("[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"), 32)),
}
SPECIAL = [NAMED.get(i, f"<SPECIAL_{i}>") for i in range(SPECIAL_COUNT)]
CONTROL = {name: i for i, name in enumerate(SPECIAL)}
TOKENIZER_FILES = ("tekken.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def train_merges(texts: Iterable[str], size: int = VOCABULARY_SIZE) -> list[bytes]:
    """The tokens of a byte-level BPE in rank order: the 256 bytes, then what the merges make."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _pre_tokenizer()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size - SPECIAL_COUNT, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    byte_of = {shown: value for value, shown in _byte_alphabet().items()}
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [bytes([i]) for i in range(256)] + [bytes(byte_of[c] for c in left + right) for left, right in merges]


def write_tokenizer(texts: Iterable[str], folder: Path) -> None:
    """Train on the texts and write both forms."""
    tokens = train_merges(texts)
    write_tekken(tokens, folder)
    write_hugging_face(tokens, folder)


def write_tekken(tokens: list[bytes], folder: Path) -> None:
    """`tekken.json`, version 15: reasoning effort none or high, none when nothing is asked for."""
    vocabulary = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": _printable(token)}
        for rank, token in enumerate(tokens)
    ]
    content = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(tokens),
            "default_vocab_size": len(tokens) + SPECIAL_COUNT,
            "default_num_special_tokens": SPECIAL_COUNT,
            "version": "v15",
        },
        "vocab": vocabulary,
        "special_tokens": [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(SPECIAL)],
        "model_settings_builder": {
            "reasoning_effort": {"type": "enum", "accepts_none": True, "default": "none", "values": ["none", "high"]}
        },
    }
    (folder / "tekken.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_hugging_face(tokens: list[bytes], folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json`, for transformers' AutoTokenizer."""
    alphabet = _byte_alphabet()
    rank = {token: i for i, token in enumerate(tokens)}
    shown = {token: "".join(alphabet[b] for b in token) for token in tokens}
    vocabulary = {shown[token]: i + SPECIAL_COUNT for token, i in rank.items()}
    vocabulary |= CONTROL
    # tiktoken merges any two neighbours whose joined bytes are a token, so every split of a token is a merge.
    splits = [(t[:i], t[i:]) for t in tokens for i in range(1, len(t)) if t[:i] in rank and t[i:] in rank]
    merges = [(shown[a], shown[b]) for a, b in splits]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1048576,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    names = {key: settings[key] for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")


class Coder:
    """Text to ids, as mistral_common's Tekkenizer does it; no text can become a control token."""

    def __init__(self, tekken: Path) -> None:
        content = json.loads(tekken.read_text(encoding="utf-8"))
        ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in content["vocab"]}
        self.size = content["config"]["default_vocab_size"]
        self._encoding = tiktoken.Encoding("nano", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})

    def __call__(self, text: str) -> list[int]:
        return [rank + SPECIAL_COUNT for rank in self._encoding.encode_ordinary(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, control tokens by their names."""
        out, plain = [], []
        for i in ids:
            if i >= SPECIAL_COUNT:
                plain.append(i - SPECIAL_COUNT)
                continue
            out += [self._encoding.decode(plain), SPECIAL[i]]
            plain = []
        return "".join([*out, self._encoding.decode(plain)])


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in Hugging Face's byte-level vocabularies (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    spare: Iterator[int] = iter(range(256, 512))
    return {b: chr(b if b in plain else next(spare)) for b in range(256)}


def _printable(token: bytes) -> str | None:
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return None
