"""What this machine has: processor, memory, compiler, accelerators. No torch, so that it is quick."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sgl_small4.cpu import host as cpu

# The instruction sets that decide how fast bf16 runs on a CPU, as the kernel names them (x86, Arm).
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16")
GIB = 2**30


@dataclass(frozen=True)
class Accelerator:
    """One device: its name and, for NVIDIA, its compute capability (90 is Hopper, 100 Blackwell) and memory in GiB."""

    name: str
    capability: int | None = None
    memory_gib: float | None = None


class Host:
    """This machine, looked at when first asked."""

    @cached_property
    def cores(self) -> int:
        return cpu.core_limit()

    @cached_property
    def memory_gib(self) -> float:
        return round(cpu.memory_total() / GIB, 1)

    @cached_property
    def available_gib(self) -> float:
        return round(cpu.memory_available() / GIB, 1)

    @cached_property
    def processor(self) -> str:
        file = Path("/proc/cpuinfo")
        for line in file.read_text().splitlines() if file.exists() else []:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
        return platform.machine()

    @cached_property
    def features(self) -> list[str]:
        return [feature for feature in FEATURES if feature in cpu.flags()]

    @cached_property
    def compiler(self) -> str | None:
        """First line of the C++ compiler's own version text, or None where there is no compiler."""
        path = shutil.which(os.environ.get("CXX", "g++"))
        if path is None:
            return None
        return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.split("\n")[0]

    @cached_property
    def accelerators(self) -> list[Accelerator]:
        """NVIDIA devices by their driver's library; of others the kernel driver's device file says one is there."""
        others = {"AMD GPU": "/dev/kfd", "Ascend NPU": "/dev/davinci_manager"}
        return _nvidia() or [Accelerator(name) for name, file in others.items() if Path(file).exists()]


def _nvidia() -> list[Accelerator]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, so no NVIDIA device that could be used
        return []
    found = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
        found.append(Accelerator(pynvml.nvmlDeviceGetName(handle), 10 * major + minor, round(memory / GIB, 1)))
    pynvml.nvmlShutdown()
    return found
