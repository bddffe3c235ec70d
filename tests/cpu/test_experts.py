"""Routed experts: the PyTorch form and the compiled one against experts written out token by token."""

from types import SimpleNamespace

import pytest
import torch

from sgl_small4.cpu import kernels
from sgl_small4.cpu.build import library
from sgl_small4.cpu.experts import pack, swiglu_experts
from tests.cpu import plain

SHAPES = [  # experts, inner, hidden, tokens, top_k
    (32, 512, 256, 9, 4),
    (128, 32, 128, 33, 4),
    (5, 80, 112, 7, 3),  # no multiple of a task's 64 columns
    (4, 16, 32, 500, 1),  # more rows of one expert than a task takes
    (8, 48, 64, 1, 2),
]
compiled = pytest.mark.skipif(library() is None, reason="no kernels: no C++ compiler, or SGL_SMALL4_KERNELS=0")


def made(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    experts, inner, hidden, tokens, top_k = shape
    torch.manual_seed(0)
    return (
        torch.randn(tokens, hidden).to(dtype),
        (torch.randn(experts, 2 * inner, hidden) * hidden**-0.5).to(dtype),
        (torch.randn(experts, hidden, inner) * inner**-0.5).to(dtype),
        torch.rand(tokens, top_k),
        torch.rand(tokens, experts).topk(top_k).indices.int(),
    )


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


def layer_of(gate_up: torch.Tensor, down: torch.Tensor, **changes) -> torch.nn.Module:
    plain_swiglu = dict(
        activation="silu", is_gated=True, gemm1_alpha=None, gemm1_clamp_limit=None, swiglu_limit=None,
        apply_router_weight_on_input=False,
    )  # fmt: skip
    layer = torch.nn.Module()
    layer.moe_runner_config = SimpleNamespace(**plain_swiglu | changes)
    layer.w13_weight = torch.nn.Parameter(gate_up, requires_grad=False)
    layer.w2_weight = torch.nn.Parameter(down, requires_grad=False)
    return layer


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_experts_are_exact(shape):
    assert worst(swiglu_experts(*made(shape, torch.float32)), plain.experts(*made(shape, torch.float32))) < 2e-6


@compiled
@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_experts_agree_within_rounding(shape):
    inputs = made(shape, torch.bfloat16)
    hidden, gate_up, down, weights, ids = inputs
    expected = plain.experts(*inputs)
    layer = layer_of(gate_up.clone(), down.clone())
    pack(layer)
    found = kernels.experts(hidden, layer.w13_weight, layer.w2_weight, weights, ids)
    assert worst(found, expected) < max(0.006, worst(swiglu_experts(*inputs), expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_of_other_ranks_add_nothing_and_ranks_add_up(dtype):
    hidden, gate_up, down, weights, ids = made(SHAPES[1], dtype)
    half = gate_up.shape[0] // 2
    total = torch.zeros(hidden.shape)
    for first in (0, half):
        mine = (ids >= first) & (ids < first + half)
        local = torch.where(mine, ids - first, -1)  # as SGLang's dispatcher maps them
        part = (gate_up[first : first + half].clone(), down[first : first + half].clone())
        output = swiglu_experts(hidden, *part, weights, local)
        layer = layer_of(*part)
        pack(layer)
        if layer.experts_packed:
            output = kernels.experts(hidden, *(weight.data for weight in layer.parameters()), weights, local)
        total += output.float()
    assert worst(total, plain.experts(hidden, gate_up, down, weights, ids)) < (2e-6 if dtype == torch.float32 else 0.01)


def test_a_rank_without_any_chosen_expert_adds_zeros():
    hidden, gate_up, down, weights, ids = made(SHAPES[2], torch.float32)
    assert not swiglu_experts(hidden, gate_up, down, weights, torch.full_like(ids, -1)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tokens_give_no_rows(dtype):
    hidden, gate_up, down, weights, ids = (tensor.clone() for tensor in made(SHAPES[1], dtype))
    layer = layer_of(gate_up, down)
    pack(layer)
    run = kernels.experts if layer.experts_packed else swiglu_experts
    assert run(hidden[:0], layer.w13_weight, layer.w2_weight, weights[:0], ids[:0]).shape == (0, hidden.shape[1])


@pytest.mark.parametrize(
    "changes", [{"activation": "gelu"}, {"gemm1_clamp_limit": 7.0}, {"apply_router_weight_on_input": True}]
)
def test_experts_that_are_no_plain_swiglu_are_left_alone(changes):
    _, gate_up, down, _, _ = made(SHAPES[1], torch.bfloat16)
    layer = layer_of(gate_up.clone(), down.clone(), **changes)
    pack(layer)
    assert not layer.experts_packed and torch.equal(layer.w13_weight, gate_up)


def test_float32_and_odd_sizes_keep_their_order():
    for shape, dtype in ((SHAPES[0], torch.float32), ((4, 24, 40, 3, 2), torch.bfloat16)):
        _, gate_up, down, _, _ = made(shape, dtype)
        layer = layer_of(gate_up.clone(), down.clone())
        pack(layer)
        assert not layer.experts_packed and torch.equal(layer.w2_weight, down)
