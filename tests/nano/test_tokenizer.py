"""One vocabulary in two forms: mistral_common and transformers give the ids that training used."""

import random

import pytest
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from transformers import AutoTokenizer

from sgl_small4.nano import CHECKPOINT
from sgl_small4.nano.tasks.corpus import texts
from sgl_small4.nano.tokenizer import SPECIAL, VOCABULARY_SIZE, Coder, write_tokenizer
from sgl_small4.nano.train import TOKENIZER_SEED

PIECES = [
    "aa",
    "ab",
    "the ",
    "code",
    ": ",
    "\n",
    "\r\n",
    "\t",
    " is",
    "[INST]",
    "</s>",
    "::",
    " |",
    "er",
    "  ",
    "4821",
    "é",
]


@pytest.fixture(scope="module")
def coder() -> Coder:
    return Coder(CHECKPOINT / "tekken.json")


def any_text(source: random.Random) -> str:
    """Unicode of all kinds, or pieces that meet in unusual ways."""
    if source.random() < 0.4:
        return "".join(source.choice(PIECES) for _ in range(source.randint(1, 40)))
    ranges = ((9, 127), (32, 127), (128, 0x2FFF), (0x4E00, 0x9FFF), (0x1F300, 0x1F6FF))
    return "".join(chr(source.randint(*source.choice(ranges))) for _ in range(source.randint(1, 60)))


def test_the_three_encoders_agree_on_any_text(coder: Coder) -> None:
    tekken = Tekkenizer.from_file(CHECKPOINT / "tekken.json")
    hugging_face = AutoTokenizer.from_pretrained(str(CHECKPOINT))
    source = random.Random(7)
    for _ in range(1500):
        text = any_text(source)
        ids = coder(text)
        assert tekken.encode(text, bos=False, eos=False) == ids
        assert hugging_face(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] == ids
        assert coder.decode(ids) == text
        assert min(ids) >= len(SPECIAL), "text became a control token"


def test_control_tokens_have_the_ids_of_mistral(coder: Coder) -> None:
    tekken = Tekkenizer.from_file(CHECKPOINT / "tekken.json")
    assert tekken.n_words == coder.size == VOCABULARY_SIZE
    hugging_face = AutoTokenizer.from_pretrained(str(CHECKPOINT))
    for number, name in enumerate(SPECIAL):
        assert tekken.get_special_token(name) == hugging_face.convert_tokens_to_ids(name) == number
    assert (hugging_face.bos_token_id, hugging_face.eos_token_id, hugging_face.pad_token_id) == (1, 2, 11)
    assert {"[INST]": 3, "[TOOL_CALLS]": 9, "<pad>": 11, "[SYSTEM_PROMPT]": 17, "[THINK]": 34}.items() <= {
        name: number for number, name in enumerate(SPECIAL)
    }.items()


def test_training_it_again_gives_the_shipped_files(tmp_path) -> None:
    write_tokenizer(texts(TOKENIZER_SEED), tmp_path)
    for name in ("tekken.json", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (CHECKPOINT / name).read_bytes()
