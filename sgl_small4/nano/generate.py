"""Greedy decoding of many prompts at once with a key-value cache, in float32: what evaluation needs, not an engine."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sgl_small4.nano.model import Layer, Model
from sgl_small4.nano.operators import rotate
from sgl_small4.nano.tokenizer import CONTROL

BATCH_TOKENS = 1 << 18  # of prompts together, which bounds the memory of their caches
PREFILL_TOKENS = 1024  # of each prompt at a time
SCORES = 1 << 25  # of attention computed at once
EOS, PAD = CONTROL["</s>"], CONTROL["<pad>"]


@dataclass(frozen=True)
class Ask:
    """Prompts that begin alike: a prefix and how each goes on."""

    prefix: list[int]
    suffixes: list[list[int]]

    @property
    def tokens(self) -> int:
        return sum(len(self.prefix) + len(suffix) for suffix in self.suffixes)


class _Cache:
    """Sequences that grow together. Shorter ones have holes, which no token sees.

    `keys` and `values` of each layer are [rows, heads, capacity, width]; `filled` [rows, capacity] tells tokens from
    holes; `position` [rows] counts the tokens of each row so far."""

    def __init__(self, model: Model, rows: int, capacity: int) -> None:
        shape = model.shape
        self.model, self.length = model, 0
        sizes = (rows, shape.num_attention_heads, capacity)
        self.keys = [torch.zeros(*sizes, shape.qk_head_dim) for _ in model.layers]
        self.values = [torch.zeros(*sizes, shape.v_head_dim) for _ in model.layers]
        self.filled = torch.zeros(rows, capacity, dtype=torch.bool)
        self.position = torch.zeros(rows, dtype=torch.long)

    def repeat(self, times: torch.Tensor) -> None:
        """Each row so many times."""
        self.keys = [keys.repeat_interleave(times, 0) for keys in self.keys]
        self.values = [values.repeat_interleave(times, 0) for values in self.values]
        self.filled = self.filled.repeat_interleave(times, 0)
        self.position = self.position.repeat_interleave(times, 0)

    def keep(self, rows: list[int]) -> None:
        """Only these rows."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self.filled, self.position = self.filled[rows], self.position[rows]

    def take(self, sequences: Sequence[list[int]]) -> torch.Tensor:
        """Append a sequence to each row, the shorter ones after a hole; gives the last logits [rows, vocabulary]."""
        longest = max(map(len, sequences))
        ids = torch.full((len(sequences), longest), PAD)
        filled = torch.zeros(ids.shape, dtype=torch.bool)
        for row, sequence in enumerate(sequences):
            ids[row, longest - len(sequence) :] = torch.tensor(sequence)
            filled[row, longest - len(sequence) :] = True
        for part, tokens in zip(ids.split(PREFILL_TOKENS, 1), filled.split(PREFILL_TOKENS, 1), strict=True):
            logits = self._extend(part, tokens)
        return logits

    def _extend(self, ids: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        model, (rows, count) = self.model, ids.shape
        at = torch.arange(self.length, self.length + count)
        self.length += count
        self.filled[:, at] = tokens
        position = (self.position[:, None] + tokens.cumsum(1) - 1).clamp_min(0)  # [rows, count]
        self.position += tokens.sum(1)
        key_at = torch.arange(self.length)
        seen = self.filled[:, None, : self.length] & (key_at <= at[:, None])  # [rows, count, keys]
        seen |= key_at == at[:, None]  # a hole sees itself, so that its softmax is one
        x = F.embedding(ids.reshape(-1), model.embedding)
        for number, layer in enumerate(model.layers):
            x = self._layer(number, layer, x, position, seen)
        last = x.view(rows, count, -1)[:, -1].contiguous()
        return model.operators.linear(model.operators.rms_norm(last, model.norm), model.head)

    def _layer(
        self, number: int, layer: Layer, x: torch.Tensor, position: torch.Tensor, seen: torch.Tensor
    ) -> torch.Tensor:
        op, shape, (rows, count) = layer.operators, layer.shape, position.shape
        heads, nope, latent = shape.num_attention_heads, shape.qk_nope_head_dim, shape.kv_lora_rank
        angle = position[:, None, :, None] * self.model.frequencies  # [rows, 1, count, rope / 2]
        cos, sin = angle.cos(), angle.sin()
        normed = op.rms_norm(x, layer.input_norm)
        query = op.linear(op.rms_norm(op.linear(normed, layer.q_a), layer.q_a_norm), layer.q_b)
        query = query.view(rows, count, heads, -1).transpose(1, 2)  # [rows, heads, count, nope + rope]
        query = torch.cat([query[..., :nope], rotate(query[..., nope:], cos, sin)], -1)
        # Llama 4's scaling of the whole query by its position
        scale = 1 + shape.llama_4_scaling_beta * torch.log1p(position // shape.original_max_position_embeddings)
        query = query * scale[:, None, :, None] * shape.qk_head_dim**-0.5
        kv_a = op.linear(normed, layer.kv_a)
        key_value = op.linear(op.rms_norm(kv_a[:, :latent], layer.kv_a_norm), layer.kv_b)
        key, value = key_value.view(rows, count, heads, -1).transpose(1, 2).split([nope, shape.v_head_dim], -1)
        turned = rotate(kv_a[:, latent:].reshape(rows, 1, count, -1), cos, sin).expand(-1, heads, -1, -1)
        self.keys[number][:, :, self.length - count : self.length] = torch.cat([key, turned], -1)
        self.values[number][:, :, self.length - count : self.length] = value
        keys, values = self.keys[number][:, :, : self.length], self.values[number][:, :, : self.length]
        attended = torch.empty(rows, heads, count, shape.v_head_dim)
        step = max(1, SCORES // (heads * count * self.length))
        for part in (slice(row, row + step) for row in range(0, rows, step)):
            scores = query[part] @ keys[part].transpose(2, 3)
            attended[part] = scores.masked_fill_(~seen[part, None], -math.inf).softmax(-1) @ values[part]
        x = x + op.linear(attended.transpose(1, 2).reshape(rows * count, -1), layer.o)
        normed = op.rms_norm(x, layer.post_attention_norm)
        mixed, _ = op.experts(normed, op.linear(normed, layer.router), layer.gate_up, layer.down)
        return x + mixed


@torch.inference_mode()
def greedy(model: Model, asks: Sequence[Ask], new_tokens: int) -> list[list[list[int]]]:
    """For each ask the most likely continuation of each of its prompts, without </s>, at most `new_tokens` long."""
    replies: list[list[list[int]]] = [[] for _ in asks]
    for batch in _batches(asks):
        part = [asks[i] for i in batch]
        suffixes = [suffix for ask in part for suffix in ask.suffixes]
        longest = max(len(ask.prefix) for ask in part) + max(map(len, suffixes))
        cache = _Cache(model, len(part), longest + new_tokens)
        cache.take([ask.prefix for ask in part])
        cache.repeat(torch.tensor([len(ask.suffixes) for ask in part]))
        chosen = cache.take(suffixes).argmax(-1).tolist()
        written: list[list[int]] = [[] for _ in suffixes]
        rows = list(range(len(suffixes)))  # whose replies the rows of the cache are
        for _ in range(new_tokens):
            going = [at for at, token in enumerate(chosen) if token != EOS]
            if not going:
                break
            if len(going) <= len(rows) // 2:  # finished rows cost as much as others, but dropping them is a copy
                cache.keep(going)
                rows, chosen = [rows[at] for at in going], [chosen[at] for at in going]
            for row, token in zip(rows, chosen, strict=True):
                if token != EOS:
                    written[row].append(token)
            following = cache.take([[token] for token in chosen]).argmax(-1).tolist()
            chosen = [EOS if old == EOS else new for old, new in zip(chosen, following, strict=True)]
        for i, ask in zip(batch, part, strict=True):
            replies[i], written = written[: len(ask.suffixes)], written[len(ask.suffixes) :]
    return replies


def _batches(asks: Sequence[Ask]) -> Iterator[list[int]]:
    """Indices of asks of like length, by the tokens that a batch may hold."""
    batch: list[int] = []
    used = 0
    for i in sorted(range(len(asks)), key=lambda i: len(asks[i].prefix)):
        if batch and used + asks[i].tokens > BATCH_TOKENS:
            yield batch
            batch, used = [], 0
        batch.append(i)
        used += asks[i].tokens
    if batch:
        yield batch
