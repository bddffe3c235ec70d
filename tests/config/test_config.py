"""Both configuration files to one `Small4Config`, and what stops the load."""

import json
import logging
import math

import pytest
import torch
from transformers import Mistral4Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sgl_small4.config import ConfigError, Small4Config, checkpoint_format, is_small4
from sgl_small4.model.rope import query_scale, yarn_frequencies
from tests.checkpoints import Checkpoint, Shape, write_hf, write_native

PLAIN = (24 + 16) ** -0.5
MSCALE = 0.1 * math.log(128) + 1


@pytest.fixture
def checkpoint() -> Checkpoint:
    return Checkpoint.random(Shape(layers=1, experts=4))


def hf(**changes) -> dict:
    fields = Checkpoint(Shape()).hf_text_config()
    rope = changes.pop("rope", {})
    fields["rope_parameters"] |= rope
    return fields | changes


def native(**changes) -> dict:
    return Checkpoint(Shape()).native_params() | changes


def test_both_files_describe_the_same_model():
    from_hf, from_native = Small4Config.from_hf(hf()), Small4Config.from_native(native())
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "kv_lora_rank", "n_routed_experts", "qk_head_dim"):
        assert getattr(from_hf, name) == getattr(from_native, name)
    assert from_hf.rope == from_native.rope


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (Small4Config.from_hf(hf()), PLAIN),  # mscale_all_dim 1, as published
        (Small4Config.from_hf(hf(rope={"mscale_all_dim": 0.0})), PLAIN),
        (Small4Config.from_hf(hf(rope={"apply_yarn_scaling": True})), PLAIN * MSCALE**2),
        (Small4Config.from_native(native()), PLAIN),
        (Small4Config.from_native(Checkpoint(Shape(scaled=True)).native_params()), PLAIN * MSCALE**2),
    ],
)
def test_the_softmax_scale_is_plain_unless_the_checkpoint_was_trained_scaled(config, scale):
    assert config.softmax_scale == pytest.approx(scale, rel=1e-12)


def test_one_log_line_says_that_mscale_all_dim_is_left_out(caplog):
    with caplog.at_level(logging.INFO):
        Small4Config.from_hf(hf())
        Small4Config.from_hf(hf(rope={"mscale_all_dim": 0.0}))
    assert [record.message for record in caplog.records if "mscale_all_dim" in record.message].__len__() == 1


@pytest.mark.parametrize("factor", [16.0, 128.0])
@pytest.mark.parametrize(
    "rope", [{}, {"mscale_all_dim": 0.0}, {"mscale": 0.7, "mscale_all_dim": 0.3}, {"attention_factor": 1.25}]
)
def test_frequencies_and_magnitude_equal_transformers(factor, rope):
    fields = hf(rope={"factor": factor, **rope})
    config = Small4Config.from_hf(fields)
    inv_freq, magnitude = ROPE_INIT_FUNCTIONS["yarn"](Mistral4Config(**fields), device="cpu")
    torch.testing.assert_close(yarn_frequencies(config.rope, 16), inv_freq, rtol=1e-6, atol=0)
    assert config.rope.magnitude == pytest.approx(magnitude)
    if not rope:
        assert config.rope.magnitude == 1.0


def test_the_query_scale_steps_at_multiples_of_the_original_context():
    rope = Small4Config.from_hf(hf()).rope
    scale = query_scale(rope, torch.tensor([0, 8191, 8192, 16383, 16384, 262143])).flatten().tolist()
    expected = [1, 1, *[1 + 0.1 * math.log(1 + step) for step in (1, 1, 2, 31)]]
    assert scale == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["mistral-small-4", "ft-run-7", "DeepSeek-V3"])
def test_the_content_decides_and_never_the_name(checkpoint, tmp_path, name):
    assert Small4Config.from_folder(write_native(checkpoint, tmp_path / "a" / name)).source == "native"
    assert Small4Config.from_folder(write_hf(checkpoint, tmp_path / "b" / name)).source == "hf"
    assert Small4Config.from_folder(f"{tmp_path}/a/{name}/").source == "native"


def test_native_is_preferred_where_both_are_whole(checkpoint, tmp_path):
    folder = write_hf(checkpoint, write_native(checkpoint, tmp_path))
    assert checkpoint_format(folder) == "native"
    (folder / "consolidated.safetensors").unlink()
    assert checkpoint_format(folder) == "hf"


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_vision_wrapper_is_read_by_its_text_part(checkpoint, tmp_path, prefix):
    config = Small4Config.from_folder(write_hf(checkpoint.quantised(), tmp_path, wrapper=prefix))
    assert config.has_vision and config.quantization == "static" and config.hidden_size == 64


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (hf(hidden_act="gelu"), "hidden_act"),
        (hf(n_group=2), "n_group"),
        (hf(hidden_size="64"), "hidden_size"),
        (hf(hidden_size=-1), "hidden_size"),
        (hf(q_lora_rank=None), "q_lora_rank"),
        (hf(first_k_dense_replace=1), "first_k_dense_replace"),
        (hf(routed_scaling_factor=2.5), "routed_scaling_factor"),
        (hf(head_dim=64), "head_dim is 64, expected 40"),
        (hf(num_key_value_heads=2), "num_key_value_heads is 2, expected 4"),
        (hf(rope={"rope_type": "linear"}), "rope_parameters.rope_type"),
        (hf(rope={"partial_rotary_factor": 0.5}), "partial_rotary_factor is 0.5, expected 0.4"),
        (hf(rope={"apply_yarn_scaling": True, "mscale_all_dim": 0.0}), "apply_yarn_scaling"),
        (hf(rope={"short_factor": [1.0]}), "rope_parameters.short_factor"),
        (hf(rope_scaling={"factor": 2.0}), "rope_scaling"),
        (hf(attention_sink=True), "attention_sink"),
        (hf(num_experts_shared=3), "num_experts_shared"),
        (hf(quantization_config={"quant_method": "compressed-tensors"}), "quantization_config.quant_method"),
        (hf(quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]}), "weight_block_size"),
    ],
)
def test_an_unsupported_or_contradictory_field_stops_with_file_field_and_expectation(fields, named):
    with pytest.raises(ConfigError, match="config.json: .*") as error:
        Small4Config.from_hf(fields)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (native(yarn={"original_max_position_embeddings": 8192, "factor": 128, "beta": 32, "alpha": 1}), "apply_scale"),
        (native(llama_4_scaling={"original_max_position_embeddings": 4096, "beta": 0.1}), "expected 8192"),
        (native(quantization={"qformat_weight": "nvfp4"}), "quantization.qformat_weight"),
        (native(qk_scale_norm=1.0), "qk_scale_norm"),
    ],
)
def test_a_native_file_is_held_to_the_same(fields, named):
    with pytest.raises(ConfigError, match="params.json: .*") as error:
        Small4Config.from_native(fields)
    assert named in str(error.value)


def test_fields_that_change_nothing_are_listed_in_one_log_line(caplog):
    with caplog.at_level(logging.INFO):
        Small4Config.from_hf(hf(favourite_colour="green", note="x", rope={"mscale_all_dim": 0.0}))
    assert [record.message for record in caplog.records] == ["config.json: fields not used: favourite_colour, note"]


@pytest.mark.parametrize("scaled", [False, True])
def test_conversion_between_the_files_keeps_the_model(scaled):
    config = Small4Config.from_native(Checkpoint(Shape(scaled=scaled)).native_params())
    there = Small4Config.from_hf(json.loads(json.dumps(config.to_hf())))
    back = Small4Config.from_native(json.loads(json.dumps(there.to_native())))
    assert there.rope == config.rope and back == config
    assert there.softmax_scale == pytest.approx(config.softmax_scale)


def test_what_sglang_carries_is_read_back_with_its_overrides():
    carried = Mistral4Config(**Small4Config.from_hf(hf()).to_hf(dequantize=True))
    assert Small4Config.from_served(carried) == Small4Config.from_hf(carried.to_dict())
    carried.rope_parameters = {**carried.rope_parameters, "apply_yarn_scaling": True, "mscale_all_dim": 1.0}
    assert Small4Config.from_served(carried).softmax_scale == pytest.approx(PLAIN * MSCALE**2)


def test_other_models_are_not_ours(tmp_path):
    others = {
        "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        "mistral3": {"model_type": "mistral3", "text_config": {"model_type": "mistral"}},
        "deepseek": {"model_type": "deepseek_v3", "kv_lora_rank": 512},
    }
    for name, fields in others.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(fields))
    large = native(moe=native()["moe"] | {"first_k_dense_replace": 3})
    draft = {name: value for name, value in native().items() if name != "moe"}
    for name, fields in {"mistral-large-3": large, "mistral-small-4-eagle": draft}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "params.json").write_text(json.dumps(fields))
    assert [folder.name for folder in tmp_path.iterdir() if is_small4(folder)] == []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: None, "neither config.json nor params.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "expected a JSON object"),
    ],
)
def test_a_folder_that_cannot_be_served_says_what_is_missing(tmp_path, make, sentence):
    make(tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        Small4Config.from_folder(tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        Small4Config.from_folder(tmp_path / "nowhere")
