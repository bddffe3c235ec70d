"""Multi-head latent attention (DeepSeek-V2, section 2.1) on SGLang's RadixAttention.

The cache holds one latent [kv_lora_rank] and one rotated key part [qk_rope_head_dim] per token. Attention has two forms
that agree: *absorbed*, where the query is taken into latent space and all heads attend to the same cached row, for
decode and for short questions on a long prefix; and *expanded*, where keys and values of every head are made from the
latents, for long prefills, at about 2.5 times less work. `forward` asks the backend which one runs.
"""

import math
from typing import Any

import torch
from sglang.srt.environ import envs
from sglang.srt.layers.attention.merge_state import merge_state
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.linear import ColumnParallelLinear, ReplicatedLinear, RowParallelLinear
from sglang.srt.layers.quantization.base_config import QuantizationConfig
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.mem_cache.memory_pool import KVWriteLoc
from sglang.srt.model_executor.forward_batch_info import ForwardBatch
from sglang.srt.model_executor.forward_context import get_attn_backend, get_token_to_kv_pool
from sglang.srt.models.deepseek_common.attention_backend_handler import AttentionBackendRegistry
from sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods import AttnForwardMethod
from sglang.srt.models.deepseek_common.utils import FORWARD_ABSORB_CORE_ATTENTION_BACKENDS
from sglang.srt.runtime_context import attention_backends, get_exec, get_parallel, get_schedule, get_spec
from sglang.srt.utils import add_prefix
from torch import nn

from sgl_small4.config import Small4Config
from sgl_small4.model.rope import YarnRotaryEmbedding

# These give the log of each row's sum in base 2, and `merge_state` takes natural logs: merged as they come, the newest
# tokens get a fraction of their weight behind a long prefix (sglang issue 40903; flashinfer/prefill.py, `_finish_lse`).
LOG2_BACKENDS = ("flashinfer", "trtllm_mla")
# Reads keys and values from the cache alone, which holds latents; SGLang's table has no entry of its own for it.
ABSORBED_ONLY_BACKENDS = ("torch_native",)
# Kernels for latents of 512 alone (flashmla, fa4, cutedsl_mla by both names), or rules that this file has not (aiter).
UNFIT_BACKENDS = {"flashmla", "fa4", "cutedsl_mla", "tokenspeed_mla", "aiter"}


class LatentAttention(nn.Module):
    """One layer's attention: [tokens, hidden_size] to [tokens, hidden_size], not yet summed over tensor ranks."""

    def __init__(
        self,
        config: Small4Config,
        layer_id: int,
        rotary: YarnRotaryEmbedding,
        quant_config: QuantizationConfig | None,
        prefix: str,
    ) -> None:
        super().__init__()
        unfit = UNFIT_BACKENDS.intersection(attention_backends())
        if unfit:
            raise ValueError(
                f"--attention-backend {min(unfit)} cannot attend to this model's latents of {config.kv_lora_rank}: "
                "use fa3 (Hopper), trtllm_mla (Blackwell), flashinfer or triton"
            )
        self.layer_id = layer_id
        self.num_local_heads = config.num_attention_heads // get_parallel().attn_tp_size
        self.kv_lora_rank = config.kv_lora_rank
        self.qk_nope_head_dim = config.qk_nope_head_dim
        self.qk_rope_head_dim = config.qk_rope_head_dim
        self.v_head_dim = config.v_head_dim
        self.rotary_emb = rotary
        heads, hidden, eps = config.num_attention_heads, config.hidden_size, config.rms_norm_eps

        def linear(kind: type, name: str, inputs: int, outputs: int, **options) -> nn.Module:
            return kind(
                inputs, outputs, bias=False, quant_config=quant_config, prefix=add_prefix(name, prefix), **options
            )

        # q_a_proj and kv_a_proj stay apart: fused, they would need one FP8 scale for both.
        self.q_a_proj = linear(ReplicatedLinear, "q_a_proj", hidden, config.q_lora_rank)
        self.q_a_layernorm = RMSNorm(config.q_lora_rank, eps=eps)
        self.q_b_proj = linear(
            ColumnParallelLinear, "q_b_proj", config.q_lora_rank, heads * config.qk_head_dim, parallel_group="attn_tp"
        )
        self.kv_a_proj_with_mqa = linear(
            ReplicatedLinear, "kv_a_proj_with_mqa", hidden, self.kv_lora_rank + self.qk_rope_head_dim
        )
        self.kv_a_layernorm = RMSNorm(self.kv_lora_rank, eps=eps)
        self.kv_b_proj = linear(
            ColumnParallelLinear,
            "kv_b_proj",
            self.kv_lora_rank,
            heads * (self.qk_nope_head_dim + self.v_head_dim),
            parallel_group="attn_tp",
        )
        self.o_proj = linear(
            RowParallelLinear, "o_proj", heads * self.v_head_dim, hidden, reduce_results=False, parallel_group="attn_tp"
        )
        # SGLang looks these two names up (`layer_setup.py`). FP8 KV scales stay at 1: no checkpoint has any.
        self.attn_mqa = RadixAttention(
            self.num_local_heads,
            self.kv_lora_rank + self.qk_rope_head_dim,
            config.softmax_scale,
            num_kv_heads=1,
            layer_id=layer_id,
            v_head_dim=self.kv_lora_rank,
            prefix=add_prefix("attn_mqa", prefix),
        )
        self.attn_mha = RadixAttention(
            self.num_local_heads,
            config.qk_head_dim,
            config.softmax_scale,
            num_kv_heads=self.num_local_heads,
            layer_id=layer_id,
            v_head_dim=self.v_head_dim,
            prefix=add_prefix("attn_mha", prefix),
        )
        # Read by SGLang's handlers, which choose the form per backend (`attention_backend_handler.py`).
        self.chunked_prefix_cache_threshold = envs.SGLANG_CHUNKED_PREFIX_CACHE_THRESHOLD.get()
        self.disable_chunked_prefix_cache = get_schedule().disable_chunked_prefix_cache
        self.flashinfer_mla_disable_ragged = get_exec().kernel.flashinfer_mla_disable_ragged
        self.rocm_fused_decode_mla = False

    def absorb(self) -> None:
        """Split kv_b_proj into the two factors of the absorbed form; call once its weight is loaded.

        `key_absorb` is [heads, qk_nope_head_dim, kv_lora_rank] and `value_absorb` [heads, kv_lora_rank, v_head_dim].
        """
        weight = self.kv_b_proj.weight.data
        if weight.dtype == torch.float8_e4m3fn:
            weight = weight.to(torch.float32) * self.kv_b_proj.weight_scale.data.to(torch.float32)
        weight = weight.to(self.kv_a_layernorm.weight.dtype).unflatten(0, (self.num_local_heads, -1))
        key, value = weight.split((self.qk_nope_head_dim, self.v_head_dim), dim=1)
        self.register_buffer("key_absorb", key.contiguous(), persistent=False)
        self.register_buffer("value_absorb", value.transpose(1, 2).contiguous(), persistent=False)

    def forward(
        self,
        positions: torch.Tensor,
        hidden_states: torch.Tensor,
        forward_batch: ForwardBatch,
        query_scale: torch.Tensor,
    ) -> torch.Tensor:
        """positions [tokens], hidden_states [tokens, hidden_size], query_scale [tokens, 1, 1] float32."""
        query, latent, key_rope = self.project(positions, hidden_states, query_scale)
        backend = active_backend(forward_batch)
        method = AttentionBackendRegistry.get_handler(backend)(self, forward_batch)
        if method == AttnForwardMethod.MLA or backend in ABSORBED_ONLY_BACKENDS:
            output = self.absorbed(query, latent, key_rope, forward_batch, takes_rope_apart(backend))
        else:
            output = self.expanded(query, latent, key_rope, forward_batch, method)
        return self.o_proj(output)[0]

    def project(
        self, positions: torch.Tensor, hidden_states: torch.Tensor, query_scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query [tokens, heads, qk_head_dim] rotated and scaled, latent [tokens, 1, kv_lora_rank] normalised, and the
        shared rotated key part [tokens, 1, qk_rope_head_dim]."""
        query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(hidden_states)[0]))[0]
        query = query.view(-1, self.num_local_heads, self.qk_nope_head_dim + self.qk_rope_head_dim)
        # The whole query, once, in every form: stock SGLang leaves it out on most paths (GPU kernels take it or not).
        query = (query * query_scale).to(query.dtype)
        latent, key_rope = self.kv_a_proj_with_mqa(hidden_states)[0].split(
            (self.kv_lora_rank, self.qk_rope_head_dim), -1
        )
        latent = self.kv_a_layernorm(latent.contiguous()).unsqueeze(1)
        query_nope, query_rope = query.split((self.qk_nope_head_dim, self.qk_rope_head_dim), dim=-1)
        query_rope, key_rope = self.rotary_emb(positions, query_rope, key_rope.unsqueeze(1))
        return torch.cat((query_nope, query_rope), dim=-1), latent, key_rope

    def absorbed(
        self,
        query: torch.Tensor,
        latent: torch.Tensor,
        key_rope: torch.Tensor,
        forward_batch: ForwardBatch,
        rope_apart: bool,
    ) -> torch.Tensor:
        """Attend in latent space; the backend caches the new rows. Returns [tokens, heads * v_head_dim]."""
        query_nope, query_rope = query.split((self.qk_nope_head_dim, self.qk_rope_head_dim), dim=-1)
        query_latent = torch.bmm(query_nope.transpose(0, 1), self.key_absorb).transpose(0, 1)  # [tokens, heads, rank]
        if rope_apart:
            output = self.attn_mqa(query_latent, latent, latent, forward_batch, q_rope=query_rope, k_rope=key_rope)
        else:
            output = self.attn_mqa(
                torch.cat((query_latent, query_rope), dim=-1),
                torch.cat((latent, key_rope), dim=-1),
                latent,
                forward_batch,
            )
        output = output.view(-1, self.num_local_heads, self.kv_lora_rank)
        return torch.bmm(output.transpose(0, 1), self.value_absorb).transpose(0, 1).flatten(1)

    def expanded(
        self,
        query: torch.Tensor,
        latent: torch.Tensor,
        key_rope: torch.Tensor,
        forward_batch: ForwardBatch,
        method: AttnForwardMethod,
    ) -> torch.Tensor:
        """Attend with keys and values of every head, new rows written first. Returns [tokens, heads * v_head_dim]."""
        get_token_to_kv_pool().set_kv_buffer(
            self.attn_mha, KVWriteLoc.for_batch(forward_batch), torch.cat((latent, key_rope), dim=-1), None
        )
        has_prefix = any(forward_batch.extend_prefix_lens_cpu)
        chunked = method == AttnForwardMethod.MHA_CHUNKED_KV
        if method == AttnForwardMethod.MHA_ONE_SHOT:
            forward_batch.mha_one_shot = True  # read by init_mha_chunk_metadata
            if has_prefix:  # prefix and new rows together, request by request
                latent, key_rope = self.cached_rows(forward_batch.fetch_mha_one_shot_kv_indices())
        if has_prefix and forward_batch.num_prefix_chunks is None:
            if chunked:
                forward_batch.prepare_chunked_prefix_cache_info(query.device)
            else:
                forward_batch.num_prefix_chunks = 0
            backend = get_attn_backend()
            if hasattr(backend, "init_mha_chunk_metadata"):
                backend.init_mha_chunk_metadata(forward_batch)
        forward_batch.mha_return_lse = chunked and has_prefix
        forward_batch.set_attn_attend_prefix_cache(False)
        output = self.attend(query, latent, key_rope, forward_batch, cached=has_prefix and not chunked)
        if not forward_batch.mha_return_lse:
            return output.reshape(-1, self.num_local_heads * self.v_head_dim)

        to_natural_log = math.log(2) if active_backend(forward_batch) in LOG2_BACKENDS else 1.0
        output, weight = output  # the new rows among themselves, then chunk by chunk of the prefix
        weight = weight * to_natural_log
        forward_batch.set_attn_attend_prefix_cache(True)
        for chunk in range(forward_batch.num_prefix_chunks):
            forward_batch.set_prefix_chunk_idx(chunk)
            rows = self.cached_rows(forward_batch.prefix_chunk_kv_indices[chunk])
            more, more_weight = self.attend(query, *rows, forward_batch, cached=True)
            output, weight = merge_state(more, more_weight * to_natural_log, output, weight)
        return output.reshape(-1, self.num_local_heads * self.v_head_dim)

    def attend(
        self,
        query: torch.Tensor,
        latent: torch.Tensor,
        key_rope: torch.Tensor,
        forward_batch: ForwardBatch,
        cached: bool,
    ) -> Any:
        """Expand latents [rows, 1, rank] into keys and values of every head and attend to them: the output, and with it
        the log of each row's sum [tokens, heads] where the batch asks for it. `cached`: these are rows of the cache.
        """
        # contiguous: FP8 linears take no strided input, and rows of the cache are latent and rope side by side.
        expanded = self.kv_b_proj(latent.squeeze(1).contiguous())[0].unflatten(-1, (self.num_local_heads, -1))
        key_nope, value = expanded.split((self.qk_nope_head_dim, self.v_head_dim), dim=-1)
        key = torch.cat((key_nope, key_rope.expand(-1, self.num_local_heads, -1)), dim=-1)
        return self.attn_mha(
            query,
            key,
            value.contiguous(),
            forward_batch,
            save_kv_cache=False,
            # Left open, keys are cut with the queries to the rows that are no padding.
            key_value_num_tokens=key.shape[0] if cached else None,
        )

    def cached_rows(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [rows, 1, rank] and rotated key parts [rows, 1, rope] at these slots of the cache."""
        rows = get_token_to_kv_pool().get_key_buffer(self.layer_id)[indices].to(self.key_absorb.dtype)
        return rows.split((self.kv_lora_rank, self.qk_rope_head_dim), dim=-1)


def active_backend(forward_batch: ForwardBatch) -> str:
    """The attention backend that runs this batch, by name (as `dispatch_attn_forward_method` of `deepseek_v2.py`)."""
    backend = get_attn_backend()
    prefill, decode = attention_backends()
    prefill = backend.prefill_attention_backend_str or prefill
    decode = backend.decode_attention_backend_str or decode
    mode = forward_batch.forward_mode
    if mode.is_decode_or_idle():
        return decode
    if mode.is_target_verify() or mode.is_draft_extend_v2():
        return decode if get_spec().speculative_attention_mode == "decode" else prefill
    return prefill


def takes_rope_apart(backend: str) -> bool:
    """Whether a backend takes the rope part by keyword (`q_rope`, `k_rope`) or joined to the latent, latent first."""
    return backend in FORWARD_ABSORB_CORE_ATTENTION_BACKENDS
