"""The compiled kernels (kernels.cpp) as functions of tensors. All tensors are bfloat16 unless said otherwise.

Each function names the shapes it takes through `serves_*`; for others, and where nothing could be compiled, the callers
keep their PyTorch form.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64, c_void_p

import torch

from sgl_small4.cpu.build import library


def serves_weight(weight: torch.Tensor) -> bool:
    """Whether `pack` takes this weight, whose last two sizes are outputs and inputs."""
    return (
        library() is not None
        and weight.dtype == torch.bfloat16
        and weight.is_contiguous()
        and weight.shape[-2] % 16 == 0
        and weight.shape[-1] % 16 == 0
    )


def serves_attention(query: torch.Tensor, key: torch.Tensor, value_dim: int) -> bool:
    """Whether the attention kernels take queries and keys of these types and sizes, and values of this size."""
    both_bfloat16 = query.dtype == key.dtype == torch.bfloat16
    return library() is not None and both_bfloat16 and query.shape[-1] % 2 == 0 and value_dim % 16 == 0


def pack(weight: torch.Tensor) -> None:
    """Reorder [outputs, inputs] matrices in place to what `experts` reads: panels of 16 outputs."""
    *_, outputs, inputs = weight.shape
    _library().small4_pack(_at(weight), c_int64(weight.numel() // (outputs * inputs)), outputs, inputs)


def experts(
    hidden: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """`sgl_small4.cpu.experts.swiglu_experts` on packed weights; same arguments, same result within rounding."""
    tokens, hidden_size = hidden.shape
    hidden, weights, ids = hidden.contiguous(), weights.float().contiguous(), ids.int().contiguous()
    output = torch.empty_like(hidden)
    _library().small4_experts(
        *map(_at, (output, hidden, gate_up, down, weights, ids)),
        tokens, ids.shape[1], gate_up.shape[0], hidden_size, down.shape[-1],
    )  # fmt: skip
    return output


def latent_attention(
    query: torch.Tensor,
    rows: torch.Tensor,
    req_to_token: torch.Tensor,
    requests: torch.Tensor,
    new_lens: list[int],
    lens: list[int],
    v_head_dim: int,
    scaling: float,
) -> torch.Tensor:
    """`sgl_small4.cpu.attention.absorbed`; req_to_token is int32, and each of its rows lies in one piece."""
    query = query.contiguous()
    _, heads, dim = query.shape
    output = query.new_empty(*query.shape[:2], v_head_dim)
    row_bytes = req_to_token.stride(0) * req_to_token.element_size()
    slots = [req_to_token.data_ptr() + request * row_bytes for request in requests.tolist()]
    _library().small4_latent_attention(
        *map(_at, (output, query, rows)), (c_void_p * len(slots))(*slots), _ints(new_lens), _ints(lens),
        len(lens), heads, dim, v_head_dim, c_float(scaling),
    )  # fmt: skip
    return output


def expanded_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, new_lens: list[int], lens: list[int], scaling: float
) -> torch.Tensor:
    """`sgl_small4.cpu.attention.expanded`; same arguments, same result within rounding."""
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    _, heads, dim = query.shape
    output = query.new_empty(*query.shape[:2], value.shape[-1])
    _library().small4_expanded_attention(
        *map(_at, (output, query, key, value)), _ints(new_lens), _ints(lens),
        len(lens), heads, dim, value.shape[-1], c_float(scaling),
    )  # fmt: skip
    return output


def _library() -> ctypes.CDLL:
    loaded = library()
    assert loaded is not None, "asked for a kernel where none could be compiled; see serves_weight"
    return loaded


def _at(tensor: torch.Tensor) -> c_void_p:
    return c_void_p(tensor.data_ptr())


def _ints(values: list[int]) -> ctypes.Array[c_int]:
    return (c_int * len(values))(*values)
