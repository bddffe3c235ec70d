"""Build SGLang's Triton kernels for a GPU that is not there.

The launcher of a kernel runs on CPU tensors with the kernel replaced by a recorder, so block sizes, warps and switches
are upstream's own choice; what it would have launched is then compiled to a cubin with Triton's bundled assembler.
"""

from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# Shared memory that one block may use, in bytes (CUDA C++ Programming Guide, compute capabilities).
SHARED_MEMORY = {80: 166_912, 86: 101_376, 90: 232_448, 100: 232_448, 120: 101_376, 121: 101_376}
POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}


class Launch(NamedTuple):
    """One call of a kernel: its arguments by parameter name, and what is for the compiler (warps, stages)."""

    kernel: triton.JITFunction
    arguments: dict[str, Any]
    options: dict[str, Any]


class Recorder:
    """Stands in for a kernel: `recorder[grid](...)` notes the call and runs nothing."""

    def __init__(self, kernel: triton.JITFunction):
        self.kernel = kernel
        self.launches: list[Launch] = []

    def __getitem__(self, grid):
        return self.record

    def record(self, *args, **kwargs) -> None:
        names = self.kernel.arg_names
        arguments = dict(zip(names, args, strict=False))
        arguments.update({name: value for name, value in kwargs.items() if name in names})
        options = {name: kwargs[name] for name in ("num_warps", "num_stages") if name in kwargs}
        self.launches.append(Launch(self.kernel, arguments, options))


def record(monkeypatch: pytest.MonkeyPatch, module: ModuleType, kernel: str) -> Recorder:
    """Replace `module.kernel` by a recorder until the test ends."""
    recorder = Recorder(getattr(module, kernel))
    monkeypatch.setattr(module, kernel, recorder)
    return recorder


def build(launch: Launch, capability: int) -> int:
    """Compile one launch for compute capability `capability` (90 for 9.0); returns the bytes of shared memory it takes.

    Arguments get the types and divisibility that Triton's own specialisation would give them: 1 and None are
    constants, pointers and multiples of 16 are marked so.
    """
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments.get(parameter.name, parameter.default)
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = POINTERS[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32"
            if value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options).metadata.shared
