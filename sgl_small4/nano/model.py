"""A Mistral 4 model (MLA and a mixture of experts) small enough to train on two CPU cores.

Weights are float32 and [in, out], as the operators want them; `export.py` writes Hugging Face's names and layout."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from sgl_small4.nano.operators import Context, Operators, yarn_frequencies
from sgl_small4.nano.shape import Shape


class Layer(nn.Module):
    """Norm, attend, norm, experts."""

    def __init__(self, shape: Shape, operators: Operators) -> None:
        super().__init__()
        self.shape, self.operators = shape, operators
        hidden, heads, inner = shape.hidden_size, shape.num_attention_heads, shape.moe_intermediate_size
        experts = shape.n_routed_experts + 1
        self.input_norm = nn.Parameter(torch.ones(hidden))
        self.q_a = _matrix(hidden, shape.q_lora_rank)
        self.q_a_norm = nn.Parameter(torch.ones(shape.q_lora_rank))
        self.q_b = _matrix(shape.q_lora_rank, heads * shape.qk_head_dim)
        self.kv_a = _matrix(hidden, shape.kv_lora_rank + shape.qk_rope_head_dim)
        self.kv_a_norm = nn.Parameter(torch.ones(shape.kv_lora_rank))
        self.kv_b = _matrix(shape.kv_lora_rank, heads * (shape.qk_nope_head_dim + shape.v_head_dim))
        self.o = _matrix(heads * shape.v_head_dim, hidden, scale=0.5)
        self.post_attention_norm = nn.Parameter(torch.ones(hidden))
        self.router = _matrix(hidden, shape.n_routed_experts, scale=0.5)
        self.gate_up = _matrix(experts, hidden, 2 * inner)  # gate, then up; the shared expert comes last
        self.down = _matrix(experts, inner, hidden, scale=0.5)

    def forward(
        self, x: torch.Tensor, context: Context, at: torch.Tensor | None, balance: list[torch.Tensor]
    ) -> torch.Tensor:
        """`x` [tokens, hidden]. With `at` only those tokens go on after attention: the last layer needs no others."""
        op, latent = self.operators, self.shape.kv_lora_rank
        normed = op.rms_norm(x, self.input_norm)
        query = op.linear(op.rms_norm(op.linear(normed, self.q_a), self.q_a_norm), self.q_b)
        query = self._scaled_by_position(query, context)
        kv_a = op.linear(normed, self.kv_a)
        key_value = op.linear(op.rms_norm(kv_a[:, :latent], self.kv_a_norm), self.kv_b)
        wanted = None if at is None else torch.zeros(len(x), dtype=torch.uint8).index_fill_(0, at, 1)
        attended = op.attention(query, key_value, kv_a[:, latent:], context, wanted, self.shape)
        if at is not None:
            x, attended = x[at], attended[at]
        x = x + op.linear(attended, self.o)
        normed = op.rms_norm(x, self.post_attention_norm)
        logits = op.linear(normed, self.router)
        mixed, load = op.experts(normed, logits, self.gate_up, self.down)
        share = self.shape.n_routed_experts / self.shape.num_experts_per_tok
        balance.append((load * logits.softmax(-1).mean(0)).sum() * share)  # 1 when every expert has the same load
        return x + mixed

    def _scaled_by_position(self, query: torch.Tensor, context: Context) -> torch.Tensor:
        """Llama 4's scaling, which begins at position 8192."""
        rows, length = context.start.shape
        original = self.shape.original_max_position_embeddings
        if length <= original:
            return query
        scale = 1 + self.shape.llama_4_scaling_beta * torch.log1p(torch.arange(length) // original)
        return query * scale.repeat(rows)[:, None]


class Model(nn.Module):
    def __init__(self, shape: Shape, operators: Operators) -> None:
        super().__init__()
        self.shape, self.operators = shape, operators
        self.embedding = nn.Parameter(torch.randn(shape.vocab_size, shape.hidden_size) * 0.5)
        self.layers = nn.ModuleList(Layer(shape, operators) for _ in range(shape.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden_size))
        self.head = _matrix(shape.hidden_size, shape.vocab_size, scale=0.5)
        self.frequencies = yarn_frequencies(shape)

    def forward(
        self, ids: torch.Tensor, start: torch.Tensor, at: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`ids` and `start` int32 [rows, length]. Gives the logits [tokens or len(at), vocabulary], of the flat
        positions `at` if given, and the mean load balance of the layers."""
        angle = torch.arange(ids.shape[1]).float()[:, None] * self.frequencies
        context = Context(angle.cos(), angle.sin(), start)
        balance: list[torch.Tensor] = []
        x = F.embedding(ids.reshape(-1), self.embedding)
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, context, at if number == len(self.layers) else None, balance)
        logits = self.operators.linear(self.operators.rms_norm(x, self.norm), self.head)
        return logits, torch.stack(balance).mean()


def _matrix(*sizes: int, scale: float = 1.0) -> nn.Parameter:
    """Normal with a variance of `scale` squared over the inputs (the last dimension but one)."""
    return nn.Parameter(torch.randn(*sizes) * scale / math.sqrt(sizes[-2]))
