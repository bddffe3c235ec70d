"""Sizes of the nano model, and its `config.json`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Names as in Hugging Face's `mistral4` configuration."""

    vocab_size: int = 768
    hidden_size: int = 128
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    q_lora_rank: int = 96
    kv_lora_rank: int = 96
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    n_routed_experts: int = 128
    moe_intermediate_size: int = 32

    rope_theta = 10000.0
    rope_factor = 128.0
    original_max_position_embeddings = 8192
    max_position_embeddings = 1048576
    beta_fast = 32.0
    beta_slow = 1.0
    llama_4_scaling_beta = 0.1
    rms_norm_eps = 1e-6
    num_experts_per_tok = 4

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def hugging_face(self) -> dict[str, object]:
        """The content of `config.json`. `mscale_all_dim` 0 and `attention_factor` 1 keep transformers from scaling the
        softmax, which the published model is not trained with."""
        return {
            "architectures": ["Mistral4ForCausalLM"],
            "model_type": "mistral4",
            "dtype": "bfloat16",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 11,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": 4 * self.hidden_size,
            "moe_intermediate_size": self.moe_intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_attention_heads,
            "n_shared_experts": 1,
            "n_routed_experts": self.n_routed_experts,
            "num_experts_per_tok": self.num_experts_per_tok,
            "first_k_dense_replace": 0,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
            "n_group": 1,
            "topk_group": 1,
            "kv_lora_rank": self.kv_lora_rank,
            "q_lora_rank": self.q_lora_rank,
            "qk_rope_head_dim": self.qk_rope_head_dim,
            "qk_nope_head_dim": self.qk_nope_head_dim,
            "v_head_dim": self.v_head_dim,
            "head_dim": self.qk_head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_interleave": True,
            "tie_word_embeddings": False,
            "hidden_act": "silu",
            "attention_bias": False,
            "rope_parameters": {
                "type": "yarn",
                "rope_type": "yarn",
                "rope_theta": self.rope_theta,
                "factor": self.rope_factor,
                "original_max_position_embeddings": self.original_max_position_embeddings,
                "max_position_embeddings": self.max_position_embeddings,
                "beta_fast": self.beta_fast,
                "beta_slow": self.beta_slow,
                "mscale": 1.0,
                "mscale_all_dim": 0.0,
                "attention_factor": 1.0,
                "llama_4_scaling_beta": self.llama_4_scaling_beta,
                "partial_rotary_factor": self.qk_rope_head_dim / self.qk_head_dim,
            },
        }
