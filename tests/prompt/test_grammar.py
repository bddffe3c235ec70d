"""Constrained decoding chooses among text ids: no grammar admits a control id, however much text it admits."""

from types import SimpleNamespace

import pytest
import xgrammar
from mistral_common.tokens.tokenizers.base import SpecialTokens
from sglang.srt.runtime_context import get_context, get_serving
from transformers import PreTrainedTokenizerFast

from sgl_small4.prompt.grammar import MAX_WHITE_SPACE, grammar_vocabulary, prepare

ANYTHING = r"[\s\S]*"


def admitted(vocabulary: xgrammar.TokenizerInfo, regex: str, written: str = "") -> set[int]:
    """The ids that may follow a text under a grammar."""
    matcher = xgrammar.GrammarMatcher(xgrammar.GrammarCompiler(vocabulary).compile_regex(regex))
    assert matcher.accept_string(written)
    mask = xgrammar.allocate_token_bitmask(1, vocabulary.vocab_size)
    matcher.fill_next_token_bitmask(mask)
    return {id for id in range(vocabulary.vocab_size) if mask[0, id // 32].item() >> (id % 32) & 1}


def test_a_grammar_admits_text_ids_alone(either):
    eos = either.control(SpecialTokens.eos)
    vocabulary = grammar_vocabulary(either, either.tokenizer.n_words + 8, [eos])
    ids = admitted(vocabulary, ANYTHING)
    assert ids & either.control_ids == {eos}
    assert set(either.encode_text("[TOOL_CALLS] plain words")) <= ids
    assert max(ids) < either.tokenizer.n_words  # rows that a checkpoint pads its embedding with are no text


def test_a_marker_is_spelled_in_letters(either):
    vocabulary = grammar_vocabulary(either, either.tokenizer.n_words, [either.control(SpecialTokens.eos)])
    assert not admitted(vocabulary, r"\[THINK\]") & either.control_ids
    assert admitted(vocabulary, r"\[THINK\]", "[THINK]") == {either.control(SpecialTokens.eos)}


def scheduler(format, model_type="mistral4"):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(format.tokenizer.file_path))
    config = SimpleNamespace(hf_config=SimpleNamespace(model_type=model_type), vocab_size=13_000, hf_eos_token_id={2})
    return SimpleNamespace(tokenizer=tokenizer, model_config=config)


@pytest.mark.parametrize(("model_type", "ours"), [("mistral4", True), ("llama", False)])
def test_only_our_model_is_given_it(twins, model_type, ours):
    served = scheduler(twins[1], model_type)
    with get_context().override_server_args(tokenizer_path=str(twins[1].tokenizer.file_path.parent)):
        prepare(served)
        assert get_serving().constrained_json_max_whitespace_cnt == (MAX_WHITE_SPACE if ours else None)
    assert hasattr(served.tokenizer, "init_xgrammar") == ours
    if ours:
        vocabulary, stop_ids = served.tokenizer.init_xgrammar()
        assert (vocabulary.vocab_size, stop_ids) == (13_000, None)


@pytest.mark.parametrize(
    "given", [{"constrained_json_max_whitespace_cnt": 3}, {"constrained_json_disable_any_whitespace": True}]
)
def test_white_space_in_json_is_as_the_user_says(twins, given):
    with get_context().override_server_args(tokenizer_path=str(twins[1].tokenizer.file_path.parent), **given):
        prepare(scheduler(twins[1]))
        assert get_serving().constrained_json_max_whitespace_cnt == given.get("constrained_json_max_whitespace_cnt")
