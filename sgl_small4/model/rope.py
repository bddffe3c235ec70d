"""Rotary positions with YaRN frequencies, and the query scale by position."""

import math

import torch
from sglang.srt.layers.rotary_embedding import RotaryEmbedding

from sgl_small4.config import Rope

FIRST_POSITIONS = 4096  # rows made at start; SGLang grows the table to the served context length


class YarnRotaryEmbedding(RotaryEmbedding):
    """Rotates interleaved pairs (2i, 2i+1) of the query's and key's rope part, in place where the platform can.

    One instance serves all layers. Its table holds cos and sin side by side: [positions, dim], times `rope.magnitude`.
    """

    def __init__(self, rope: Rope, dim: int, dtype: torch.dtype) -> None:
        self.rope = rope
        super().__init__(dim, dim, FIRST_POSITIONS, rope.theta, is_neox_style=False, dtype=dtype)

    cos_sin_cache: torch.Tensor

    def _compute_cos_sin_cache(self) -> torch.Tensor:
        return self._rows(FIRST_POSITIONS)

    def _ensure_cos_sin_cache_length(self, needed_max_pos: int) -> None:
        """Called by SGLang before serving with the last position that may occur."""
        if needed_max_pos >= self.cos_sin_cache.shape[0]:
            self.cos_sin_cache = self._rows(needed_max_pos + 1).to(self.cos_sin_cache)

    def _rows(self, count: int) -> torch.Tensor:
        angles = torch.outer(torch.arange(count, dtype=torch.float32), yarn_frequencies(self.rope, self.rotary_dim))
        return torch.cat((angles.cos(), angles.sin()), dim=-1) * self.rope.magnitude


def yarn_frequencies(rope: Rope, dim: int) -> torch.Tensor:
    """Angles per position, [dim / 2] float32 (Peng et al. 2023, section 3.2: "NTK-by-parts").

    Pairs that turn more than `beta_fast` times over the original context keep their frequency, those that turn less
    than `beta_slow` times are slowed by `factor`; between the two bounds (rounded outwards) the share moves linearly.
    """
    plain = rope.theta ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    low, high = (
        dim * math.log(rope.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))
        for turns in (rope.beta_fast, rope.beta_slow)
    )
    low, high = max(math.floor(low), 0), min(math.ceil(high), dim - 1)
    slowed = ((torch.arange(dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain / rope.factor * slowed + plain * (1 - slowed)


def query_scale(rope: Rope, positions: torch.Tensor) -> torch.Tensor:
    """What the whole query is multiplied by at each position, [tokens, 1, 1] float32: 1 below the original context."""
    steps = torch.floor(positions.float() / rope.original_max_position_embeddings)
    return (1.0 + rope.query_scale_beta * torch.log1p(steps)).view(-1, 1, 1)
