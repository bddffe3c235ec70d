"""SGLang's GPU attention backends as far as a model can tell them apart, computing in plain PyTorch.

`stand_in` gives a mock of the installed backend class, so that a call the class does not take is a TypeError as on a
GPU. Behind it stands one of the classes below: which rows attend to which, what is asserted, what is written to the
cache and what comes back follow the branches of the installed class's `forward_extend` and `forward_decode`
(sglang 0.5.23); softmax attention itself is `attend`. Only latent-attention models are covered.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from unittest.mock import NonCallableMagicMock, create_autospec

import torch
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
from sglang.srt.layers.attention.flashattention_backend import FlashAttentionBackend
from sglang.srt.layers.attention.flashinfer_mla_backend import FlashInferMLAAttnBackend
from sglang.srt.layers.attention.triton_backend import TritonAttnBackend
from sglang.srt.layers.attention.trtllm_mla_backend import TRTLLMMLABackend
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.mem_cache.memory_pool import KVWriteLoc
from sglang.srt.model_executor.forward_batch_info import ForwardBatch
from sglang.srt.model_executor.model_runner import ModelRunner


class Call(NamedTuple):
    """One call of a backend: by which of a layer's two RadixAttention, how many heads of keys, with which keywords."""

    key_width: int
    key_heads: int
    keywords: frozenset[str]


def attend(query, key, value, scale: float, visible=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention of one sequence.

    query [new, heads, width], key [rows, key_heads, width], value [rows, key_heads, value_width]; visible [new, rows]
    marks what each new token sees, all of it if None. Returns the output [new, heads, value_width] and the natural log
    of each row's sum [new, heads]; of no rows at all, zeros and minus infinity.
    """
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    if visible is not None:
        scores = scores.masked_fill(~visible, -math.inf)
    output = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)
    return output.contiguous(), scores.logsumexp(-1).T.contiguous()


def merge(output, lse, other, other_lse) -> tuple[torch.Tensor, torch.Tensor]:
    """Join two partial attentions of the same queries by the natural logs of their sums (`merge_state`, in PyTorch)."""
    both = torch.logaddexp(lse, other_lse)
    weight, other_weight = (lse - both).exp().unsqueeze(-1), (other_lse - both).exp().unsqueeze(-1)
    return output * weight + other * other_weight, both


def last_rows(new: int, rows: int) -> torch.Tensor:
    """What each of the last `new` of `rows` tokens sees, [new, rows]."""
    return torch.ones(new, rows, dtype=torch.bool).tril(rows - new)


class InPyTorch:
    """A function in the place of a Triton kernel: `InPyTorch(function)[grid](...)` calls it once for the whole grid."""

    def __init__(self, function: Callable[..., None]):
        self.function = function

    def __getitem__(self, _grid) -> Callable[..., None]:
        return self.function


def chunk_slots(table, requests, starts, lengths, _ends, out, _stride) -> None:
    """`create_chunked_prefix_cache_kv_indices`: the slots of each request's `lengths` rows from `starts` on."""
    rows = zip(requests.tolist(), starts.tolist(), lengths.tolist(), strict=True)
    out.copy_(torch.cat([table[request, start : start + length] for request, start, length in rows]))


def sequence_slots(table, requests, lengths, ends, starts, out, stride, **_) -> None:
    """`create_flashinfer_kv_indices_triton`: the same, from the first row where `starts` is None."""
    chunk_slots(table, requests, torch.zeros_like(lengths) if starts is None else starts, lengths, ends, out, stride)


class Backend:
    """What all have in common: the pools, the rows of each request, and a record of the calls."""

    installed: type[AttentionBackend]
    name: str
    lse_base = math.e  # of the log that comes with a partial attention

    def __init__(self, runner: ModelRunner):
        self.pool = runner.token_to_kv_pool
        self.requests = runner.req_to_token_pool.req_to_token
        self.calls: list[Call] = []

    def forward_decode(self, q, k, v, layer, forward_batch, save_kv_cache=True, **rope) -> torch.Tensor:
        self.note(layer, rope)
        return self.absorbed(q, k, v, layer, forward_batch, save_kv_cache, **rope)

    def forward_extend(self, q, k, v, layer, forward_batch, save_kv_cache=True, **rope):
        self.note(layer, rope)
        return self.extend(q, k, v, layer, forward_batch, save_kv_cache, **rope)

    def note(self, layer: RadixAttention, rope: dict) -> None:
        keywords = frozenset(name for name, value in rope.items() if value is not None)
        self.calls.append(Call(layer.qk_head_dim, layer.tp_k_head_num, keywords))

    def lengths(self, batch: ForwardBatch) -> list[tuple[int, int]]:
        """Of each request, how many tokens are new in this batch and how many there are with them."""
        if batch.forward_mode.is_target_verify():
            new = len(batch.input_ids) // batch.batch_size
            return [(new, int(length) + new) for length in batch.seq_lens]
        new = [1] * batch.batch_size if batch.forward_mode.is_decode() else batch.extend_seq_lens_cpu
        return list(zip(new, batch.seq_lens.tolist(), strict=True))

    def rows(self, layer: RadixAttention, batch: ForwardBatch, request: int, count: int) -> torch.Tensor:
        """The first `count` cached rows of a request, [count, 1, latent + rope]."""
        slots = self.requests[batch.req_pool_indices[request], :count]
        return self.pool.get_key_buffer(layer.layer_id)[slots.long()]

    def over_the_cache(self, query, layer: RadixAttention, batch: ForwardBatch) -> torch.Tensor:
        """Absorbed attention of query [tokens, heads, latent + rope]: each request over its rows, new ones included."""
        lengths = self.lengths(batch)
        outputs = []
        for request, (new, total) in enumerate(lengths):
            mine, query = query[:new], query[new:]
            rows = self.rows(layer, batch, request, total)
            outputs.append(attend(mine, rows, rows[..., : layer.v_head_dim], layer.scaling, last_rows(new, total))[0])
        return torch.cat(outputs).flatten(1)

    def ragged(self, q, k, v, layer: RadixAttention, key_lengths: list[int], batch: ForwardBatch, causal: bool):
        """Expanded attention of each request's new tokens over its own `key_lengths` rows of k and v, and the LSE."""
        query = q.view(-1, layer.tp_q_head_num, layer.head_dim)
        key = k.view(-1, layer.tp_k_head_num, layer.head_dim)
        value = v.view(-1, layer.tp_v_head_num, layer.v_head_dim)
        parts = []
        for (new, _), rows in zip(self.lengths(batch), key_lengths, strict=True):
            visible = last_rows(new, rows) if causal else None
            parts.append(attend(query[:new], key[:rows], value[:rows], layer.scaling, visible))
            query, key, value = query[new:], key[rows:], value[rows:]
        assert len(query) == 0
        output, lse = (torch.cat(part) for part in zip(*parts, strict=True))
        return output, lse / math.log(self.lse_base)

    def chunk_of_the_prefix(self, q, k, v, layer: RadixAttention, batch: ForwardBatch):
        return self.ragged(q, k, v, layer, batch.prefix_chunk_seq_lens[batch.prefix_chunk_idx].tolist(), batch, False)


class RopeApart(Backend):
    """Takes the latent in `q` and `k`, the rope parts by keyword, and keeps them apart down to the kernel."""

    def absorbed(self, q, k, v, layer, batch, save_kv_cache, q_rope=None, k_rope=None):
        assert q_rope is not None and k_rope is not None
        if save_kv_cache:
            self.pool.set_mla_kv_buffer(layer, KVWriteLoc.for_batch(batch), k, k_rope)
        query = q.view(-1, layer.tp_q_head_num, layer.v_head_dim)
        query_rope = q_rope.view(-1, layer.tp_q_head_num, layer.head_dim - layer.v_head_dim)
        return self.over_the_cache(torch.cat([query, query_rope], -1), layer, batch)


class FlashAttention3(RopeApart):
    """`flashattention_backend.py`, the branches for latent attention."""

    installed, name = FlashAttentionBackend, "fa3"

    def extend(self, q, k, v, layer, batch, save_kv_cache, **rope):
        if batch.attn_attend_prefix_cache is None or batch.forward_mode.is_target_verify():
            return self.absorbed(q, k, v, layer, batch, save_kv_cache, **rope)
        assert not save_kv_cache and not rope
        if batch.attn_attend_prefix_cache:
            assert batch.mha_return_lse
            return self.chunk_of_the_prefix(q, k, v, layer, batch)
        keys = [total if batch.mha_one_shot else new for new, total in self.lengths(batch)]
        output, lse = self.ragged(q, k, v, layer, keys, batch, causal=True)
        return (output, lse) if batch.mha_return_lse else output


class FlashInfer(RopeApart):
    """`flashinfer_mla_backend.py`: what a batch's ragged call covers is planned once, before its first layer."""

    installed, name = FlashInferMLAAttnBackend, "flashinfer"
    lse_base = 2.0  # flashinfer/prefill.py, `lse_base="log2"`

    def __init__(self, runner: ModelRunner):
        super().__init__(runner)
        self.expanded_width = runner.model_config.qk_nope_head_dim + runner.model_config.qk_rope_head_dim
        self.planned: list[int] | None = None

    def init_mha_chunk_metadata(self, batch: ForwardBatch, *_args, **_kwargs) -> None:
        assert batch.num_prefix_chunks is not None
        self.planned = [total if batch.mha_one_shot else new for new, total in self.lengths(batch)]

    def extend(self, q, k, v, layer, batch, save_kv_cache, **rope):
        if batch.forward_mode.is_target_verify():
            return self.absorbed(q, k, v, layer, batch, save_kv_cache, **rope)
        if batch.attn_attend_prefix_cache is not None and any(batch.extend_prefix_lens_cpu):
            assert not rope
            if batch.attn_attend_prefix_cache:
                return self.chunk_of_the_prefix(q, k, v, layer, batch)
            output, lse = self.ragged(q, k, v, layer, self.planned, batch, causal=True)
            return (output, lse) if batch.mha_return_lse else output
        if any(batch.extend_prefix_lens_cpu):
            return self.absorbed(q, k, v, layer, batch, save_kv_cache, **rope)
        assert layer.head_dim == self.expanded_width, "the ragged wrapper is planned for expanded heads"
        output, _ = self.ragged(q, k, v, layer, batch.extend_seq_lens_cpu, batch, causal=True)
        return output.flatten(1)


class TrtllmMla(FlashInfer):
    """`trtllm_mla_backend.py`: a plain extend takes expanded keys and values, unless it falls back to flashinfer."""

    installed, name = TRTLLMMLABackend, "trtllm_mla"

    def __init__(self, runner: ModelRunner):
        super().__init__(runner)
        self.disable_chunked_prefix_cache = False

    def extend(self, q, k, v, layer, batch, save_kv_cache, **rope):
        falls_back = self.disable_chunked_prefix_cache and any(batch.extend_prefix_lens_cpu or [])
        if falls_back or batch.forward_mode.is_target_verify():
            return super().extend(q, k, v, layer, batch, save_kv_cache, **rope)
        assert layer.head_dim == self.expanded_width, "no ragged kernel has this shape"
        assert not save_kv_cache and not rope
        if batch.attn_attend_prefix_cache:
            return self.chunk_of_the_prefix(q, k, v, layer, batch)
        output, lse = self.ragged(q, k, v, layer, batch.extend_seq_lens_cpu, batch, causal=True)
        return (output, lse) if batch.mha_return_lse else output


class Triton(Backend):
    """`triton_backend.py`: joined rows, latent first; an extend takes the prefix from the cache, the rest from k, v."""

    installed, name = TritonAttnBackend, "triton"

    def absorbed(self, q, k, v, layer, batch, save_kv_cache):
        if save_kv_cache:
            self.pool.set_kv_buffer(layer, KVWriteLoc.for_batch(batch), k, v)
        return self.over_the_cache(q.view(-1, layer.tp_q_head_num, layer.qk_head_dim), layer, batch)

    def extend(self, q, k, v, layer, batch, save_kv_cache):
        if save_kv_cache:
            self.pool.set_kv_buffer(layer, KVWriteLoc.for_batch(batch), k, v)
        query, outputs = q.view(-1, layer.tp_q_head_num, layer.qk_head_dim), []
        for request, (new, total) in enumerate(self.lengths(batch)):
            cached = self.rows(layer, batch, request, total - new)
            if len(cached):
                keys, values = torch.cat([cached, k[:new]]), torch.cat([cached[..., : layer.v_head_dim], v[:new]])
            else:
                keys, values = k[:new], v[:new]
            outputs.append(attend(query[:new], keys, values, layer.scaling, last_rows(new, total))[0])
            query, k, v = query[new:], k[new:], v[new:]
        return torch.cat(outputs).flatten(1)


BACKENDS: dict[str, type[Backend]] = {kind.name: kind for kind in (FlashAttention3, FlashInfer, TrtllmMla, Triton)}


def stand_in(backend: Backend, runner: ModelRunner) -> NonCallableMagicMock:
    """A mock of the installed class: its attributes and signatures, `backend`'s answers."""
    mock = create_autospec(backend.installed, instance=True)
    mock.forward.side_effect = partial(AttentionBackend.forward, mock)
    mock.forward_decode.side_effect = backend.forward_decode
    mock.forward_extend.side_effect = backend.forward_extend
    if hasattr(backend.installed, "init_mha_chunk_metadata"):
        mock.init_mha_chunk_metadata.side_effect = backend.init_mha_chunk_metadata
    mock.token_to_kv_pool = runner.token_to_kv_pool
    mock.req_to_token_pool = runner.req_to_token_pool
    mock.kv_index_translator = runner.kv_index_translator
    mock.prefill_attention_backend_str = mock.decode_attention_backend_str = backend.name
    return mock
