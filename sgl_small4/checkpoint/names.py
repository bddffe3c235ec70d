"""What each tensor of a checkpoint is, in both published formats.

Both are read into one set of canonical names: Hugging Face's, with experts apart and FP8 scales under SGLang's names,
for example ``model.layers.3.mlp.experts.17.gate_proj.weight``. `shapes` says which names a configuration needs.
Sources: transformers `convert_mistral4_weight_to_hf.py`, NeMo Automodel `mistral4/state_dict_adapter.py`.
"""

import re
from typing import NamedTuple

import torch

from sgl_small4.config import Small4Config

ATTENTION = {  # Hugging Face's name to the native one
    "q_a_proj": "wq_a",
    "q_a_layernorm": "q_a_norm",
    "q_b_proj": "wq_b",
    "kv_a_proj_with_mqa": "wkv_a_with_mqa",
    "kv_a_layernorm": "kv_a_norm",
    "kv_b_proj": "wkv_b",
    "o_proj": "wo",
}
MLP = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
LAYER_NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}
TOP = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}
SUFFIXES = {  # canonical suffix to Hugging Face's and the native one
    "weight": ("weight", "weight"),
    "weight_scale": ("weight_scale_inv", "qscale_weight"),
    "input_scale": ("activation_scale", "qscale_act"),
}
SCALES = ("weight_scale", "input_scale")

IGNORED = {
    "vision tensors, until images are supported": re.compile(
        r"(model\.)?(vision_tower|multi_modal_projector)\.|vision_encoder\.|vision_language_adapter\.|patch_merger\."
        r"|pre_mm_projector_norm\."
    ),
}

# Hugging Face's fused expert tensors: (canonical projections, suffix). Scales are [experts, 1, 1] or [experts].
FUSED = {
    "gate_up_proj": (("gate_proj", "up_proj"), "weight"),
    "gate_up_proj_scale_inv": (("gate_proj", "up_proj"), "weight_scale"),
    "gate_up_proj_activation_scale": (("gate_proj", "up_proj"), "input_scale"),
    "down_proj": (("down_proj",), "weight"),
    "down_proj_scale_inv": (("down_proj",), "weight_scale"),
    "down_proj_activation_scale": (("down_proj",), "input_scale"),
}
_HF_PREFIX = re.compile(r"^(language_model\.model\.|model\.language_model\.model\.|model\.language_model\.)")
_HF_HEAD = re.compile(r"^(model\.)?language_model\.lm_head\.")
_FUSED_NAME = re.compile(r"^(model\.layers\.\d+\.mlp\.experts)\.(\w+)$")
_LAYER = re.compile(r"^layers\.(\d+)\.(.+)$")


class Piece(NamedTuple):
    """One canonical tensor, a view of what the file holds."""

    name: str
    tensor: torch.Tensor


def ignored(name: str) -> str | None:
    """Why a checkpoint tensor is left out on purpose, or None."""
    return next((reason for reason, pattern in IGNORED.items() if pattern.match(name)), None)


def pieces(name: str, tensor: torch.Tensor) -> list[Piece]:
    """The canonical tensors that a checkpoint tensor holds: one, or all of a fused expert tensor."""
    name = canonical(name)
    fused = _FUSED_NAME.match(name)
    if fused is None or fused[2] not in FUSED:
        return [Piece(name, tensor)]
    projections, suffix = FUSED[fused[2]]
    if suffix == "weight" and tensor.dim() != 3:
        return [Piece(name, tensor)]  # not the fused form after all: the loader names it as unknown
    found = []
    for expert, values in enumerate(tensor):
        parts = values.chunk(len(projections)) if suffix == "weight" else [values.reshape(())] * len(projections)
        found += [Piece(f"{fused[1]}.{expert}.{projection}.{suffix}", part)
                  for projection, part in zip(projections, parts, strict=True)]  # fmt: skip
    return found


def canonical(name: str) -> str:
    """The canonical name of a tensor of either format; a name of neither comes back as it is."""
    name = _HF_HEAD.sub("lm_head.", _HF_PREFIX.sub("model.", name))
    module, _, suffix = name.rpartition(".")
    suffix = _CANONICAL_SUFFIX.get(suffix, suffix)
    if module in _FROM_TOP:
        return f"{_FROM_TOP[module]}.{suffix}"
    layer = _LAYER.match(module)
    if layer is None:
        return f"{module}.{suffix}" if module else name
    return f"model.layers.{layer[1]}.{_from_native(layer[2])}.{suffix}"


def native(name: str) -> str:
    """The native name of a canonical tensor."""
    module, _, suffix = name.rpartition(".")
    suffix = SUFFIXES[suffix][1]
    if module in TOP:
        return f"{TOP[module]}.{suffix}"
    layer, inner = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module).groups()  # type: ignore[union-attr]
    group, _, part = inner.partition(".")
    if group in LAYER_NORMS:
        inner = LAYER_NORMS[group]
    elif group == "self_attn":
        inner = f"attention.{ATTENTION[part]}"
    elif part == "gate":
        inner = "gate"
    else:  # shared_experts.gate_proj, experts.17.gate_proj
        where, _, projection = part.rpartition(".")
        inner = f"{where}.{MLP[projection]}"
    return f"layers.{layer}.{inner}.{suffix}"


def shapes(config: Small4Config) -> dict[str, tuple[int, ...]]:
    """Every canonical weight the configuration needs, with its shape. Scales, one number each, go with FP8 weights."""
    hidden, heads, inner = config.hidden_size, config.num_attention_heads, config.moe_intermediate_size
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (config.vocab_size, hidden),
    }
    attention = {
        "q_a_proj": (config.q_lora_rank, hidden),
        "q_a_layernorm": (config.q_lora_rank,),
        "q_b_proj": (heads * config.qk_head_dim, config.q_lora_rank),
        "kv_a_proj_with_mqa": (config.kv_lora_rank + config.qk_rope_head_dim, hidden),
        "kv_a_layernorm": (config.kv_lora_rank,),
        "kv_b_proj": (heads * (config.qk_nope_head_dim + config.v_head_dim), config.kv_lora_rank),
        "o_proj": (hidden, heads * config.v_head_dim),
    }
    for number in range(config.num_hidden_layers):
        layer = f"model.layers.{number}"
        found |= {f"{layer}.{norm}.weight": (hidden,) for norm in LAYER_NORMS}
        found |= {f"{layer}.self_attn.{part}.weight": shape for part, shape in attention.items()}
        found[f"{layer}.mlp.gate.weight"] = (config.n_routed_experts, hidden)
        experts = {"shared_experts": inner * config.n_shared_experts}
        experts |= {f"experts.{expert}": inner for expert in range(config.n_routed_experts)}
        for expert, width in experts.items():
            found[f"{layer}.mlp.{expert}.gate_proj.weight"] = (width, hidden)
            found[f"{layer}.mlp.{expert}.up_proj.weight"] = (width, hidden)
            found[f"{layer}.mlp.{expert}.down_proj.weight"] = (hidden, width)
    return found


def scale_name(weight: str, scale: str) -> str:
    """The canonical name of a weight's ``weight_scale`` or ``input_scale``."""
    return weight.removesuffix("weight") + scale


def _from_native(inner: str) -> str:
    group, _, part = inner.rpartition(".")
    if inner in _FROM_NORM:
        return _FROM_NORM[inner]
    if group == "attention" and part in _FROM_ATTENTION:
        return f"self_attn.{_FROM_ATTENTION[part]}"
    if inner == "gate":
        return "mlp.gate"
    if part in _FROM_MLP:
        return f"mlp.{group}.{_FROM_MLP[part]}"
    return inner


_FROM_TOP = {native_name: name for name, native_name in TOP.items()}
_FROM_NORM = {native_name: name for name, native_name in LAYER_NORMS.items()}
_FROM_ATTENTION = {native_name: name for name, native_name in ATTENTION.items()}
_FROM_MLP = {native_name: name for name, native_name in MLP.items()}
_CANONICAL_SUFFIX = {spelling: suffix for suffix, spellings in SUFFIXES.items() for spelling in spellings}
