"""Every tensor is placed or named: what stops a load, and the account of the untouched files."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sgl_small4.checkpoint.files import check
from sgl_small4.checkpoint.inventory import CheckpointError, Inventory
from sgl_small4.checkpoint.names import canonical, native, pieces, shapes
from sgl_small4.config import ConfigError, Small4Config, weight_files
from tests.checkpoints import Checkpoint, Shape, save, write_hf, write_native

WRITERS = {
    "hf": write_hf,
    "hf wrapper": lambda checkpoint, folder: write_hf(checkpoint, folder, wrapper="language_model.model."),
    "native": write_native,
    "native with vision": lambda checkpoint, folder: write_native(checkpoint, folder, vision=True),
}


@pytest.fixture(params=["bf16", "fp8"])
def checkpoint(request) -> Checkpoint:
    made = Checkpoint.random(Shape(), dtype=torch.bfloat16)
    return made.quantised() if request.param == "fp8" else made


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_tensor_of_the_published_forms_is_placed_once_or_left_out_by_name(write, checkpoint, tmp_path):
    folder = write(checkpoint, tmp_path)
    check(folder)
    inventory = Inventory(Small4Config.from_folder(folder))
    placed = {}
    for name, tensor in load_file(weight_files(folder)[0]).items():
        placed |= dict(inventory.enter(name, tensor))
    assert placed.keys() == checkpoint.tensors.keys()
    for name, tensor in checkpoint.tensors.items():
        assert torch.equal(placed[name].float(), tensor.float()), name
    vision = 0 if write in (write_hf, write_native) else 4
    assert sum(inventory.left_out.values()) >= vision


def test_names_are_the_same_tensors_in_both_formats(checkpoint):
    by_native = checkpoint.native_tensors()
    assert sorted(canonical(name) for name in by_native) == sorted(checkpoint.tensors)
    assert sorted(native(name) for name in checkpoint.tensors) == sorted(by_native)


FAULTS = {
    "missing": lambda tensors, name: tensors.pop(name),
    "unknown": lambda tensors, name: tensors.update({name + "_of_a_fine_tune": tensors[name]}),
    "of another shape": lambda tensors, name: tensors.update({name: torch.cat([tensors[name], tensors[name]], dim=-1)}),
    "of another type": lambda tensors, name: tensors.update({name: torch.ones_like(tensors[name], dtype=torch.int32)}),
}
HF_NAMES = [
    "model.layers.1.self_attn.kv_b_proj.weight",
    "model.layers.0.mlp.experts.gate_up_proj",
    "model.layers.1.mlp.experts.down_proj",
    "model.layers.0.mlp.gate.weight",
    "lm_head.weight",
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", HF_NAMES)
def test_a_tensor_that_does_not_fit_stops_the_load_by_name(fault, name, tmp_path):
    checkpoint = Checkpoint.random(Shape(), dtype=torch.bfloat16)
    folder = write_hf(checkpoint, tmp_path)
    tensors = checkpoint.hf_tensors()
    FAULTS[fault](tensors, name)
    save(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        check(folder)
    assert fault in str(error.value)
    assert name.removesuffix("_proj").removesuffix("gate_up").removesuffix("down") in str(error.value)


@pytest.mark.parametrize("write", [write_hf, write_native])
def test_a_tensor_in_two_files_stops_the_load_by_name(write, tmp_path):
    checkpoint = Checkpoint.random(Shape(), dtype=torch.bfloat16)
    folder = write(checkpoint, tmp_path)
    name = "lm_head.weight" if write is write_hf else "output.weight"
    stem = "model" if write is write_hf else "consolidated"
    save({name: checkpoint.tensors["lm_head.weight"]}, folder / f"{stem}-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=f"1 twice: {name}"):
        check(folder)


@pytest.mark.parametrize(
    "lost",
    [
        "model.layers.0.mlp.experts.gate_up_proj_scale_inv",
        "model.layers.1.mlp.experts.down_proj_activation_scale",
        "model.layers.0.self_attn.o_proj.weight_scale_inv",
        "model.layers.0.mlp.shared_experts.up_proj.activation_scale",
    ],
)
def test_a_lost_scale_stops_the_load(lost, tmp_path):
    checkpoint = Checkpoint.random(Shape()).quantised()
    folder = write_hf(checkpoint, tmp_path)
    tensors = checkpoint.hf_tensors()
    del tensors[lost]
    save(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="missing: model.layers"):
        check(folder)


def test_a_scale_without_fp8_weight_and_a_block_scale_stop_the_load(tmp_path):
    checkpoint = Checkpoint.random(Shape()).quantised()
    folder = write_native(checkpoint, tmp_path)
    tensors = checkpoint.native_tensors()
    tensors["layers.0.gate.qscale_weight"] = torch.tensor(1.0)
    tensors["layers.0.attention.wo.qscale_weight"] = torch.ones(2, 2)
    save(tensors, folder / "consolidated.safetensors")
    with pytest.raises(CheckpointError) as error:
        check(folder)
    assert "model.layers.0.mlp.gate.weight_scale (a scale that no FP8 weight uses)" in str(error.value)
    assert "layers.0.attention.wo.qscale_weight" in str(error.value) and "one scale per tensor" in str(error.value)


def test_fp8_weights_need_a_configuration_that_says_so(tmp_path):
    folder = write_hf(Checkpoint.random(Shape()).quantised(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="of another type|unknown"):
        check(folder)


@pytest.mark.parametrize("damage", ["cut short", "no safetensors", "empty"])
def test_a_damaged_file_is_named(damage, tmp_path):
    folder = write_native(Checkpoint.random(Shape()), tmp_path)
    file = folder / "consolidated.safetensors"
    whole = file.read_bytes()
    file.write_bytes({"cut short": whole[:-100], "no safetensors": b"PK" + whole[2:], "empty": b""}[damage])
    with pytest.raises(CheckpointError, match="consolidated.safetensors is not a whole safetensors file"):
        check(folder)


def test_a_pickle_is_never_read(tmp_path):
    folder = write_hf(Checkpoint.random(Shape()), tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": torch.ones(1)}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"holds no weights; expected model\*\.safetensors"):
        check(folder)


def test_pieces_of_a_fused_tensor_are_views_and_cover_it():
    fused = torch.arange(4 * 6 * 5, dtype=torch.float32).view(4, 6, 5)
    found = dict(pieces("language_model.model.layers.2.mlp.experts.gate_up_proj", fused))
    assert len(found) == 8
    for expert in range(4):
        gate = found[f"model.layers.2.mlp.experts.{expert}.gate_proj.weight"]
        up = found[f"model.layers.2.mlp.experts.{expert}.up_proj.weight"]
        assert torch.equal(torch.cat([gate, up]), fused[expert])
        assert gate.data_ptr() == fused[expert].data_ptr()


def test_the_published_size_needs_the_published_number_of_tensors():
    """36 layers of 7 attention tensors, 2 norms, a router, 128 experts and a shared one of 3 each; and 3 on top."""
    published = Shape(131072, 4096, 36, 32, 1024, 256, 64, 64, 128, 128, 4, 2048)
    config = Small4Config.from_native(Checkpoint(published).native_params())
    needed = shapes(config)
    assert len(needed) == 36 * (7 + 2 + 1 + 129 * 3) + 3
    assert sum(torch.Size(shape).numel() for shape in needed.values()) == pytest.approx(119e9, rel=0.01)
