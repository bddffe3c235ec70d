"""Conversion keeps every number, in both directions, and never leaves half a folder."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import Mistral4Config, Mistral4ForCausalLM

from sgl_small4.checkpoint import convert as conversion
from sgl_small4.checkpoint.convert import convert
from sgl_small4.checkpoint.files import check
from sgl_small4.checkpoint.inventory import CheckpointError
from sgl_small4.config import ConfigError, Small4Config, weight_files
from tests.checkpoints import Checkpoint, Shape, write_hf, write_native


def tensors(folder) -> dict[str, torch.Tensor]:
    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("fp8", [False, True], ids=["bf16", "fp8"])
@pytest.mark.parametrize("write", [write_hf, write_native])
def test_there_and_back_gives_the_same_tensors_and_the_same_model(write, fp8, tmp_path):
    checkpoint = Checkpoint.random(Shape(), dtype=torch.bfloat16)
    source = write(checkpoint.quantised() if fp8 else checkpoint, tmp_path / "source")
    (source / "tekken.json").write_text("{}")
    sentence = convert(source, tmp_path / "other")
    assert "tensors" in sentence and str(tmp_path / "other") in sentence
    check(tmp_path / "other")
    convert(tmp_path / "other", tmp_path / "back")
    before, after = tensors(source), tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor.float(), after[name].float()), name
    one, two = Small4Config.from_folder(source), Small4Config.from_folder(tmp_path / "back")
    assert one.softmax_scale == two.softmax_scale and one.quantization == two.quantization
    assert (tmp_path / "back" / "tekken.json").exists()


def test_a_converted_folder_loads_in_transformers_and_means_what_the_source_did(tmp_path):
    """Unscaled weights must be unscaled there too, which needs mscale_all_dim 0 and attention_factor 1."""
    source = write_native(Checkpoint.random(Shape()), tmp_path / "native")
    convert(source, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    model = Mistral4ForCausalLM(Mistral4Config(**config))
    model.load_state_dict(tensors(tmp_path / "hf"), strict=True)
    assert model.model.layers[0].self_attn.scaling == Small4Config.from_folder(source).softmax_scale
    assert model.model.rotary_emb.attention_scaling == 1.0


def test_gate_and_up_of_an_fp8_expert_come_to_share_the_larger_scale(tmp_path):
    checkpoint = Checkpoint.random(Shape(layers=1)).quantised()
    gate = "model.layers.0.mlp.experts.3.gate_proj.weight"
    checkpoint.tensors[gate + "_scale"] = checkpoint.tensors[gate + "_scale"] / 4
    meant = checkpoint.dequantised().tensors[gate]
    convert(write_native(checkpoint, tmp_path / "native"), tmp_path / "hf")
    found = tensors(tmp_path / "hf")
    fused = found["model.layers.0.mlp.experts.gate_up_proj"][3].float()
    fused = fused * found["model.layers.0.mlp.experts.gate_up_proj_scale_inv"][3]
    error = (fused[: meant.shape[0]] - meant).abs().max() / meant.abs().max()
    assert error < 0.07  # one rounding to e4m3


def test_a_large_checkpoint_is_written_in_parts_with_an_index(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "FILE_BYTES", 20_000)
    convert(write_native(Checkpoint.random(Shape()), tmp_path / "native"), tmp_path / "hf")
    files = weight_files(tmp_path / "hf")
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(files) > 3 and set(index.values()) == {file.name for file in files}
    assert index.keys() == tensors(tmp_path / "hf").keys()
    check(tmp_path / "hf")


def test_a_source_that_does_not_fit_leaves_nothing_behind(tmp_path):
    source = write_native(Checkpoint.random(Shape()), tmp_path / "native")
    file = source / "consolidated.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="consolidated.safetensors"):
        convert(source, tmp_path / "out" / "hf")
    assert not (tmp_path / "out").exists()


def test_an_existing_target_is_never_written_over(tmp_path):
    source = write_native(Checkpoint.random(Shape()), tmp_path / "native")
    (tmp_path / "hf").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        convert(source, tmp_path / "hf")


def test_what_params_json_cannot_say_is_refused(tmp_path):
    source = write_hf(Checkpoint.random(Shape(scaled=True, mscale_all_dim=0.5)), tmp_path / "hf")
    with pytest.raises(ConfigError, match="cannot express"):
        convert(source, tmp_path / "native")
    assert [entry.name for entry in tmp_path.iterdir()] == ["hf"]
