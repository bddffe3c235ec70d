"""Small random checkpoints in both formats, written in exactly the published naming.

`Checkpoint` holds canonical tensors (see `sgl_small4.checkpoint.names`); `write_hf` and `write_native` spell them as
the published files do, on their own and not through the package's conversion, so that loading is tested against
an independent statement of the names.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Shape:
    """Sizes of a random model; the defaults are tiny and all different, so that a mixed-up dimension shows."""

    vocab: int = 96
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    q_lora: int = 40
    kv_lora: int = 48
    nope: int = 24
    rope: int = 16
    v: int = 32
    experts: int = 8
    active: int = 4
    inner: int = 16
    max_positions: int = 1048576
    mscale_all_dim: float = 1.0  # as the published config has it
    scaled: bool = False  # softmax scale with YaRN's mscale


@dataclass
class Checkpoint:
    shape: Shape
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def random(cls, shape: Shape, seed: int = 0, dtype: torch.dtype = torch.float32) -> "Checkpoint":
        """Weights whose activations stay near 1, norms near 1, a router that is not uniform."""
        made = torch.Generator().manual_seed(seed)
        s, tensors = shape, {}

        def matrix(name: str, rows: int, columns: int, gain: float = 1.0) -> None:
            tensors[name + ".weight"] = (torch.randn(rows, columns, generator=made) * gain * columns**-0.5).to(dtype)

        def norm(name: str, size: int) -> None:
            tensors[name + ".weight"] = (1 + 0.2 * torch.randn(size, generator=made)).to(dtype)

        matrix("model.embed_tokens", s.vocab, s.hidden, s.hidden**0.5)
        matrix("lm_head", s.vocab, s.hidden)
        norm("model.norm", s.hidden)
        for layer in range(s.layers):
            at, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
            norm(f"model.layers.{layer}.input_layernorm", s.hidden)
            norm(f"model.layers.{layer}.post_attention_layernorm", s.hidden)
            matrix(f"{at}.q_a_proj", s.q_lora, s.hidden)
            norm(f"{at}.q_a_layernorm", s.q_lora)
            matrix(f"{at}.q_b_proj", s.heads * (s.nope + s.rope), s.q_lora, 2.0)
            matrix(f"{at}.kv_a_proj_with_mqa", s.kv_lora + s.rope, s.hidden, 2.0)
            norm(f"{at}.kv_a_layernorm", s.kv_lora)
            matrix(f"{at}.kv_b_proj", s.heads * (s.nope + s.v), s.kv_lora)
            matrix(f"{at}.o_proj", s.hidden, s.heads * s.v)
            matrix(f"{mlp}.gate", s.experts, s.hidden, 2.0)
            for expert in ["shared_experts", *(f"experts.{number}" for number in range(s.experts))]:
                matrix(f"{mlp}.{expert}.gate_proj", s.inner, s.hidden)
                matrix(f"{mlp}.{expert}.up_proj", s.inner, s.hidden)
                matrix(f"{mlp}.{expert}.down_proj", s.hidden, s.inner, 2.0)
        return cls(shape, tensors)

    def quantised(self) -> "Checkpoint":
        """FP8 with one scale per tensor: attention projections and experts; the rest stays as it is."""
        tensors = {}
        for name, tensor in self.tensors.items():
            if not any(part in name for part in ("_proj", "experts.")):
                tensors[name] = tensor
                continue
            # As the published HF files do, gate and up of an expert share one scale.
            others = [name.replace(".gate_proj.", ".up_proj."), name.replace(".up_proj.", ".gate_proj.")]
            scale = max(self.tensors[other].abs().max().float() for other in others) / 448
            tensors[name] = (tensor.float() / scale).to(FP8)
            tensors[name + "_scale"] = scale.float()
            tensors[name.removesuffix("weight") + "input_scale"] = torch.tensor(0.05)
        return replace(self, tensors=tensors)

    def dequantised(self) -> "Checkpoint":
        """What an FP8 checkpoint means, in float32."""
        tensors = {
            name: tensor.float() * self.tensors[name + "_scale"] if tensor.dtype == FP8 else tensor
            for name, tensor in self.tensors.items()
            if not name.endswith("_scale")
        }
        return replace(self, tensors=tensors)

    @property
    def is_fp8(self) -> bool:
        return any(tensor.dtype == FP8 for tensor in self.tensors.values())

    def hf_text_config(self) -> dict:
        s = self.shape
        return {
            "architectures": ["Mistral4ForCausalLM"], "model_type": "mistral4", "dtype": "float32",
            "vocab_size": s.vocab, "hidden_size": s.hidden, "intermediate_size": 4 * s.hidden,
            "moe_intermediate_size": s.inner, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
            "num_key_value_heads": s.heads, "n_shared_experts": 1, "n_routed_experts": s.experts,
            "num_experts_per_tok": s.active, "first_k_dense_replace": 0, "norm_topk_prob": True,
            "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1, "kv_lora_rank": s.kv_lora,
            "q_lora_rank": s.q_lora, "qk_rope_head_dim": s.rope, "qk_nope_head_dim": s.nope, "v_head_dim": s.v,
            "qk_head_dim": s.nope + s.rope, "head_dim": s.nope + s.rope, "max_position_embeddings": s.max_positions,
            "rms_norm_eps": 1e-6, "rope_interleave": True, "tie_word_embeddings": False, "hidden_act": "silu",
            "attention_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11, "pretraining_tp": 1,
            "rope_parameters": {
                "type": "yarn", "rope_type": "yarn", "rope_theta": 10000.0, "factor": 128.0,
                "original_max_position_embeddings": 8192, "max_position_embeddings": s.max_positions,
                "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": s.mscale_all_dim,
                "llama_4_scaling_beta": 0.1, "partial_rotary_factor": s.rope / (s.nope + s.rope),
                **({"apply_yarn_scaling": True} if s.scaled else {}),
            },
        }  # fmt: skip

    def native_params(self) -> dict:
        s = self.shape
        return {
            "dim": s.hidden, "n_layers": s.layers, "head_dim": s.nope + s.rope, "hidden_dim": 4 * s.hidden,
            "n_heads": s.heads, "n_kv_heads": s.heads, "rope_theta": 10000.0, "norm_eps": 1e-6, "vocab_size": s.vocab,
            "tied_embeddings": False, "max_position_embeddings": s.max_positions, "q_lora_rank": s.q_lora,
            "qk_rope_head_dim": s.rope, "qk_nope_head_dim": s.nope, "kv_lora_rank": s.kv_lora, "v_head_dim": s.v,
            "llama_4_scaling": {"original_max_position_embeddings": 8192, "beta": 0.1},
            "yarn": {"original_max_position_embeddings": 8192, "factor": 128, "apply_scale": s.scaled, "beta": 32,
                     "alpha": 1},
            "moe": {"expert_parallel": 1, "expert_model_parallel": 1, "route_every_n": 1, "first_k_dense_replace": 0,
                    "num_experts": s.experts, "num_experts_per_tok": s.active, "num_expert_groups": 1,
                    "num_expert_groups_per_tok": 1, "routed_scale": 1.0, "expert_hidden_dim": s.inner,
                    "num_shared_experts": 1},
            **({"quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}} if self.is_fp8 else {}),
        }  # fmt: skip

    def hf_tensors(self, prefix: str = "model.") -> dict[str, torch.Tensor]:
        """As in the published HF files: experts fused, scales `weight_scale_inv` and `activation_scale`."""
        head = "language_model.lm_head" if prefix == "language_model.model." else "lm_head"
        found: dict[str, torch.Tensor] = {}
        for name, tensor in self.tensors.items():
            if ".experts." not in name:
                name = name.replace("weight_scale", "weight_scale_inv").replace("input_scale", "activation_scale")
                found[name.replace("lm_head", head) if name.startswith("lm_head") else prefix + name[6:]] = tensor
        for layer in range(self.shape.layers):
            for fused, projections in {"gate_up_proj": ["gate_proj", "up_proj"], "down_proj": ["down_proj"]}.items():
                stored = f"{prefix}layers.{layer}.mlp.experts.{fused}"
                stacked = [
                    torch.cat([self._expert(layer, expert, part, "weight").view(torch.uint8) for part in projections])
                    if self.is_fp8
                    else torch.cat([self._expert(layer, expert, part, "weight") for part in projections])
                    for expert in range(self.shape.experts)
                ]
                found[stored] = torch.stack(stacked).view(FP8) if self.is_fp8 else torch.stack(stacked)
                if self.is_fp8:
                    experts = range(self.shape.experts)
                    scale = [self._expert(layer, expert, projections[0], "weight_scale") for expert in experts]
                    found[stored + "_scale_inv"] = torch.stack(scale).view(-1, 1, 1)
                    scale = [self._expert(layer, expert, projections[0], "input_scale") for expert in experts]
                    found[stored + "_activation_scale"] = torch.stack(scale)
        return found

    def native_tensors(self) -> dict[str, torch.Tensor]:
        """As in the published native files."""
        spelling = [
            ("model.layers.", "layers."), ("model.embed_tokens", "tok_embeddings"), ("model.norm", "norm"),
            ("lm_head", "output"), ("input_layernorm", "attention_norm"), ("post_attention_layernorm", "ffn_norm"),
            ("self_attn.q_a_proj", "attention.wq_a"), ("self_attn.q_a_layernorm", "attention.q_a_norm"),
            ("self_attn.q_b_proj", "attention.wq_b"), ("self_attn.kv_a_proj_with_mqa", "attention.wkv_a_with_mqa"),
            ("self_attn.kv_a_layernorm", "attention.kv_a_norm"), ("self_attn.kv_b_proj", "attention.wkv_b"),
            ("self_attn.o_proj", "attention.wo"), ("mlp.", ""), ("gate_proj", "w1"), ("down_proj", "w2"),
            ("up_proj", "w3"), ("weight_scale", "qscale_weight"), ("input_scale", "qscale_act"),
        ]  # fmt: skip
        found = {}
        for name, tensor in self.tensors.items():
            for ours, theirs in spelling:
                name = name.replace(ours, theirs)
            found[name] = tensor
        return found

    def vision_tensors(self, native: bool) -> dict[str, torch.Tensor]:
        """A few tensors of the wrapper under their published names."""
        names = (
            ["vision_encoder.patch_conv.weight", "vision_encoder.transformer.layers.0.attention.wq.weight",
             "vision_language_adapter.w_in.weight", "patch_merger.merging_layer.weight", "pre_mm_projector_norm.weight"]
            if native
            else ["vision_tower.patch_conv.weight", "vision_tower.transformer.layers.0.attention.q_proj.weight",
                  "multi_modal_projector.linear_1.weight", "multi_modal_projector.norm.weight"]
        )  # fmt: skip
        return {name: torch.ones(4, 4) for name in names}

    def _expert(self, layer: int, expert: int, projection: str, suffix: str) -> torch.Tensor:
        return self.tensors[f"model.layers.{layer}.mlp.experts.{expert}.{projection}.{suffix}"]


def write_hf(checkpoint: Checkpoint, folder: Path, wrapper: str | None = None) -> Path:
    """A text-only HF folder, or the vision wrapper with the given tensor prefix (``language_model.model.``)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = checkpoint.hf_text_config()
    quantization = {
        "quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None,
        "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"],
    }  # fmt: skip
    tensors = checkpoint.hf_tensors(wrapper or "model.")
    if wrapper:
        config = {
            "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "text_config": config,
            "vision_config": {"model_type": "pixtral"}, "image_token_index": 10, "spatial_merge_size": 2,
        }  # fmt: skip
        tensors |= checkpoint.vision_tensors(native=False)
    if checkpoint.is_fp8:
        config["quantization_config"] = quantization
    save(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_native(checkpoint: Checkpoint, folder: Path, vision: bool = False) -> Path:
    """A native folder, text alone or with the vision encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    params, tensors = checkpoint.native_params(), checkpoint.native_tensors()
    if vision:
        params["vision_encoder"] = {"hidden_size": 4, "patch_size": 14, "image_token_id": 10}
        tensors |= checkpoint.vision_tensors(native=True)
    save(tensors, folder / "consolidated.safetensors")
    (folder / "params.json").write_text(json.dumps(params))
    return folder


def save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
