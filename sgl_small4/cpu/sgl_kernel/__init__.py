"""Stands in for the `sgl_kernel` package on a host without an accelerator.

The package on PyPI is a CUDA build: importing it loads ``libcuda``. SGLang 0.5.23 imports a few of its names on a CPU
all the same. Those names are here, and no others, so that code which tries an import and falls back still falls back.
Pure Python parts of the installed package (`scalar_type`) stay importable: `platform.install` appends its folder to
``__path__``.
"""

from collections.abc import Callable
from typing import NoReturn

import torch


def assign_req_to_token_pool_cpu(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    pool_len: int,
) -> None:
    """Write each request's new cache slots into its row of the request-to-token table, in place.

    req_pool_indices, start_offset, end_offset: [requests]; req_to_token: [rows, pool_len]; out_cache_loc: [new tokens],
    request after request, where request i fills columns start_offset[i] to end_offset[i] of row req_pool_indices[i].
    """
    taken = 0
    for row, start, end in zip(req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), strict=True):
        req_to_token[row, start:end] = out_cache_loc[taken : taken + end - start].to(req_to_token.dtype)
        taken += end - start


def _without_cpu_form(name: str) -> Callable[..., NoReturn]:
    def unavailable(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} has no form for an ordinary CPU: what needs it cannot run here")

    return unavailable


# What SGLang's modules import at their head on a CPU and call only for features this platform does not have:
# speculative decoding, moving cache rows, FlashAttention, and expert kernels that are chosen by name.
globals().update(
    {
        name: _without_cpu_form(name)
        for name in (
            "assign_draft_cache_locs_contiguous_cpu",
            "assign_extend_cache_locs_cpu",
            "build_draft_decode_metadata_cpu",
            "build_tree_kernel_efficient_cpu",
            "copy_all_layer_kv_cache_cpu",
            "fill_accept_out_cache_loc_cpu",
            "fill_bonus_tokens_cpu",
            "gelu_and_mul",
            "infllmv2_attn_stage1",
            "max_pooling_1d_varlen",
            "merge_state_v2",
            "rotate_input_ids_cpu",
            "silu_and_mul",
            "verify_tree_greedy_cpu",
        )
    }
)
