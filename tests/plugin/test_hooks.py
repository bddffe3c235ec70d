"""Each hook hangs on a symbol of the pinned SGLang, and leaves other people's models alone."""

import json

import pytest
from sglang.srt.plugins import load_plugins

load_plugins()

from sglang.srt.configs.model_config import AttentionArch, ModelConfig  # noqa: E402
from sglang.srt.models.registry import ModelRegistry  # noqa: E402
from sglang.srt.plugins.hook_registry import HookType  # noqa: E402

from sgl_small4.config import Small4Config  # noqa: E402
from sgl_small4.plugin import engine, hooks  # noqa: E402
from tests.checkpoints import Checkpoint, Shape, write_hf, write_native  # noqa: E402


@pytest.mark.parametrize("entry", hooks.HOOKS, ids=lambda entry: entry.target)
def test_every_hook_names_a_symbol_of_the_installed_sglang_and_says_why(entry):
    hooks.find(entry.target)
    assert entry.function.__doc__


def test_a_symbol_that_a_release_moved_is_named():
    entry = hooks.Hook("sglang.srt.utils.common.moved_elsewhere", HookType.AFTER, print)
    with pytest.raises(hooks.MissingTarget, match=r"this sglang has no sglang\.srt\.utils\.common\.moved_elsewhere"):
        hooks.apply(entry)


OTHERS = {
    "llama": ("LlamaForCausalLM", {"model_type": "llama", "num_key_value_heads": 4}),
    "deepseek-v3": (
        "DeepseekV3ForCausalLM",
        {"model_type": "deepseek_v3", "kv_lora_rank": 32, "q_lora_rank": 24, "qk_rope_head_dim": 8,
         "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 8, "moe_intermediate_size": 16},
    ),
    "mistral-3": (
        "Mistral3ForConditionalGeneration",
        {"model_type": "mistral3", "text_config": {"model_type": "mistral", "hidden_size": 64, "num_hidden_layers": 1,
         "num_attention_heads": 4, "vocab_size": 96}, "vision_config": {"model_type": "pixtral"}},
    ),
    "pixtral": (
        "PixtralForConditionalGeneration",
        {"model_type": "pixtral", "text_config": {"model_type": "mistral"}, "vision_config": {"model_type": "pixtral"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_resolve_to_stock_classes(name, tmp_path):
    architecture, fields = OTHERS[name]
    common = {"architectures": [architecture], "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
              "vocab_size": 96}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(common | fields))
    assert engine.local_folder(str(tmp_path), None) is None
    served, _ = ModelRegistry.resolve_model_cls([architecture])
    assert served.__module__.startswith("sglang.")
    if name in ("llama", "deepseek-v3"):
        config = ModelConfig(str(tmp_path))
        assert config.hf_config.architectures == [architecture]
        assert (config.attention_arch == AttentionArch.MLA) == (name == "deepseek-v3")


@pytest.mark.parametrize("write", [write_hf, write_native])
@pytest.mark.parametrize("shape", [Shape(), Shape(scaled=True)], ids=["plain", "scaled"])
def test_our_models_resolve_to_our_class_with_a_latent_cache_and_one_softmax_scale(write, shape, tmp_path):
    folder = write(Checkpoint.random(shape), tmp_path / "any name")
    config = ModelConfig(str(folder))
    served, _ = ModelRegistry.resolve_model_cls(config.hf_config.architectures)
    assert served.__module__ == "sgl_small4.model.decoder"
    assert config.attention_arch == AttentionArch.MLA
    assert (config.kv_lora_rank, config.qk_rope_head_dim, config.v_head_dim) == (48, 16, 32)
    # flashinfer's paged wrappers read the model configuration's scale, every other backend the layer's.
    assert config.scaling == Small4Config.from_folder(folder).softmax_scale


def test_an_override_scales_the_softmax_of_a_fine_tune(tmp_path):
    folder = write_hf(Checkpoint.random(Shape()), tmp_path)
    override = json.dumps({"rope_parameters": {"apply_yarn_scaling": True}})
    config = ModelConfig(str(folder), model_override_args=override)
    assert config.scaling == pytest.approx(Small4Config.from_folder(folder).softmax_scale * 2.206, rel=1e-3)
