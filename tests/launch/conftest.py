"""A checkpoint's folder without its weights, and hosts with the devices a test wants."""

import json
from pathlib import Path

import pytest

from launch.host import Accelerator, Host

SMALL4 = {
    "model_type": "mistral4",
    "vocab_size": 768,
    "hidden_size": 128,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 128,
    "num_experts_per_tok": 4,
    "kv_lora_rank": 96,
    "q_lora_rank": 96,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "max_position_embeddings": 1048576,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 128.0,
        "original_max_position_embeddings": 8192,
        "mscale": 1.0,
        "mscale_all_dim": 0.0,
        "attention_factor": 1.0,
        "llama_4_scaling_beta": 0.1,
    },
}


class HostWith(Host):
    """This machine, but with these accelerators."""

    def __init__(self, *accelerators: str) -> None:
        self.accelerators = [Accelerator(name) for name in accelerators]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that passes for a checkpoint until its weights are read."""
    folder = tmp_path / "any name"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL4))
    (folder / "model.safetensors").touch()
    return folder
