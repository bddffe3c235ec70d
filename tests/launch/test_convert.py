"""`small4 convert`: what it says of its work, and what stops it. The numbers are tests/checkpoint/test_convert.py's."""

import json
from pathlib import Path

from tests.checkpoints import Checkpoint, Shape, write_hf
from tests.launch.commands import small4, the_sentence


def test_a_checkpoint_is_written_in_the_other_format(tmp_path: Path):
    source = write_hf(Checkpoint.random(Shape()), tmp_path / "source")
    result = small4("convert", str(source), str(tmp_path / "native"))
    assert result.returncode == 0, result.stderr
    assert "native format" in result.stdout
    assert (tmp_path / "native" / "params.json").exists()


def test_an_existing_target_is_left_as_it_is(tmp_path: Path):
    source = write_hf(Checkpoint.random(Shape()), tmp_path / "source")
    target = tmp_path / "target"
    target.mkdir()
    assert "exists already" in the_sentence(small4("convert", str(source), str(target)))
    assert not list(target.iterdir())


def test_another_models_folder_is_not_converted(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "no Mistral Small 4" in the_sentence(small4("convert", str(tmp_path), str(tmp_path / "target")))
    assert not (tmp_path / "target").exists()


def test_torn_weights_are_not_converted(tmp_path: Path):
    source = write_hf(Checkpoint.random(Shape()), tmp_path / "source")
    (file,) = source.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    assert file.name in the_sentence(small4("convert", str(source), str(tmp_path / "target")))
    assert not (tmp_path / "target").exists()
