"""Latent attention on a CPU as an SGLang attention backend, in its absorbed and its expanded form.

The cache holds one latent row per token and layer: ``kv_lora_rank`` numbers that serve as key and as value, then the
``qk_rope_head_dim`` rotated numbers of the key. Absorbed attention scores each head's query against those rows;
expanded attention is plain attention over keys and values of every head, which the model makes from the latents.

Only new rows are queries, so a question of n tokens behind a prefix of p costs n * (p + n), never p * p.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
from sglang.srt.mem_cache.memory_pool import KVWriteLoc, MLATokenToKVPool
from sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods import AttnForwardMethod

from sgl_small4.cpu import kernels
from sgl_small4.cpu.platform import ATTENTION_BACKEND

if TYPE_CHECKING:
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch
    from sglang.srt.model_executor.model_runner import ModelRunner

    from sgl_small4.model.attention import LatentAttention

# Scores of at most this many numbers (64 MiB of float32) exist at a time in the PyTorch form.
SCORES = 16 << 20


class LatentAttentionBackend(AttentionBackend):
    """One instance per model runner; the pools it reads are fixed when it is made."""

    def __init__(self, model_runner: ModelRunner):
        super().__init__()
        pool = model_runner.token_to_kv_pool
        if not isinstance(pool, MLATokenToKVPool):
            raise ValueError(
                f"--attention-backend {ATTENTION_BACKEND} is for models with latent attention; this model's cache is a "
                f"{type(pool).__name__}: use torch_native"
            )
        self.token_to_kv_pool = pool
        self.req_to_token = model_runner.req_to_token_pool.req_to_token  # [request rows, context length]

    def init_forward_metadata(self, forward_batch: ForwardBatch) -> None:
        """Find the cache slots whose rows the model will expand; everything else is read from the batch as it is."""
        mode = forward_batch.forward_mode
        if mode.is_extend_without_speculative() and any(forward_batch.extend_prefix_lens_cpu):
            # `fetch_mha_one_shot_kv_indices` returns these in place of running its Triton kernel.
            forward_batch.mha_one_shot_kv_indices = torch.cat(
                [
                    self.req_to_token[request, :length]
                    for request, length in zip(
                        forward_batch.req_pool_indices.tolist(), forward_batch.seq_lens_cpu.tolist(), strict=True
                    )
                ]
            )

    def forward_extend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:
        """Attention of new tokens: absorbed with `save_kv_cache`, expanded without.

        Absorbed: q [tokens, heads, kv_lora_rank + rope], k [tokens, 1, kv_lora_rank + rope], v its first kv_lora_rank
        columns; k is written to the cache, then all of each request's rows are read from there. Expanded: q [tokens,
        heads, qk_head_dim], k and v [rows, heads, their head dim], the cached prefix of each request before its new
        rows; the model has written the latents. Both return [tokens, heads * v_head_dim of the layer].
        """
        query = q.view(-1, layer.tp_q_head_num, layer.qk_head_dim)
        new_lens = forward_batch.extend_seq_lens_cpu
        prefix_lens = forward_batch.extend_prefix_lens_cpu
        lens = [prefix + new for prefix, new in zip(prefix_lens, new_lens, strict=True)]
        if not save_kv_cache:
            attend = kernels.expanded_attention if kernels.serves_attention(query, k, layer.v_head_dim) else expanded
            return attend(query, k, v, new_lens, lens, layer.scaling).flatten(1)
        self.token_to_kv_pool.set_kv_buffer(layer, KVWriteLoc(forward_batch.out_cache_loc), k, v)
        return self._absorbed(query, layer, forward_batch, new_lens, lens)

    def forward_decode(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:
        """Absorbed attention of one new token per request; shapes as in `forward_extend`."""
        if save_kv_cache:
            self.token_to_kv_pool.set_kv_buffer(layer, KVWriteLoc(forward_batch.out_cache_loc), k, v)
        query = q.view(-1, layer.tp_q_head_num, layer.qk_head_dim)
        lens = forward_batch.seq_lens_cpu.tolist()
        return self._absorbed(query, layer, forward_batch, [1] * len(lens), lens)

    def _absorbed(
        self,
        query: torch.Tensor,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        new_lens: list[int],
        lens: list[int],
    ) -> torch.Tensor:
        rows = self.token_to_kv_pool.get_key_buffer(layer.layer_id).squeeze(1)  # [slots, kv_lora_rank + rope]
        attend = kernels.latent_attention if kernels.serves_attention(query, rows, layer.v_head_dim) else absorbed
        requests = forward_batch.req_pool_indices
        output = attend(query, rows, self.req_to_token, requests, new_lens, lens, layer.v_head_dim, layer.scaling)
        return output.flatten(1)

    def support_triton(self) -> bool:
        return False


def absorbed(
    query: torch.Tensor,
    rows: torch.Tensor,
    req_to_token: torch.Tensor,
    requests: torch.Tensor,
    new_lens: list[int],
    lens: list[int],
    v_head_dim: int,
    scaling: float,
) -> torch.Tensor:
    """Each request's last `new_lens[i]` tokens attend to its `lens[i]` cached rows, their own included.

    query: [sum of new_lens, heads, dim]; rows: [slots, dim], the cache of one layer; req_to_token: [request rows,
    context length], whose row `requests[i]` lists the slots of request i. Returns [sum of new_lens, heads, v_head_dim].
    """
    output = query.new_empty(*query.shape[:2], v_head_dim)
    heads = query.shape[1]
    start = 0
    for request, new, length in zip(requests.tolist(), new_lens, lens, strict=True):
        latents = rows[req_to_token[request, :length].long()].float()  # [length, dim]
        step = max(1, SCORES // (heads * max(length, 1)))
        for first in range(0, new, step):
            count = min(step, new - first)
            part = slice(start + first, start + first + count)
            visible = length - new + first + count  # rows that the last query of this part may see
            keys = latents[:visible]
            scores = (query[part].float() @ keys.T) * scaling  # [count, heads, visible]
            hidden = torch.ones(count, count, dtype=torch.bool).triu(1)  # later tokens of this part
            scores[..., visible - count :].masked_fill_(hidden[:, None], float("-inf"))
            output[part] = (scores.softmax(-1) @ keys[:, :v_head_dim]).to(query.dtype)
        start += new
    return output


def expanded(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, new_lens: list[int], lens: list[int], scaling: float
) -> torch.Tensor:
    """Each request's last `new_lens[i]` tokens attend to its `lens[i]` rows, their own included, head by head.

    query: [sum of new_lens, heads, dim]; key: [sum of lens, heads, dim]; value: [sum of lens, heads, v_head_dim].
    Returns [sum of new_lens, heads, v_head_dim].
    """
    width = value.shape[-1]
    value = F.pad(value, (0, query.shape[-1] - width))  # PyTorch's fast form wants one head size for all three
    output = torch.empty_like(query)
    first_query = first_row = 0
    for new, length in zip(new_lens, lens, strict=True):
        step = new if new == length else max(1, SCORES // length)  # with a prefix PyTorch wants a mask in memory
        for first in range(0, new, step):
            count = min(step, new - first)
            seen = length - new + first + count  # rows that the last query of this part may see
            queries, rows = slice(first_query + first, first_query + first + count), slice(first_row, first_row + seen)
            visible = None if new == length else torch.ones(count, seen, dtype=torch.bool).tril(seen - count)
            output[queries] = F.scaled_dot_product_attention(
                query[queries].transpose(0, 1)[None],
                key[rows].transpose(0, 1)[None],
                value[rows].transpose(0, 1)[None],
                attn_mask=visible,
                is_causal=visible is None,
                scale=scaling,
            )[0].transpose(0, 1)
        first_query, first_row = first_query + new, first_row + length
    return output[..., :width]


def choose_form(attn: LatentAttention, forward_batch: ForwardBatch) -> AttnForwardMethod:
    """The cheaper form for this batch, as SGLang's table of attention handlers asks for it.

    Both forms score every new token against every earlier one; per head and pair, absorbed multiplies
    2 * kv_lora_rank + qk_rope_head_dim numbers (576 in the published shape), expanded qk_head_dim + v_head_dim (256).
    For new tokens both pass kv_b_proj once. Expanded must also take the cached prefix through it, so it pays without a
    prefix, and for questions of some hundred tokens or more.
    """
    if not forward_batch.forward_mode.is_extend_without_speculative():
        return AttnForwardMethod.MLA
    pairs = sum(
        new * (prefix + new / 2)
        for new, prefix in zip(forward_batch.extend_seq_lens_cpu, forward_batch.extend_prefix_lens_cpu, strict=True)
    )
    saved = 2 * attn.kv_lora_rank - attn.qk_nope_head_dim - attn.v_head_dim  # per pair
    extra = attn.kv_lora_rank * (attn.qk_nope_head_dim + attn.v_head_dim)  # per cached row
    if pairs * saved > sum(forward_batch.extend_prefix_lens_cpu) * extra:
        return AttnForwardMethod.MHA_ONE_SHOT
    return AttnForwardMethod.MLA
