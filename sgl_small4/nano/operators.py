"""The operators of the model in plain PyTorch: the reference, and what trains where the compiled ones cannot run.

All activations are float32 matrices [tokens, width], rows of a batch one after the other; weights are [in, out]."""

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F

from sgl_small4.nano.shape import Shape


class Context(NamedTuple):
    """What attention needs besides queries and keys: `cos` and `sin` [length, rope / 2], and `start` int32
    [rows, length], the first position that a token may see (that of its own conversation)."""

    cos: torch.Tensor
    sin: torch.Tensor
    start: torch.Tensor


class Operators(Protocol):
    """What `compiled.py` and this module both offer."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor: ...

    def linear(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor: ...

    def attention(
        self,
        query: torch.Tensor,
        key_value: torch.Tensor,
        key_rope: torch.Tensor,
        context: Context,
        wanted: torch.Tensor | None,
        shape: Shape,
    ) -> torch.Tensor:
        """`query` [tokens, heads * (nope + rope)], `key_value` [tokens, heads * (nope + v)], `key_rope` [tokens, rope],
        both rope parts not yet turned; `wanted` [tokens] uint8 marks the tokens whose output is used, all if None.
        Gives [tokens, heads * v]."""
        ...

    def experts(
        self, x: torch.Tensor, logits: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Four routed experts of each token by `logits` [tokens, experts] and the shared one, which is the last of
        `gate_up` [experts + 1, hidden, 2 * inner] and `down` [experts + 1, inner, hidden]. Gives the output and the
        share of the tokens [experts] that went to each."""
        ...

    def orthogonalise(self, x: torch.Tensor) -> torch.Tensor:
        """The nearly orthogonal factor of each matrix of `x` [count, rows, columns], rows <= columns."""
        ...


class Plain:
    """The operators as autograd sees them."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + Shape.rms_norm_eps) * weight

    def linear(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x @ weight

    def attention(
        self,
        query: torch.Tensor,
        key_value: torch.Tensor,
        key_rope: torch.Tensor,
        context: Context,
        wanted: torch.Tensor | None,
        shape: Shape,
    ) -> torch.Tensor:
        rows, length = context.start.shape
        heads, nope = shape.num_attention_heads, shape.qk_nope_head_dim
        query = query.view(rows, length, heads, -1).transpose(1, 2)  # [rows, heads, length, nope + rope]
        key, value = key_value.view(rows, length, heads, -1).transpose(1, 2).split([nope, shape.v_head_dim], -1)
        turned = rotate(key_rope.reshape(rows, 1, length, -1), context.cos, context.sin).expand(-1, heads, -1, -1)
        query = torch.cat([query[..., :nope], rotate(query[..., nope:], context.cos, context.sin)], -1)
        scores = query @ torch.cat([key, turned], -1).transpose(-1, -2) * shape.qk_head_dim**-0.5
        position = torch.arange(length)
        seen = (position <= position[:, None]) & (position >= context.start[:, :, None])  # [rows, queries, keys]
        weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1)
        return (weights @ value).transpose(1, 2).reshape(rows * length, -1)

    def experts(
        self, x: torch.Tensor, logits: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        count = logits.shape[1]
        top, chosen = logits.topk(Shape.num_experts_per_tok)
        weight = torch.cat([top.softmax(-1), torch.ones(len(x), 1)], 1)
        chosen = torch.cat([chosen, torch.full((len(x), 1), count)], 1)
        out = torch.zeros_like(x)
        for expert in chosen.unique().tolist():
            token, slot = (chosen == expert).nonzero(as_tuple=True)
            gate, up = (x[token] @ gate_up[expert]).chunk(2, -1)
            out = out.index_add(0, token, weight[token, slot, None] * ((F.silu(gate) * up) @ down[expert]))
        return out, chosen[:, :-1].reshape(-1).bincount(minlength=count) / len(x)

    def orthogonalise(self, x: torch.Tensor) -> torch.Tensor:
        """Newton-Schulz with the coefficients of Muon (Jordan et al. 2024)."""
        x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-6)
        for _ in range(5):
            gram = x @ x.transpose(1, 2)
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn neighbouring pairs of `x` [..., length, rope]."""
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)


def yarn_frequencies(shape: Shape) -> torch.Tensor:
    """The YaRN frequencies [rope / 2] as transformers computes them: fast ones kept, slow ones divided."""
    dim, theta = shape.qk_rope_head_dim, shape.rope_theta
    frequency = theta ** -(torch.arange(0, dim, 2).float() / dim)

    def dimension(rotations: float) -> float:
        return (
            dim * math.log(shape.original_max_position_embeddings / (rotations * 2 * math.pi)) / (2 * math.log(theta))
        )

    low = max(math.floor(dimension(shape.beta_fast)), 0)
    high = min(math.ceil(dimension(shape.beta_slow)), dim - 1)
    slow = ((torch.arange(dim // 2).float() - low) / max(high - low, 0.001)).clamp(0, 1)
    return frequency / shape.rope_factor * slow + frequency * (1 - slow)
