"""Which tokenizer file is read, and what stops a checkpoint whose file cannot carry v15."""

import json
import logging

import pytest

from sgl_small4.prompt.tokenizer import HuggingFaceTekkenizer, TokenizerError, load_tokenizer
from tests.prompt.conftest import hugging_face_file, special_table, tekken_file


def test_tekken_wins_where_both_files_are(tmp_path):
    hugging_face_file(tmp_path, tekken_file(tmp_path, vocabulary=2000))
    assert load_tokenizer(tmp_path).file_path.name == "tekken.json"
    (tmp_path / "tekken.json").unlink()
    assert isinstance(load_tokenizer(tmp_path), HuggingFaceTekkenizer)


def test_files_that_disagree_are_named_at_the_start(tmp_path, caplog):
    path = hugging_face_file(tmp_path, tekken_file(tmp_path, vocabulary=2000))
    with caplog.at_level(logging.WARNING):
        load_tokenizer(tmp_path)
    assert not caplog.records
    description = json.loads(path.read_text())
    # The pattern of published files: it has no break inside `iPhone`.
    description["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = (
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|[^\p{L}\p{N}]"
    )
    path.write_text(json.dumps(description))
    with caplog.at_level(logging.WARNING):
        load_tokenizer(tmp_path)
    assert "tekken.json" in caplog.text and "gives other ids" in caplog.text


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(TokenizerError, match="no tekken.json and no tokenizer.json"):
        load_tokenizer(tmp_path)


def test_missing_control_tokens_are_named(tmp_path):
    table = [token for token in special_table() if token["token_str"] not in ("[THINK]", "[/THINK]")]
    tekken_file(tmp_path, vocabulary=300, special_tokens=[{**token, "rank": id} for id, token in enumerate(table)])
    with pytest.raises(TokenizerError, match=r"lacks \[THINK\], \[/THINK\]"):
        load_tokenizer(tmp_path)


def test_another_version_is_named(tmp_path):
    path = tekken_file(tmp_path, vocabulary=300)
    tekken = json.loads(path.read_text())
    tekken["config"]["version"] = "v13"
    del tekken["model_settings_builder"]
    path.write_text(json.dumps(tekken))
    with pytest.raises(TokenizerError, match="the tokenizer is v13"):
        load_tokenizer(tmp_path)


def test_efforts_that_the_file_does_not_take_are_named(tmp_path):
    tekken_file(tmp_path, vocabulary=300, model_settings_builder=None)
    with pytest.raises(TokenizerError, match="must take the reasoning efforts none and high"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tekken.json", "tokenizer.json"])
@pytest.mark.parametrize("text", ["", "{}", '{"model": 3}', '{"config": {"version": "v15"}}'])
def test_a_broken_file_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(tmp_path)


def test_a_vocabulary_that_is_not_byte_level_is_refused(tmp_path):
    path = hugging_face_file(tmp_path / "hf", tekken_file(tmp_path, vocabulary=300))
    description = json.loads(path.read_text())
    description["model"]["vocab"]["▁word"] = 1300
    path.write_text(json.dumps(description))
    with pytest.raises(TokenizerError, match="not byte-level"):
        load_tokenizer(path.parent)
