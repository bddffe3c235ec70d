"""The compiled operators give what the plain ones give, forward and backward, within bfloat16's rounding."""

import pytest
import torch

from sgl_small4.nano import compiled
from sgl_small4.nano.operators import Context, Plain, yarn_frequencies
from sgl_small4.nano.shape import Shape

pytestmark = pytest.mark.skipif(compiled.missing() is not None, reason=f"compiled operators: {compiled.missing()}")
SHAPE = Shape(hidden_size=64, n_routed_experts=8)
TOLERANCE = 0.01  # of the norm; bfloat16 keeps 8 bits


def random(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def assert_same(operator, tensors: list[torch.Tensor]) -> None:
    """`operator(operators, *tensors)` on both, and the gradients of a random sum of its output."""
    results = []
    for operators in (Plain(), compiled.Compiled()):
        inputs = [tensor.clone().requires_grad_() for tensor in tensors]
        out = operator(operators, *inputs)
        (out * random(*out.shape, seed=99)).sum().backward()
        results.append([out.detach(), *(tensor.grad for tensor in inputs)])
    for number, (plain, fast) in enumerate(zip(*results, strict=True)):
        assert (plain - fast).norm() < TOLERANCE * plain.norm(), f"result {number} differs"


def test_rms_norm_of_a_slice() -> None:
    assert_same(lambda op, x, w: op.rms_norm(x[:, :48], w), [random(37, 64), random(48, seed=1)])


@pytest.mark.parametrize("rows", [1, 2, 45, 400])
def test_linear(rows: int) -> None:
    assert_same(lambda op, x, w: op.linear(x, w), [random(rows, 64), random(64, 112, seed=1)])


@pytest.mark.parametrize("length", [30, 130])
def test_attention_over_two_conversations_in_a_row(length: int) -> None:
    start = torch.zeros(2, length, dtype=torch.int32)
    start[0, 21:] = 21
    angle = torch.arange(length)[:, None] * yarn_frequencies(SHAPE)
    context = Context(angle.cos(), angle.sin(), start)
    heads = SHAPE.num_attention_heads
    widths = (
        heads * SHAPE.qk_head_dim,
        heads * (SHAPE.qk_nope_head_dim + SHAPE.v_head_dim),
        SHAPE.qk_rope_head_dim + 48,
    )
    tensors = [random(2 * length, width, seed=width) for width in widths]
    assert_same(lambda op, q, kv, r: op.attention(q, kv, r[:, 48:], context, None, SHAPE), tensors)


def test_attention_skips_only_what_nobody_wants() -> None:
    length = 192
    angle = torch.arange(length)[:, None] * yarn_frequencies(SHAPE)
    context = Context(angle.cos(), angle.sin(), torch.zeros(1, length, dtype=torch.int32))
    wanted = torch.zeros(length, dtype=torch.uint8)
    at = torch.tensor([3, 50, 191])
    wanted[at] = 1
    heads = SHAPE.num_attention_heads
    widths = (heads * SHAPE.qk_head_dim, heads * (SHAPE.qk_nope_head_dim + SHAPE.v_head_dim), SHAPE.qk_rope_head_dim)
    tensors = [random(length, width, seed=width) for width in widths]
    assert_same(lambda op, q, kv, r: op.attention(q, kv, r, context, wanted, SHAPE)[at], tensors)


@pytest.mark.parametrize("tokens", [1, 7, 300])
def test_experts(tokens: int) -> None:
    inner, count = SHAPE.moe_intermediate_size, SHAPE.n_routed_experts
    tensors = [
        random(tokens, 64),
        random(tokens, count, seed=1),
        random(count + 1, 64, 2 * inner, seed=2) / 8,
        random(count + 1, inner, 64, seed=3) / 6,
    ]
    assert_same(lambda op, *inputs: op.experts(*inputs)[0], tensors)
    loads = [operators.experts(*tensors)[1] for operators in (Plain(), compiled.Compiled())]
    torch.testing.assert_close(*loads)


@pytest.mark.parametrize("rows, columns", [(16, 48), (20, 32), (64, 96)])
def test_orthogonalise(rows: int, columns: int) -> None:
    x = random(3, rows, columns)
    plain, fast = Plain().orthogonalise(x.clone()), compiled.Compiled().orthogonalise(x.clone())
    torch.testing.assert_close(plain, fast, atol=1e-3, rtol=1e-3)
    singular = torch.linalg.svdvals(fast)
    assert singular.min() > 0.5 and singular.max() < 1.3
