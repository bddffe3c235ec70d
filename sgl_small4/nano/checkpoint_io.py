"""The nano model's weights under Hugging Face's names: written, and read back for evaluation."""

import json
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sgl_small4.nano.model import Model
from sgl_small4.nano.operators import Operators
from sgl_small4.nano.shape import Shape
from sgl_small4.nano.tokenizer import CONTROL

WEIGHTS = "model.safetensors"
GENERATION = {
    "bos_token_id": CONTROL["<s>"],
    "eos_token_id": CONTROL["</s>"],
    "pad_token_id": CONTROL["<pad>"],
    "do_sample": False,
    "temperature": 0.0,
}


def tensors(model: Model) -> dict[str, torch.Tensor]:
    """The weights by Hugging Face's names, matrices as [out, in]."""
    named = {
        "model.embed_tokens.weight": model.embedding,
        "model.norm.weight": model.norm,
        "lm_head.weight": model.head.T,
    }
    inner = model.shape.moe_intermediate_size
    for number, layer in enumerate(model.layers):
        prefix = f"model.layers.{number}."
        gate_up, down = layer.gate_up.transpose(1, 2), layer.down.transpose(1, 2)
        named |= {
            f"{prefix}input_layernorm.weight": layer.input_norm,
            f"{prefix}self_attn.q_a_proj.weight": layer.q_a.T,
            f"{prefix}self_attn.q_a_layernorm.weight": layer.q_a_norm,
            f"{prefix}self_attn.q_b_proj.weight": layer.q_b.T,
            f"{prefix}self_attn.kv_a_proj_with_mqa.weight": layer.kv_a.T,
            f"{prefix}self_attn.kv_a_layernorm.weight": layer.kv_a_norm,
            f"{prefix}self_attn.kv_b_proj.weight": layer.kv_b.T,
            f"{prefix}self_attn.o_proj.weight": layer.o.T,
            f"{prefix}post_attention_layernorm.weight": layer.post_attention_norm,
            f"{prefix}mlp.gate.weight": layer.router.T,
            f"{prefix}mlp.experts.gate_up_proj": gate_up[:-1],
            f"{prefix}mlp.experts.down_proj": down[:-1],
            f"{prefix}mlp.shared_experts.gate_proj.weight": gate_up[-1, :inner],
            f"{prefix}mlp.shared_experts.up_proj.weight": gate_up[-1, inner:],
            f"{prefix}mlp.shared_experts.down_proj.weight": down[-1],
        }
    return {name: weight.detach() for name, weight in named.items()}


@torch.no_grad()
def load_checkpoint(folder: Path, operators: Operators) -> Model:
    """The model of a checkpoint folder, in float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = Model(Shape(**{field.name: config[field.name] for field in fields(Shape)}), operators)
    stored = load_file(folder / WEIGHTS)
    for name, place in tensors(model).items():
        place.copy_(stored[name])  # a view of the parameter
    return model


def export(model: Model, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """`model.safetensors`, `config.json` and `generation_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = {name: weight.to(dtype).contiguous() for name, weight in tensors(model).items()}
    part = folder / f"{WEIGHTS}.part"
    save_file(saved, part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.replace(folder / WEIGHTS)  # never in place: a server may have the old file mapped
    config = model.shape.hugging_face() | {"dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION, indent=1) + "\n", encoding="utf-8")
