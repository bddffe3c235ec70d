"""The operators of the model in C++ (`kernels/`): bfloat16 products with float32 sums, AVX-512, OpenMP.

They need g++ and a processor with AVX-512 bf16; `missing` says which is not there. The autograd functions here only
make room for results and pass addresses on; what the operators compute stands in `operators.py`."""

import ctypes
import functools
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgl_small4.nano.build import build_library
from sgl_small4.nano.operators import Context
from sgl_small4.nano.shape import Shape

SLOTS = Shape.num_experts_per_tok + 1  # the last one is the shared expert's
MUON_STEPS = 5
Gradients = tuple[Tensor | None, ...]  # one for each argument of forward
NEEDED = ("avx512f", "avx512bw", "avx512vl", "avx512_bf16")


def missing() -> str | None:
    """Why the compiled operators cannot run here, or None."""
    if shutil.which("g++") is None:
        return "there is no g++ on this machine"
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    lacking = [flag for flag in NEEDED if flag not in flags]
    return f"the processor lacks {', '.join(lacking)}" if lacking else None


class _AttentionSizes(ctypes.Structure):
    """`Sizes` of attention.cpp."""

    _fields_ = [(n, ctypes.c_int) for n in ("rows", "length", "heads", "nope", "rope", "value")] + [
        ("scale", ctypes.c_float)
    ]


class _AttentionInputs(ctypes.Structure):
    """`Inputs` of attention.cpp."""

    _fields_ = (
        [(n, ctypes.c_void_p) for n in ("query", "key_value", "key_rope")]
        + [("key_rope_row", ctypes.c_int)]
        + [(n, ctypes.c_void_p) for n in ("cosine", "sine", "start", "wanted")]
    )


class _AttentionGradients(ctypes.Structure):
    """`Gradients` of attention.cpp."""

    _fields_ = [(n, ctypes.c_void_p) for n in ("out", "log_sum", "grad_out", "query", "key_value", "key_rope")]


class _ExpertSizes(ctypes.Structure):
    """`ExpertSizes` of experts.cpp."""

    _fields_ = [(n, ctypes.c_int) for n in ("tokens", "hidden", "inner", "count")]


@functools.cache
def library() -> ctypes.CDLL:
    return build_library(Path(__file__).with_name("kernels"))


class Compiled:
    """The same interface as `operators.Plain`."""

    def rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return _RmsNorm.apply(x, weight)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        return _Linear.apply(x, weight)

    def attention(
        self,
        query: Tensor,
        key_value: Tensor,
        key_rope: Tensor,
        context: Context,
        wanted: Tensor | None,
        shape: Shape,
    ) -> Tensor:
        return _Attention.apply(query, key_value, key_rope, context, wanted, shape)

    def experts(self, x: Tensor, logits: Tensor, gate_up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        return _Experts.apply(x, logits, gate_up, down)

    def orthogonalise(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        library().orthogonalise(*x.shape, MUON_STEPS, _at(x))
        return x


class _RmsNorm(torch.autograd.Function):
    """Over the rows of x, which may be a slice of a wider matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rows, width = x.shape
        y, inverse = torch.empty(rows, width), torch.empty(rows)
        library().rms_norm_forward(rows, width, _at(x), x.stride(0), _at(weight), _at(y), _at(inverse))
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, weight, inverse = ctx.saved_tensors
        rows, width = x.shape
        grad = grad.contiguous()
        grad_x, grad_weight = torch.empty(rows, width), torch.zeros(width)
        inputs = (_at(x), x.stride(0), _at(weight), _at(inverse), _at(grad))
        library().rms_norm_backward(rows, width, *inputs, _at(grad_x), _at(grad_weight))
        return grad_x, grad_weight


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous()
        y = torch.empty(x.shape[0], weight.shape[1])
        library().linear_forward(x.shape[0], *weight.shape, _at(x), _at(weight), _at(y))
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_weight = torch.empty(x.shape[0], weight.shape[0]), torch.zeros_like(weight)
        inputs = (_at(x), _at(weight), _at(grad))
        library().linear_backward(x.shape[0], *weight.shape, *inputs, _at(grad_x), _at(grad_weight))
        return grad_x, grad_weight


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key_value: Tensor,
        key_rope: Tensor,
        context: Context,
        wanted: Tensor | None,
        shape: Shape,
    ) -> Tensor:
        rows, length = context.start.shape
        heads, value = shape.num_attention_heads, shape.v_head_dim
        out, log_sum = torch.zeros(rows * length, heads * value), torch.empty(rows, heads, length)
        widths = (shape.qk_nope_head_dim, shape.qk_rope_head_dim, value)
        ctx.sizes = _AttentionSizes(rows, length, heads, *widths, shape.qk_head_dim**-0.5)
        ctx.inputs = _AttentionInputs(
            query.data_ptr(), key_value.data_ptr(), key_rope.data_ptr(), key_rope.stride(0), context.cos.data_ptr(),
            context.sin.data_ptr(), context.start.data_ptr(), None if wanted is None else wanted.data_ptr(),
        )  # fmt: skip
        library().attention_forward(ctypes.byref(ctx.sizes), ctypes.byref(ctx.inputs), _at(out), _at(log_sum))
        ctx.save_for_backward(query, key_value, key_rope, out, log_sum)
        ctx.alive = context, wanted  # their addresses are among the inputs
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        query, key_value, key_rope, out, log_sum = ctx.saved_tensors
        rows, heads, length = log_sum.shape
        grad = grad.contiguous()
        grad_query, grad_key_value = torch.zeros_like(query), torch.empty_like(key_value)
        grad_rope = torch.empty(rows, heads, length, ctx.sizes.rope)
        addresses = [t.data_ptr() for t in (out, log_sum, grad, grad_query, grad_key_value, grad_rope)]
        gradients = _AttentionGradients(*addresses)
        library().attention_backward(ctypes.byref(ctx.sizes), ctypes.byref(ctx.inputs), ctypes.byref(gradients))
        return grad_query, grad_key_value, grad_rope.sum(1).view(key_rope.shape), None, None, None


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor, gate_up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        tokens, hidden = x.shape
        count, inner = down.shape[:2]
        chosen, weight = torch.empty(tokens, SLOTS, dtype=torch.int32), torch.empty(tokens, SLOTS)
        order, first = torch.empty(tokens * SLOTS, dtype=torch.int32), torch.empty(count + 1, dtype=torch.int32)
        library().route(tokens, count - 1, _at(logits), _at(chosen), _at(weight), _at(order), _at(first))
        by_slot, before = torch.empty(tokens * SLOTS, hidden), torch.empty(tokens * SLOTS, 2 * inner)
        y = torch.empty(tokens, hidden)
        inputs = (x, weight, order, first, gate_up, down)
        ctx.sizes = _ExpertSizes(tokens, hidden, inner, count)
        library().experts_forward(ctypes.byref(ctx.sizes), *map(_at, (*inputs, by_slot, before, y)))
        ctx.save_for_backward(chosen, before, *inputs)
        load = (first[1:-1] - first[:-2]).float() / tokens
        ctx.mark_non_differentiable(load)
        return y, load

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Gradients:
        chosen, before, *inputs = ctx.saved_tensors
        x, weight, _, _, gate_up, down = inputs
        by_slot = torch.empty(len(x) * SLOTS, x.shape[1])
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        grad_gate_up, grad_down = torch.zeros_like(gate_up), torch.zeros_like(down)
        results = (by_slot, grad_x, grad_weight, grad_gate_up, grad_down)
        library().experts_backward(ctypes.byref(ctx.sizes), *map(_at, (*inputs, before, grad.contiguous(), *results)))
        routed, grad_routed = weight[:, :-1], grad_weight[:, :-1]
        grad_top = routed * (grad_routed - (routed * grad_routed).sum(1, keepdim=True))  # the softmax of the chosen
        grad_logits = torch.zeros(len(x), len(gate_up) - 1).scatter_(1, chosen[:, :-1].long(), grad_top)
        return grad_x, grad_logits, grad_gate_up, grad_down


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
