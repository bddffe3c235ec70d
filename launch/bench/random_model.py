"""The random checkpoint that speed is compared on: real MLA head sizes, 289 million parameters, bfloat16."""

from pathlib import Path

import torch
from transformers import Mistral4Config, Mistral4ForCausalLM

VOCABULARY = 32000
CONFIG = {
    "vocab_size": VOCABULARY, "hidden_size": 1024, "intermediate_size": 4096, "moe_intermediate_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8,
    "n_routed_experts": 32, "n_shared_experts": 1, "num_experts_per_tok": 4, "first_k_dense_replace": 0,
    "q_lora_rank": 1024, "kv_lora_rank": 256, "qk_rope_head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 128,
    "head_dim": 128, "max_position_embeddings": 1048576, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11,
    "rope_parameters": {
        "type": "yarn", "rope_type": "yarn", "rope_theta": 10000.0, "factor": 128.0,
        "original_max_position_embeddings": 8192, "max_position_embeddings": 1048576, "beta_fast": 32.0,
        "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 0.0, "attention_factor": 1.0, "llama_4_scaling_beta": 0.1,
        "partial_rotary_factor": 0.5,
    },
}  # fmt: skip


def write(folder: Path) -> Mistral4ForCausalLM:
    """Write the checkpoint to `folder`, always the same numbers, and return transformers' model of it."""
    torch.manual_seed(0)
    model = Mistral4ForCausalLM(Mistral4Config(**CONFIG, dtype="bfloat16")).to(torch.bfloat16).eval()
    model.save_pretrained(folder)
    return model
