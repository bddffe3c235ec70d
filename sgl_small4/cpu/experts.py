"""Routed experts on a CPU: each token's chosen experts, SwiGLU, weighted sum.

SGLang's own form for a host without AMX (`moe_forward_native`) runs every expert through a Python loop and indexes with
the ids it is given; under expert parallelism the ids of experts on other ranks arrive as -1, which it cannot take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from sgl_small4.cpu import kernels

if TYPE_CHECKING:
    from sglang.srt.layers.moe.token_dispatcher import StandardCombineInput, StandardDispatchOutput
    from sglang.srt.layers.quantization.unquant import UnquantizedFusedMoEMethod


def forward(
    method: UnquantizedFusedMoEMethod, layer: torch.nn.Module, dispatch_output: StandardDispatchOutput
) -> StandardCombineInput:
    """What SGLang calls for unquantised experts on this platform, in place of its `forward_native`.

    Experts that are more than a plain SwiGLU (biases, other activations, clamped or interleaved gates) keep SGLang's
    form.
    """
    from sglang.srt.layers.moe.token_dispatcher import StandardCombineInput

    if not is_plain(layer):
        return method.forward_native(layer, dispatch_output)
    weights, ids, _ = dispatch_output.topk_output
    run = kernels.experts if layer.experts_packed else swiglu_experts
    output = run(dispatch_output.hidden_states, layer.w13_weight, layer.w2_weight, weights, ids)
    return StandardCombineInput(hidden_states=output)


def is_plain(layer: torch.nn.Module) -> bool:
    """Whether a layer's experts compute silu(x @ gate) * (x @ up) @ down, and nothing else."""
    config = layer.moe_runner_config
    return (
        config.activation == "silu"
        and config.is_gated
        and config.gemm1_alpha is None
        and config.gemm1_clamp_limit is None
        and config.swiglu_limit is None
        and not config.apply_router_weight_on_input
        and not hasattr(layer, "w13_weight_bias")
        and not hasattr(layer, "w2_weight_bias")
    )


def pack(layer: torch.nn.Module) -> None:
    """Reorder freshly loaded weights in place for the kernels, where kernels run and take this layer's experts."""
    weights = (layer.w13_weight.data, layer.w2_weight.data)
    layer.experts_packed = is_plain(layer) and all(map(kernels.serves_weight, weights))
    if layer.experts_packed:
        for weight in weights:
            kernels.pack(weight)


def swiglu_experts(
    hidden: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """The experts in plain PyTorch.

    hidden: [tokens, hidden]; gate_up: [experts, 2 * inner, hidden], gate rows first; down: [experts, hidden, inner];
    weights: [tokens, top_k] float32; ids: [tokens, top_k], where -1 is an expert on another rank and adds nothing.
    Returns [tokens, hidden]: this rank's part of the sum.
    """
    output = torch.zeros(hidden.shape, dtype=torch.float32)
    ids = ids.long()
    order = ids.flatten().argsort(stable=True)
    tokens = order // ids.shape[1]
    counts = torch.bincount(ids.flatten() + 1, minlength=gate_up.shape[0] + 1).tolist()
    start = counts[0]  # what stands before expert 0 is elsewhere
    for expert, count in enumerate(counts[1:]):
        if count == 0:
            continue
        chosen = slice(start, start + count)
        start += count
        gate, up = F.linear(hidden[tokens[chosen]], gate_up[expert]).chunk(2, dim=-1)
        expert_output = F.linear(F.silu(gate) * up, down[expert]).float()
        output.index_add_(0, tokens[chosen], expert_output * weights.flatten()[order[chosen], None])
    return output.to(hidden.dtype)
